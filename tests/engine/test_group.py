"""Appends to one stream that wait for each other are stored by one write, and are what they would be alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import id_of, numbered, numbers, value, write
from counting import CountingStore
from moving import Interrupted, MovingClock

from foldpoint import Engine, Settings
from foldpoint.compaction import DropAll, rewrite_thread, upkeep
from foldpoint.compaction.verify import verify
from foldpoint.engine import appending, group, keys
from foldpoint.engine import engine as engines
from foldpoint.engine.fold import Slice
from foldpoint.engine.group import Append, Group
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import Capabilities, RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import StoreFull
from torture.together import together

SETTINGS = Settings(window=8, compaction="off", snapshot_ratio=0.1)
GRACEFUL = SETTINGS.model_copy(update={"grace": 100.0})
Call = Callable[[Engine], object]


def put(n: int, **channels: object) -> Call:
    return lambda engine: engine.put("t", "", numbered(n, **channels))


def put_write(n: int, task: str = "task") -> Call:
    return lambda engine: engine.put_writes("t", "", id_of(n), [write(n, task)])


def at_once(engine: Engine, *calls: Call) -> None:
    """All are made, by threads that wait for each other, and succeed."""
    for result in together(engine, "t", "", *calls):
        result.result()


def tasks_of(engine: Engine, n: int) -> list[str]:
    entry = engine.find("t", "", id_of(n))
    assert entry is not None
    return [one.task_id for one in entry.writes()]


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def engine(store: CountingStore) -> Engine:
    """With a thread of one checkpoint."""
    engine = Engine(store, SETTINGS)
    engine.put("t", "", numbered(0))
    store.reset()
    return engine


def fresh(store: RecordStore) -> Engine:
    return Engine(store, SETTINGS)


def test_pending_writes_and_the_checkpoint_that_follows_take_one_round_trip(
    store: CountingStore, engine: Engine
) -> None:
    at_once(engine, put_write(0), put_write(0, "other"), put(1), put_write(1))
    assert store.calls == {"create_all": 1}
    for looking in (engine, fresh(store)):
        assert numbers(looking) == [1, 0]
        assert tasks_of(looking, 0) == ["other", "task"]
        assert tasks_of(looking, 1) == ["task"]
    assert engine.metrics.as_dict()["puts"] == 5


def test_a_file_is_asked_to_be_synced_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    engine = fresh(store)
    engine.put("t", "", numbered(0))
    statements: list[str] = []
    with store._file._connection(store._file._writer) as db:
        db.set_trace_callback(statements.append)
    at_once(engine, put_write(0), put(1))
    assert len(statements) == 1
    statements.clear()
    at_once(engine, put_write(1), put(2, big="\u00e9" + "".join(map(chr, range(1000)))))
    assert statements.count("COMMIT") == 1
    assert numbers(fresh(store)) == [2, 1, 0]
    store.close()


def test_they_are_logged_byte_by_byte_as_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what builds upon what was appended right before: a value out of the pending write that brought it."""
    monkeypatch.setattr(keys, "new_epoch", lambda: bytes(16))
    shared = "a value that a task wrote, and the next checkpoint holds " * 4
    told = write(0)._replace(value=value(shared))

    def writes(engine: Engine) -> object:
        return engine.put_writes("t", "", id_of(0), [told])

    records = []
    for grouped in (False, True):
        store = MemoryStore()
        engine = fresh(store)
        engine.put("t", "", numbered(0))
        calls = (writes, put(1, shared=shared), put_write(1), put_write(1, "other"))
        if grouped:
            at_once(engine, *calls)
        else:
            for call in calls:
                call(engine)
        records.append({key: entry[0] for key, entry in store._log.items()})
    assert records[0] == records[1]
    assert len(records[0]) == 5


