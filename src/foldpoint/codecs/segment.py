"""Runs of events: what segments and snapshots hold before compression.

A segment holds every event of its range. A snapshot holds self-contained events that stand for everything up to a
number: the checkpoint with the greatest id, the writes that belong to it, and writes whose checkpoint has not arrived.
Each has the number of the event that it stands for, and its check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from foldpoint.codecs.envelope import CHECK_BYTES
from foldpoint.codecs.header import pack_id, unpack_id
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import Malformed, pack, pack_pieces, unpack, whole

MAX_SEQ = (1 << 48) - 1
MAX_INDEX = (1 << 40) - 1
"""The greatest sequence number, and index of a segment, that keys hold."""
_MAX_SNAPSHOT = (1 << 32) - 1
_MAX_PARTS = 1 << 16
_MAX_NUMBERS = 1 << 20
"""Far more than a merged segment has: taking them in takes memory for each, also where they are fillers."""


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """Where a snapshot lies.

    number: counted within the epoch. covers: the sequence number up to which it stands for the log. segments: how many
    segments of level 1 that is. parts: records it is stored in. kept: it stays, as a start for reading history.
    """

    number: int
    covers: int
    segments: int
    parts: int
    kept: bool = False


def pack_ref(ref: SnapshotRef | None) -> list[int | bool] | None:
    return [ref.number, ref.covers, ref.segments, ref.parts, ref.kept] if ref else None


def unpack_ref(packed: list[Any] | None) -> SnapshotRef | None:
    """Raises Malformed, TypeError or ValueError."""
    if packed is None:
        return None
    number, covers, segments, parts, kept = packed
    if parts == 0 or type(kept) is not bool:
        raise Malformed("reference to a snapshot that no writer makes")
    return SnapshotRef(
        whole(number, _MAX_SNAPSHOT), whole(covers, MAX_SEQ), whole(segments, MAX_INDEX), whole(parts, _MAX_PARTS), kept
    )


@dataclass(frozen=True, slots=True)
class Span:
    """What a segment says of itself, so that a checkpoint is found by id without reading every segment.

    first, last: its sequence numbers. start: the kept snapshot from which it can be folded, None: the beginning of the
    stream. before: the greatest checkpoint id below `first`, "" if there is none. late: the ids below `before` that its
    events are about, ascending; all its other events are about `before` or greater ids. inputs: how many segments of
    the level below it was merged from, 0 on level 1.
    """

    first: int
    last: int
    start: SnapshotRef | None = None
    before: str = ""
    late: tuple[str, ...] = ()
    inputs: int = 0

    @property
    def folds_from(self) -> int:
        """The first sequence number that has to be read, after `start`, to fold this segment."""
        return self.start.covers + 1 if self.start else 1


@dataclass(frozen=True, slots=True)
class Footing:
    """What a sealed run of events stands on.

    first: the run's first number. numbers: of the events before it that those of the run build upon, ascending. check:
    of those, see `event.check_of_all`.
    """

    first: int
    numbers: tuple[int, ...]
    check: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """The events of a span that are no fillers, as (seq, payload), ascending.

    footings: of each segment of level 1 that it stands for, but for those that stand on nothing.
    """

    span: Span
    events: tuple[tuple[int, bytes], ...]
    footings: tuple[Footing, ...] = ()


def join(segments: Sequence[Segment]) -> Segment:
    """One segment with the events of consecutive ones, one level up."""
    oldest = segments[0].span
    late = {checkpoint_id for one in segments for checkpoint_id in one.span.late if checkpoint_id < oldest.before}
    span = replace(oldest, last=segments[-1].span.last, late=tuple(sorted(late)), inputs=len(segments))
    events = tuple(event for one in segments for event in one.events)
    return Segment(span, events, tuple(footing for one in segments for footing in one.footings))


def encode_span(span: Span) -> bytes:
    return pack(_pack_span(span))


def decode_span(data: bytes) -> Span:
    """Raises Malformed."""
    try:
        return _unpack_span(unpack(data))
    except (TypeError, ValueError, LookupError) as error:
        raise Malformed(f"not a span: {error!r}") from error


class Told(NamedTuple):
    """An event of a snapshot. check: of the logged event that it stands for, see `event.check_of`."""

    seq: int
    payload: bytes | Rope
    check: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What stands for the log up to number `covers`: events, ascending."""

    covers: int
    events: tuple[Told, ...]


