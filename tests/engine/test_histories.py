"""Whatever happened to a stream, every checkpoint that was put reads back equal to what a dict of full states holds."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgpack
import pytest
import stores
from counting import NarrowStore
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foldpoint.codecs.model import Checkpoint, Header, Value, Write
from foldpoint.compaction import DropAll, DropRuns, KeepLast, copy_thread, merge, rewrite_thread, upkeep
from foldpoint.compaction.verify import verify
from foldpoint.engine.engine import Engine
from foldpoint.engine.fold import Entry
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.settings import Settings

Stream = tuple[str, str]
STREAMS: list[Stream] = [("a", ""), ("a", "child:1"), ("b", ""), ("\ud800 \x00/|", "ns|\u2028")]
WORDS = ["", "alpha", "beta " * 9, "gamma", "\u00e9" * 40, "x" * 300]


def packed(value: object) -> Value:
    return Value("msgpack", msgpack.packb(value))


@dataclass
class Known:
    """What a stream should hold."""

    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    writes: dict[str, dict[tuple[str, int], Write]] = field(default_factory=dict)

    def pending(self, checkpoint_id: str) -> list[Write]:
        found = self.writes.get(checkpoint_id, {}).values()
        return sorted(found, key=lambda write: (write.task_path, write.task_id, write.idx))


@pytest.fixture(autouse=True)
def merge_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short histories reach every level."""
    monkeypatch.setattr(merge, "FANOUT", 2)
    monkeypatch.setattr(merge, "WORTHWHILE", 0)
    monkeypatch.setattr(merge, "MAX_EVENTS", 12)


