"""What a process knows of a stream."""

from __future__ import annotations

from dataclasses import dataclass

from foldpoint.codecs.head import Head
from foldpoint.engine.fold import Slice


@dataclass
class View:
    """The head as read at `read_at` (monotonic seconds), the events from its snapshot on, and the last one's number."""

    head: Head
    revision: int
    read_at: float
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
