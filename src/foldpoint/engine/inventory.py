"""Every record of an epoch, from what its head says. Keys that are missing may be among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foldpoint.codecs.head import Extent
from foldpoint.engine import keys
from foldpoint.engine.io import RecordIO

_BATCH = 512


def superseded_keys(io: RecordIO, epoch: bytes, after: Extent, until: Extent) -> Iterator[list[bytes]]:
    """Events and passing snapshots between two extents, in batches."""
    yield from _with_parts(io, [keys.event(epoch, seq) for seq in range(after.sealed + 1, until.sealed + 1)])
    numbers = range(after.snapshots + 1, until.snapshots + 1)
    yield from _snapshot_keys(io, epoch, numbers, kept=False)


def epoch_keys(io: RecordIO, epoch: bytes, cleaned: Extent, extent: Extent) -> Iterator[list[bytes]]:
    """All that an epoch holds, in batches: as `superseded_keys`, its segments and the snapshots that are kept."""
    yield from superseded_keys(io, epoch, cleaned, extent)
    yield from _with_parts(io, [keys.segment(epoch, index) for index in range(extent.segments)])
    yield from _snapshot_keys(io, epoch, range(1, extent.snapshots + 1), kept=True)


def _with_parts(io: RecordIO, wanted: Sequence[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(wanted), _BATCH):
        batch = list(wanted[at : at + _BATCH])
        # The stubs go first: one without its parts would be damage, parts without a stub are only garbage.
        yield batch + io.parts_of(batch)


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
