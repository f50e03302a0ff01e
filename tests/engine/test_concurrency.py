"""Writers, sealers and rewriters beside each other: what was acknowledged is there, once.

Removing at once (grace 0) is only for stores that nobody else uses, so no test here does: time is moved beyond the
grace instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest
from checkpoints import id_of, numbered, numbers, value, write
from moving import Interrupted, MovingClock

from foldpoint import Engine, Settings
from foldpoint.codecs.envelope import EVENT, event_content
from foldpoint.codecs.event import FILLER_PAYLOAD, encode_checkpoint
from foldpoint.codecs.head import Head
from foldpoint.codecs.model import Checkpoint, Header, Write
from foldpoint.compaction import DropAll, KeepLast, copy_thread, rewrite_thread, upkeep
from foldpoint.engine import keys
from foldpoint.engine.layout import Layout
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import StoreUnavailable

GRACE = Settings().grace
WRITERS = 16


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordStore]:
    made = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db", synchronous="OFF")
    yield made
    made.close()


def at_once(count: int, work: Callable[[int], object]) -> None:
    """Run work(0..count-1) in threads that start together; raises what they raise."""
    barrier = threading.Barrier(count)

    def started(n: int) -> None:
        barrier.wait()
        work(n)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(started, range(count)))


def by(writer: int, n: int) -> Checkpoint:
    return Checkpoint(Header(f"{n:04}-{writer:02}"), {"a": value([writer, n])}, {"writer": writer, "n": n})


def everything(engine: Engine) -> list[tuple[str, list[Write]]]:
    """(id, writes) of each checkpoint of thread t, as put; asserts that none comes twice."""
    found = []
    for entry in engine.history("t", ""):
        writer, n = entry.folded.labels["writer"], entry.folded.labels["n"]
        assert isinstance(writer, int)
        assert isinstance(n, int)
        assert entry.folded.header.id == by(writer, n).header.id
        assert entry.state() == by(writer, n).channels
        found.append((entry.folded.header.id, entry.writes()))
    assert len({id_ for id_, _ in found}) == len(found)
    return found


def reach(head: Head) -> tuple[int, int]:
    """The position, and the number, up to which the head's snapshot stands for the log."""
    ref = head.snapshot
    return (Layout.of(head).after(ref.segments), ref.covers) if ref else (0, 0)


def logged(store: RecordStore) -> list[str]:
    """The id of every checkpoint event of thread t, in log order: one that was put twice is there twice."""
    log = Engine(store).reader("t", "")
    view = log.load()
    assert view is not None
    found = {seq: e.checkpoint_id for seq, e in view.slice.events.items() if e.kind == 0 and seq > view.slice.covers}
    for slice_ in log.reader.before(Layout.of(view.head), *reach(view.head)):
        found |= {seq: e.checkpoint_id for seq, e in slice_.events.items() if e.kind == 0 and seq > slice_.covers}
    return [str(found[seq]) for seq in sorted(found)]


@pytest.mark.parametrize("engines", [1, WRITERS])
def test_sixteen_writers_on_one_stream_lose_nothing_and_double_nothing(store: RecordStore, engines: int) -> None:
    made = [Engine(store, Settings(window=32)) for _ in range(engines)]
    steps = 12

    def work(writer: int) -> None:
        engine = made[writer % engines]
        for n in range(steps):
            engine.put("t", "", by(writer, n))
            engine.put_writes("t", "", by(writer, n).header.id, [write(n, f"task {writer}")])

    at_once(WRITERS, work)
    expected = sorted((by(writer, n).header.id for writer in range(WRITERS) for n in range(steps)), reverse=True)
    for reader in (Engine(store), made[0]):
        found = everything(reader)
        assert [id_ for id_, _ in found] == expected
        assert all([w.task_id for w in writes] == [f"task {int(id_[-2:])}"] for id_, writes in found)
    assert sorted(logged(store), reverse=True) == expected


def test_compactors_beside_writers_lose_nothing(store: RecordStore) -> None:
    clock = MovingClock()
    made = [Engine(store, Settings(window=8), clock=clock) for _ in range(4)]
    writers, steps = 3, 40
    running = threading.Semaphore(0)

    def work(n: int) -> None:
        if n < writers:
            for step in range(steps):
                made[n].put("t", "", by(n, step))
            running.release()
            return
        while not running.acquire(blocking=False):
            upkeep(made[3], "t", "")
        running.release()

    at_once(writers + 1, work)
    expected = sorted((by(n, step).header.id for n in range(writers) for step in range(steps)), reverse=True)
    assert [id_ for id_, _ in everything(Engine(store))] == expected