def test_what_the_window_has_no_room_for_is_appended_after_a_seal(store: CountingStore, engine: Engine) -> None:
    for n in range(1, 6):
        engine.put("t", "", numbered(n))
    at_once(engine, put_write(5), put(6), put_write(6), put(7), put_write(7))
    assert numbers(fresh(store)) == [*range(7, -1, -1)]
    assert [tasks_of(fresh(store), n) for n in (5, 6, 7)] == [["task"]] * 3
    assert store.calls["create_all"] >= 1
    at_once(engine, *(put_write(7, f"task {n}") for n in range(20)))
    assert len(tasks_of(fresh(store), 7)) == 21


def test_where_another_process_took_a_number_each_is_appended_by_itself(store: CountingStore, engine: Engine) -> None:
    fresh(store).put("t", "", numbered(1))
    at_once(engine, put_write(0), put(2), put_write(2))
    assert store.calls["create_all"] > 0
    for looking in (engine, fresh(store)):
        assert numbers(looking) == [2, 1, 0]
        assert (tasks_of(looking, 0), tasks_of(looking, 2)) == (["task"], ["task"])
    assert verify_finds_nothing(store)


def test_the_thread_was_deleted_meanwhile(store: CountingStore, engine: Engine) -> None:
    rewrite_thread(fresh(store), "t", DropAll())
    at_once(engine, put(1), put_write(1))
    assert numbers(fresh(store)) == [1]
    assert tasks_of(fresh(store), 1) == ["task"]


def test_one_that_cannot_be_stored_takes_no_other_with_it(
    store: CountingStore, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "MAX_EVENT", 5000)
    results = together(engine, "t", "", put_write(0), put(1, big="x" * 6000), put_write(0, "other"))
    assert isinstance(results[1].exception(), ValueError)
    assert [results[0].exception(), results[2].exception()] == [None, None]
    for looking in (engine, fresh(store)):
        assert numbers(looking) == [0]
        assert tasks_of(looking, 0) == ["other", "task"]


def test_one_that_fails_in_a_way_of_its_own_takes_no_other_with_it(engine: Engine, store: CountingStore) -> None:
    """Whatever it is that fails, only its caller hears of it."""
    bad = replace(numbered(1), labels={"step": object()})  # type: ignore[dict-item]
    results = together(engine, "t", "", put_write(0), lambda engine: engine.put("t", "", bad), put_write(0, "other"))
    assert isinstance(results[1].exception(), TypeError)
    assert [results[0].exception(), results[2].exception()] == [None, None]
    assert tasks_of(fresh(store), 0) == ["other", "task"]


def test_a_reader_does_not_see_what_was_not_stored(engine: Engine) -> None:
    seam = Interrupted(engine.store)
    failing = fresh(seam)  # type: ignore[arg-type]
    entry = failing.latest("t", "")
    assert entry is not None

    def full() -> None:
        seam.before["create"] = full
        raise StoreFull("no room")

    seam.before["create_all"] = full
    for result in together(failing, "t", "", put_write(0), put_write(0, "other")):
        assert isinstance(result.exception(), StoreFull)
    assert entry.writes() == []


@pytest.mark.parametrize("where", ["enter", "leave"])
def test_what_was_interrupted_is_not_stored_by_a_later_call(
    store: CountingStore, engine: Engine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real = getattr(Group, where)

    def interrupted(self: Group, one: Append) -> None:
        if where == "enter":
            real(self, one)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Group, where, interrupted)
        if where == "leave":
            patch.setattr(engines, "append", lambda log, one: 1 / 0)
        with pytest.raises(KeyboardInterrupt):
            put(1, note="interrupted")(engine)
    fresh(store).put_writes("t", "", id_of(0), [write(0)])
    put(1, note="acknowledged")(engine)
    put_write(1)(engine)
    at_once(engine, put_write(1, "other"), put(2))
    for looking in (engine, fresh(store)):
        entry = looking.find("t", "", id_of(1))
        assert entry is not None
        assert entry.value("note") == value("acknowledged")
    assert len(engine._logs["t", ""].group._under_way) == 0


