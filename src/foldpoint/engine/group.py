"""Group commit: events that threads append to one stream at the same time are stored by one write.

LangGraph stores what a task wrote in a thread of its own, and right after it, in another, the checkpoint that follows.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from foldpoint.codecs.event import Event
from foldpoint.engine.fold import Slice
from foldpoint.engine.view import View

PATIENCE = 0.004
"""Seconds that pending writes wait for the checkpoint that follows, where the last ones would have had company."""


class Append:
    """An event to be appended; done when it is durable and in the log.

    encode: its payload, from its number and what it may build upon. keep: what is known of it is remembered instead of
    folded; without an effect on what the log holds. existing: the stream is expected to exist; ttl: if it does not.
    patient: it may wait a moment for another. left: whoever asked for it waits no more, so it must not be appended.
    """

    __slots__ = ("_found", "_undone", "encode", "existing", "keep", "left", "patient", "ttl")

    def __init__(
        self,
        encode: Callable[[int, Slice], bytes],
        keep: Callable[[Slice, Event], None],
        *,
        existing: bool,
        ttl: int | None,
        patient: bool = False,
    ) -> None:
        self.encode = encode
        self.keep = keep
        self.existing = existing
        self.ttl = ttl
        self.patient = patient
        self.left = False
        self._found: tuple[View, Event] | None = None
        self._undone = allocate_lock()
        self._undone.acquire()

    @property
    def done(self) -> bool:
        return self._found is not None

    def settle(self, view: View, event: Event) -> None:
        """It is in the log, as `view` shows. Once."""
        self._found = view, event
        self._undone.release()

    def wait(self, seconds: float) -> bool:
        """Whether it is done by then."""
        return self._undone.acquire(timeout=seconds)

    def found(self) -> tuple[View, Event]:
        """REQUIRES that it is done."""
        assert self._found is not None
        return self._found


class Group:
    """The appends to one stream that are under way in this process."""

    def __init__(self) -> None:
        self._under_way: deque[Append] = deque()
        self._pays = False
        """Whether to wait: the last that did not wait met another, and nobody has waited in vain since."""

    def enter(self, one: Append) -> None:
        for other in [*self._under_way]:
            if other.left:  # amid `leave`, by an exception from outside
                self.leave(other)
        self._under_way.append(one)
        if not one.patient and len(self._under_way) > 1:
            self._pays = True

    def wait(self, one: Append) -> None:
        """Let another thread append this one too, if one is likely to come."""
        if one.patient and self._pays and not one.wait(PATIENCE):
            self._pays = len(self._under_way) > 1

    def leave(self, one: Append) -> None:
        with suppress(ValueError):
            self._under_way.remove(one)

    def waiting(self) -> list[Append]:
        """Those that are not done, in the order in which they came."""
        return [one for one in [*self._under_way] if not one.done and not one.left]
