"""Running a plan. Every step may be broken off and done again, beside writers and other compactors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foldpoint.compaction.archives import Archives
from foldpoint.compaction.choice import Choice
from foldpoint.compaction.clean import clean, is_clean
from foldpoint.compaction.copying import copy_thread
from foldpoint.compaction.merge import merge, next_merge
from foldpoint.compaction.overlay import Meter
from foldpoint.compaction.plan import Delete, Export, MergeDue, Plan, Retain, Seal, Step
from foldpoint.compaction.rewrite import delete, rewrite
from foldpoint.engine.engine import Engine
from foldpoint.engine.fold import Entry
from foldpoint.engine.history import History
from foldpoint.engine.log import Log
from foldpoint.engine.url import without_secrets
from foldpoint.errors import CorruptRecord


@dataclass(slots=True)
class CompactionReport:
    """What compacting one stream did.

    segments: how many it has now. removed_records: those removed because nothing needs them any more; superseded:
    whether some are left that wait for the grace. merges: segments written that stand for several. checkpoints_dropped:
    those that were seen to go. bytes_written, bytes_removed: of log records, keys and values. deleted: why the stream
    was deleted. outdated: a step and those after it were left out because others changed the stream since the plan was
    made; plan again.
    """

    thread_id: str
    namespace: str
    events_sealed: int = 0
    segments: int = 0
    removed_records: int = 0
    superseded: bool = False
    merges: int = 0
    checkpoints_dropped: int = 0
    bytes_written: int = 0
    bytes_removed: int = 0
    deleted: str = ""
    outdated: bool = False


def run(engine: Engine, plan: Plan, *, archives: Archives | None = None) -> CompactionReport:
    """Do the steps of a plan, holding up no writer of this process or of others; counts in the engine's metrics.

    archives: where an `Export` finds its store. Raises Conflict where others keep winning the race for the head.
    """
    meter = Meter(engine.store)
    running = _Running(engine.on(meter).reader(plan.thread_id, plan.namespace), engine, plan, archives)
    with engine.log(plan.thread_id, plan.namespace) as shared:
        running.log.view = shared.fork().view
    with engine.metrics.compaction():
        report = running.run()
    with engine.log(plan.thread_id, plan.namespace) as shared:
        shared.join(running.log.view)
    report.bytes_written, report.bytes_removed = meter.written, meter.removed
    engine.metrics.add(bytes_given_back=meter.removed)
    return report


class _Running:
    """A plan under way on a log of its own."""

    def __init__(self, log: Log, engine: Engine, plan: Plan, archives: Archives | None) -> None:
        self.log = log
        self._engine = engine
        self._plan = plan
        self._archives = archives
        self._report = CompactionReport(plan.thread_id, plan.namespace)

    def run(self) -> CompactionReport:
        for step in self._plan.steps:
            self._do(step)
            if self._report.outdated:
                break
        view = self.log.view or self.log.load()
        if view is not None:
            self._report.segments = view.head.segments
            self._report.superseded = not is_clean(view.head)
        return self._report

    def _do(self, step: Step) -> None:
        report = self._report
        if isinstance(step, Seal):
            report.events_sealed = self._seal()
        elif isinstance(step, MergeDue):
            self._merge()
        elif isinstance(step, Retain):
            report.outdated = not rewrite(self.log, step.choice, _Staying(self.log, step.choice))
            report.checkpoints_dropped = 0 if report.outdated else step.choice.dropped
        elif isinstance(step, Export):
            self._export(step.url)
        elif isinstance(step, Delete):
            report.outdated = not delete(self.log, unchanged=step.unchanged)
            report.deleted = "" if report.outdated else step.why
        else:
            self._clean()

    def _merge(self) -> None:
        view = self.log.current()
        if view is not None and next_merge(view.head, idle=self._plan.idle):
            self._clean()  # merging takes long, and a snapshot that was superseded is large
            self._report.merges = merge(self.log, idle=self._plan.idle)

    def _clean(self) -> None:
        self._report.removed_records += clean(self.log, self._plan.grace)

    def _seal(self) -> int:
        """How many events were sealed since this log was read, by whomever."""
        known = self.log.view or self.log.load()
        before = known.head.sealed if known else 0
        self.log.seal(idle=self._plan.idle)
        return max(0, self.log.view.head.sealed - before) if self.log.view else 0

    def _export(self, url: str) -> None:
        if self._archives is None:
            where = without_secrets(url)
            raise ValueError(f"thread {self._plan.thread_id!r} is to be copied to {where}: give archives to open it")
        copy_thread(self._engine, self._plan.thread_id, self._plan.thread_id, into=self._archives.open(url))


class _Staying:
    """What a choice keeps of a stream's own history."""

    def __init__(self, log: Log, choice: Choice) -> None:
        self._log = log
        self._choice = choice

    def entries(self, held: History, since: str) -> Iterator[Entry]:
        if not self._choice.ids:
            return iter(())
        first = max(since, self._choice.oldest)
        return (entry for entry in held.oldest_first(first) if self._choice.keeps(entry.folded.header.id))

    def recover(self, error: CorruptRecord) -> None:
        self._log.recover(error)
