"""Threads expire whole, some time after their last use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from building import chain, config, ids, put

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import compact, upkeep
from foldpoint.compaction.verify import verify
from foldpoint.engine.memory import MemoryStore

MINUTE = 60
TTL = {"default_ttl": 10}


class Clock:
    """One time for store and engine."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def now(self) -> float:
        return self.at

    monotonic = now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock.now)


@pytest.fixture
def saver(store: MemoryStore, clock: Clock, request: pytest.FixtureRequest) -> Iterator[FoldpointSaver]:
    ttl = getattr(request, "param", TTL)
    with FoldpointSaver(Engine(store, Settings(window=8), clock=clock), ttl=ttl) as saver:
        yield saver


def test_an_unused_thread_expires_whole_with_every_record(
    saver: FoldpointSaver, store: MemoryStore, clock: Clock
) -> None:
    chain(saver, 30)
    chain(saver, 30, namespace="child")
    clock.at += 12.5 * MINUTE + 1
    assert ids(saver, config("thread", None)) == []
    assert list(store.heads()) == []
    clock.at += 12.5 * MINUTE + 1  # the other records outlive their head, and go too
    assert list(store.keys()) == []


@pytest.mark.parametrize(("first", "second"), [("", "child"), ("child", "")])
def test_a_thread_of_which_a_namespace_is_begun_late_lives_on_whole(
    store: MemoryStore, clock: Clock, first: str, second: str
) -> None:
    """By a process that has not read the others."""
    for namespace in (first, second):
        with FoldpointSaver(Engine(store, clock=clock), ttl=TTL) as saver:
            put(saver, None, {"n": 1}, namespace=namespace)
        clock.at += 9 * MINUTE
    with FoldpointSaver(Engine(store, clock=clock), ttl=TTL) as saver:
        assert len(ids(saver, config("thread", None))) == 2
        clock.at += 4 * MINUTE
        assert ids(saver, config("thread", None)) == []


def test_what_is_put_with_the_ttl_of_before_lives_as_long_as_its_thread(store: MemoryStore, clock: Clock) -> None:
    """As while a service with another TTL takes over from the one before."""
    before, after = (Engine(store, clock=clock) for _ in range(2))
    short, long = ({"default_ttl": minutes} for minutes in (10, 1440))
    with FoldpointSaver(before, ttl=short) as old, FoldpointSaver(after, ttl=long) as new:
        where = put(old, None, {"n": 0})
        clock.at += 5
        where = put(new, where, {"n": 1}, step=1)
        clock.at += 5
        where = put(old, where, {"n": 2}, step=2)
        clock.at += 5
        put(new, where, {"n": 3}, step=3)
        clock.at += 60 * MINUTE
    with FoldpointSaver(Engine(store, clock=clock), ttl=long) as saver:
        assert len(ids(saver, config())) == 4
        assert not any(verified.findings for verified in verify(saver.engine))


def test_a_thread_in_use_lives_and_its_namespaces_with_it(saver: FoldpointSaver, clock: Clock) -> None:
    child = chain(saver, 20, namespace="child")
    line = chain(saver, 20)
    for step in range(20, 30):
        clock.at += 7 * MINUTE
        line.append(put(saver, line[-1], {"n": step}, step=step))
    assert len(ids(saver, config())) == 30
    assert len(ids(saver, config("thread", "child"))) == len(child)
    clock.at += 9.9 * MINUTE
    assert len(ids(saver, config())) == 30


@pytest.mark.parametrize(
    ("saver", "alive"),
    [({**TTL, "refresh_on_read": True}, True), ({**TTL, "refresh_on_read": False}, False)],
    indirect=["saver"],
)
def test_reading_is_a_use_if_it_was_asked_for(saver: FoldpointSaver, clock: Clock, alive: bool) -> None:
    chain(saver, 20)
    for _ in range(4):
        clock.at += 6 * MINUTE
        saver.get_tuple(config())
    assert (saver.get_tuple(config()) is not None) == alive


@pytest.mark.parametrize("since", [0.0, 0.1, 0.24, 0.26, 0.9])
def test_a_thread_lives_between_1_and_5_quarters_of_the_ttl_after_its_last_use(
    saver: FoldpointSaver, clock: Clock, since: float
) -> None:
    chain(saver, 3)
    clock.at += since * 10 * MINUTE
    put(saver, None, {}, step=9)
    clock.at += 10 * MINUTE - 2
    assert len(ids(saver, config())) == 4
    clock.at += 2.5 * MINUTE + 4
    assert ids(saver, config()) == []


def test_the_namespaces_of_a_thread_expire_at_one_time(saver: FoldpointSaver, clock: Clock) -> None:
    namespaces = ("", "child", "another")
    chain(saver, 3)
    clock.at += 2 * MINUTE
    child = chain(saver, 3, namespace="child")
    chain(saver, 3, namespace="another")
    clock.at += 2.4 * MINUTE  # the root has not been used for longer than a quarter, the child has
    put(saver, child[-1], {}, step=9, namespace="child")
    clock.at += 10 * MINUTE - 2
    assert all(saver.get_tuple(config("thread", namespace)) for namespace in namespaces)
    clock.at += 2.5 * MINUTE + 4
    assert not any(saver.get_tuple(config("thread", namespace)) for namespace in namespaces)


@pytest.mark.parametrize("step", [1, 4, 9, 12])
def test_compacting_an_unused_thread_lets_it_live_no_longer(saver: FoldpointSaver, clock: Clock, step: int) -> None:
    chain(saver, 30)
    for _ in range(0, 13, step):
        saver.prune(["thread"], keep_last=20)
        list(compact(saver.engine))
        assert len(ids(saver, config())) in (0, 20)
        clock.at += step * MINUTE
    clock.at += 2
    assert ids(saver, config()) == []


