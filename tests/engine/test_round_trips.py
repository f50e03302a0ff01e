"""What each operation costs, counted in calls of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from checkpoints import id_of, numbered, numbers, write
from counting import CountingStore

from foldpoint import Engine, Settings
from foldpoint.codecs.model import Checkpoint, Header
from foldpoint.compaction import upkeep
from foldpoint.engine.memory import MemoryStore


class CountingKeys(MemoryStore):
    """Counts the records asked for."""

    asked = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked += len(keys)
        return super().get_many(keys)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


def small_header(n: int) -> Header:
    return Header(id_of(n), id_of(n - 1) if n else None)


def fill(engine: Engine, first: int, last: int) -> None:
    for n in range(first, last):
        engine.put("t", "", numbered(n))


def test_a_put_takes_one_round_trip_and_the_first_of_a_stream_two(store: CountingStore) -> None:
    engine = Engine(store, Settings())
    engine.put("t", "", numbered(0))
    assert store.round_trips == 2
    for n in range(1, 60):
        store.reset()
        engine.put("t", "", numbered(n))
        assert store.round_trips == 1
        store.reset()
        if n < 4:
            engine.put_writes("t", "", id_of(n), [write(n)])
            assert store.round_trips == 1


def test_a_put_after_a_read_takes_one_round_trip(store: CountingStore) -> None:
    fill(Engine(store, Settings()), 0, 10)
    engine = Engine(store, Settings())
    assert engine.latest("t", "") is not None
    store.reset()
    engine.put("t", "", numbered(10))
    assert store.round_trips == 1


def test_upkeep_in_the_same_process_costs_the_next_put_nothing(store: CountingStore) -> None:
    engine = Engine(store, Settings(window=16))
    for n in range(200):
        if n % 12 == 11:
            upkeep(engine, "t", "")
        store.reset()
        engine.put("t", "", numbered(n))
        assert store.round_trips == (2 if n == 0 else 1)
    assert numbers(Engine(store)) == list(range(199, -1, -1))


@pytest.mark.parametrize("length", [1, 10, 1000, 5000])
def test_latest_takes_two_round_trips_whatever_the_length(store: CountingStore, length: int) -> None:
    engine = Engine(store, Settings())
    for n in range(length):
        engine.put("t", "", replace(numbered(n % 50), header=small_header(n), labels={"step": n}))
    reader = Engine(store, Settings())
    for _ in range(2):  # cold, then warm
        store.reset()
        latest = reader.latest("t", "")
        assert latest is not None
        assert latest.folded.labels == {"step": length - 1}
        assert latest.value("list") == numbered((length - 1) % 50).channels["list"]
        assert latest.writes() == []
        assert store.round_trips <= 2


def test_a_warm_reader_asks_only_for_slots_that_it_does_not_know() -> None:
    store = CountingKeys()
    engine = Engine(store, Settings(window=64))
    fill(engine, 0, 40)
    engine.latest("t", "")
    store.asked = 0
    engine.latest("t", "")
    assert store.asked <= 64 - 40


def test_listing_one_of_a_hundred_thousand_reads_a_bounded_number_of_records() -> None:
    store = CountingKeys()
    engine = Engine(store, Settings(segment_level=1, compression_level=1))
    for n in range(100_000):
        engine.put("t", "", Checkpoint(small_header(n), {}, {"step": n}))
    store.asked = 0
    first = next(Engine(store, Settings()).history("t", ""))
    assert first.folded.labels == {"step": 99_999}
    assert store.asked <= 64 + 20
    counting = CountingStore(store)
    for n in (99_999, 99_990):
        for read in (Engine.latest, lambda engine, *stream, n=n: engine.find(*stream, id_of(n))):
            counting.reset()
            entry = read(Engine(counting, Settings()), "t", "")
            assert entry is not None
            assert entry.folded.labels["step"] in (n, 99_999)
            assert counting.round_trips <= 2
    store.asked = 0
    old = next(Engine(store, Settings()).history("t", "", id_of(99_000)))
    assert old.folded.labels == {"step": 98_999}
    assert store.asked <= 4 * (64 + 20)


def test_a_fork_from_old_history_makes_reading_the_latest_no_dearer(store: CountingStore) -> None:
    engine = Engine(store, Settings(window=8))
    fill(engine, 0, 200)
    engine.put("t", "", numbered(200, 3))
    reader = Engine(store, Settings(window=8))
    store.reset()
    latest = reader.latest("t", "")
    assert latest is not None
    assert latest.folded.labels == {"step": 200}
    assert latest.value("list") == numbered(200).channels["list"]
    assert store.round_trips == 2


def test_what_a_record_cannot_hold_costs_one_round_trip_more_to_read() -> None:
    store = CountingStore(MemoryStore(max_record=1000))
    Engine(store, Settings()).put("t", "", numbered(0, big=list(range(5000))))
    store.reset()
    latest = Engine(store, Settings()).latest("t", "")
    assert latest is not None
    assert latest.value("big") == numbered(0, big=list(range(5000))).channels["big"]
    assert store.round_trips == 3


def test_a_put_beside_upkeep_costs_readers_no_round_trip(store: CountingStore) -> None:
    engine = Engine(store, Settings(window=16))
    fill(engine, 0, 12)
    with engine.log("t", "") as shared:
        fork = shared.fork()
    fill(engine, 12, 14)  # put while the fork seals: compressed against events that the snapshot stands for by then
    assert fork.seal()
    fill(engine, 14, 15)
    store.reset()
    latest = Engine(store, Settings()).latest("t", "")
    assert latest is not None
    assert latest.value("list") == numbered(14).channels["list"]
    assert store.round_trips <= 2
