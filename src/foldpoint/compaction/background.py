"""Where the streams of a writer are kept up: in a thread beside it, in its own calls, or not at all."""

from __future__ import annotations

import heapq
import logging
import math
import threading
from typing import Protocol

from foldpoint.compaction.clean import over_after
from foldpoint.compaction.threads import upkeep
from foldpoint.engine.engine import Engine
from foldpoint.engine.forks import forks
from foldpoint.errors import FoldpointError
from foldpoint.settings import Where

logger = logging.getLogger("foldpoint")

DUE_AT = 0.75
"""Of the window: then the tail is sealed beside the writer, before it has to."""

_Stream = tuple[Engine, str, str]


class Upkeep(Protocol):
    """Takes requests for the upkeep of streams. None of its failures reaches the writer, whose put is done."""

    def request(self, engine: Engine, thread_id: str, namespace: str, *, delay: float = 0) -> None:
        """Upkeep of a stream, `delay` seconds from now.

        Its tail is sealed if it is long enough by then, or if nothing was put during the delay.
        """
        ...

    def close(self) -> None:
        """Finish what is under way and stop; what waits is left to the next writer or compactor. Idempotent."""
        ...


def upkeep_at(where: Where) -> Upkeep:
    """Upkeep in the "background", "inline" or "off". Raises ValueError for anything else."""
    choices: dict[str, type[Background] | type[Inline] | type[Off]]
    choices = {"background": Background, "inline": Inline, "off": Off}
    if where not in choices:
        raise ValueError(f"compaction: expected 'background', 'inline' or 'off', got {where!r}")
    return choices[where]()


def due_from(engine: Engine) -> int:
    """The events after the sealed ones with which a stream asks for upkeep."""
    return math.ceil(DUE_AT * engine.settings.window)


class Off:
    """None: a put seals when its window is full, and what is superseded is left to others, such as the offline job."""

    def request(self, engine: Engine, thread_id: str, namespace: str, *, delay: float = 0) -> None: ...

    def close(self) -> None: ...


class Inline:
    """In the call that asks for it, so that no thread is started. What is due later is left to the next request."""

    def request(self, engine: Engine, thread_id: str, namespace: str, *, delay: float = 0) -> None:
        if delay == 0:
            _attempt(engine, thread_id, namespace, None)

    def close(self) -> None: ...


class Background:
    """In one thread, while the agent thinks. A stream waits at most once for now and once for later.

    A stream that was sealed comes again by itself when the grace is over, to be cleaned. The first request starts the
    thread.
    """

    def __init__(self) -> None:
        self._closed = False
        self.after_fork_in_child()
        forks.renew_after(self)

    def after_fork_in_child(self) -> None:
        """Begin with nothing to do: the parent's thread does what was asked for before."""
        self._due: list[tuple[float, int, _Stream, int | None]] = []
        self._waiting: set[tuple[_Stream, bool]] = set()
        self._changed = threading.Condition()
        self._count = 0
        self._thread: threading.Thread | None = None

    def request(self, engine: Engine, thread_id: str, namespace: str, *, delay: float = 0) -> None:
        stream = (engine, thread_id, namespace)
        last = _last_number(*stream) if delay else None
        with self._changed:
            if self._closed or (stream, delay > 0) in self._waiting:
                return
            self._waiting.add((stream, delay > 0))
            self._count += 1
            heapq.heappush(self._due, (engine.clock.monotonic() + delay, self._count, stream, last))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="foldpoint-upkeep", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        while (found := self._next()) is not None:
            (engine, thread_id, namespace), last = found
            try:
                again = _attempt(engine, thread_id, namespace, last)
            except Exception:
                # Nobody else would hear of it, and the other streams need their upkeep.
                logger.exception("upkeep of thread %r, namespace %r failed", thread_id, namespace)
                continue
            if again:
                self.request(engine, thread_id, namespace, delay=over_after(engine.settings.grace))

    def _next(self) -> tuple[_Stream, int | None] | None:
        """Wait for the next stream that is due, with its last number where it was asked for later; None when closed."""
        with self._changed:
            while not self._closed:
                if not self._due:
                    self._changed.wait()
                    continue
                at, _, stream, last = self._due[0]
                rest = at - stream[0].clock.monotonic()
                if rest <= 0:
                    heapq.heappop(self._due)
                    self._waiting.discard((stream, last is not None))
                    return stream, last
                self._changed.wait(min(rest, 60))
            return None


def _last_number(engine: Engine, thread_id: str, namespace: str) -> int:
    with engine.log(thread_id, namespace) as log:
        return log.view.last if log.view else 0


def _attempt(engine: Engine, thread_id: str, namespace: str, last: int | None) -> bool:
    """Upkeep of a stream, if still due: one that is being sealed asks with every put. Whether to come again later.

    last: number of the last event when upkeep was asked for later, None where it was asked for now. Where it fails
    nothing is lost: a writer seals by itself when its window is full.
    """
    due = due_from(engine)
    try:
        with engine.log(thread_id, namespace) as log:
            view = log.view
        if last is None and view is not None and view.tail < due:
            return False
        idle = last is not None and (view is None or view.last == last)
        report = upkeep(engine, thread_id, namespace, least=0 if idle else due)
        return report.superseded or not idle
    except FoldpointError as error:
        logger.warning("upkeep of thread %r, namespace %r failed: %s", thread_id, namespace, error)
        return False
