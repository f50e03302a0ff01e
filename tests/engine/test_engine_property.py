"""THE property: every checkpoint that was put reads back equal to what dicts of full states hold, through every path.

A history is drawn from a seed: it runs over several streams with two engines on one store, tiny windows and tiny
records, any kind of header, sealing, cleaning, restarts, pruning, copying and deleting between any two steps. To run
one again: `Story(seed, store).run()`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import stores
from checkpoints import id_of, numbered, numbers, value, write
from counting import NarrowStore
from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from moving import MovingClock
from values import examples, v6

from foldpoint.codecs.envelope import Cipher
from foldpoint.codecs.model import Carried, Checkpoint, Header, Value, Write
from foldpoint.compaction import (
    DropAll,
    DropRuns,
    KeepLast,
    compact,
    copy_thread,
    rewrite_thread,
    upkeep,
)
from foldpoint.engine import keys, snapshot
from foldpoint.engine.engine import Engine
from foldpoint.engine.fold import Entry, merge_writes
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.settings import Settings


@pytest.fixture(autouse=True)
def small_states_are_as_little_held_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "LARGE", 0)


Stream = tuple[str, str]
THREADS = ["a", "\0b|\ud800", ""]
NAMESPACES = ["", "child:1|x"]
GRACE = 600.0
NAMES = ["messages", "files", "__pregel_tasks", "\udfff", "", "branch:to:a"]
SPECIAL = ["__error__", "__scheduled__", "__interrupt__"]
SCALARS = [0, 1, True, False, 1.0, 0.0, -0.0, float("nan"), None, "", "1", 2**62 - 1, 1 - 2**62]


@dataclass
class Known:
    """What a stream should hold. `logged`: the writes of each checkpoint, in order, its own put or not."""

    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    logged: dict[str, list[list[Write]]] = field(default_factory=dict)

    def pending(self, checkpoint_id: str) -> list[Write]:
        kept: dict[tuple[str, int], Write] = {}
        for one in (one for writes in self.logged.get(checkpoint_id, []) for one in writes):
            if one.idx < 0 or (one.task_id, one.idx) not in kept:
                kept[one.task_id, one.idx] = one
        return sorted(kept.values(), key=lambda write: (write.task_path, write.task_id, write.idx))

    def ids(self) -> list[str]:
        return sorted(self.checkpoints, reverse=True)

    def history(self, checkpoint_id: str, channel: str) -> tuple[Value | None, list[Write]]:
        """(seed, writes since) that the ancestors of a checkpoint hold for a channel."""
        at, found = self.checkpoints[checkpoint_id].header.parent, []
        while at in self.checkpoints:
            found = [write for write in self.pending(at) if write.channel == channel] + found
            if channel in self.checkpoints[at].channels:
                return self.checkpoints[at].channels[channel], found
            at = self.checkpoints[at].header.parent
        return None, found


class Story:
    """One history. `steps` in all; everything is read back after every `pause` steps and at the end."""

    def __init__(self, seed: int, store: Callable[[int], RecordStore], steps: int = 80, pause: int = 25) -> None:
        self.random = random.Random(seed)
        self.steps, self.pause = steps, pause
        self.store = store(self.random.choice([300, 300, 700, 1 << 26]))
        self.clock = MovingClock()
        self.settings = Settings(
            window=self.random.choice([2, 3, 4, 8]),
            snapshot_ratio=self.random.choice([0.01, 0.25, 1.0, 4.0, 1000.0]),
            cache_bytes=self.random.choice([0, 1 << 12, 1 << 28]),
            segment_level=1,
            grace=GRACE,
        )
        self.cipher: Cipher | None = None
        if self.random.random() < 0.15:
            self.cipher = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef").cipher
        self.streams = [(thread, namespace) for thread in THREADS[:2] for namespace in NAMESPACES]
        self.known: dict[Stream, Known] = {(thread, name): Known() for thread in THREADS for name in NAMESPACES}
        self.engines = [self.engine() for _ in range(self.random.choice([1, 2]))]
        self.made = 0

    def engine(self) -> Engine:
        return Engine(self.store, self.settings, cipher=self.cipher, clock=self.clock)

    def any_engine(self) -> Engine:
        return self.random.choice(self.engines)

    def run(self) -> None:
        actions = [
            (self.put, 45),
            (self.put_again, 5),
            (self.put_writes, 18),
            (self.writes_first, 4),
            (self.restart, 4),
            (self.seal, 6),
            (self.clean_later, 4),
            (self.clean_now, 3),
            (self.prune, 2),
            (self.copy, 1),
            (self.delete, 1),
        ]
        for step in range(1, self.steps + 1):
            (action,) = self.random.choices([a for a, _ in actions], [weight for _, weight in actions])
            action()
            if step % self.pause == 0 or step == self.steps:
                self.read()
        self.leave_nothing()

    # -- writing -------------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """Mostly ascending, sometimes far back, in several spellings."""
        self.made += 1
        at = self.made * 1000 - self.random.choice([0, 0, 0, 0, 1500, 20_000])
        made = v6(1_700_000_000_000_000 + at, node=self.made)
        return self.random.choice([made] * 8 + [made.upper(), f"{self.made:06}", f"{self.made:03}\ud800"])

    def stream(self) -> tuple[Stream, Known]:
        stream = self.random.choice(self.streams[:1] * 4 + self.streams)
        return stream, self.known[stream]

    def put(self) -> None:
        stream, known = self.stream()
        ids = known.ids()
        parent = self.random.choice([None, *ids[:1] * 12, *ids[:4] * 2, *ids]) if ids else None
        self._put(stream, self.child(known, self.new_id(), parent))

    def put_again(self) -> None:
        stream, known = self.stream()
        if known.checkpoints:
            again = known.checkpoints[self.random.choice([*known.ids()[:3], *known.ids()])]
            if self.random.random() < 0.6:
                again = replace(again, channels=self.edited(again.channels))
            self._put(stream, again)

    def _put(self, stream: Stream, checkpoint: Checkpoint) -> None:
        self.any_engine().put(*stream, checkpoint)
        self.known[stream].checkpoints[checkpoint.header.id] = checkpoint

    def child(self, known: Known, checkpoint_id: str, parent: str | None) -> Checkpoint:
        old = known.checkpoints.get(parent or "") or Checkpoint(Header(""), {})
        channels = self.edited(old.channels)
        versions = {
            name: version for name, version in old.header.channel_versions.items() if self.random.random() < 0.97
        }
        for name in channels:
            if name not in versions or channels[name] != old.channels.get(name):
                versions[name] = self.random.choice(
                    [self.made] * 6 + [f"{self.made:032}.0.5", self.made / 3, -self.made]
                )
        labels = {**old.labels, "step": self.made, "run_id": self.random.choice(["r1", "r2"])}
        labels[self.random.choice("xyz")] = self.random.choice(SCALARS)
        if self.random.random() < 0.1:
            labels.pop("x", None)
            labels = dict(reversed(labels.items()))
        seen = dict(old.header.versions_seen)
        seen[self.random.choice(["agent", "tools", ""])] = dict(
            self.random.sample(sorted(versions.items(), key=str), k=min(2, len(versions)))
        )
        header = Header(
            checkpoint_id,
            parent,
            self.random.choice([1, 2, 4]),
            self.random.choice(["2026-11-21T00:54:25.123456+00:00", "2026-11-21T00:54:25Z", ""]),
            versions,
            seen,
            self.random.choice([None, [], sorted(channels)[:2], ["unknown"]]),
            self.random.choice([None, None, value({"pending_sends": []})]),
        )
        metadata = self.random.choice([old.metadata, None, value({"parents": {"": self.made}})])
        return Checkpoint(header, channels, labels, metadata)

    def edited(self, old: dict[str, Value]) -> dict[str, Value]:
        channels = dict(old)
        for _ in range(self.random.choice([0, 1, 1, 1, 2])):
            name = self.random.choice(["messages"] * 5 + NAMES)
            was = channels[name].data if name in channels else b"\x90"
            kind = self.random.choice(["append"] * 6 + ["edit", "slide", "remove", "type", "empty", "repeat", "noise"])
            if kind == "append":
                channels[name] = Value("msgpack", appended(was, value(f"message {self.made} ").data * 3))
            elif kind == "edit":
                cut = sorted(self.random.randint(0, len(was)) for _ in range(2))
                channels[name] = Value("msgpack", was[: cut[0]] + b"edited" + was[cut[1] :])
            elif kind == "slide":
                channels[name] = Value("msgpack", was[min(20, len(was)) :] + b"new" * 5)
            elif kind == "remove":
                channels.pop(name, None)
            elif kind == "type":
                channels[name] = Value(self.random.choice(["bytes", "", "null", "json"]), was)
            elif kind == "empty":
                channels[name] = Value("null", b"")
            elif kind == "repeat":
                channels[name] = Value("msgpack", b"".join(v.data for v in channels.values())[:9000] * 2)
            else:
                channels[name] = Value("bytes", self.random.randbytes(self.random.choice([10, 500, 5000])))
        return channels

    def put_writes(self) -> None:
        stream, known = self.stream()
        if known.checkpoints:
            self._put_writes(stream, self.random.choice([*known.ids()[:1] * 6, *known.ids()]))

    def writes_first(self) -> None:
        """Writes whose checkpoint comes a little later, or never."""
        stream, known = self.stream()
        waiting = sorted(set(known.logged) - set(known.checkpoints))
        if waiting and self.random.random() < 0.5:
            ids = known.ids()
            self._put(stream, self.child(known, self.random.choice(waiting), ids[0] if ids else None))
        else:
            self._put_writes(stream, self.new_id())

    def _put_writes(self, stream: Stream, target: str) -> None:
        known = self.known[stream]
        task = self.random.choice(["task", v6(5), v6(6)])
        path = self.random.choice(["", "~__pregel_pull, agent"])
        special = self.random.random() < 0.2
        data = [b"", b"write %d" % self.made, self.random.randbytes(700)]
        data += [v.data for c in [known.checkpoints.get(target)] if c for v in c.channels.values()]
        self.made += 1
        listed = []
        for at in range(self.random.randint(1, 3)):
            # As LangGraph does it: what is special has channels of its own.
            idx, channel = (
                (-1 - at, SPECIAL[at]) if special else (at + self.random.choice([0, 0, 3]), self.random.choice(NAMES))
            )
            listed.append(Write(task, idx, channel, Value("msgpack", self.random.choice(data)), path))
        self.any_engine().put_writes(*stream, target, listed)
        known.logged.setdefault(target, []).append(listed)

    # -- upkeep and rewriting ------------------------------------------------------------------------------------------

    def restart(self) -> None:
        self.engines[self.random.randrange(len(self.engines))] = self.engine()

    def seal(self) -> None:
        upkeep(self.any_engine(), *self.random.choice(self.streams))

    def clean_later(self) -> None:
        """Beyond the grace everybody goes on with what he knows."""
        for _ in range(2):
            self.clock.advance(GRACE + 1)
            list(compact(self.any_engine()))

    def clean_now(self) -> None:
        """Without a grace nobody else may go on with what he knows."""
        list(compact(self.engines[0], grace=0))
        self.engines[1:] = [self.engine() for _ in self.engines[1:]]

    def prune(self) -> None:
        thread = self.random.choice(THREADS)
        policy = self.random.choice([KeepLast(self.random.randint(1, 6)), DropRuns({"r1"})])
        histories = {name: self.histories((thread, name)) for name in NAMESPACES}
        stay = rewrite_thread(self.any_engine(), thread, policy)
        for name in NAMESPACES:
            known = self.known[thread, name]
            if isinstance(policy, KeepLast):
                self.keep(known, known.ids()[: policy.count])
            else:
                self.keep(known, [id_ for id_, c in known.checkpoints.items() if c.labels["run_id"] != "r1"])
            after = self.histories((thread, name))
            for id_, checkpoint in known.checkpoints.items():
                # LangGraph asks for channels that have a version.
                for channel in {*checkpoint.header.channel_versions} - {*checkpoint.channels, "__pregel_tasks"}:
                    assert repr(after[id_][channel]) == repr(histories[name][id_][channel])
        assert stay == sum(len(self.known[thread, name].checkpoints) for name in NAMESPACES)

    def keep(self, known: Known, ids: list[str]) -> None:
        """The writes of a checkpoint go with it; those whose checkpoint has not come, stay."""
        known.logged = {id_: w for id_, w in known.logged.items() if id_ in ids or id_ not in known.checkpoints}
        known.checkpoints = {id_: known.checkpoints[id_] for id_ in ids}

    def histories(self, stream: Stream) -> dict[str, dict[str, Carried]]:
        engine, found = self.any_engine(), {}
        for id_ in self.known[stream].checkpoints:
            history = engine.channel_history(*stream, id_, NAMES)
            assert history is not None
            found[id_] = history
        return found

    def copy(self) -> None:
        source, target = self.random.sample(THREADS, 2)
        copy_thread(self.any_engine(), source, target)
        for name in NAMESPACES:
            given, known = self.known[source, name], self.known[target, name]
            if not given.checkpoints and not given.logged:
                continue
            early = {id_: w for id_, w in known.logged.items() if id_ not in known.checkpoints}
            known.checkpoints |= given.checkpoints
            known.logged |= {id_: list(given.logged.get(id_, [])) for id_ in given.checkpoints}
            for id_, logged in early.items():
                known.logged[id_] = given.logged.get(id_, []) + logged if id_ in given.checkpoints else logged
            for id_ in {*given.logged} - {*given.checkpoints}:
                known.logged[id_] = known.logged.get(id_, []) + given.logged[id_]
        self.streams = sorted({*self.streams, *((target, name) for name in NAMESPACES)})

    def delete(self) -> None:
        thread = self.random.choice(THREADS)
        rewrite_thread(self.any_engine(), thread, DropAll())
        for name in NAMESPACES:
            self.known[thread, name] = Known()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        for engine in (self.any_engine(), self.engine()):
            for stream, known in self.known.items():
                self.read_stream(engine, stream, known)

    def read_stream(self, engine: Engine, stream: Stream, known: Known) -> None:
        ids = known.ids()
        latest = engine.latest(*stream)
        if ids:
            assert_equal(latest, known, ids[0])
        else:
            assert latest is None
        for id_ in ids if len(ids) < 12 else [*ids[:2], *self.random.sample(ids, 10)]:
            assert_equal(engine.find(*stream, id_), known, id_)
        for id_ in ("", "zzz", v6(1)):
            assert (engine.find(*stream, id_) is None) == (id_ not in known.checkpoints)
        for before in [None, self.random.choice([*ids, "", "1f0", "zzz"])]:
            expected = [id_ for id_ in ids if before is None or id_ < before]
            listed = list(engine.history(*stream, before))
            assert [entry.folded.header.id for entry in listed] == expected
            for entry in listed:
                assert_equal(entry, known, entry.folded.header.id)

    def leave_nothing(self) -> None:
        """Once all is deleted and the grace is over, the store holds no record of any thread."""
        for thread in THREADS:
            rewrite_thread(self.engines[0], thread, DropAll())
        for _ in range(2):
            self.clock.advance(GRACE + 1)
            list(compact(self.engines[0]))
        # Two writers that race for a number may leave parts that nobody names; the sweep takes them.
        left = {key[keys.EPOCH_BYTES : keys.EPOCH_BYTES + 1] for key in list(self.store.keys())}
        assert left <= ({b"b"} if len(self.engines) > 1 else set())


def appended(old: bytes, item: bytes) -> bytes:
    """A msgpack list with one more entry, whatever the bytes were."""
    if old and 0x90 <= old[0] < 0x9F:
        return bytes([old[0] + 1]) + old[1:] + item
    if old[:1] == b"\x9f":
        return b"\xdc\x00\x10" + old[1:] + item
    if old[:1] == b"\xdc" and len(old) >= 3:
        return b"\xdc" + (int.from_bytes(old[1:3], "big") + 1).to_bytes(2, "big") + old[3:] + item
    return old + item


def assert_equal(entry: Entry | None, known: Known, checkpoint_id: str) -> None:
    expected = known.checkpoints[checkpoint_id]
    assert entry is not None
    # repr tells 1 from True and 1.0, and one order from another.
    assert repr(entry.folded.header) == repr(expected.header)
    assert repr(entry.folded.labels) == repr(expected.labels)
    assert repr(entry.folded.metadata) == repr(expected.metadata)
    assert entry.state() == expected.channels
    assert entry.names() == set(expected.channels)
    for name in NAMES:
        assert entry.value(name) == expected.channels.get(name)
    assert repr(entry.writes()) == repr(known.pending(checkpoint_id))
    assert merge_writes(entry.logged_writes()) == known.pending(checkpoint_id)


def in_memory(max_record: int) -> RecordStore:
    return MemoryStore(max_record=max_record)


seeds = st.integers(0, 2**64 - 1)


@given(seeds)
@example(0)  # the epoch that a writer knew was left, and cleaned by that writer's own upkeep
@examples(0.4)
def test_every_checkpoint_reads_back_in_memory(seed: int) -> None:
    Story(seed, in_memory).run()


@given(seeds)
@examples(0.06)
def test_every_checkpoint_reads_back_from_a_file(seed: int) -> None:
    with TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "store.db", synchronous="OFF")
        try:
            Story(seed, lambda _: store, steps=60, pause=30).run()
        finally:
            store.close()


@given(seeds)
@examples(0.05)
def test_every_checkpoint_reads_back_from_aerospike(seed: int) -> None:
    harness = stores.aerospike(Path())
    try:
        Story(seed, lambda max_record: NarrowStore(harness.open(), max_record), steps=60, pause=30).run()
    finally:
        harness.close()


@given(seeds)
@examples(0.05)
def test_every_checkpoint_of_a_long_history_reads_back(seed: int) -> None:
    Story(seed, in_memory, steps=250, pause=125).run()


# -- that the histories above reach what they are for ------------------------------------------------------------------


def counted(store: RecordStore) -> dict[str, int]:
    """How many log records of each kind there are, by the letter in their keys."""
    found: dict[str, int] = {}
    for key in list(store.keys()):
        letter = chr(key[keys.EPOCH_BYTES])
        found[letter] = found.get(letter, 0) + 1
    return found


@pytest.mark.parametrize("max_record", [300, 1 << 26])
def test_a_long_line_passes_through_many_snapshots_and_kept_ones(max_record: int) -> None:
    store, clock = MemoryStore(max_record=max_record), MovingClock()
    engine = Engine(store, Settings(window=4, snapshot_ratio=1.0), clock=clock)
    put, seen, kept = [], set(), set()
    for n in range(400):
        # A list that stays short, so that the log outweighs its snapshots again and again.
        put.append(numbered(n % 7, noise=random.Random(n // 50).randbytes(300)))
        header = Header(id_of(n), id_of(n - 1) if n else None)
        engine.put("t", "", replace(put[n], header=header, labels={"step": n}))
        head = next(engine.heads("t"))
        seen.add(head.snapshot)
        kept.add(head.kept)
    assert len(seen) > 20
    assert len(kept - {None}) >= 3
    assert head.segments >= 99
    parts = [key for key in list(store.keys()) if key[keys.EPOCH_BYTES] in b"pk" and key[-2:] != b"\0\0"]
    assert bool(parts) == (max_record == 300)
    for _ in range(2):
        clock.advance(GRACE + 1)
        upkeep(engine, "t", "")
    assert counted(store).get("e", 0) == 0
    for reader in (engine, Engine(store, clock=clock)):
        listed = list(reader.history("t", ""))
        assert [entry.folded.labels["step"] for entry in listed] == list(range(399, -1, -1))
        assert [entry.state() for entry in reversed(listed)] == [checkpoint.channels for checkpoint in put]
        for n in (0, 3, 200, 399):
            found = reader.find("t", "", id_of(n))
            assert found is not None
            assert found.state() == put[n].channels


def test_many_segments_without_a_snapshot_bring_one_about() -> None:
    store = MemoryStore()
    engine = Engine(store, Settings(window=2, snapshot_ratio=1000))
    engine.put("t", "", numbered(0, big="x" * 3000))
    snapshots = set()
    for n in range(1, 120):
        engine.put("t", "", numbered(n, big="x" * 3000))
        head = next(engine.heads("t"))
        snapshots.add(head.snapshot)
        assert head.segments - (head.snapshot.segments if head.snapshot else 0) <= 17
    assert 3 <= len(snapshots - {None}) <= 6
    assert numbers(Engine(store)) == list(range(119, -1, -1))


def test_stories_reach_parts_kept_snapshots_and_left_epochs() -> None:
    reached: dict[str, int] = {}
    for seed in range(8):
        story = Story(seed, in_memory)
        story.read = story.leave_nothing = lambda: None  # type: ignore[method-assign]
        story.run()
        for head in Engine(story.store).all_heads():
            reached["dead"] = reached.get("dead", 0) + len(head.dead)
            reached["snapshots"] = reached.get("snapshots", 0) + head.snapshots
            reached["kept"] = reached.get("kept", 0) + (head.kept is not None)
            reached["cleaned"] = reached.get("cleaned", 0) + (head.cleaned.sealed > 0)
        for letter, count in counted(story.store).items():
            reached[letter] = reached.get(letter, 0) + count
    wanted = {"e", "s", "i", "p", "b", "k", "dead", "snapshots", "kept", "cleaned"}
    assert {what for what, count in reached.items() if count > 0} == wanted


def test_deleting_a_thread_leaves_no_record_of_it_once_the_grace_is_over() -> None:
    store, clock = MemoryStore(max_record=300), MovingClock()
    engine = Engine(store, Settings(window=4), clock=clock)
    for n in range(60):
        engine.put("t", "", numbered(n))
        engine.put_writes("t", "", id_of(n), [write(n)])
    rewrite_thread(engine, "t", DropAll())
    assert engine.latest("t", "") is None
    assert engine.namespaces("t") == []
    list(compact(engine))
    assert list(store.keys()), "nothing goes before the grace is over"
    clock.advance(GRACE + 1)
    list(compact(engine))
    assert list(store.keys()) == []
    engine.put("t", "", numbered(0))
    assert numbers(Engine(store, clock=clock)) == [0]


@pytest.mark.parametrize("tasks", [[], ["task", "other"]])
def test_writes_of_no_task_or_of_several_are_refused(tasks: list[str]) -> None:
    engine = Engine(MemoryStore())
    engine.put("t", "", numbered(0))
    with pytest.raises(ValueError, match=f"checkpoint {id_of(0)}: expected writes of one task"):
        engine.put_writes("t", "", id_of(0), [write(0, task) for task in tasks])