def test_three_compactors_at_once_beyond_the_grace_lose_nothing(store: RecordStore) -> None:
    clock = MovingClock()
    writer = Engine(store, Settings(window=8), clock=clock)
    compactors = [Engine(store, Settings(window=8), clock=clock) for _ in range(3)]
    for round_ in range(12):
        for n in range(round_ * 5, round_ * 5 + 5):
            writer.put("t", "", numbered(n))
        at_once(3, lambda n: upkeep(compactors[n], "t", ""))
        clock.advance(GRACE + 1)
    for _ in range(2):
        upkeep(compactors[0], "t", "")
        clock.advance(GRACE + 1)
    for engine in (writer, *compactors, Engine(store)):
        assert numbers(engine) == list(range(59, -1, -1))
    assert not any(map(is_event, store.keys()))


def is_event(key: bytes) -> bool:
    return key[keys.EPOCH_BYTES : keys.EPOCH_BYTES + 1] == b"e"


# -- a writer that is held up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_up", [GRACE / 9, GRACE + 1, 10 * GRACE])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_writer_held_up_before_its_write_puts_again_if_its_number_was_sealed(sealed: bool, held_up: float) -> None:
    store, clock = MemoryStore(), MovingClock()
    settings = Settings(window=8)
    seam = Interrupted(store)
    slow, other = Engine(seam, settings, clock=clock), Engine(store, settings, clock=clock)
    for n in range(3):
        slow.put("t", "", numbered(n))

    def meanwhile() -> None:
        for n in range(10, 14):
            other.put("t", "", numbered(n, 2))
        clock.advance(held_up)
        for _ in range(3 if sealed else 0):
            upkeep(other, "t", "")
            clock.advance(GRACE + 1)

    seam.before["create"] = meanwhile
    slow.put("t", "", numbered(3))
    expected = [13, 12, 11, 10, 3, 2, 1, 0]
    for engine in (slow, other, Engine(store)):
        assert numbers(engine) == expected
    slow.put("t", "", numbered(20, 3))
    assert numbers(Engine(store)) == [20, *expected]


@pytest.mark.parametrize("held_up", [GRACE / 9, GRACE + 1])
def test_a_writer_whose_answer_came_late_does_not_put_twice(held_up: float) -> None:
    store, clock = MemoryStore(), MovingClock()
    seam = Interrupted(store)
    slow = Engine(seam, Settings(window=8), clock=clock)
    other = Engine(store, Settings(window=8), clock=clock)
    slow.put("t", "", numbered(0))

    def meanwhile() -> None:
        other.put("t", "", numbered(2, 1))
        upkeep(other, "t", "")
        clock.advance(held_up)

    seam.after["create"] = meanwhile
    slow.put("t", "", numbered(1))
    assert logged(store) == [id_of(0), id_of(1), id_of(2)]
    assert numbers(Engine(store)) == numbers(slow) == [2, 1, 0]


