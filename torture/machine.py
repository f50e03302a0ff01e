"""Whatever happened to a stream, every checkpoint that was put reads back equal to what a dict of full states holds.

Two processes (two engines) work on one store with tiny windows and tiny records: they put through the engine and
through savers, compact, prune, copy, delete and sweep; time passes; any call of the store may go wrong, and any process
may die.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint import Engine, FoldpointSaver, Keyring, Settings
from foldpoint.codecs.model import Checkpoint, Value, Write
from foldpoint.compaction import DropAll, DropRuns, KeepLast, copy_thread, reseal_thread, rewrite_thread, sweep, upkeep
from foldpoint.compaction.verify import verify
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import FoldpointError
from torture.clock import MovingClock
from torture.contents import (
    SERDE,
    Known,
    Stream,
    check,
    config,
    metadata_of,
    next_checkpoint,
    noise,
    put_by_saver,
    values_of,
)
from torture.faulty import FAULTS, Fault, FaultyStore
from torture.small import packed
from torture.together import together

STREAMS: list[Stream] = [("a", ""), ("a", "child:1"), ("b", ""), ("\ud800 \x00/|", "ns|\u2028")]
WORDS = ["", "alpha", "beta " * 9, "gamma", "\u00e9" * 40, "x" * 300]
GRACE = 600.0
SETTINGS = Settings(window=4, segment_level=1, snapshot_ratio=1.0, grace=GRACE, compaction="off")
ANY = st.sampled_from([0, 1])
STREAM = st.sampled_from(STREAMS)
Act = Callable[[Engine], object]
NAMES = random.Random()
"""Of epochs and parts: where a record lies decides whether a crash takes it."""


class Histories(RuleBasedStateMachine):
    """The machine on a store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = MovingClock()
        self.store = self.make_store()
        self.known: dict[Stream, Known] = {stream: Known() for stream in STREAMS}
        self.made = 0
        self.stores = [FaultyStore(self.store), FaultyStore(self.store)]
        self.engines = [self.engine(store) for store in self.stores]

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        NAMES.seed(seed)

    def make_store(self) -> RecordStore:
        return MemoryStore(max_record=300)

    def engine(self, store: Any = None) -> Engine:
        return Engine(store or self.store, SETTINGS, clock=self.clock)

    def new_id(self, back: int) -> str:
        self.made += 1
        moment = max(1, self.made * 10 - back)
        return str(uuid.UUID(int=(0x1EF << 116) + (moment << 40) + self.made))

    # -- what goes wrong -----------------------------------------------------------------------------------------------

    def act(self, who: int, what: Act, *threads: str) -> None:
        """Do something that writes to threads, none: to all."""
        self.attempt(who, what)

    def attempt(self, who: int, what: Act) -> None:
        """Do it, and again if it met a fault: what was not acknowledged is there wholly or not at all."""
        try:
            what(self.engines[who])
        except FoldpointError:
            if not self.stores[who].fired:
                raise
            if self.stores[who].crashed:
                self.restart(who)
            self.stores[who].disarm()
            what(self.engines[who])
        self.stores[who].disarm()

    @rule(who=ANY, fault=st.sampled_from([fault for fault in FAULTS if fault.applies != "after a rival"]),
          after=st.integers(0, 9))  # fmt: skip
    def go_wrong(self, who: int, fault: Fault, after: int) -> None:
        """In the next thing that a process does."""
        self.stores[who].arm(fault, after)

    @rule(who=ANY)
    def restart(self, who: int) -> None:
        self.stores[who] = FaultyStore(self.stores[who].restart())
        self.engines[who] = self.engine(self.stores[who])

    @rule(seconds=st.sampled_from([30.0, 61.0, GRACE + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- writing -------------------------------------------------------------------------------------------------------

    @rule(
        who=ANY,
        by_saver=st.booleans(),
        stream=STREAM,
        parent=st.integers(0, 5),
        change=st.sampled_from(["append", "edit", "slide", "remove", "nothing", "type", "big", "noise", "cut", "copy"]),
        word=st.sampled_from(WORDS),
        back=st.sampled_from([0, 0, 0, 0, 35]),
        run=st.sampled_from(["r1", "r2", None]),
    )
    def put(
        self, who: int, by_saver: bool, stream: Stream, parent: int, change: str, word: str, back: int, run: str | None
    ) -> None:
        known = self.known[stream]
        ids = known.ids()
        parent_id = ids[parent] if parent < len(ids) else (ids[0] if ids else None)
        before = known.checkpoints.get(parent_id or "")
        checkpoint = next_checkpoint(self.new_id(back), before, change, word, run)
        self.put_checkpoint(who, stream, checkpoint, by_saver)

    def put_checkpoint(self, who: int, stream: Stream, checkpoint: Checkpoint, by_saver: bool = False) -> None:
        if by_saver:
            self.act(who, lambda engine: put_by_saver(engine, stream, checkpoint), stream[0])
        else:
            self.act(who, lambda engine: engine.put(*stream, checkpoint), stream[0])
        self.log_checkpoint(stream, checkpoint)

    def log_checkpoint(self, stream: Stream, checkpoint: Checkpoint) -> None:
        self.known[stream].checkpoints[checkpoint.header.id] = checkpoint

    @rule(who=ANY, stream=STREAM, at=st.integers(0, 5), other=st.booleans())
    def put_again(self, who: int, stream: Stream, at: int, other: bool) -> None:
        ids = self.known[stream].ids()
        if at < len(ids):
            again = self.known[stream].checkpoints[ids[at]]
            if other:
                again = replace(again, channels={**again.channels, "again": packed(self.made)})
                self.made += 1
            self.put_checkpoint(who, stream, again)

    @rule(
        who=ANY,
        stream=STREAM,
        at=st.integers(-1, 6),
        task=st.sampled_from(["t1", str(uuid.UUID(int=7))]),
        special=st.booleans(),
        words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
        path=st.sampled_from(["", "~pull, a"]),
        share=st.booleans(),
    )
    def put_writes(
        self, who: int, stream: Stream, at: int, task: str, special: bool, words: list[str], path: str, share: bool
    ) -> None:
        ids = self.known[stream].ids()
        if not ids:
            return
        target = self.new_id(0) if at < 0 else ids[min(at, len(ids) - 1)]
        shared = self.known[stream].checkpoints[ids[0]].channels.values() if share else []
        values = [Value(value.type, bytes(value.data)) for value in shared]
        values += [Value("bytes", noise(word, self.made)) if share else packed([word] * 30) for word in words]
        listed = [
            Write(task, -1 - i if special else i, "list" if i % 2 else "other", value, path)
            for i, value in enumerate(values)
        ]
        self.act(who, lambda engine: engine.put_writes(*stream, target, listed), stream[0])
        self.log_writes(stream, target, listed)
        if at < 0:  # the checkpoint arrives after its writes
            before = self.known[stream].checkpoints[ids[0]]
            self.put_checkpoint(1 - who, stream, next_checkpoint(target, before, "append", words[0], None))

    @rule(who=ANY, stream=STREAM, word=st.sampled_from(WORDS), late=st.booleans())
    def put_together(self, who: int, stream: Stream, word: str, late: bool) -> None:
        """Pending writes of the latest, the checkpoint that follows, and writes for that, by threads of one process."""
        ids = self.known[stream].ids()
        if not ids:
            return
        listed = [Write("t3", 0, "list", packed([word] * 30), ""), Write("t3", 1, "other", packed(self.made), "")]
        checkpoint = next_checkpoint(self.new_id(0), self.known[stream].checkpoints[ids[0]], "append", word, None)
        calls: list[Act] = [
            lambda engine: engine.put_writes(*stream, ids[0], listed),
            lambda engine: engine.put(*stream, checkpoint),
        ]
        if late:
            calls.append(lambda engine: engine.put_writes(*stream, checkpoint.header.id, listed))

        def act(engine: Engine) -> None:
            for result in together(engine, *stream, *calls):
                result.result()

        self.act(who, act, stream[0])
        self.log_writes(stream, ids[0], listed)
        self.log_checkpoint(stream, checkpoint)
        if late:
            self.log_writes(stream, checkpoint.header.id, listed)

    def log_writes(self, stream: Stream, target: str, writes: list[Write]) -> None:
        kept = self.known[stream].writes.setdefault(target, {})
        for write in writes:
            if write.idx < 0:
                kept[write.task_id, write.idx] = write
            else:
                kept.setdefault((write.task_id, write.idx), write)

    # -- upkeep and rewriting ------------------------------------------------------------------------------------------

    @rule(stream=STREAM)
    def compact_at_once(self, stream: Stream) -> None:
        self.act(0, lambda engine: upkeep(engine, *stream, grace=0, idle=True), stream[0])
        self.restart(1)  # no grace is only for stores that nobody else uses

    @rule(who=ANY, stream=STREAM, idle=st.booleans())
    def compact(self, who: int, stream: Stream, idle: bool) -> None:
        self.act(who, lambda engine: upkeep(engine, *stream, idle=idle), stream[0])

    @rule(who=ANY)
    def sweep(self, who: int) -> None:
        self.act(who, sweep)

    @rule(who=ANY, by_saver=st.booleans(), thread=st.sampled_from(["a", "b"]), count=st.integers(1, 4))
    def prune(self, who: int, by_saver: bool, thread: str, count: int) -> None:
        if by_saver:
            self.act(who, lambda engine: FoldpointSaver(engine).prune([thread], keep_last=count), thread)
        else:
            self.act(who, lambda engine: rewrite_thread(engine, thread, KeepLast(count)), thread)
        self.forget(thread, lambda known: known.ids()[:count])

    @rule(who=ANY, thread=st.sampled_from(["a", "b"]))
    def drop_run(self, who: int, thread: str) -> None:
        self.act(who, lambda engine: rewrite_thread(engine, thread, DropRuns({"r1"})), thread)
        self.forget(
            thread, lambda known: [id_ for id_, one in known.checkpoints.items() if one.labels.get("run_id") != "r1"]
        )

    @precondition(lambda self: self.made % 5 == 0)
    @rule(who=ANY)
    def delete(self, who: int) -> None:
        self.act(who, lambda engine: rewrite_thread(engine, "b", DropAll()), "b")
        self.forget("b", lambda known: [])

    @precondition(lambda self: self.made % 3 == 0)
    @rule(who=ANY)
    def copy(self, who: int) -> None:
        self.act(who, lambda engine: copy_thread(engine, "a", "b"), "b")
        for namespace in ("", "child:1"):
            source, target = self.known["a", namespace], self.known.setdefault(("b", namespace), Known())
            target.checkpoints |= source.checkpoints
            for checkpoint_id in source.checkpoints:
                target.writes[checkpoint_id] = dict(source.writes.get(checkpoint_id, {}))

    def forget(self, thread: str, kept: Callable[[Known], list[str]]) -> None:
        for stream in (stream for stream in self.known if stream[0] == thread):
            known = self.known[stream]
            ids = kept(known)
            known.checkpoints = {checkpoint_id: known.checkpoints[checkpoint_id] for checkpoint_id in ids}
            known.writes = {checkpoint_id: known.writes.get(checkpoint_id, {}) for checkpoint_id in ids}

    # -- reading -------------------------------------------------------------------------------------------------------

    @rule(who=ANY, bound=st.integers(0, 6))
    def read_everything(self, who: int, bound: int) -> None:
        for stream in self.known:
            self.attempt(who, lambda engine, stream=stream: self.check_stream(engine, stream, bound))  # type: ignore[misc]
            self.check_stream(self.engine(), stream, bound)

    def check_stream(self, engine: Engine, stream: Stream, bound: int) -> None:
        known, ids = self.known[stream], self.known[stream].ids()
        for checkpoint_id in ids:
            check(engine.find(*stream, checkpoint_id), known, checkpoint_id)
        before = ids[bound] if bound < len(ids) else None
        listed = list(engine.history(*stream, before))
        assert [entry.folded.header.id for entry in listed] == [id_ for id_ in ids if before is None or id_ < before]
        for entry in listed:
            check(entry, known, entry.folded.header.id)

    @rule(stream=STREAM)
    def read_by_saver(self, stream: Stream) -> None:
        known = self.known[stream]
        saver = FoldpointSaver(self.engine())
        for found in saver.list(config(stream)):
            id_ = found.checkpoint["id"]
            expected = known.checkpoints[id_]
            assert found.checkpoint["channel_values"] == values_of(expected)
            assert found.checkpoint["channel_versions"] == expected.header.channel_versions
            assert found.metadata == metadata_of(expected)
            assert found.pending_writes == [
                (write.task_id, write.channel, SERDE.loads_typed(write.value)) for write in known.pending(id_)
            ]

    @invariant()
    def latest_is_right(self) -> None:
        for stream, known in self.known.items():
            self.check_latest(self.engine(), stream, known)

    def check_latest(self, engine: Engine, stream: Stream, known: Known) -> None:
        entry = engine.latest(*stream)
        if known.checkpoints:
            check(entry, known, max(known.checkpoints))
        else:
            assert entry is None

    def teardown(self) -> None:
        for who in (0, 1):
            self.restart(who)
        self.read_everything(0, 99)
        self.verify()
        self.store.close()

    def verify(self) -> None:
        assert [one for one in verify(self.engine()) if one.findings] == []


class SqliteHistories(Histories):
    """The machine on a file."""

    def make_store(self) -> RecordStore:
        self.folder = TemporaryDirectory()
        return SqliteStore(Path(self.folder.name) / "store.db", synchronous="OFF")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


class KeyHistories(Histories):
    """The machine on sealed records, whose key is another now and then."""

    def __init__(self) -> None:
        self.ciphers = [EncryptedSerializer.from_pycryptodome_aes(key=key * 16).cipher for key in (b"1", b"2")]
        super().__init__()

    def engine(self, store: Any = None) -> Engine:
        return Engine(store or self.store, SETTINGS, cipher=Keyring(*self.ciphers), clock=self.clock)

    @rule(who=ANY, thread=st.sampled_from(["a", "b"]))
    def change_key(self, who: int, thread: str) -> None:
        self.ciphers.reverse()
        for one in (0, 1):
            self.restart(one)
        self.act(who, lambda engine: list(reseal_thread(engine, thread)), thread)
