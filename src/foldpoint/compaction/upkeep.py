"""Sealing what is unsealed and removing what is superseded.

Removal waits for the grace: a sealed event may be needed again if the store loses the segment in a crash, and an
emptied slot looks free to a writer whose knowledge is old. Writers trust theirs for a tenth of the grace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from foldpoint.compaction.merge import merge
from foldpoint.engine.engine import Engine
from foldpoint.engine.inventory import epoch_keys, spent_starts, superseded_keys
from foldpoint.engine.log import Log


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What compacting one stream did: events sealed, segments it has now, records removed.

    `superseded`: whether records are left that wait for the grace.
    """

    thread_id: str
    namespace: str
    events_sealed: int
    segments: int
    removed_records: int
    superseded: bool


def compact(engine: Engine, thread_id: str | None = None, *, grace: float | None = None) -> Iterator[CompactionReport]:
    """Seal and clean every stream of a thread, or of all; gives free space back to the system at the end.

    `grace` in seconds, the engine's by default. Zero is safe only while nobody else uses the store.
    """
    for head in engine.all_heads(thread_id):
        yield upkeep(engine, head.thread_id, head.namespace, grace=grace, idle=True)
    engine.store.reclaim()


def upkeep(
    engine: Engine, thread_id: str, namespace: str, *, grace: float | None = None, idle: bool = False
) -> CompactionReport:
    """Seal the tail of one stream, merge its segments, and remove what has been superseded for longer than the grace.

    `idle`: merge few segments too, as for a thread that is not in use.

    Works beside writers of this and other processes, without holding up those of this one.
    """
    with engine.log(thread_id, namespace) as shared:
        log = shared.fork()
    known = log.view or log.load()
    before = known.head.sealed if known else 0
    log.seal()
    merge(log, idle=idle)
    removed = _clean(log, engine.settings.grace if grace is None else grace)
    view = log.view or log.load()
    with engine.log(thread_id, namespace) as shared:
        shared.join(log.view)
    if view is None:
        return CompactionReport(thread_id, namespace, 0, 0, removed, False)
    head = view.head
    waits = bool(head.dead) or head.superseded != head.cleaned
    return CompactionReport(thread_id, namespace, max(0, head.sealed - before), head.segments, removed, waits)


def _clean(log: Log, grace: float) -> int:
    """Remove superseded records and left epochs whose grace is over; how many."""
    removed = 0
    while (view := log.load()) is not None:
        head, now = view.head, log.clock.now()
        over = [dead for dead in head.dead if now - dead.since >= grace]
        for dead in over:
            removed += _remove(log, epoch_keys(log.io, dead.epoch, dead.cleaned, dead.extent))
        cleaned = replace(head, dead=tuple(dead for dead in head.dead if dead not in over))
        if head.mark != head.cleaned and now - head.marked_at >= grace:
            removed += _remove(log, spent_starts(log.reader, head, head.mark))
            removed += _remove(log, superseded_keys(log.io, head.epoch, head.cleaned, head.mark))
            cleaned = replace(cleaned, cleaned=head.mark)
        if cleaned.mark == cleaned.cleaned and head.superseded != cleaned.mark:
            cleaned = replace(cleaned, mark=head.superseded, marked_at=int(now))
        if cleaned == head:
            break
        if log.swap(cleaned, view.revision):
            view.head, view.revision = cleaned, view.revision + 1
        if grace > 0:
            break
    return removed


def _remove(log: Log, batches: Iterable[list[bytes]]) -> int:
    removed = 0
    for batch in batches:
        log.io.store.remove_many(batch)
        removed += len(batch)
    return removed
