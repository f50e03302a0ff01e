"""A thread on a cluster, of which records are damaged and lost behind everybody's back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from checkpoints import id_of, numbered, write
from faults.scenes import Cluster, named, noise
from moving import MovingClock

from foldpoint import Engine, Settings
from foldpoint.codecs.segment import Segment
from foldpoint.compaction import merge as merging
from foldpoint.engine.layout import Layout
from foldpoint.engine.records import RecordStore


def merge_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments, merged as early and as far as they can be."""
    monkeypatch.setattr(merging, "FANOUT", 3)
    monkeypatch.setattr(merging, "WORTHWHILE", 0)
    monkeypatch.setattr(merging, "MAX_EVENTS", 50)


class Nodes(Cluster):
    """Whose log records can be damaged, and brought back, behind everybody's back."""

    def records(self) -> dict[bytes, bytes]:
        return {key: value for key, (value, _) in self._log.items()}

    def bring_back(self, records: dict[bytes, bytes]) -> None:
        self._log = {key: (value, None) for key, value in records.items()}

    def flip(self, key: bytes) -> None:
        value = self._log[key][0]
        self._log[key] = (value[:-1] + bytes([value[-1] ^ 1]), None)


class Stream:
    """The thread `t` on a cluster: what it holds, and what its head names."""

    def __init__(self, max_record: int = 1 << 20) -> None:
        self.store = Nodes(max_record=max_record)
        self.clock = MovingClock()
        self.engine = self.fresh()

    def fresh(self, store: RecordStore | None = None) -> Engine:
        """An engine that knows nothing yet. store: what stands before this one's."""
        settings = Settings(window=8, segment_level=1, snapshot_ratio=1.0, grace=100)
        return Engine(store or self.store, settings, clock=self.clock)

    def put(self, first: int, end: int, **channels: object) -> None:
        for n in range(first, end):
            self.engine.put("t", "", numbered(n, **channels))
            self.engine.put_writes("t", "", id_of(n), [write(n)])
            if n % 7 == 6:
                self.engine.put_writes("t", "", id_of(n // 2), [write(n, "late")])

    def contents(self) -> list[object]:
        """As a process that starts now reads it."""
        return [
            (entry.folded.header, entry.folded.labels, entry.state(), entry.writes())
            for entry in self.fresh().history("t", "")
        ]

    @property
    def layout(self) -> Layout:
        return Layout.of(next(self.engine.heads("t")))

    def named(self) -> list[bytes]:
        return named(self.engine)

    def segments(self) -> list[Segment]:
        return self.engine.reader("t", "").reader.segments(self.layout, range(len(self.layout)))


def with_levels() -> Stream:
    """Segments on all levels, kept snapshots, late writes; all that was merged or sealed is still in its grace."""
    stream = Stream()
    for end in (60, 120, 160):
        stream.put(end - 60 if end < 160 else 120, end)
        log = stream.engine.reader("t", "")
        log.seal()
        merging.merge(log, idle=end < 160)
    return stream


def young() -> Stream:
    """A few segments of level 1, as sealed, and a snapshot; the last seal was of a part of the window."""
    stream = Stream()
    stream.put(0, 13)
    stream.engine.reader("t", "").seal()
    stream.put(13, 15)
    return stream


def large() -> Stream:
    """Segments and snapshots in several records."""
    stream = Stream(max_record=600)
    for n in range(0, 14, 2):
        stream.put(n, n + 2, big=noise(n))
    return stream


STREAMS: dict[str, Callable[[], Stream]] = {"levels": with_levels, "young": young, "large": large}