def test_where_the_write_fails_nothing_is_there_and_nothing_is_taken_for_it(engine: Engine) -> None:
    seam = Interrupted(engine.store)
    failing = fresh(seam)  # type: ignore[arg-type]
    failing.latest("t", "")

    def full() -> None:
        seam.before["create"] = full
        raise StoreFull("no room")

    seam.before["create_all"] = full
    results = together(failing, "t", "", put_write(0), put(1), put_write(0, "other"))
    assert [type(result.exception()) for result in results] == [StoreFull] * 3
    for looking in (failing, fresh(engine.store)):
        assert numbers(looking) == [0]
        assert tasks_of(looking, 0) == []
    seam.before.clear()
    at_once(failing, put_write(0), put(1))
    assert numbers(fresh(engine.store)) == [1, 0]


@pytest.mark.parametrize("applied", [False, True])
def test_a_thread_that_is_interrupted_takes_no_other_with_it(engine: Engine, applied: bool) -> None:
    """Where the write is stored all the same, the others store what they have again, with no other effect."""
    seam = Interrupted(engine.store)
    writing = fresh(seam)  # type: ignore[arg-type]
    writing.latest("t", "")

    def interrupt() -> None:
        raise KeyboardInterrupt

    (seam.after if applied else seam.before)["create_all"] = interrupt
    results = together(writing, "t", "", put_write(0), put(1), put_write(0, "other"))
    failed = [isinstance(result.exception(), KeyboardInterrupt) for result in results]
    assert failed.count(True) == 1
    there = [applied or not one for one in failed]
    for looking in (writing, fresh(engine.store)):
        assert numbers(looking) == ([1, 0] if there[1] else [0])
        assert tasks_of(looking, 0) == [task for task, one in (("other", there[2]), ("task", there[0])) if one]


@pytest.mark.parametrize("seal", [False, True])
def test_a_writer_held_up_for_longer_than_it_may_trust_what_it_knows_looks_again(seal: bool) -> None:
    store, clock = MemoryStore(), MovingClock()
    seam = Interrupted(store)
    engine = Engine(seam, GRACEFUL, clock=clock)  # type: ignore[arg-type]
    engine.put("t", "", numbered(0))

    def held_up() -> None:
        clock.advance(11)
        if seal:
            upkeep(Engine(store, GRACEFUL, clock=clock), "t", "", idle=True)

    seam.after["create_all"] = held_up
    at_once(engine, put_write(0), put(1), put_write(1))
    for looking in (engine, Engine(store, GRACEFUL, clock=clock)):
        assert numbers(looking) == [1, 0]
        assert (tasks_of(looking, 0), tasks_of(looking, 1)) == (["task"], ["task"])


def test_what_was_sealed_before_it_arrived_is_appended_again() -> None:
    """A sealer has filled their numbers, and the window is another: nothing of them is in the log."""
    store, clock = MemoryStore(), MovingClock()
    seam = Interrupted(store)
    engine = Engine(seam, GRACEFUL, clock=clock)  # type: ignore[arg-type]
    engine.put("t", "", numbered(0))

    def others() -> None:
        other = Engine(store, GRACEFUL, clock=clock)
        for n in range(1, 12):
            other.put("t", "", numbered(n))
        for _ in range(3):
            clock.advance(102)
            upkeep(other, "t", "", idle=True)
        assert store.get_many([keys.event(next(other.heads("t")).epoch, 2)]) == [None]

    seam.before["create_all"] = others
    at_once(engine, put_write(0, "late"), put(12))
    for looking in (engine, Engine(store, GRACEFUL, clock=clock)):
        assert numbers(looking) == [*range(12, -1, -1)]
        assert tasks_of(looking, 0) == ["late"]


class Nodes(MemoryStore):
    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, ordered=False)


