"""Runs of events: what segments and snapshots hold before compression.

A segment holds every event of its range. A snapshot holds, for a range that starts at the beginning, self-contained
events that stand for all of it: the checkpoint with the greatest id, the writes that belong to it, and writes whose
checkpoint has not arrived. Reading needs no difference between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foldpoint.codecs.wire import Malformed, pack, unpack


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """Where a snapshot lies.

    number: counted within the epoch. covers: the sequence number up to which it stands for the log. segments: how many
    segments that is. parts: records it is stored in. kept: it stays, as a start for reading history.
    """

    number: int
    covers: int
    segments: int
    parts: int
    kept: bool = False


def pack_ref(ref: SnapshotRef | None) -> list[int | bool] | None:
    return [ref.number, ref.covers, ref.segments, ref.parts, ref.kept] if ref else None


def unpack_ref(packed: list[Any] | None) -> SnapshotRef | None:
    return SnapshotRef(*packed) if packed else None


@dataclass(frozen=True, slots=True)
class Segment:
    """The events of first..last that are no fillers, as (seq, payload), ascending.

    `start`: the kept snapshot from which this segment can be folded, None: the beginning of the stream.
    """

    first: int
    last: int
    events: tuple[tuple[int, bytes], ...]
    start: SnapshotRef | None = None


def encode_segment(segment: Segment) -> bytes:
    gaps, at = [], segment.first
    for seq, _ in segment.events:
        gaps.append(seq - at)
        at = seq + 1
    return pack(
        [
            segment.first,
            segment.last,
            pack_ref(segment.start),
            gaps if any(gaps) else None,
            [payload for _, payload in segment.events],
        ]
    )


def decode_segment(data: bytes) -> Segment:
    """Raises Malformed."""
    try:
        first, last, start, gaps, payloads = unpack(data)
        events, at = [], first
        for position, payload in enumerate(payloads):
            gap = gaps[position] if gaps else 0
            if gap < 0:
                raise Malformed("segment whose events do not ascend")
            at += gap
            events.append((at, payload))
            at += 1
        if not 0 < first <= at <= last + 1 or not all(type(payload) is bytes for payload in payloads):
            raise Malformed("segment out of its range")
        return Segment(first, last, tuple(events), unpack_ref(start))
    except (TypeError, ValueError, IndexError) as error:
        raise Malformed(f"not a segment: {error!r}") from error
