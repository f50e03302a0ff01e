"""What somebody else does at a moment that was once the wrong one: named threads, streams and writes stay whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from checkpoints import id_of, numbered, numbers, value, write
from moving import Interrupted, MovingClock

from foldpoint import Engine, Settings
from foldpoint.codecs.head import Head
from foldpoint.codecs.model import Write
from foldpoint.compaction import (
    KeepLast,
    compact_thread,
    copy_thread,
    copying,
    rewrite,
    rewrite_thread,
    threads,
    upkeep,
)
from foldpoint.compaction.policy import Retention
from foldpoint.compaction.verify import verify
from foldpoint.engine.log import Log
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import StoreUnavailable

SETTINGS = Settings(compaction="off")


def once(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, before: Callable[..., object]) -> None:
    """Do something right before the first call of a function that `before`, given its arguments, says yes to."""
    real, waiting = getattr(where, name), [True]

    def call(*args: Any, **options: Any) -> Any:
        if waiting:
            waiting.clear()
            if before(*args) is False:
                waiting.append(True)
        return real(*args, **options)

    monkeypatch.setattr(where, name, call)


def answer(data: str) -> Write:
    return Write("task", -4, "__resume__", value(data))


# -- rewrites ----------------------------------------------------------------------------------------------------------


def test_a_rewrite_that_is_held_up_for_longer_than_its_records_live_damages_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = MovingClock()
    store = MemoryStore(clock=clock.now)
    writer, job = (Engine(store, SETTINGS, clock=clock) for _ in range(2))
    noise = random.Random(1)
    for n in range(8):
        writer.put("t", "", numbered(n, noise=noise.randbytes(150_000)), ttl=60)

    def held_up(*_: object) -> None:
        for n in range(8, 14):
            clock.advance(25)
            writer.put("t", "", numbered(n), ttl=60)

    once(monkeypatch, rewrite._Rewriting, "carry_over", held_up)
    rewrite_thread(job, "t", KeepLast(4))
    assert numbers(Engine(store, SETTINGS, clock=clock)) == [13, 12, 11, 10]
    assert not [one.findings for one in verify(job) if one.findings]


def test_a_rewrite_that_is_held_up_while_it_extends_its_records_damages_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the second time for almost as long as they live; amid it, between two batches, until they do no more."""
    clock = MovingClock()
    store, put, extensions = MemoryStore(clock=clock.now), count(8), count(1)
    writer = Engine(store, SETTINGS, clock=clock)
    noise = random.Random(1)
    for n in range(8):
        writer.put("t", "", numbered(n, noise=noise.randbytes(150_000)), ttl=60)

    def rest(times: int) -> None:
        for _ in range(times):
            clock.advance(25)
            writer.put("t", "", numbered(next(put)), ttl=60)

    real = rewrite._Rewriting._extend

    def extend(rewriting: rewrite._Rewriting, head: Head) -> bool:
        number = next(extensions)
        if number == 3:
            rest(4)
            held.before["extend"] = lambda: held.before.update(extend=lambda: rest(1))
        return real(rewriting, head)

    held = Interrupted(store)
    monkeypatch.setattr(rewrite._Rewriting, "_extend", extend)
    once(monkeypatch, rewrite._Rewriting, "head", lambda *_: rest(1))
    rewrite_thread(Engine(held, SETTINGS, clock=clock), "t", KeepLast(4))  # type: ignore[arg-type]
    found, last = numbers(Engine(store, SETTINGS, clock=clock)), next(put) - 1
    assert found == [*range(last, last - len(found), -1)]  # those that were to stay, and what came since
    assert not [one.findings for one in verify(writer) if one.findings]


@pytest.mark.parametrize("namespace", ["child:task", "child"])
def test_what_a_run_puts_between_the_choices_for_a_graph_and_its_subgraph_stays(
    monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    store = MemoryStore()
    job, writer = Engine(store, SETTINGS), Engine(store, SETTINGS)
    for n in range(4):
        writer.put("t", "", numbered(n))

    def under(n: int, parent: int) -> None:
        made = numbered(n)
        writer.put("t", namespace, replace(made, labels={**made.labels, "parents:": id_of(parent)}))

    under(41, 4)
    real = threads.choose

    def choose(log: Log, *args: Any, **options: Any) -> Any:
        chosen = real(log, *args, **options)
        if not log.namespace:
            writer.put("t", "", numbered(4))
            under(42, 4)
            writer.put_writes("t", namespace, id_of(42), [write(42)])
        return chosen

    monkeypatch.setattr(threads, "choose", choose)
    rewrite_thread(job, "t", KeepLast(2))
    assert numbers(Engine(store, SETTINGS))[0] == 4
    assert numbers(Engine(store, SETTINGS), namespace=namespace) == [42, 41]


@pytest.mark.parametrize("namespace", ["1", "1|2", "1:task", "child|1"])
def test_a_node_may_be_called_by_a_number(namespace: str) -> None:
    engine = Engine(MemoryStore(), SETTINGS)
    for n in range(3):
        engine.put("t", "", numbered(n))
        engine.put("t", namespace, numbered(n))
    rewrite_thread(engine, "t", KeepLast(1))
    assert numbers(engine) == numbers(engine, namespace=namespace) == [2]


def test_a_write_that_never_counted_does_not_count_once_the_one_before_it_went() -> None:
    engine = Engine(MemoryStore(), SETTINGS)

    def loop(n: int) -> None:
        made = numbered(n)
        header = replace(made.header, channel_versions={"list": n + 1, "delta": n + 1})
        engine.put("t", "", replace(made, header=header, labels={**made.labels, "source": "loop"}))

    loop(0)
    engine.put_writes("t", "", id_of(0), [write(0)])
    engine.put_writes("t", "", id_of(0), [Write("task", 0, "delta", value("of a replay, too late"))])
    loop(1)
    loop(2)
    before = engine.channel_history("t", "", id_of(2), ["delta"])
    assert list(compact_thread(engine, "t", Retention(drop_superseded_writes=True)))
    assert engine.channel_history("t", "", id_of(2), ["delta"]) == before


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["source", "target"])
def test_a_copy_keeps_the_newer_answer_where_its_checkpoint_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    store = MemoryStore()
    copier, writer = Engine(store, SETTINGS), Engine(store, SETTINGS)
    writer.put("source", "", numbered(0))
    writer.put_writes(whose, "", id_of(1), [answer("old")])

    def comes(*_: object) -> None:
        writer.put(whose, "", numbered(1))
        writer.put_writes(whose, "", id_of(1), [answer("new")])

    once(monkeypatch, copying, "rewrite", comes)
    copy_thread(copier, "source", "target")
    entry = Engine(store, SETTINGS).find("target", "", id_of(1))
    assert entry is not None
    assert [one.value for one in entry.writes()] == [value("new")]