@pytest.mark.parametrize("ahead", [0, 1, 60, 86_400])
def test_a_thread_that_is_sealed_in_its_last_moment_by_a_clock_that_is_ahead_expires_whole(
    store: MemoryStore, clock: Clock, ahead: int
) -> None:
    with FoldpointSaver(Engine(store, Settings(window=8), clock=clock), ttl=TTL, compaction="off") as saver:
        chain(saver, 6)
    other = Clock()
    clock.at += 12.5 * MINUTE - 0.5
    other.at = clock.at + ahead
    engine = Engine(store, Settings(window=8), clock=other)
    with engine.log("thread", "") as log:
        assert log.seal()
    clock.at += 1
    assert ids(saver, config()) == []
    assert Engine(store, Settings(window=8), clock=clock).latest("thread", "") is None


def test_a_put_after_a_thread_expired_begins_it_again(store: MemoryStore, clock: Clock) -> None:
    with FoldpointSaver(Engine(store, Settings(grace=600), clock=clock), ttl={"default_ttl": 0.5}) as saver:
        line = chain(saver, 3)
        clock.at += 38  # what the saver knows of the thread is young enough to be acted upon, were it there still
        late = put(saver, line[-1], {"n": "late"}, step=9)
        saver.put_writes(late, [("n", 1)], "task")
        found = saver.get_tuple(late)
        assert found is not None
        assert found.pending_writes == [("task", "n", 1)]
        clock.at += 29
        assert saver.get_tuple(late) is not None


def test_writing_without_a_ttl_of_its_own_keeps_a_thread_alive(
    saver: FoldpointSaver, store: MemoryStore, clock: Clock
) -> None:
    line = chain(saver, 3)
    with FoldpointSaver(Engine(store, Settings(), clock=clock)) as other:
        for step in range(3, 9):
            clock.at += 6 * MINUTE
            line.append(put(other, line[-1], {}, step=step))
        assert len(ids(other, config())) == 9
        clock.at += 13 * MINUTE
        assert ids(other, config()) == []


class Interrupted(MemoryStore):
    """Between the extension of the records and that of the head, others come."""

    meanwhile: Callable[[], object] | None = None

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        super().extend(keys, heads=heads, ttl=ttl)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()


def test_a_use_counts_although_somebody_seals_while_it_is_noted(clock: Clock) -> None:
    store = Interrupted(clock=clock.now)
    with FoldpointSaver(Engine(store, Settings(window=64), clock=clock), ttl=TTL) as saver:
        line = chain(saver, 20)
        clock.at += 9 * MINUTE
        store.meanwhile = lambda: upkeep(Engine(store, Settings(window=64), clock=clock), "thread", "")
        put(saver, line[-1], {}, step=20)
        assert store.meanwhile is None
        clock.at += 10 * MINUTE - 2
        assert len(ids(saver, config())) == 21


def test_a_segment_of_a_sealer_that_died_lives_as_long_as_the_others(
    saver: FoldpointSaver, store: MemoryStore, clock: Clock
) -> None:
    line = chain(saver, 5)
    sealer = saver.engine.reader("thread", "")
    view = sealer.load()
    assert view is not None
    sealer.sealer.advance(view)  # it does not come to swap the head
    for step in range(5, 7):
        clock.at += 7 * MINUTE
        line.append(put(saver, line[-1], {"n": step}, step=step))
    upkeep(saver.engine, "thread", "")
    clock.at += 10 * MINUTE - 2
    assert len(ids(FoldpointSaver(Engine(store, Settings(), clock=clock)), config())) == 7


def test_a_ttl_that_came_later_counts_for_all_that_is_there(store: MemoryStore, clock: Clock) -> None:
    with FoldpointSaver(Engine(store, Settings(window=8), clock=clock)) as before:
        line = chain(before, 30)
        chain(before, 3, namespace="child")
    with FoldpointSaver(Engine(store, Settings(window=8), clock=clock), ttl=TTL) as saver:
        put(saver, line[-1], {}, step=40)
        clock.at += 12.5 * MINUTE + 1
        assert ids(saver, config("thread", None)) == []
        clock.at += 12.5 * MINUTE
        assert list(store.keys()) == []


def test_copies_have_a_lifetime_of_their_own(saver: FoldpointSaver, clock: Clock) -> None:
    chain(saver, 20)
    chain(saver, 3, namespace="child")
    clock.at += 8 * MINUTE
    saver.copy_thread("thread", "copy")
    clock.at += 9 * MINUTE
    assert ids(saver, config("thread", None)) == []
    assert len(ids(saver, config("copy", None))) == 23
    clock.at += 4 * MINUTE
    assert ids(saver, config("copy", None)) == []


def test_records_never_expire_before_their_head(saver: FoldpointSaver, clock: Clock) -> None:
    where = None
    for step in range(200):
        clock.at += 2.4 * MINUTE
        where = put(saver, where, {"n": step}, step=step)
        if step % 20 == 0:
            assert len(ids(saver, config())) == step + 1


def test_without_a_ttl_nothing_expires(store: MemoryStore, clock: Clock) -> None:
    with FoldpointSaver(Engine(store, Settings(), clock=clock)) as saver:
        chain(saver, 3)
        clock.at += 100 * 365 * 24 * 60 * MINUTE
        assert len(ids(saver, config())) == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"default_ttl": 0},
        {"default_ttl": -1},
        {"default_ttl": "10"},
        {"default_ttl": True},
        {"ttl": 10},
        {"refresh_on_read": "no"},
    ],
)
def test_a_wrong_ttl_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ttl"):
        FoldpointSaver.from_conn_string("memory:", ttl=bad)