def test_a_store_of_several_nodes_is_never_asked_for_all_or_none() -> None:
    store = CountingStore(Nodes())
    engine = fresh(store)
    engine.put("t", "", numbered(0))
    at_once(engine, put_write(0), put(1), put_write(1))
    assert store.calls["create_all"] == 0
    assert numbers(fresh(store)) == [1, 0]


def test_records_in_parts_are_stored_by_themselves() -> None:
    store = CountingStore(MemoryStore(max_record=600))
    engine = fresh(store)
    engine.put("t", "", numbered(0))
    at_once(engine, put_write(0), put(1, big="".join(map(chr, range(500, 3000)))))
    assert store.calls["create_all"] == 0
    assert numbers(fresh(store)) == [1, 0]
    assert tasks_of(fresh(store), 0) == ["task"]


def test_many_threads_append_to_one_stream_and_all_is_there(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", synchronous="OFF")
    engines = [fresh(store), fresh(store)]
    engines[0].put("t", "", numbered(0))

    def work(n: int) -> None:
        for m in range(20):
            engines[n % 2].put_writes("t", "", id_of(0), [write(m, f"{n}.{m}")])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for one in threads:
        one.start()
    for n in range(1, 40):
        engines[n % 2].put("t", "", numbered(n))
    for one in threads:
        one.join()
    assert numbers(fresh(store)) == [*range(39, -1, -1)]
    assert sorted(tasks_of(fresh(store), 0)) == sorted(f"{n}.{m}" for n in range(16) for m in range(20))
    assert verify_finds_nothing(store)
    store.close()


def verify_finds_nothing(store: RecordStore) -> bool:
    return not [one for one in verify(fresh(store)) if one.findings]


class TestWaiting:
    """Pending writes wait a moment for the checkpoint that follows, if the last ones would have met it."""

    def append(self, *, patient: bool) -> Append:
        def encode(seq: int, slice_: Slice) -> bytes:
            raise NotImplementedError

        return Append(encode, lambda slice_, event: None, existing=True, ttl=None, patient=patient)

    @pytest.fixture
    def waits(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """How long is waited for another: a list of the times, each in vain."""
        waits: list[float] = []
        monkeypatch.setattr(Append, "wait", lambda self, seconds: waits.append(seconds) or False)
        return waits

    def test_not_at_first(self, waits: list[float]) -> None:
        group_, one = Group(), self.append(patient=True)
        group_.enter(one)
        group_.wait(one)
        assert waits == []

    def test_only_after_a_checkpoint_met_some_and_until_none_comes(self, waits: list[float]) -> None:
        group_, writes, checkpoint = Group(), self.append(patient=True), self.append(patient=False)
        group_.enter(writes)
        group_.enter(checkpoint)
        group_.wait(checkpoint)
        assert waits == []
        group_.leave(writes)
        group_.leave(checkpoint)
        group_.enter(writes)
        group_.wait(writes)
        assert waits == [group.PATIENCE]
        group_.leave(writes)
        group_.enter(writes)
        group_.wait(writes)
        assert len(waits) == 1

    def test_writes_of_other_tasks_are_no_reason(self, waits: list[float]) -> None:
        group_, writes = Group(), [self.append(patient=True) for _ in range(3)]
        for one in writes:
            group_.enter(one)
            group_.wait(one)
        assert waits == []

    def test_whoever_waits_goes_on_once_another_has_appended_it(self, engine: Engine, store: CountingStore) -> None:
        with engine.log("t", "") as log_:
            log_.group._pays = True
        waiting = threading.Event()
        real = Append.wait

        def wait(self: Append, seconds: float) -> bool:
            waiting.set()
            return real(self, 60)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Append, "wait", wait)
            thread = threading.Thread(target=lambda: put_write(0)(engine))
            thread.start()
            assert waiting.wait(60)
            put(1)(engine)
            thread.join(60)
            assert not thread.is_alive()
        assert store.calls == {"create_all": 1}
        assert tasks_of(engine, 0) == ["task"]