def test_a_copy_into_a_thread_that_is_pruned_meanwhile_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    store, settings = MemoryStore(), Settings(window=2, compaction="off", snapshot_ratio=0.1)
    copier, other = Engine(store, settings), Engine(store, settings)
    other.put("source", "", numbered(100))
    for n in range(12):
        other.put("target", "", numbered(n))

    def pruned(reader: object, view: Any) -> bool:
        if view.head.thread_id != "target":
            return False
        rewrite_thread(other, "target", KeepLast(2))
        upkeep(other, "target", "")
        return True

    once(monkeypatch, copying, "History", pruned)
    assert copy_thread(copier, "source", "target") == 1
    assert numbers(Engine(store, settings), "target") == [100, 11, 10]


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def alive(store: MemoryStore, clock: MovingClock) -> list[str]:
    return sorted(Engine(store, SETTINGS, clock=clock).namespaces("t"))


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


@pytest.fixture
def store(clock: MovingClock) -> MemoryStore:
    return MemoryStore(clock=clock.now)


@pytest.mark.parametrize("ttl", [100, None], ids=["with its TTL", "without one"])
def test_a_namespace_that_is_begun_later_expires_with_its_thread(
    store: MemoryStore, clock: MovingClock, ttl: int | None
) -> None:
    engine = Engine(store, SETTINGS, clock=clock)
    engine.put("t", "", numbered(0), ttl=100)
    clock.advance(20)
    engine.put("t", "child", numbered(0), ttl=ttl)
    clock.advance(100)
    assert alive(store, clock) == ["", "child"]
    for _ in range(50):
        clock.advance(1)
        assert alive(store, clock) in (["", "child"], [])
    assert alive(store, clock) == []


def test_a_namespace_that_is_copied_into_a_thread_expires_with_it(store: MemoryStore, clock: MovingClock) -> None:
    engine = Engine(store, SETTINGS, clock=clock)
    engine.put("t", "", numbered(0), ttl=100)
    engine.put("source", "child", numbered(0))
    copy_thread(engine, "source", "t")
    assert alive(store, clock) == ["", "child"]
    clock.advance(126)
    assert alive(store, clock) == []


@pytest.mark.parametrize(
    "settings", [SETTINGS, Settings(compaction="off", cache_bytes=0)], ids=["rewritten", "no cache"]
)
def test_a_thread_whose_root_is_not_in_memory_lives_on_as_a_whole(
    store: MemoryStore, clock: MovingClock, settings: Settings
) -> None:
    engine = Engine(store, settings, clock=clock)
    engine.put("t", "", numbered(0), ttl=100)
    engine.put("t", "", numbered(1), ttl=100)
    clock.advance(20)
    engine.put("t", "child", numbered(0), ttl=100)
    rewrite_thread(engine, "t", KeepLast(1))
    clock.advance(24)
    engine.put("t", "child", numbered(1), ttl=100)
    clock.advance(90)
    assert alive(store, clock) == ["", "child"]


@pytest.mark.parametrize("verb", ["create", "get_many", "extend"])
def test_a_longer_ttl_holds_for_what_others_put_although_the_call_that_raised_it_failed(
    store: MemoryStore, clock: MovingClock, verb: str
) -> None:
    seam = Interrupted(store)
    one, other = Engine(seam, SETTINGS, clock=clock), Engine(store, SETTINGS, clock=clock)  # type: ignore[arg-type]
    one.put("t", "", numbered(0), ttl=10)
    other.latest("t", "")

    def fails() -> None:
        raise StoreUnavailable("no answer")

    seam.after["swap"] = lambda: seam.before.update({verb: fails})
    with pytest.raises(StoreUnavailable):
        one.put("t", "", numbered(1), ttl=1000)
    one.put("t", "", numbered(1), ttl=1000)
    other.put("t", "", numbered(2), ttl=1000)
    clock.advance(21)
    assert numbers(Engine(store, SETTINGS, clock=clock)) == [2, 1, 0]


def test_a_ttl_is_raised_beside_another_process_that_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    one, other = Engine(store, SETTINGS), Engine(store, SETTINGS)
    one.put("t", "", numbered(0))
    other.latest("t", "")

    def seals(*_: object) -> None:
        other.put("t", "", numbered(2))
        upkeep(other, "t", "")

    once(monkeypatch, Log, "fill", seals)
    one.put("t", "", numbered(1), ttl=1000)
    assert numbers(Engine(store, SETTINGS)) == [2, 1, 0]
