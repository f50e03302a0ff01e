"""Upkeep in the writer's process: one thread that seals and cleans while the agent thinks."""

from __future__ import annotations

import heapq
import logging
import threading

from foldpoint.compaction.upkeep import upkeep
from foldpoint.engine.engine import Engine
from foldpoint.errors import FoldpointError

logger = logging.getLogger("foldpoint")

_Stream = tuple[Engine, str, str]


class Background:
    """Takes requests for upkeep, now or later; a stream waits at most once for each. Started by the first request.

    A stream that was sealed comes again by itself when the grace is over, to be cleaned.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, _Stream]] = []
        self._waiting: set[tuple[_Stream, bool]] = set()
        self._changed = threading.Condition()
        self._count = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def request(self, engine: Engine, thread_id: str, namespace: str, *, delay: float = 0) -> None:
        """Upkeep of a stream, `delay` seconds from now."""
        stream = (engine, thread_id, namespace)
        with self._changed:
            if self._closed or (stream, delay > 0) in self._waiting:
                return
            self._waiting.add((stream, delay > 0))
            self._count += 1
            heapq.heappush(self._due, (engine.clock.monotonic() + delay, self._count, stream))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="foldpoint-upkeep", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Finish what is under way and stop; what waits is left to the next writer or compactor. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        while (stream := self._next()) is not None:
            engine, thread_id, namespace = stream
            try:
                report = upkeep(engine, thread_id, namespace)
            except FoldpointError as error:
                # Nothing is lost: the writer seals on its own when its window is full.
                logger.warning("upkeep of thread %r, namespace %r failed: %s", thread_id, namespace, error)
                continue
            if report.superseded:
                self.request(engine, thread_id, namespace, delay=engine.settings.grace)

    def _next(self) -> _Stream | None:
        """Wait for the next stream that is due; None when closed."""
        with self._changed:
            while not self._closed:
                if not self._due:
                    self._changed.wait()
                    continue
                at, _, stream = self._due[0]
                rest = at - stream[0].clock.monotonic()
                if rest <= 0:
                    heapq.heappop(self._due)
                    self._waiting -= {(stream, False), (stream, True)}
                    return stream
                self._changed.wait(min(rest, 60))
            return None
