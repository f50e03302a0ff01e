"""Getting a damaged stream out of the way of its thread, without throwing anything away.

All records of its epoch, and its head, are copied as they lie into another store, the quarantine. Then the stream goes
on in a new epoch from every checkpoint that can be read exactly (`salvage`), as after any rewrite: the new epoch is
announced and the old one fenced before that is read for the last time, and the head is swapped at the end. Killed in
between, the old stream is there; done again, it goes on where that broke off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from foldpoint.codecs.envelope import EVENT
from foldpoint.codecs.head import Extent, Head
from foldpoint.codecs.wire import Malformed
from foldpoint.compaction.rewrite import EpochWriter, fence, instead, new_head, was_swapped, with_draft
from foldpoint.compaction.salvage import Salvage
from foldpoint.engine import keys
from foldpoint.engine.inventory import epoch_keys
from foldpoint.engine.log import Log
from foldpoint.engine.reading import read_head
from foldpoint.engine.records import HeadRecord, RecordStore
from foldpoint.errors import Conflict, CorruptRecord, StoreBusy, UnsupportedFormat

_ATTEMPTS = 16
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What became of a stream that could not be repaired.

    refused: why it stays as it is; "" if it goes on. checkpoints: with how many. left_out: the ids of those that are
    known of and are in the quarantine only; without_writes: of those that go on, and lack pending writes, so that a
    graph that resumes there runs the tasks again. unread: first and last of the sequence numbers that cannot be
    vouched for: what they held may have been more of both.
    """

    refused: str = ""
    checkpoints: int = 0
    left_out: tuple[str, ...] = ()
    without_writes: tuple[str, ...] = ()
    unread: tuple[tuple[int, int], ...] = ()


def quarantine(log: Log, into: RecordStore) -> Quarantined:
    """Copy a stream into another store, and let it go on from what can be read of it exactly.

    Raises StoreBusy while servers come or go, or data moves: what cannot be read then need not be lost. Raises Conflict
    if the stream was written or compacted all the time.
    """
    for _ in range(_ATTEMPTS):
        record = log.io.store.get_head(log.key)
        if record is None or (head := read_head(record)).deleted:
            return Quarantined("it was deleted meanwhile")
        there = into.get_head(log.key)
        if there is not None and not _may_follow(there, head):
            return Quarantined("the quarantine holds it as it once was; give another store, or delete it there first")
        present = _present(log, head)
        if too_large := _copy(log, into, present, fillers=there is None):
            most = into.capabilities.max_record
            return Quarantined(f"a record has {too_large:,} bytes, the quarantine takes {most:,}; give another store")
        _copy_head(into, record, there)
        try:
            done = _go_on(log, into, head, record.revision, present)
        except UnsupportedFormat as error:
            return Quarantined(str(error))
        if done is not None:
            return done
    raise Conflict(f"thread {log.thread_id!r}: its head kept changing while it was put into quarantine; call again")


# -- the copy ----------------------------------------------------------------------------------------------------------


def _may_follow(there: HeadRecord, head: Head) -> bool:
    """Whether the head in the quarantine is a tombstone, or what a run that was broken off has left."""
    held = read_head(there)
    return held.deleted or held.epoch == head.epoch


def _present(log: Log, head: Head) -> list[bytes]:
    """The keys of all records of an epoch. All keys are listed: of a damaged record nothing else tells the parts."""
    store = log.io.store
    settled, listed = store.settled(), store.keys()
    found = [key for key in listed if keys.epoch_of(key) == head.epoch]
    if store.settled() != settled:
        raise StoreBusy("data moved between servers while the records were listed; try again when that is over")
    return found


def _copy(log: Log, into: RecordStore, wanted: Iterable[bytes], *, fillers: bool) -> int:
    """Copy records as they lie, up to one that does not fit: its size, or 0.

    fillers: also those; where a copy was made before they are the fence.
    """
    rest = iter(wanted)
    while batch := [*islice(rest, _BATCH)]:
        found = zip(batch, log.io.store.get_many(batch), strict=True)
        copied = [(key, one) for key, one in found if one is not None and (fillers or not _is_filler(log, key, one))]
        largest = max((len(one) for _, one in copied), default=0)
        if largest > into.capabilities.max_record:
            return largest
        into.create(copied, ttl=None)
    return 0


def _is_filler(log: Log, key: bytes, record: bytes) -> bool:
    try:
        opened = log.io.open(key, record, EVENT)
        return len(opened.content) == opened.depth()[1]
    except (CorruptRecord, Malformed):
        return False


def _copy_head(into: RecordStore, record: HeadRecord, there: HeadRecord | None) -> None:
    if there is None or there.revision != record.revision:
        into.swap(record, expected=there.revision if there else None, ttl=None)


# -- going on ----------------------------------------------------------------------------------------------------------


def _go_on(log: Log, into: RecordStore, head: Head, revision: int, present: list[bytes]) -> Quarantined | None:
    """None if the head moved meanwhile."""
    if next(Salvage(log.io, head, present).entries(), None) is None:
        return Quarantined("no checkpoint of it can be read; bring it back from a backup, or delete the thread")
    writer = EpochWriter(log, new_head(log))
    announced = with_draft(log, head, writer.head.epoch)
    swapped = log.swap(announced, revision)
    if swapped is None:
        return None
    writer.live_as(announced)
    salvage = Salvage(log.io, head, {*present, *_fence(log, into, head, present)})
    for entry in salvage.entries():
        writer.add_checkpoint(entry, entry.folded.carried)
        writer.add_writes(entry.folded.header.id, entry.logged_writes())
    for checkpoint_id, logged in salvage.early():
        writer.add_writes(checkpoint_id, logged)
    after = instead(log, announced, writer.finish())
    _empty_damaged_stubs(log, present)
    there = salvage.held and not writer.outlived()
    if there and (log.swap(after, swapped) or was_swapped(log, after.epoch)):
        return _report(salvage)
    for batch in epoch_keys(log.io, after.epoch, Extent(), after.extent):
        log.io.store.remove_many(batch)
    return None


def _fence(log: Log, into: RecordStore, head: Head, present: list[bytes]) -> list[bytes]:
    """Fence the epoch, and copy what came since all keys were listed. The keys of the window."""
    slots = fence(log, head)
    since = sorted({*slots}.difference(present))
    _copy(log, into, [*log.io.parts_of(since), *since], fillers=False)
    return slots


def _empty_damaged_stubs(log: Log, present: Iterable[bytes]) -> None:
    """So that the epoch can be removed after the grace: their parts cannot be told, and the sweep takes those."""
    for key in (key for key in present if keys.kind_of(key) in (b"e", b"s", b"i")):
        try:
            log.io.parts_of([key])
        except CorruptRecord:
            log.io.store.empty_many([key])


def _report(salvage: Salvage) -> Quarantined:
    unread: list[tuple[int, int]] = []
    for one in salvage.unread:
        first = unread.pop()[0] if unread and unread[-1][1] + 1 == one.start else one.start
        unread.append((first, one.stop - 1))
    return Quarantined("", len(salvage.held), salvage.left_out, salvage.without_writes, tuple(unread))
