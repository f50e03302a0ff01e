"""What a record held that the store has lost, told from those that it was made of, or that were made of it.

A segment is told from its events, or from the segments that were merged to it; a span from its segment; a snapshot from
the log that it stands for. Nothing is guessed: where something that it was made of is gone too, nothing is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

from foldpoint.codecs.envelope import SEGMENT, SNAPSHOT, SPAN, deflate
from foldpoint.codecs.head import Head
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.segment import Segment, SnapshotRef, encode_segment, encode_snapshot, encode_span, join
from foldpoint.engine import keys
from foldpoint.engine.fold import Slice
from foldpoint.engine.layout import Layout
from foldpoint.engine.reading import Reader, add_segment
from foldpoint.engine.sealing import segment_of
from foldpoint.engine.snapshot import snapshot_of
from foldpoint.errors import CorruptRecord, LostRecord

_BESIDE, _NUMBERS = 64, 1 << 14
"""So many segments that nothing tells of, side by side, or events in them, are a head that is wrong."""
_LEVEL = 19
"""Of zstd: a snapshot must fit the parts that it is known to have."""

Records = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Gap:
    """Lost segments of one level, side by side, that held first..last."""

    indexes: range
    first: int
    last: int


class Lost:
    """What the records that a head names held, told from others. Raises CorruptRecord for one of those."""

    def __init__(self, reader: Reader, head: Head, damaged: bool) -> None:
        self._reader = reader
        self._io = reader.io
        self._head = head
        self._damaged = damaged
        self._layout = Layout.of(head)

    def records(self, key: bytes) -> Records:
        """The record under `key`, with those that go with it; none where it cannot be told, or is not named."""
        kind, place = keys.kind_of(key), key[keys.EPOCH_BYTES + 1 :]
        if keys.epoch_of(key) != self._head.epoch or kind not in (b"s", b"i", b"p", b"k"):
            return []
        if keys.is_snapshot(key):
            return self._snapshot(int.from_bytes(place[:4], "big"), kept=kind == b"k")
        level = place[0]
        position = self._layout.position(level, int.from_bytes(place[1:], "big"))
        if position is None:
            return []
        if kind == b"i":
            [segment] = self._reader.segments(self._layout, [position])
            return [self._sealed(key, SPAN, encode_span(segment.span))]
        low, high = self._untold_around(position)
        if high - low == _BESIDE:
            return []
        return self._sealed_run(low, high) if level == 1 else self._merged(position, low, high)

    def _sealed(self, key: bytes, kind: int, content: bytes | Rope) -> tuple[bytes, bytes]:
        codec, body = deflate(content, _LEVEL)
        return key, self._io.seal(key, kind, codec, body)

    def _last_before(self, position: int) -> int:
        return self._reader.span(self._layout, position - 1).last if position else 0

    def _log(self, position: int, last: int) -> Slice:
        """The log up to number `last`, the last one before the segment at `position`."""
        return next(self._reader.before(self._layout, position, last), Slice(self._head.epoch))

    def _untold_around(self, position: int) -> tuple[int, int]:
        """The first and the last of the segments of one level, side by side, of which nothing tells where they end."""
        low = high = position
        if self._is_untold(position):
            level = self._layout.place(position).level
            while high - low < _BESIDE and self._is_untold_of(level, low - 1):
                low -= 1
            while high - low < _BESIDE and self._is_untold_of(level, high + 1):
                high += 1
        return low, high

    def _is_untold_of(self, level: int, position: int) -> bool:
        there = 0 <= position < len(self._layout) and self._layout.place(position).level == level
        return there and self._is_untold(position)

    def _is_untold(self, position: int) -> bool:
        segment, span = self._layout.key(position), self._layout.span_key(position)
        return self._is_lost(segment, lambda: self._reader.segments(self._layout, [position])) and self._is_lost(
            span, lambda: self._reader.span(self._layout, position)
        )

    def _is_lost(self, key: bytes, read: Callable[[], object]) -> bool:
        try:
            read()
        except CorruptRecord as error:
            return self._damaged or (isinstance(error, LostRecord) and error.key == key)
        return False

    # -- segments of events --------------------------------------------------------------------------------------------

    def _sealed_run(self, low: int, high: int) -> Records:
        """The segments of level 1 there, side by side, from the events: none may be missing."""
        indexes = range(self._layout.place(low).index, self._layout.place(high).index + 1)
        segments = self._told(low, high, [_Gap(indexes, self._last_before(low) + 1, self._last(high))])
        return [
            self._sealed(self._layout.key(at), SEGMENT, encode_segment(segment))
            for at, segment in enumerate(segments, start=low)
        ]

    def _last(self, position: int) -> int:
        """The last number of the segment there, as what follows tells."""
        after = position + 1
        return self._head.sealed if after == len(self._layout) else self._reader.span(self._layout, after).first - 1

    def _told(self, low: int, high: int, pieces: list[Segment | _Gap]) -> list[Segment]:
        """What positions low..high hold, in consecutive segments, those of gaps from events; none if one is gone."""
        told = [piece for piece in pieces if isinstance(piece, Segment)]
        if len(told) == len(pieces):
            return told
        slice_, starts = self._log(low, self._last_before(low)), self._starts_around(low, high)
        told = []
        for piece in pieces:
            if isinstance(piece, Segment):
                add_segment(slice_, piece)
                told.append(piece)
                continue
            numbers = range(piece.first, piece.last + 1)
            if not len(piece.indexes) <= len(numbers) <= _NUMBERS:
                return []  # each holds one at least: a crash took the head that belongs to what is beside them
            events = self._io.read([keys.event(self._head.epoch, seq) for seq in numbers], whole=False)
            if not all(events):
                return []
            self._reader.open_events(slice_, dict(zip(numbers, events, strict=True)))
            bounds = [piece.first - 1, *self._ends(piece, starts)]
            if any(before >= end for before, end in pairwise(bounds)):
                return []
            told += _cut(slice_, bounds, starts)
        return told if all(one.span.last + 1 == other.span.first for one, other in pairwise(told)) else []

    def _ends(self, gap: _Gap, starts: list[SnapshotRef]) -> list[int]:
        """The last numbers of a gap's segments.

        Where two have met is known only of those that a snapshot lies between; of the others each is as long as a
        window, if that leaves one number for each before it, and the first of them holds the rest.
        """
        begin = gap.indexes.start
        inside = [ref for ref in starts if begin < ref.segments < gap.indexes.stop]
        known = {ref.segments: ref.covers for ref in inside if gap.first <= ref.covers < gap.last}
        known[begin] = gap.first - 1
        ends = [gap.last]
        for after in range(gap.indexes.stop - 1, begin, -1):
            below = max(at for at in known if at <= after)
            ends.append(known.get(after, max(ends[-1] - self._head.window, known[below] + after - below)))
        return ends[::-1]

    def _starts_around(self, low: int, high: int) -> list[SnapshotRef]:
        """Snapshots that are known to lie before, among or after the segments low..high."""
        refs = [self._head.snapshot, self._head.kept]
        for at in (at for at in (low - 1, high + 1) if 0 <= at < len(self._layout)):
            with suppress(LostRecord):
                refs.append(self._reader.span(self._layout, at).start)
        return [ref for ref in refs if ref is not None]

    # -- segments of segments ------------------------------------------------------------------------------------------

    def _merged(self, position: int, low: int, high: int) -> Records:
        """The segment there, and those side by side around it, with their spans, from those that they stand for."""
        level = self._layout.place(position).level
        try:
            newest = self._input(level - 1, self._end(level, high) - 1)
        except LostRecord:
            if self._is_untold(position):
                raise
            return self._merged_of_events(position)
        # Where the next ones begin nothing tells if they are lost as well: each is left one of those there are.
        beyond = 0 if newest else self._untold_below(high)
        final = high + beyond
        last = newest.span.last if newest else self._last(final)
        end = self._end(level, high) if level > 2 else self._end_of(final)
        inputs = self._stretch(level - 1, end, self._last_before(low) + 1, last)
        is_whole = all(isinstance(piece, Segment) for piece in inputs)
        told = self._told(low, final, inputs if level == 2 or is_whole else self._unmerged(inputs, final))
        told = told[: max(0, len(told) - beyond)]
        # How many each stood for nothing tells: the first for all but one of each other.
        firsts = sum(map(_count, inputs)) - (high - low) - (beyond if level == 2 else 0)
        rest = len(told) - (high - low)
        if firsts < 1 or rest < 1:
            return []
        records = []
        for at, group in enumerate([told[:rest], *([one] for one in told[rest:])], start=low):
            records += self._joined(at, group, firsts if at == low else 1)
        return records

    def _joined(self, position: int, told: list[Segment], inputs: int) -> Records:
        """The segment there and its span, unless that is left: of the snapshots that it may begin with it names one."""
        segment = join(told)
        key, span = self._layout.key(position), replace(segment.span, inputs=inputs)
        with suppress(CorruptRecord):
            left = self._reader.span(self._layout, position)
            if (left.first, left.last) == (span.first, span.last):
                return [self._sealed(key, SEGMENT, encode_segment(replace(segment, span=left)))]
        return [
            self._sealed(key, SEGMENT, encode_segment(replace(segment, span=span))),
            self._sealed(self._layout.span_key(position), SPAN, encode_span(span)),
        ]

    def _merged_of_events(self, position: int) -> Records:
        """The segment there, of which the span is left."""
        span = self._reader.span(self._layout, position)
        told = self._told(position, position, [_Gap(range(span.inputs), span.first, span.last)])
        return self._joined(position, told, span.inputs) if told else []

    def _end(self, level: int, position: int) -> int:
        """The index, a level below, that follows what the segments of a level up to that position stand for; or a
        greater one, where later ones were merged.
        """
        reach, after = self._head.merged[level - 2].reach, range(position + 1, len(self._layout))
        later = [at for at in after if self._layout.place(at).level == level]
        try:
            return reach - sum(self._reader.span(self._layout, at).inputs for at in later)
        except LostRecord:
            if not self._is_untold(position):
                last = self._reader.span(self._layout, position).last
                for end in range(reach - len(later), max(0, reach - _BESIDE), -1):
                    if (segment := self._input(level - 1, end - 1)) and segment.span.last == last:
                        return end
            raise

    def _end_of(self, position: int) -> int:
        """The index, on level 1, that follows what the segment there, of level 1 or 2, stands for."""
        place = self._layout.place(position)
        return place.index + 1 if place.level == 1 else self._end(2, position)

    def _untold_below(self, position: int) -> int:
        """How many there are after that one, side by side on lower levels, of which nothing tells where they end."""
        after = position + 1
        while after < len(self._layout) and after - position <= _BESIDE and self._is_untold(after):
            after += 1
        return after - position - 1

    def _unmerged(self, pieces: list[Segment | _Gap], position: int) -> list[Segment | _Gap]:
        """Those of level 2, up to `position`, but what was merged to them in place of those that are lost."""
        end, found = self._end_of(position), list[Segment | _Gap]()
        for piece in reversed(pieces):
            if isinstance(piece, Segment):
                end -= piece.span.inputs
                found.insert(0, piece)
            else:
                some = self._stretch(1, end, piece.first, piece.last)
                end -= sum(map(_count, some))
                found = [*some, *found]
        return found

    def _stretch(self, level: int, end: int, first: int, last: int) -> list[Segment | _Gap]:
        """The segments of a level, somewhere below index `end`, that hold first..last, and where some are lost; none if
        they hold something else.
        """
        pieces: list[Segment | _Gap] = []
        at = end
        while at > 0 and last >= first and end - at <= _BESIDE:
            at -= 1
            segment = self._input(level, at)
            if segment is None:
                continue
            if segment.span.first > last and at + 1 == end:
                end = at  # of a later one
                continue
            if segment.span.last < first:
                at += 1
                break  # of an earlier one
            if segment.span.first < first or segment.span.last > last or (segment.span.last < last) != (at + 1 < end):
                return []
            if at + 1 < end:
                pieces.append(_Gap(range(at + 1, end), segment.span.last + 1, last))
            pieces.append(segment)
            end, last = at, segment.span.first - 1
        else:
            # Where the first began nothing tells, unless it is the first of all.
            at = max(at, end + (first - last - 1) // self._head.window) if first > 1 else 0
        if last >= first:
            pieces.append(_Gap(range(at, end), first, last))
        return pieces[::-1]

    def _input(self, level: int, index: int) -> Segment | None:
        key = keys.segment(self._head.epoch, index, level)
        [record] = self._io.read([key], whole=False)
        return None if record is None else self._reader.segment(key, record)

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def _snapshot(self, number: int, *, kept: bool) -> Records:
        """All parts of a snapshot, from the log that it stands for."""
        ref = next((ref for ref in self._refs() if (ref.number, ref.kept) == (number, kept)), None)
        if ref is None:
            return []
        snapshot = snapshot_of(self._log(self._after(ref), ref.covers), ref.covers)
        part_keys = keys.snapshot_parts(self._head.epoch, ref)
        _, record = self._sealed(part_keys[0], SNAPSHOT, encode_snapshot(snapshot))
        cuts = [len(record) * part // ref.parts for part in range(ref.parts + 1)]
        chunks = [record[first:end] for first, end in pairwise(cuts)]
        if max(map(len, chunks)) > self._io.part_size:
            return []
        return [(key, self._io.seal_part(key, chunk)) for key, chunk in zip(part_keys, chunks, strict=True)]

    def _after(self, ref: SnapshotRef) -> int:
        """A position after all that the snapshot stands for, and after as little of what is lost as can be told."""
        end = self._layout.after(ref.segments)
        for position in range(end, 0, -1):
            with suppress(CorruptRecord):
                span = self._reader.span(self._layout, position - 1)
                if span.first <= ref.covers:
                    return position if span.last >= ref.covers else end
        return end

    def _refs(self) -> Iterable[SnapshotRef]:
        """Those that the head and the segments name. Raises CorruptRecord, at the end, for one that tells of none."""
        yield from (ref for ref in (self._head.snapshot, self._head.kept) if ref is not None)
        unread: CorruptRecord | None = None
        for position in reversed(range(len(self._layout))):
            try:
                start = self._start(position)
            except CorruptRecord as error:
                unread = unread or error
                continue
            if start is not None:
                yield start
        if unread is not None:
            raise unread

    def _start(self, position: int) -> SnapshotRef | None:
        """What the segment there begins with, as its span tells, or itself."""
        with suppress(CorruptRecord):
            return self._reader.span(self._layout, position).start
        [segment] = self._reader.segments(self._layout, [position])
        return segment.span.start


def _cut(slice_: Slice, bounds: list[int], starts: list[SnapshotRef]) -> Iterator[Segment]:
    """The segments that begin after each number of `bounds` and end with the next."""
    for before, end in pairwise(bounds):
        start = max((ref for ref in starts if ref.kept and ref.covers <= before), key=_covers, default=None)
        yield segment_of(slice_, before + 1, end, start)


def _count(piece: Segment | _Gap) -> int:
    return len(piece.indexes) if isinstance(piece, _Gap) else 1


def _covers(ref: SnapshotRef) -> int:
    return ref.covers
