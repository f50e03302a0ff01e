"""Compacting whole threads: plans for all their streams, and running them.

Subgraphs have streams of their own. What stays of them depends on what stays of the graphs around them, so those are
decided first and rewritten last: broken off in between, the next run decides the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from foldpoint.codecs.head import Head
from foldpoint.compaction.activity import Standing, overdue
from foldpoint.compaction.archives import Archives
from foldpoint.compaction.choice import Choice, choose
from foldpoint.compaction.overlay import Overlay
from foldpoint.compaction.plan import Clean, Delete, Export, Plan, Retain, plan
from foldpoint.compaction.policy import DropAll, Policies, Policy, Retention
from foldpoint.compaction.run import CompactionReport, run
from foldpoint.compaction.selection import Circumstances, Kept, depth
from foldpoint.engine.engine import Engine
from foldpoint.engine.metrics import Metrics
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, RecordError

_ATTEMPTS = 64
_KEEP_ALL = Retention()


def upkeep(
    engine: Engine,
    thread_id: str,
    namespace: str,
    *,
    grace: float | None = None,
    idle: bool = False,
    least: int = 0,
) -> CompactionReport:
    """Seal the tail of one stream, merge its segments, and remove what has been superseded for longer than the grace.

    What is due is told by what the engine knows, which is at most a tenth of the grace old.

    grace: seconds, the engine's by default. Zero is safe only while nobody else uses the store. idle: merge few
    segments too, as for a thread that is not in use.
    """
    with engine.log(thread_id, namespace) as shared:
        log = shared.fork()
    view = log.trusted()
    if view is None:
        return CompactionReport(thread_id, namespace)
    tail = view.tail if view.tail >= least else 0
    return run(engine, plan(view.head, tail, grace=_grace(engine, grace), idle=idle))


def compact(
    engine: Engine,
    thread_id: str | None = None,
    *,
    policies: Policies | None = None,
    grace: float | None = None,
) -> Iterator[CompactionReport]:
    """Compact every stream of a thread, or of all; gives free space back to the system at the end.

    Without policies nothing is lost. grace: as for `upkeep`.
    """
    seen: set[str] = set()
    with Archives(engine) as archives:
        for head in engine.all_heads(thread_id):
            if head.thread_id not in seen:
                seen.add(head.thread_id)
                retention = policies.of(head.thread_id) if policies else _KEEP_ALL
                yield from compact_thread(engine, head.thread_id, retention, grace=grace, archives=archives)
    engine.store.reclaim()


def compact_thread(
    engine: Engine,
    thread_id: str,
    retention: Retention = _KEEP_ALL,
    *,
    grace: float | None = None,
    archives: Archives | None = None,
) -> Iterator[CompactionReport]:
    """Plan and compact every stream of a thread, or delete the thread if `retention` says so.

    archives: opens what `retention.export_to` names; needed only then.
    """
    for planned in plans(engine, thread_id, retention, grace=grace):
        report = run(engine, planned, archives=archives)
        yield report
        if report.outdated and any(isinstance(step, Delete) for step in planned.steps):
            return  # it is in use again


def rehearse(
    engine: Engine, thread_id: str, retention: Retention = _KEEP_ALL
) -> Iterator[tuple[Plan, CompactionReport]]:
    """What `compact_thread` would do, in the end: the bytes are those that are given back once the grace is over.

    Everything is done, and nothing of it reaches the store.
    """
    for _ in range(_ATTEMPTS):
        overlay = Overlay(engine.store)
        try:
            yield from list(_rehearsed(engine.on(overlay, _Uncounted()), thread_id, retention))
            return
        except RecordError:
            if not overlay.is_overtaken():
                raise
    raise Conflict(f"thread {thread_id!r}: compacted by others all the time while this was tried; call again")


def _rehearsed(trial: Engine, thread_id: str, retention: Retention) -> Iterator[tuple[Plan, CompactionReport]]:
    for planned in plans(trial, thread_id, retention, grace=0):
        steps = tuple(step for step in planned.steps if not isinstance(step, Export))
        yield planned, run(trial, Plan(planned.thread_id, planned.namespace, steps, 0, planned.idle))


def rewrite_thread(engine: Engine, thread_id: str, policy: Policy) -> int:
    """Apply `policy` to each namespace of a thread; how many checkpoints stay.

    What goes is removed when the grace is over; where a crash keeps the order of writes, a thread that is deleted at
    once. Safe beside writers and other rewrites. Raises Conflict if the thread keeps being rewritten by others.
    """
    if isinstance(policy, DropAll):
        at_once = (Clean(0, 1),) if engine.store.capabilities.ordered else ()
        for head in list(engine.all_heads(thread_id)):
            run(engine, Plan(thread_id, head.namespace, (Delete("asked for"), *at_once), engine.settings.grace))
        return 0
    for _ in range(_ATTEMPTS):
        choices = list(_choices(engine, thread_id, policy))
        todo = [_retaining(head, choice, policy) for head, choice in choices if not choice.changes_nothing]
        if not any(run(engine, planned).outdated for planned in reversed(todo)):
            return sum(len(choice.ids or ()) for _, choice in choices)
    raise Conflict(f"thread {thread_id!r}: rewritten by others all the time; call again")


def reseal_thread(engine: Engine, thread_id: str) -> Iterator[CompactionReport]:
    """Write every stream of a thread again, each record sealed with the engine's cipher, and lose nothing.

    What was sealed otherwise is removed when the grace is over. Safe beside writers that can open both. Raises Conflict
    if others keep rewriting the thread.
    """
    for head in list(engine.heads(thread_id)):
        yield _resealed(engine, head)


def _resealed(engine: Engine, head: Head) -> CompactionReport:
    for _ in range(_ATTEMPTS):
        now = engine.clock.now()
        log = engine.reader(head.thread_id, head.namespace)
        choice = choose(log, _KEEP_ALL.selection(Circumstances(now)), now)
        if choice is None:
            return CompactionReport(head.thread_id, head.namespace)
        report = run(engine, _retaining(head, choice, _KEEP_ALL))
        if not report.outdated:
            return report
    raise Conflict(f"thread {head.thread_id!r}: rewritten by others all the time; call again")


def _retaining(head: Head, choice: Choice, policy: Policy) -> Plan:
    return Plan(head.thread_id, head.namespace, (Retain(str(policy), choice),), 0)


def plans(engine: Engine, thread_id: str, retention: Retention, *, grace: float | None = None) -> list[Plan]:
    """What `compact_thread` does, stream by stream, in order."""
    grace = _grace(engine, grace)
    going = _purge(engine, thread_id, retention, grace)
    if going:
        return going
    choices = {}
    if not retention.keeps_all or retention.drop_superseded_writes:
        choices = {head.namespace: choice for head, choice in _choices(engine, thread_id, retention)}
    found = []
    for head in _from_the_root(engine.all_heads(thread_id)):
        view = engine.reader(thread_id, head.namespace).load()
        if view is not None:
            choice = choices.get(head.namespace)
            found.append(plan(view.head, view.tail, grace=grace, idle=True, choice=choice, policy=retention))
    return found[::-1]


def _choices(engine: Engine, thread_id: str, policy: Policy) -> Iterator[tuple[Head, Choice]]:
    """What stays of each stream, the root's first."""
    now, above = engine.clock.now(), dict[str, Kept]()
    for head in _from_the_root(engine.heads(thread_id)):
        namespace = head.namespace
        selection = policy.selection(Circumstances(now, namespace, dict(above)))
        log = engine.reader(thread_id, namespace)
        choice = choose(log, selection, now, superseded_go=policy.drop_superseded_writes)
        if choice is not None:
            above[namespace] = Kept(choice.ids or set(), choice.settled, _held(engine, thread_id, namespace, choice))
            yield head, choice


