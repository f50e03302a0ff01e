"""Sealing what is unsealed, merging what is sealed and removing what is superseded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foldpoint.compaction.clean import clean, is_clean
from foldpoint.compaction.merge import merge
from foldpoint.engine.engine import Engine


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
    removed = clean(log, engine.settings.grace if grace is None else grace)
    view = log.view or log.load()
    with engine.log(thread_id, namespace) as shared:
        shared.join(log.view)
    if view is None:
        return CompactionReport(thread_id, namespace, 0, 0, removed, False)
    head = view.head
    return CompactionReport(
        thread_id, namespace, max(0, head.sealed - before), head.segments, removed, not is_clean(head)
    )
