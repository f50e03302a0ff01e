"""Threads expire whole, some time after their last use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from building import chain, config, ids, put

from foldpoint import Engine, FoldpointSaver, Settings
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
    "bad", [{"default_ttl": 0}, {"default_ttl": -1}, {"default_ttl": "10"}, {"default_ttl": True}, {"ttl": 10}]
)
def test_a_wrong_ttl_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ttl"):
        FoldpointSaver.from_conn_string("memory:", ttl=bad)