def _held(engine: Engine, thread_id: str, namespace: str, choice: Choice) -> Callable[[str], bool]:
    """Whether a checkpoint was there when the choice was made: what came since was not chosen from, and stays."""

    def held(checkpoint_id: str) -> bool:
        entry = engine.find(thread_id, namespace, checkpoint_id)
        with engine.log(thread_id, namespace) as log:
            rewritten = log.view is None or log.view.head.epoch != choice.epoch
        return entry is not None and not rewritten and entry.folded.seq <= choice.seq

    return held


def _from_the_root(heads: Iterable[Head]) -> list[Head]:
    return sorted(heads, key=lambda head: (depth(head.namespace), head.namespace))


# -- threads that go whole ---------------------------------------------------------------------------------------------


def _purge(engine: Engine, thread_id: str, retention: Retention, grace: float) -> list[Plan]:
    """Plans that delete the thread, the root's first; none if it stays."""
    if retention.purge_idle is None and retention.purge_finished is None:
        return []
    now, root, standings, deletions = engine.clock.now(), None, list[Standing](), list[Plan]()
    heads = _from_the_root(engine.all_heads(thread_id))
    if not heads or heads[0].namespace:
        return []
    for head in heads:
        log = engine.reader(thread_id, head.namespace)
        view = log.load()
        if view is None or view.head.deleted:
            continue
        standings.append(Standing.of(view))
        if not head.namespace:
            root = standings[0]
        why = overdue(retention, root, standings, now)
        if why is None:
            return []  # what the other streams say can only make it younger
        deletions.append(_deletion(view, why, grace))
    if deletions and retention.export_to is not None:
        first = deletions[0]
        deletions[0] = replace(first, steps=(Export(retention.export_to), *first.steps))
    return deletions


def _deletion(view: View, why: str, grace: float) -> Plan:
    head = view.head
    clean = Clean(view.last - head.cleaned.sealed, len(head.dead) + 1)
    return Plan(head.thread_id, head.namespace, (Delete(why, (head.epoch, view.last)), clean), grace)


class _Uncounted(Metrics):
    """For what is not really done."""

    def add(self, **amounts: float) -> None: ...

    @contextmanager
    def compaction(self) -> Iterator[None]:
        yield


def _grace(engine: Engine, grace: float | None) -> float:
    return engine.settings.grace if grace is None else grace
