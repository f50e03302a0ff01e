"""Every record of an epoch, from what its head says. Keys that are missing may be among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from foldpoint.codecs.head import LEVELS, Extent, Head
from foldpoint.codecs.segment import Span
from foldpoint.engine import keys
from foldpoint.engine.io import RecordIO
from foldpoint.engine.layout import Layout
from foldpoint.engine.reading import Reader

_BATCH = 128  # records, which are read to see which of them lie in parts
_AT_ONCE = 4  # segments, which are read as a whole


def event_keys(epoch: bytes, after: int, until: int) -> Iterator[list[bytes]]:
    """Of the events after one number up to another, in batches."""
    for first in range(after + 1, until + 1, _BATCH):
        yield [keys.event(epoch, seq) for seq in range(first, min(first + _BATCH, until + 1))]


def superseded_keys(io: RecordIO, epoch: bytes, after: Extent, until: Extent) -> Iterator[list[bytes]]:
    """Events, passing snapshots and segments between two extents, in batches."""
    yield from _with_parts(io, [keys.event(epoch, seq) for seq in range(after.sealed + 1, until.sealed + 1)])
    yield from _snapshot_keys(io, epoch, range(after.snapshots + 1, until.snapshots + 1), kept=False)
    for level, (first, end) in enumerate(zip(after.segments, until.segments, strict=True), start=1):
        yield from _with_parts(io, [keys.segment(epoch, index, level) for index in range(first, end)])
        if level > 1:
            yield from _with_parts(io, [keys.span(epoch, index, level) for index in range(first, end)])


def superseded_spans(reader: Reader, head: Head, until: Extent) -> list[Span]:
    """Of the segments that were superseded up to `until` and are not removed, those that are there."""
    return _spans(reader, head, _superseded(head, until), present=True)


def spent_starts(reader: Reader, head: Head, until: Extent, superseded: list[Span]) -> Iterator[list[bytes]]:
    """The kept snapshots from which, of the segments that are left, none is folded once those up to `until` are gone.

    superseded: their spans.
    Remove them first: then what is left of a removal that was broken off can be told from the segments again.
    Raises CorruptRecord where a segment that the head names is missing: others have merged it, and what it was folded
    from may be what the merged one is.
    """
    ends, named = head.extent.segments, head.superseded.segments
    in_grace = [(at + 1, until.segments[at], named[at]) for at in range(1, LEVELS)]
    stay = [(at + 1, named[at], ends[at]) for at in range(1, LEVELS)]
    # Of level 1, where starts rise, the first that is there is enough.
    first = until.segments[0]
    while first < named[0] and not _spans(reader, head, [(1, first, first + 1)], present=True):
        first += 1
    stay.append((1, first, min(first + 1, ends[0])))
    left = [*_spans(reader, head, in_grace, present=True), *_spans(reader, head, stay)]
    needed = {head.kept, *(span.start for span in left)}
    for ref in {span.start for span in superseded} - needed:
        if ref is not None:
            # From the last part to the first, so that a removal that is broken off is found and finished.
            yield keys.snapshot_parts(head.epoch, ref)[::-1]


def read_holders(reader: Reader, head: Head, until: Extent, superseded: list[Span]) -> None:
    """Read the segments that hold what was superseded up to `until`: they cannot be restored once that is gone.

    superseded: the spans of what goes.
    Raises CorruptRecord for one of those that a crash has taken, and that nobody has met since.
    """
    layout = Layout.of(head)
    are_all_there = len(superseded) == sum(end - first for _, first, end in _superseded(head, until))
    lowest = min([head.cleaned.sealed + 1, *(span.first for span in superseded)]) if are_all_there else 1
    at, following = len(layout), head.sealed + 1
    while at > 0 and following > lowest:
        positions = range(max(0, at - _AT_ONCE), at)
        segments = reader.segments(layout, positions, following)
        for position in (position for position in positions if layout.place(position).level > 1):
            reader.span(layout, position)
        at, following = positions.start, segments[0].span.first


def _superseded(head: Head, until: Extent) -> list[tuple[int, int, int]]:
    return [(at + 1, head.cleaned.segments[at], until.segments[at]) for at in range(LEVELS)]


def _spans(reader: Reader, head: Head, runs: list[tuple[int, int, int]], *, present: bool = False) -> list[Span]:
    layout = replace(Layout.of(head), runs=tuple(runs))
    return list(reader.spans(layout, len(layout), present=present))


def epoch_keys(io: RecordIO, epoch: bytes, cleaned: Extent, extent: Extent) -> Iterator[list[bytes]]:
    """All that an epoch holds, in batches: as `superseded_keys`, and the snapshots that are kept."""
    yield from superseded_keys(io, epoch, cleaned, extent)
    yield from _snapshot_keys(io, epoch, range(1, extent.snapshots + 1), kept=True)


def _with_parts(io: RecordIO, wanted: Sequence[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(wanted), _BATCH):
        batch = list(wanted[at : at + _BATCH])
        # The stubs go first: one without its parts would be damage, parts without a stub are only garbage.
        parts = io.parts_of(batch)
        yield batch
        if parts:
            yield parts


def _snapshot_keys(io: RecordIO, epoch: bytes, numbers: range, *, kept: bool) -> Iterator[list[bytes]]:
    for at in range(0, len(numbers), _BATCH):
        batch = numbers[at : at + _BATCH]
        present = io.store.get_many([keys.snapshot(epoch, number, 0, kept) for number in batch])
        for number in (number for number, record in zip(batch, present, strict=True) if record is not None):
            # From the last part to the first, so that a removal that is broken off is found and finished.
            yield [
                keys.snapshot(epoch, number, part, kept) for part in reversed(range(_parts(io, epoch, number, kept)))
            ]


def _parts(io: RecordIO, epoch: bytes, number: int, kept: bool) -> int:
    count = 1
    while io.store.get_many([keys.snapshot(epoch, number, count, kept)])[0] is not None:
        count += 1
    return count
