"""What a process knows of a stream."""

from __future__ import annotations

from dataclasses import dataclass

from foldpoint.codecs.envelope import CONTEXT_BYTES
from foldpoint.codecs.head import Head
from foldpoint.engine.fold import Slice

_CONTEXT_EVENTS = 16
"""Further back stands little that a small event needs, and looking there costs time at each put."""


@dataclass
class View:
    """The head as read at `read_at` (monotonic seconds), the events from its snapshot on, and the last one's number.

    incarnation: the store's, before it was read.
    """

    head: Head
    revision: int
    read_at: float
    incarnation: object
    slice: Slice
    last: int

    @property
    def next(self) -> int:
        # A reading that broke off may have found events after the last one.
        return max(self.last, self.head.sealed, self.slice.newest) + 1

    @property
    def tail(self) -> int:
        """How many sequence numbers after `sealed` are taken."""
        return max(0, self.last - self.head.sealed)

    def preceding(self, seq: int, most: int = _CONTEXT_EVENTS) -> dict[int, bytes]:
        """The payloads right before number `seq` that an event there is compressed against, by number, newest first.

        Only of the tail: should it be sealed meanwhile, they lie in one segment, which readers fetch with the snapshot.
        """
        payloads: dict[int, bytes] = {}
        size, numbers = 0, range(seq - 1, max(self.head.sealed, seq - 1 - most), -1)
        for at, event in zip(numbers, map(self.slice.events.get, numbers), strict=True):
            if size >= CONTEXT_BYTES or event is None:
                break
            payloads[at] = payload = event.payload
            size += len(payload)
        return payloads