class Histories(RuleBasedStateMachine):
    """Two engines, as two processes would have, on one store with tiny windows and, on memory, tiny records."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.known: dict[Stream, Known] = {stream: Known() for stream in STREAMS}
        self.clock = 0
        self.engines = [self.engine(), self.engine()]

    def make_store(self) -> RecordStore:
        return MemoryStore(max_record=300)

    def engine(self) -> Engine:
        return Engine(self.store, Settings(window=4, segment_level=1, snapshot_ratio=1.0))

    def new_id(self, back: int) -> str:
        self.clock += 1
        moment = max(1, self.clock * 10 - back)
        return str(uuid.UUID(int=(0x1EF << 116) + (moment << 40) + self.clock))

    # -- writing -------------------------------------------------------------------------------------------------------

    @rule(
        who=st.sampled_from([0, 1]),
        stream=st.sampled_from(STREAMS),
        parent=st.integers(0, 5),
        change=st.sampled_from(["append", "edit", "slide", "remove", "nothing", "type", "big"]),
        word=st.sampled_from(WORDS),
        back=st.sampled_from([0, 0, 0, 0, 35]),
        run=st.sampled_from(["r1", "r2", None]),
    )
    def put(self, who: int, stream: Stream, parent: int, change: str, word: str, back: int, run: str | None) -> None:
        known = self.known[stream]
        ids = sorted(known.checkpoints, reverse=True)
        parent_id = ids[parent] if parent < len(ids) else (ids[0] if ids else None)
        before = known.checkpoints.get(parent_id or "")
        checkpoint = self.next_checkpoint(self.new_id(back), before, change, word, run)
        self.put_checkpoint(who, stream, checkpoint)

    def next_checkpoint(
        self, checkpoint_id: str, before: Checkpoint | None, change: str, word: str, run: str | None
    ) -> Checkpoint:
        channels = dict(before.channels) if before else {}
        versions = dict(before.header.channel_versions) if before else {}
        items = msgpack.unpackb(channels["list"].data) if "list" in channels else []
        step = len(versions) and max(version for version in versions.values() if isinstance(version, int))
        if change == "append":
            channels["list"] = packed([*items, [word, step]])
        elif change == "edit":
            channels["list"] = packed([*items[: len(items) // 2], [word, "edited"], *items[len(items) // 2 + 1 :]])
        elif change == "slide":
            channels["list"] = packed([*items[2:], [word, step]])
        elif change == "remove":
            channels.pop("list", None)
        elif change == "type":
            channels["raw"] = Value("bytes", word.encode())
        elif change == "big":
            channels["big"] = packed([items, [word] * 40, items])
        versions |= {"list": step + 1, "raw": step + 1 if change == "type" else versions.get("raw", 0)}
        return Checkpoint(
            Header(
                checkpoint_id,
                before.header.id if before else None,
                2,
                "2026-01-01T00:00:00.000001+00:00",
                versions,
                {"node": {"list": step}} if change != "nothing" else {},
                ["list"] if change == "append" else None,
            ),
            channels,
            {"step": step, "source": "loop", "flag": bool(step % 2), **({"run_id": run} if run else {})},
            packed({"parents": word}) if change == "edit" else None,
        )

    def put_checkpoint(self, who: int, stream: Stream, checkpoint: Checkpoint) -> None:
        self.engines[who].put(*stream, checkpoint)
        self.known[stream].checkpoints[checkpoint.header.id] = checkpoint

    @rule(who=st.sampled_from([0, 1]), stream=st.sampled_from(STREAMS), at=st.integers(0, 5), other=st.booleans())
    def put_again(self, who: int, stream: Stream, at: int, other: bool) -> None:
        ids = sorted(self.known[stream].checkpoints, reverse=True)
        if at < len(ids):
            again = self.known[stream].checkpoints[ids[at]]
            if other:
                again = replace(again, channels={**again.channels, "again": packed(self.clock)})
                self.clock += 1
            self.put_checkpoint(who, stream, again)

    @rule(
        who=st.sampled_from([0, 1]),
        stream=st.sampled_from(STREAMS),
        at=st.integers(-1, 6),
        task=st.sampled_from(["t1", str(uuid.UUID(int=7))]),
        special=st.booleans(),
        words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
        path=st.sampled_from(["", "~pull, a"]),
    )
    def put_writes(
        self, who: int, stream: Stream, at: int, task: str, special: bool, words: list[str], path: str
    ) -> None:
        ids = sorted(self.known[stream].checkpoints, reverse=True)
        if not ids:
            return
        target = self.new_id(0) if at < 0 else ids[min(at, len(ids) - 1)]
        listed = [
            Write(task, -1 - i if special else i, "list" if i % 2 else "other", packed([word] * 30), path)
            for i, word in enumerate(words)
        ]
        self.engines[who].put_writes(*stream, target, listed)
        self.log_writes(stream, target, listed)
        if at < 0:  # the checkpoint arrives after its writes
            before = self.known[stream].checkpoints[ids[0]]
            self.put_checkpoint(1 - who, stream, self.next_checkpoint(target, before, "append", words[0], None))

    def log_writes(self, stream: Stream, target: str, writes: list[Write]) -> None:
        kept = self.known[stream].writes.setdefault(target, {})
        for write in writes:
            if write.idx < 0:
                kept[write.task_id, write.idx] = write
            else:
                kept.setdefault((write.task_id, write.idx), write)

    # -- upkeep and rewriting ------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from([0, 1]))
    def restart(self, who: int) -> None:
        self.engines[who] = self.engine()

    @rule(stream=st.sampled_from(STREAMS))
    def compact(self, stream: Stream) -> None:
        upkeep(self.engines[0], *stream, grace=0, idle=True)
        self.engines[1] = self.engine()  # no grace is only for stores that nobody else uses

    @rule(who=st.sampled_from([0, 1]), stream=st.sampled_from(STREAMS))
    def seal(self, who: int, stream: Stream) -> None:
        upkeep(self.engines[who], *stream)

    @rule(who=st.sampled_from([0, 1]), thread=st.sampled_from(["a", "b"]), count=st.integers(1, 4))
    def prune(self, who: int, thread: str, count: int) -> None:
        rewrite_thread(self.engines[who], thread, KeepLast(count))
        self.forget(thread, lambda ids: sorted(ids, reverse=True)[:count])

    @rule(who=st.sampled_from([0, 1]), thread=st.sampled_from(["a", "b"]))
    def drop_run(self, who: int, thread: str) -> None:
        rewrite_thread(self.engines[who], thread, DropRuns({"r1"}))
        for stream in list(self.known):
            if stream[0] == thread:
                held = self.known[stream].checkpoints
                self.keep(stream, [id_ for id_ in held if held[id_].labels.get("run_id") != "r1"])

    @precondition(lambda self: self.clock % 5 == 0)
    @rule(who=st.sampled_from([0, 1]))
    def delete(self, who: int) -> None:
        rewrite_thread(self.engines[who], "b", DropAll())
        self.forget("b", lambda ids: [])

    @precondition(lambda self: self.clock % 3 == 0)
    @rule(who=st.sampled_from([0, 1]))
    def copy(self, who: int) -> None:
        copy_thread(self.engines[who], "a", "b")
        if ("b", "child:1") not in self.known:
            self.known["b", "child:1"] = Known()
        for source, target in (
            (self.known["a", ""], self.known["b", ""]),
            (self.known["a", "child:1"], self.known["b", "child:1"]),
        ):
            target.checkpoints |= source.checkpoints
            for checkpoint_id in source.checkpoints:
                target.writes[checkpoint_id] = dict(source.writes.get(checkpoint_id, {}))

    def forget(self, thread: str, kept: Callable[[list[str]], list[str]]) -> None:
        for stream in list(self.known):
            if stream[0] == thread:
                self.keep(stream, kept(list(self.known[stream].checkpoints)))

    def keep(self, stream: Stream, ids: list[str]) -> None:
        known = self.known[stream]
        known.checkpoints = {checkpoint_id: known.checkpoints[checkpoint_id] for checkpoint_id in ids}
        known.writes = {checkpoint_id: known.writes.get(checkpoint_id, {}) for checkpoint_id in ids}

    # -- reading -------------------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from([0, 1]), bound=st.integers(0, 6))
    def read_everything(self, who: int, bound: int) -> None:
        for engine in (self.engines[who], self.engine()):
            for stream, known in self.known.items():
                ids = sorted(known.checkpoints, reverse=True)
                for checkpoint_id in ids:
                    check(engine.find(*stream, checkpoint_id), known, checkpoint_id)
                before = ids[bound] if bound < len(ids) else None
                listed = list(engine.history(*stream, before))
                expected = [id_ for id_ in ids if before is None or id_ < before]
                assert [entry.folded.header.id for entry in listed] == expected
                for entry in listed:
                    check(entry, known, entry.folded.header.id)

    @invariant()
    def latest_is_right(self) -> None:
        for stream, known in self.known.items():
            entry = self.engines[0].latest(*stream)
            if not known.checkpoints:
                assert entry is None
            else:
                check(entry, known, max(known.checkpoints))

    def teardown(self) -> None:
        self.read_everything(0, 99)
        assert [one for one in verify(self.engine()) if one.findings] == []
        self.store.close()


def check(entry: Entry | None, known: Known, checkpoint_id: str) -> None:
    checkpoint = known.checkpoints[checkpoint_id]
    assert entry is not None
    assert repr(entry.folded.header) == repr(checkpoint.header)  # repr tells 1 from True and 1.0
    assert repr(entry.folded.labels) == repr(checkpoint.labels)
    assert entry.folded.metadata == checkpoint.metadata
    assert entry.state() == checkpoint.channels
    assert entry.writes() == known.pending(checkpoint_id)


class SqliteHistories(Histories):
    def make_store(self) -> RecordStore:
        self.folder = tempfile.TemporaryDirectory()
        return SqliteStore(Path(self.folder.name) / "store.db", synchronous="OFF")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


class AerospikeHistories(Histories):
    def make_store(self) -> RecordStore:
        self.harness = stores.aerospike(Path())
        return NarrowStore(self.harness.open(), 300)

    def teardown(self) -> None:
        super().teardown()
        self.harness.close()


TestMemory = Histories.TestCase
TestSqlite = SqliteHistories.TestCase
TestSqlite.settings = settings(max_examples=max(5, settings.default.max_examples // 8))
TestAerospike = AerospikeHistories.TestCase
TestAerospike.settings = settings(max_examples=max(5, settings.default.max_examples // 20))