def encode_snapshot(snapshot: Snapshot) -> Rope:
    events = snapshot.events
    gaps = [seq - before for before, seq in pairwise([0, *(event.seq for event in events)])]
    checks = b"".join(event.check for event in events)
    return pack_pieces([snapshot.covers, gaps, [event.payload for event in events], checks])


def decode_snapshot(data: bytes) -> Snapshot:
    """Raises Malformed."""
    try:
        covers, gaps, payloads, checks = unpack(data)
        if type(checks) is not bytes or len(checks) != CHECK_BYTES * len(payloads):
            raise Malformed("snapshot with other checks than events")
        if not all(type(payload) is bytes for payload in payloads):
            raise Malformed("snapshot of something else than events")
        whole(covers, MAX_SEQ)
        seqs = accumulate(1 + whole(gap - 1, MAX_SEQ) for gap in gaps)
        starts = range(0, len(checks), CHECK_BYTES)
        events = tuple(
            Told(whole(seq, covers), payload, checks[start : start + CHECK_BYTES])
            for seq, payload, start in zip(seqs, payloads, starts, strict=True)
        )
        return Snapshot(covers, events)
    except (TypeError, ValueError, LookupError) as error:
        raise Malformed(f"not a snapshot: {error!r}") from error


def encode_segment(segment: Segment) -> Rope:
    gaps, at = [], segment.span.first
    for seq, _ in segment.events:
        gaps.append(seq - at)
        at = seq + 1
    payloads = [payload for _, payload in segment.events]
    footings = [_pack_footing(footing, segment.span.first) for footing in segment.footings]
    return pack_pieces([_pack_span(segment.span), gaps if any(gaps) else None, payloads, footings])


def decode_segment(data: bytes) -> Segment:
    """Raises Malformed."""
    try:
        packed, gaps, payloads, footings = unpack(data)
        span = _unpack_span(packed)
        events, at = [], span.first
        for position, payload in enumerate(payloads):
            at += whole(gaps[position], MAX_SEQ) if gaps else 0
            events.append((at, payload))
            at += 1
        if at > span.last + 1 or not all(type(payload) is bytes for payload in payloads):
            raise Malformed("segment out of its range")
        return Segment(span, tuple(events), tuple(_unpack_footing(footing, span) for footing in footings))
    except (TypeError, ValueError, LookupError) as error:
        raise Malformed(f"not a segment: {error!r}") from error


def _pack_footing(footing: Footing, first: int) -> list[Any]:
    return [footing.first - first, [footing.first - number for number in footing.numbers], footing.check]


def _unpack_footing(packed: list[Any], span: Span) -> Footing:
    after, back, check = packed
    first = span.first + whole(after, span.last - span.first)
    numbers = tuple(first - whole(one, first - 1) for one in back)
    if type(check) is not bytes or len(check) != CHECK_BYTES or first in numbers:
        raise Malformed("footing that no writer makes")
    return Footing(first, numbers, check)


_DEFAULTS: list[Any] = [None, "", [], 0]
"""Of the fields of a span after first and last; those at the end are left out."""


def _pack_span(span: Span) -> list[Any]:
    late = [pack_id(checkpoint_id) for checkpoint_id in span.late]
    rest: list[Any] = [pack_ref(span.start), pack_id(span.before), late, span.inputs]
    while rest and rest[-1] == _DEFAULTS[len(rest) - 1]:
        rest.pop()
    return [span.first, span.last, *rest]


def _unpack_span(fields: list[Any]) -> Span:
    first, last, *rest = fields
    start, before, late, inputs = rest + _DEFAULTS[len(rest) :]
    if not 0 < whole(first, MAX_SEQ) <= whole(last, MAX_SEQ) < first + _MAX_NUMBERS:
        raise Malformed("span out of its range")
    ids = tuple(unpack_id(one) for one in late)
    span = Span(first, last, unpack_ref(start), unpack_id(before), ids, whole(inputs, MAX_INDEX))
    if span.folds_from > first:
        raise Malformed("span that is folded from a snapshot after it")
    return span