def test_a_write_held_up_beyond_the_grace_is_not_lost_either() -> None:
    store, clock = MemoryStore(), MovingClock()
    seam = Interrupted(store)
    slow = Engine(seam, Settings(window=4), clock=clock)
    other = Engine(store, Settings(window=4), clock=clock)
    slow.put("t", "", numbered(0))

    def meanwhile() -> None:
        for n in range(1, 10):
            other.put("t", "", numbered(n))
            upkeep(other, "t", "")
            clock.advance(GRACE + 1)

    seam.before["create"] = meanwhile
    slow.put_writes("t", "", id_of(0), [write(7)])
    entry = Engine(store).find("t", "", id_of(0))
    assert entry is not None
    assert entry.writes() == [write(7)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("rewrite", ["prune", "delete", "copy over"])
def test_a_writer_whose_epoch_was_left_is_carried_into_the_new_one(rewrite: str, moment: str) -> None:
    store = MemoryStore()
    seam = Interrupted(store)
    slow, other = Engine(seam, Settings(window=8)), Engine(store, Settings(window=8))
    for n in range(5):
        slow.put("t", "", numbered(n))
    other.put("source", "", numbered(20))

    def meanwhile() -> None:
        if rewrite == "copy over":
            copy_thread(other, "source", "t")
        else:
            rewrite_thread(other, "t", KeepLast(2) if rewrite == "prune" else DropAll())

    getattr(seam, moment)["create"] = meanwhile
    slow.put("t", "", numbered(9, 4))
    # Before the rewrite it was put into the old epoch and is judged with the rest; after it, into the new one.
    expected = {
        ("prune", "before"): [9, 4, 3],
        ("prune", "after"): [9, 4],
        ("delete", "before"): [9],
        ("delete", "after"): [],
        ("copy over", "before"): [20, 9, 4, 3, 2, 1, 0],
        ("copy over", "after"): [20, 9, 4, 3, 2, 1, 0],
    }[rewrite, moment]
    for engine in (slow, other, Engine(store)):
        assert numbers(engine) == expected
    slow.put("t", "", numbered(30, 9))
    assert numbers(Engine(store)) == [30, *expected]


def test_an_event_put_while_the_epoch_is_being_left_is_carried_over() -> None:
    store = MemoryStore()
    seam = Interrupted(store)
    pruner, other = Engine(seam, Settings(window=8)), Engine(store, Settings(window=8))
    for n in range(5):
        other.put("t", "", numbered(n))
    # The first create makes the new epoch, the second is the fence.
    seam.before["create"] = lambda: seam.before.update(create=lambda: other.put("t", "", numbered(5)))
    rewrite_thread(pruner, "t", KeepLast(2))
    assert numbers(Engine(store)) == [5, 4, 3]


def test_upkeep_makes_a_writer_forget_the_epoch_that_another_left() -> None:
    store = MemoryStore()
    writer = Engine(store, Settings(window=8))
    for n in range(3):
        writer.put("t", "", numbered(n))
    rewrite_thread(Engine(store, Settings(window=8)), "t", KeepLast(1))
    upkeep(writer, "t", "", grace=0)  # nobody else uses the store by now; the old epoch goes, and its fence with it
    writer.put("t", "", numbered(3))
    assert numbers(Engine(store)) == numbers(writer) == [3, 2]


# -- sealers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create", "swap"])
def test_of_two_sealers_that_race_both_end_with_everything_sealed(verb: str) -> None:
    store = MemoryStore()
    seam = Interrupted(store)
    first, second = Engine(seam, Settings(window=8)), Engine(store, Settings(window=8))
    for n in range(6):
        second.put("t", "", numbered(n))

    def meanwhile() -> None:
        second.put("t", "", numbered(6))
        upkeep(second, "t", "")
        second.put("t", "", numbered(7))

    seam.before[verb] = meanwhile
    upkeep(first, "t", "")
    assert next(Engine(store).heads("t")).sealed == 8
    for engine in (first, second, Engine(store)):
        assert numbers(engine) == list(range(7, -1, -1))


def test_a_seal_that_was_stored_and_said_no_keeps_the_snapshot_that_its_head_names() -> None:
    store = MemoryStore()
    seam = Interrupted(store)
    settings = Settings(window=8, snapshot_ratio=1000)  # one snapshot, and then long none
    sealer, other = Engine(seam, settings), Engine(store, settings)
    for n in range(6):
        other.put("t", "", numbered(n))
    seam.deny_swap = True
    seam.after["swap"] = lambda: other.put("t", "", numbered(6)) and upkeep(other, "t", "")
    upkeep(sealer, "t", "")
    assert not seam.deny_swap
    for engine in (sealer, other, Engine(store)):
        assert numbers(engine) == list(range(6, -1, -1))


@pytest.mark.parametrize("again", [False, True])
def test_a_rewrite_that_was_stored_and_said_no_keeps_the_epoch_that_its_head_names(again: bool) -> None:
    store = MemoryStore()
    seam = Interrupted(store)
    pruner, other = Engine(seam, Settings(window=8)), Engine(store, Settings(window=8))
    for n in range(6):
        other.put("t", "", numbered(n))

    def meanwhile() -> None:
        other.put("t", "", numbered(6))
        upkeep(other, "t", "")
        if again:
            rewrite_thread(other, "t", KeepLast(3))

    def announced() -> None:
        seam.deny_swap = True
        seam.after["swap"] = meanwhile

    seam.after["swap"] = lambda: seam.before.update(create=announced)
    rewrite_thread(pruner, "t", KeepLast(4))
    assert not seam.deny_swap
    for engine in (pruner, other, Engine(store)):
        assert numbers(engine) == ([6, 5, 4] if again else [6, 5, 4, 3, 2])


# -- holes -------------------------------------------------------------------------------------------------------------


def leave_holes(store: RecordStore, taken: int, n: int) -> None:
    """Put checkpoint `n` at number `taken` of thread t, as if what stood before it had been lost."""
    engine = Engine(store)
    head = next(engine.heads("t"))
    key = keys.event(head.epoch, taken)
    payload = encode_checkpoint(taken, numbered(n), None)
    store.create(
        [(key, engine.io.seal(key, EVENT, 0, event_content(0, crc32(payload).to_bytes(4, "big"), payload)))], ttl=None
    )


@pytest.mark.parametrize("taken", [5, 7, 8])
def test_holes_in_the_window_are_filled_when_it_is_sealed_and_hide_nothing(taken: int) -> None:
    store = MemoryStore()
    known = Engine(store, Settings(window=8))
    for n in range(3):
        known.put("t", "", numbered(n))
    leave_holes(store, taken, 3)
    fresh = Engine(store, Settings(window=8))
    assert numbers(fresh) == [3, 2, 1, 0]
    for n in range(4, 30):
        (known if n % 2 else fresh).put("t", "", numbered(n))
    for engine in (known, fresh, Engine(store)):
        assert numbers(engine) == list(range(29, -1, -1))
    assert sorted(logged(store)) == [id_of(n) for n in range(30)]


def test_a_window_full_of_fillers_is_sealed_and_left_behind() -> None:
    store = MemoryStore()
    engine = Engine(store, Settings(window=4))
    engine.put("t", "", numbered(0))
    head = next(engine.heads("t"))
    for seq in (2, 3, 4):
        key = keys.event(head.epoch, seq)
        store.create([(key, engine.io.seal(key, EVENT, 0, event_content(0, bytes(4), FILLER_PAYLOAD)))], ttl=None)
    for n in range(1, 6):
        engine.put("t", "", numbered(n))
    assert numbers(engine) == numbers(Engine(store)) == [5, 4, 3, 2, 1, 0]


def test_a_put_that_is_sent_again_stands_once() -> None:
    store = MemoryStore()
    seam = Interrupted(store)
    engine = Engine(seam, Settings(window=8))
    engine.put("t", "", numbered(0))

    def fail() -> None:
        raise StoreUnavailable("the answer was lost")

    seam.after["create"] = fail
    with pytest.raises(StoreUnavailable):
        engine.put("t", "", numbered(1))
    engine.put("t", "", numbered(1))
    assert logged(store) == [id_of(0), id_of(1)]


def test_a_checkpoint_that_its_caller_changes_while_it_is_put_is_remembered_as_it_was_stored() -> None:
    store = MemoryStore()
    seam = Interrupted(store)
    engine = Engine(seam)
    engine.put("t", "", numbered(0))
    versions, seen, labels = {"list": 2}, {"n": {"list": 1}}, {"step": 1}
    put = replace(numbered(1), header=Header(id_of(1), id_of(0), 2, "", versions, seen), labels=labels)
    for moment in (seam.before, seam.after):
        moment["create"] = lambda: [one.update(list=7, step=7) for one in (versions, seen["n"], labels)]
    engine.put("t", "", put)
    engine.put("t", "", Checkpoint(Header(id_of(2), id_of(1), 2, "", {"list": 9}, {"n": {"list": 8}}), {}, {"step": 2}))
    known, read = ([entry.folded for entry in one.history("t", "")] for one in (engine, Engine(store)))
    assert known == read
    latest = engine.latest("t", "")
    assert latest is not None
    assert latest.folded == read[0]


def test_a_stream_that_was_made_again_with_the_revision_of_the_first_is_another() -> None:
    store = MemoryStore()
    engine = Engine(store)
    engine.put("t", "", numbered(0))
    log = engine.reader("t", "")
    view = log.load()
    assert view is not None
    assert log.current() is view
    del store._heads[log.key]
    engine = Engine(store)
    engine.put("t", "", numbered(1))
    again, expires = store._heads[log.key]
    store._heads[log.key] = (replace(again, revision=view.revision), expires)
    current = log.current()
    assert current is not None
    assert current.head.epoch == next(engine.heads("t")).epoch != view.head.epoch


def test_a_fork_of_a_log_folds_what_lies_before_its_slice_on_its_own(store: RecordStore) -> None:
    """A writer uses the log meanwhile."""
    engine = Engine(store, Settings(window=16))
    for n in range(200):
        engine.put("t", "", numbered(n))
    log = engine.reader("t", "")
    log.load()
    fork = log.fork()
    assert log.view is not None
    assert fork.view is not None
    last = log.view.slice.covers
    assert last > 100
    earlier = [one.view.slice.earlier for one in (log, fork) if one.view]
    states = [{name: bytes(stored.data) for name, stored in one.state(last).items()} for one in earlier]
    assert states[0] == states[1]
    slices = [one._slice for one in earlier]  # type: ignore[attr-defined]
    assert slices[0] is not slices[1]


@pytest.mark.parametrize("again", [True, False])
def test_a_cache_counts_what_it_holds_whoever_drops_what_is_in_use(again: bool) -> None:
    """It is too small for what is in use at one time."""
    store = Interrupted(MemoryStore())
    engine = Engine(store, Settings(cache_bytes=10_000, window=1000))  # type: ignore[arg-type]

    def others() -> None:
        for n in range(5):
            engine.put(f"other {n}", "", numbered(0))
        if again:
            engine.put("t", "", numbered(9))

    for n in range(3):
        store.before["create"] = lambda: ThreadPoolExecutor(1).submit(others).result() if not again else others()
        engine.put("t", "", numbered(n))
        held = {name: log.view.slice.memory for name, log in engine._logs.items() if log.view}
        assert engine._sizes == held
        assert engine._held == sum(held.values())
    assert numbers(Engine(store, engine.settings))[-3:] == [2, 1, 0]  # type: ignore[arg-type]
