"""Upkeep in the writer's process: one thread that seals and cleans while the agent thinks."""

from __future__ import annotations

import logging
import queue
import threading

from foldpoint.compaction.upkeep import upkeep
from foldpoint.engine.engine import Engine
from foldpoint.errors import FoldpointError

logger = logging.getLogger("foldpoint")

_Stream = tuple[Engine, str, str]


class Background:
    """Takes requests for upkeep; a stream that waits already is not queued twice. Started by the first request."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Stream | None] = queue.SimpleQueue()
        self._waiting: set[tuple[int, str, str]] = set()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def request(self, engine: Engine, thread_id: str, namespace: str) -> None:
        name = (id(engine), thread_id, namespace)
        with self._guard:
            if self._closed or name in self._waiting:
                return
            self._waiting.add(name)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="foldpoint-upkeep", daemon=True)
                self._thread.start()
        self._queue.put((engine, thread_id, namespace))

    def close(self) -> None:
        """Finish what is under way and stop; what waits is left to the next writer or compactor. Idempotent."""
        with self._guard:
            self._closed = True
            thread = self._thread
        self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while not self._closed and (stream := self._queue.get()) is not None:
            engine, thread_id, namespace = stream
            with self._guard:
                self._waiting.discard((id(engine), thread_id, namespace))
            try:
                upkeep(engine, thread_id, namespace)
            except FoldpointError as error:
                # Nothing is lost: the writer seals on its own when its window is full.
                logger.warning("upkeep of thread %r, namespace %r failed: %s", thread_id, namespace, error)
