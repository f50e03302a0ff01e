"""Where the sealed log of an epoch lies: first what was merged most, then what was merged less, then level 1.

Every segment has a position, 0 for the oldest, and from a head the key at each position can be computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from foldpoint.codecs.head import Head
from foldpoint.engine import keys


@dataclass(frozen=True, slots=True)
class Place:
    """One segment's level and its index there."""

    level: int
    index: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The segments that make up the sealed log of the stream whose head lies under `stream`.

    `runs`: (level, first index, end index), oldest first.
    """

    stream: bytes
    epoch: bytes
    runs: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, head: Head) -> Layout:
        starts = [*(level.reach for level in head.merged), 0]
        counts = [head.segments, *(level.count for level in head.merged)]
        ends = [max(start, count) for start, count in zip(starts, counts, strict=True)]
        levels = range(len(ends), 0, -1)
        stream = keys.head(head.thread_id, head.namespace)
        return cls(stream, head.epoch, tuple((level, starts[level - 1], ends[level - 1]) for level in levels))

    @property
    def segments(self) -> int:
        """How many of level 1 there are, or were before they were merged."""
        return self.runs[-1][2]

    def __len__(self) -> int:
        return sum(end - first for _, first, end in self.runs)

    def place(self, position: int) -> Place:
        for level, first, end in self.runs:
            if position < end - first:
                return Place(level, first + position)
            position -= end - first
        raise IndexError(position)

    def position(self, level: int, index: int) -> int | None:
        """Where the segment with this index of a level lies; None if it is no part of the log, or not any more."""
        position = 0
        for run_level, first, end in self.runs:
            if run_level == level:
                return position + index - first if first <= index < end else None
            position += end - first
        return None

    def after(self, segments: int) -> int:
        """The position that follows the first `segments` segments of level 1, which no merged one divides."""
        _, first, end = self.runs[-1]
        return len(self) - (end - min(end, max(first, segments)))

    def key(self, position: int) -> bytes:
        place = self.place(position)
        return keys.segment(self.epoch, place.index, place.level)

    def span_key(self, position: int) -> bytes:
        """Where the segment's span is read: apart if it was merged, else in the segment itself."""
        place = self.place(position)
        return self.key(position) if place.level == 1 else keys.span(self.epoch, place.index, place.level)
