"""The machine on a model of a node that loses power."""

from __future__ import annotations

import random
from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from foldpoint import Engine
from foldpoint.codecs.model import Checkpoint, Write
from foldpoint.compaction.verify import verify
from foldpoint.engine.fold import Entry
from foldpoint.engine.records import RecordStore
from foldpoint.errors import FoldpointError
from torture.contents import Known, Stream, content, content_of
from torture.machine import ANY, GRACE, STREAM, Act, Histories
from torture.node import Node


class NodeHistories(Histories):
    """The machine on a node that loses power.

    What the devices had not taken may be gone then, though it was acknowledged. A thread that was written to since they
    last took all is `loose` from there on: it may be as it was at any earlier time, or be refused, but it never holds
    what nobody put. All others are as they were. So is a loose one that is deleted, once the devices know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fresh: set[str] = set()
        self.loose: set[str] = set()
        self.begun_anew: set[str] = set()
        self.put_ever: dict[str, list[Checkpoint]] = {}
        self.written_ever: dict[str, list[Write]] = {}

    def make_store(self) -> RecordStore:
        self.node = Node(max_record=300)
        return self.node

    @rule(seed=st.integers(0, 2**32 - 1), survived=st.booleans())
    def lose_power(self, seed: int, survived: bool) -> None:
        """Of the node; the processes that use it may go on with what they know."""
        self.node.crash(random.Random(seed))
        self.loose |= self.fresh
        self.fresh.clear()
        self.begun_anew.clear()
        if not survived:
            self.restart(0)
            self.restart(1)

    @rule(seconds=st.sampled_from([30.0, 61.0, GRACE + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.node.flush()
        self.fresh.clear()
        self.loose -= self.begun_anew
        self.begun_anew.clear()

    def act(self, who: int, what: Act, *threads: str) -> None:
        concerned = {*threads} or {thread for thread, _ in self.known}
        self.fresh |= concerned
        try:
            super().act(who, what, *threads)
        except FoldpointError:
            self.begun_anew -= concerned
            self.stores[who].disarm()
            if not concerned & self.loose:
                raise

    @precondition(lambda self: self.made % 5 == 0)
    @rule(who=ANY)
    def delete(self, who: int) -> None:
        self.begun_anew.add("b")
        super().delete(who)

    @precondition(lambda self: self.made % 3 == 0)
    @rule(who=ANY)
    def copy(self, who: int) -> None:
        if "a" in self.loose:
            self.loose.add("b")
            self.begun_anew.discard("b")
        super().copy(who)

    def log_checkpoint(self, stream: Stream, checkpoint: Checkpoint) -> None:
        self.put_ever.setdefault(checkpoint.header.id, []).append(checkpoint)
        super().log_checkpoint(stream, checkpoint)

    def log_writes(self, stream: Stream, target: str, writes: list[Write]) -> None:
        self.written_ever.setdefault(target, []).extend(writes)
        super().log_writes(stream, target, writes)

    def check_stream(self, engine: Engine, stream: Stream, bound: int) -> None:
        if stream[0] not in self.loose:
            return super().check_stream(engine, stream, bound)
        for checkpoint_id in sorted(self.put_ever)[-1 - bound :: 3]:
            with suppress(FoldpointError):
                self.check_ever(engine.find(*stream, checkpoint_id))
        listed = []
        with suppress(FoldpointError):
            for entry in engine.history(*stream):
                self.check_ever(entry)
                listed.append(entry.folded.header.id)
        assert listed == sorted({*listed}, reverse=True)

    def check_latest(self, engine: Engine, stream: Stream, known: Known) -> None:
        if stream[0] not in self.loose:
            return super().check_latest(engine, stream, known)
        with suppress(FoldpointError):
            self.check_ever(engine.latest(*stream))

    def check_ever(self, entry: Entry | None) -> None:
        """It is a checkpoint as it was put at some time, with writes that were."""
        if entry is None:
            return
        found, writes = content(entry), entry.writes()
        id_ = entry.folded.header.id
        ever = [content_of(checkpoint) for checkpoint in self.put_ever.get(id_, [])]
        assert found in ever, f"checkpoint {id_} reads as {found}, and was put as {ever}"
        assert all(write in self.written_ever.get(id_, []) for write in writes), f"writes of {id_}: {writes}"

    @rule(stream=STREAM)
    def read_by_saver(self, stream: Stream) -> None:
        if stream[0] not in self.loose:
            super().read_by_saver(stream)

    def verify(self) -> None:
        assert [one for one in verify(self.engine()) if one.findings and one.thread_id not in self.loose] == []


class TornHistories(NodeHistories):
    """The same, where power is lost again and again while one process puts and another goes on from what it knew."""

    @rule(stream=STREAM, count=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
    def lose_power_amid_puts(self, stream: Stream, count: int, seed: int) -> None:
        """Of which another process, that goes on from what it knows, has not heard."""
        self.put(1, False, stream, 0, "append", "alpha", 0, None)
        for _ in range(count):
            self.put(0, False, stream, 0, "append", "gamma", 0, None)
        self.lose_power(seed, True)
        for _ in range(3):
            self.put(1, False, stream, 0, "edit", "alpha", 0, None)
        self.read_everything(0, 99)
