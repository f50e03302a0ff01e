"""Compacting and sweeping a whole store every so often, in this process, for those who have no cron."""

from __future__ import annotations

import logging
import random
import threading
import time
from types import TracebackType

from foldpoint.compaction.job import Job, Outcome
from foldpoint.compaction.policy import Policies
from foldpoint.compaction.sweep import sweep
from foldpoint.engine.engine import Engine
from foldpoint.errors import FoldpointError
from foldpoint.settings import LONGEST

logger = logging.getLogger("foldpoint")


class Schedule:
    """Compacts by `policies`, and sweeps, each every so many seconds (None: never), in a thread.

    The first time comes at random within the interval, so that not all of many processes begin at once; one process a
    store is enough. What fails is logged, and tried again the next time. Half of the time it rests, for those that put.

        with Schedule(engine, Policies.load(path), compact_every=3600, sweep_every=86_400):
            serve()

    engine: may be replaced. Raises ValueError for intervals that are no seconds above 0, and where something else is
    given for the engine or the policies.
    """

    def __init__(
        self,
        engine: Engine,
        policies: Policies | None = None,
        *,
        compact_every: float | None = None,
        sweep_every: float | None = None,
    ) -> None:
        if not isinstance(engine, Engine):
            raise ValueError(f"engine: expected an Engine, such as saver.engine, got {type(engine).__name__}")
        if not isinstance(policies, Policies | None):
            raise ValueError(f"policies: expected Policies(default=…, threads=…), got {type(policies).__name__}")
        self.engine = engine
        self._policies = policies or Policies()
        works = ((self._compact, compact_every), (self._sweep, sweep_every))
        self._works = [(work, _seconds(every)) for work, every in works if every is not None]
        self._closed = threading.Event()
        self._rested = 0.0
        self._thread = threading.Thread(target=self._run, name="foldpoint-schedule", daemon=True)

    @classmethod
    def configured(cls, engine: Engine) -> Schedule | None:
        """As the engine's settings say, started; None if they name no interval.

        Raises ValueError for a policy file that cannot be understood.
        """
        settings = engine.settings
        if settings.policy and settings.compact_every is None:
            logger.warning("FOLDPOINT_POLICY is set and FOLDPOINT_COMPACT_EVERY is not: this process drops nothing")
        if settings.compact_every is None and settings.sweep_every is None:
            return None
        policies = Policies.load(settings.policy) if settings.policy else None
        schedule = cls(engine, policies, compact_every=settings.compact_every, sweep_every=settings.sweep_every)
        schedule.start()
        return schedule

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the present thread of the store. Idempotent."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Schedule:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        now = time.monotonic()
        due = [(now + random.uniform(0, every), work, every) for work, every in self._works]
        while due:
            at, work, every = min(due, key=lambda one: one[0])
            if self._closed.wait(max(0.0, at - time.monotonic())):
                return
            try:
                work()
            except (FoldpointError, ValueError) as error:
                logger.warning("%s of the store failed, and is tried again: %s", work.__name__.strip("_"), error)
            except Exception:
                # Nobody else would hear of it.
                logger.exception("%s of the store failed, and is tried again", work.__name__.strip("_"))
            due.remove((at, work, every))
            due.append((time.monotonic() + every, work, every))

    def _compact(self) -> None:
        job = Job(self._policies)
        self._rested = time.monotonic()
        for message in job.run(self.engine, range(job.shares), self._rest):
            if not isinstance(message, Outcome):
                continue
            report = message.report
            if message.failure:
                logger.warning("compaction of thread %r failed: %s", message.thread_id, message.failure)
            elif report and report.deleted:
                logger.info("thread %r, namespace %r: deleted, %s", report.thread_id, report.namespace, report.deleted)
            elif report and report.checkpoints_dropped:
                logger.info("thread %r: %d checkpoints dropped", report.thread_id, report.checkpoints_dropped)
        if not self._closed.is_set():
            self.engine.store.reclaim()

    def _rest(self, seconds: float) -> bool:
        """For as long as the work since the last rest took; whether to stop."""
        worked = time.monotonic() - self._rested
        stop = self._closed.wait(max(seconds, worked))
        self._rested = time.monotonic()
        return stop

    def _sweep(self) -> None:
        sweep(self.engine)


def _seconds(every: float) -> float:
    if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 < every <= LONGEST:
        raise ValueError(f"compact_every, sweep_every: expected seconds above 0, 100 years at most, got {every!r}")
    return every
