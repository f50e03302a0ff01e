"""What every backend of `foldpoint.engine.records.RecordStore` promises, sentence by sentence."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stores import BACKENDS, SHARED, Harness

from foldpoint.engine.records import UNCHANGED, HeadRecord, RecordStore
from foldpoint.errors import StoreUnavailable

MANY = 1203  # more than any backend fetches in one go


@pytest.fixture(params=sorted(BACKENDS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = BACKENDS[request.param](tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def store(harness: Harness) -> RecordStore:
    return harness.open()


@pytest.fixture
def other(harness: Harness, store: RecordStore) -> RecordStore:
    """A second store object on the same data."""
    return harness.open()


shared_only = pytest.mark.parametrize("harness", SHARED, indirect=True)


def head(key: bytes = b"h", revision: int = 1, value: bytes = b"v", thread: bytes = b"t") -> HeadRecord:
    return HeadRecord(key=key, thread=thread, revision=revision, value=value)


def put(store: RecordStore, key: bytes, value: bytes, ttl: int | None = None) -> bool:
    [created] = store.create([(key, value)], ttl=ttl)
    return created


def get(store: RecordStore, key: bytes) -> bytes | None:
    [value] = store.get_many([key])
    return value


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """The results of `work(0..count-1)`, all let go at the same moment and switched between as often as can be."""
    barrier = threading.Barrier(count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def run(index: int) -> object:
        barrier.wait()
        return work(index)

    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(interval)


class TestCreate:
    def test_a_created_record_is_read_back(self, store: RecordStore) -> None:
        assert put(store, b"k", b"v") is True
        assert get(store, b"k") == b"v"

    def test_a_key_that_is_taken_gives_false_and_keeps_its_record(self, store: RecordStore) -> None:
        put(store, b"k", b"first")
        assert put(store, b"k", b"second") is False
        assert get(store, b"k") == b"first"

    def test_the_same_bytes_again_give_false_too(self, store: RecordStore) -> None:
        put(store, b"k", b"v")
        assert put(store, b"k", b"v") is False

    @pytest.mark.parametrize("first", [b"small", bytes(9000)])
    @pytest.mark.parametrize("second", [b"other", b"\1" * 9000])
    def test_a_taken_key_stays_whatever_the_sizes(self, store: RecordStore, first: bytes, second: bytes) -> None:
        put(store, b"k", first)
        assert put(store, b"k", second) is False
        assert get(store, b"k") == first

    def test_outcomes_are_per_record_and_in_order(self, store: RecordStore) -> None:
        put(store, b"b", b"old")
        assert store.create([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")], ttl=None) == [True, False, True]
        assert store.get_many([b"a", b"b", b"c"]) == [b"1", b"old", b"3"]

    def test_a_key_given_twice_is_created_once_from_the_first(self, store: RecordStore) -> None:
        assert store.create([(b"k", b"1"), (b"k", b"2"), (b"k", b"1")], ttl=None) == [True, False, False]
        assert get(store, b"k") == b"1"

    def test_nothing_to_create_gives_nothing(self, store: RecordStore) -> None:
        assert store.create([], ttl=None) == []

    def test_many_records_in_one_call(self, store: RecordStore) -> None:
        records = [(b"k%d" % n, b"v%d" % n) for n in range(MANY)]
        assert store.create(records, ttl=None) == [True] * MANY
        assert store.create(records[5:8], ttl=None) == [False] * 3
        assert store.get_many([key for key, _ in records]) == [value for _, value in records]

    def test_sixteen_threads_create_one_key_and_one_wins(self, store: RecordStore) -> None:
        for round_ in range(20):
            key = b"k%d" % round_
            outcomes = in_threads(16, lambda n, key=key: put(store, key, b"%d" % n))
            assert sorted(outcomes) == [False] * 15 + [True]
            assert get(store, key) == b"%d" % outcomes.index(True)

    def test_threads_create_overlapping_batches_and_each_key_has_one_winner(self, store: RecordStore) -> None:
        keys = [b"k%d" % n for n in range(40)]

        def work(n: int) -> list[bool]:
            mine = random.Random(n).sample(keys, len(keys))
            created = store.create([(key, b"%d" % n) for key in mine], ttl=None)
            return [dict(zip(mine, created, strict=True))[key] for key in keys]

        outcomes = in_threads(8, work)
        for index, key in enumerate(keys):
            winners = [n for n, outcome in enumerate(outcomes) if outcome[index]]
            assert [get(store, key)] == [b"%d" % n for n in winners]

    @shared_only
    def test_another_store_object_sees_the_record_and_finds_its_key_taken(
        self, store: RecordStore, other: RecordStore
    ) -> None:
        put(store, b"k", b"v")
        assert get(other, b"k") == b"v"
        assert put(other, b"k", b"w") is False

    @shared_only
    def test_what_was_created_is_there_after_close_and_reopen(self, store: RecordStore, harness: Harness) -> None:
        put(store, b"k", b"v")
        store.swap(head(), expected=None, ttl=None)
        store.close()
        again = harness.open()
        assert get(again, b"k") == b"v"
        assert again.get_head(b"h") == head()


class TestCreateAll:
    """Where a store can; one of several nodes says no and creates none."""

    def pair(self, n: int, size: int = 10) -> list[tuple[bytes, bytes]]:
        return [(b"%d.%d" % (n, m), bytes([m]) * size) for m in range(2)]

    @pytest.mark.parametrize("size", [10, 9000])
    def test_all_are_there_or_none(self, store: RecordStore, size: int) -> None:
        can = store.capabilities.ordered
        records = self.pair(1, size)
        assert store.create_all(records, ttl=None) is can
        assert store.get_many([key for key, _ in records]) == [value if can else None for _, value in records]

    @pytest.mark.parametrize("taken", [0, 1])
    @pytest.mark.parametrize("sizes", [(10, 10), (10, 9000), (9000, 10), (9000, 9000)])
    def test_none_is_created_where_a_key_is_taken(self, store: RecordStore, taken: int, sizes: tuple[int, int]) -> None:
        records = [(b"a", bytes(sizes[0])), (b"b", bytes(sizes[1]))]
        put(store, records[taken][0], b"first")
        assert store.create_all(records, ttl=None) is False
        assert store.get_many([b"a", b"b"]) == [b"first" if at == taken else None for at in range(2)]
        assert len(list(store.keys())) == 1

    def test_a_taken_key_takes_nothing_from_the_calls_of_other_threads(self, store: RecordStore) -> None:
        put(store, b"1.1", b"first")
        outcomes = in_threads(16, lambda n: store.create_all(self.pair(n), ttl=None))
        assert outcomes == [store.capabilities.ordered and n != 1 for n in range(16)]
        for n, created in enumerate(outcomes):
            assert store.get_many([key for key, _ in self.pair(n)])[0] == (self.pair(n)[0][1] if created else None)

    def test_of_overlapping_ones_one_wins_whole(self, store: RecordStore) -> None:
        keys = [b"k%d" % n for n in range(6)]

        def work(n: int) -> bool:
            mine = random.Random(n).sample(keys, len(keys))
            return store.create_all([(key, b"%d" % n) for key in mine], ttl=None)

        outcomes = in_threads(8, work)
        winners = [b"%d" % n for n, won in enumerate(outcomes) if won]
        assert len(winners) == int(store.capabilities.ordered)
        assert store.get_many(keys) == (winners or [None]) * len(keys)

    def test_many_at_once_are_read_after_close_and_reopen(self, store: RecordStore, harness: Harness) -> None:
        records = [(b"k%d" % n, b"v%d" % n) for n in range(64)]
        if store.create_all(records, ttl=None) and type(store).__name__ != "MemoryStore":
            store.close()
            store = harness.open()
            assert store.get_many([key for key, _ in records]) == [value for _, value in records]

    def test_too_much_is_the_callers_mistake_and_creates_nothing(self, store: RecordStore) -> None:
        if store.capabilities.ordered:
            with pytest.raises(ValueError, match="at most 64"):
                store.create_all([(b"a", b"v"), (b"k" * 65, b"v")], ttl=None)
        assert get(store, b"a") is None


class TestBytes:
    def test_a_key_of_64_bytes(self, store: RecordStore) -> None:
        key = bytes(range(192, 256))
        assert put(store, key, b"v")
        assert get(store, key) == b"v"
        assert list(store.keys()) == [key]

    def test_keys_that_differ_in_the_last_bit_or_in_length_are_different(self, store: RecordStore) -> None:
        keys = [b"\0" * 25, b"\0" * 24, b"\0" * 24 + b"\1", b"\0"]
        assert store.create([(key, b"%d" % n) for n, key in enumerate(keys)], ttl=None) == [True] * 4
        assert store.get_many(keys) == [b"0", b"1", b"2", b"3"]

    @pytest.mark.parametrize(
        "value", [b"", b"\0", b"a\0b\0", b"'; DROP TABLE log; --", bytes(range(256)), b"\xff" * 475, b"1"]
    )
    def test_any_value_comes_back_as_it_went_in(self, store: RecordStore, value: bytes) -> None:
        put(store, b"k", value)
        store.swap(head(value=value, thread=value or b"t"), expected=None, ttl=None)
        assert get(store, b"k") == value
        assert store.get_head(b"h") == head(value=value, thread=value or b"t")

    def test_values_of_every_length_around_a_page(self, store: RecordStore) -> None:
        records = [(b"%064d" % size, random.Random(size).randbytes(size)) for size in range(350, 2500, 7)]
        assert all(store.create(records, ttl=None))
        assert store.get_many([key for key, _ in records]) == [value for _, value in records]

    def test_a_value_of_5_mb_or_as_large_as_the_store_takes(self, store: RecordStore) -> None:
        value = random.Random(5).randbytes(min(5_000_000, store.capabilities.max_record))
        assert put(store, b"k", value)
        assert get(store, b"k") == value

    def test_a_key_over_64_bytes_is_the_callers_mistake(self, store: RecordStore) -> None:
        with pytest.raises(ValueError, match="64"):
            put(store, bytes(65), b"v")
        with pytest.raises(ValueError, match="64"):
            store.swap(head(key=bytes(65)), expected=None, ttl=None)

    def test_a_value_over_max_record_is_the_callers_mistake_and_creates_nothing(self, store: RecordStore) -> None:
        with pytest.raises(ValueError, match="max_record"):
            store.create([(b"a", b"v"), (b"b", bytes(store.capabilities.max_record + 1))], ttl=None)
        assert store.get_many([b"a", b"b"]) == [None, None]


class TestGetMany:
    def test_values_come_in_the_order_asked_with_none_for_missing(self, store: RecordStore) -> None:
        store.create([(b"a", b"1"), (b"b", b"2")], ttl=None)
        assert store.get_many([b"x", b"b", b"a", b"y", b"b"]) == [None, b"2", b"1", None, b"2"]

    def test_no_keys_give_no_values(self, store: RecordStore) -> None:
        assert store.get_many([]) == []

    def test_a_head_is_no_log_record(self, store: RecordStore) -> None:
        store.swap(head(key=b"k"), expected=None, ttl=None)
        assert get(store, b"k") is None
        assert put(store, b"k", b"log")
        assert store.get_head(b"k") == head(key=b"k")

    def test_a_create_that_returned_in_one_thread_is_seen_in_every_other(self, store: RecordStore) -> None:
        for round_ in range(10):
            with ThreadPoolExecutor(1) as fresh:
                assert fresh.submit(put, store, b"k%d" % round_, b"v").result()
            assert in_threads(6, lambda _, n=round_: get(store, b"k%d" % n)) == [b"v"] * 6

    def test_readers_see_whole_records_while_others_write(self, store: RecordStore) -> None:
        sizes = [100, 600, 9000]

        def work(n: int) -> None:
            for step in range(30):
                key = b"k%d" % step
                if n % 2:
                    put(store, key, bytes([n]) * sizes[step % 3])
                elif (value := get(store, key)) is not None:
                    assert len(value) == sizes[step % 3]
                    assert len(set(value)) == 1

        in_threads(8, work)


class TestSwap:
    @pytest.mark.parametrize(
        ("stored", "expected", "swaps"),
        [(None, None, True), (None, 1, False), (1, None, False), (1, 1, True), (1, 2, False), (7, 1, False)],
    )
    def test_it_stores_only_where_the_revision_is_the_expected(
        self, store: RecordStore, stored: int | None, expected: int | None, swaps: bool
    ) -> None:
        before = None if stored is None else head(revision=stored, value=b"old", thread=b"T")
        if before:
            assert store.swap(before, expected=None, ttl=None) is True
        new = head(revision=9, value=b"new")
        assert store.swap(new, expected=expected, ttl=None) is swaps
        assert store.get_head(b"h") == (new if swaps else before)

    def test_an_absent_head_is_none(self, store: RecordStore) -> None:
        assert store.get_head(b"h") is None

    def test_every_field_is_replaced(self, store: RecordStore) -> None:
        store.swap(head(thread=b"t1", value=b"long" * 500), expected=None, ttl=None)
        store.swap(head(thread=b"t2", revision=2, value=b""), expected=1, ttl=None)
        assert store.get_head(b"h") == head(thread=b"t2", revision=2, value=b"")
        assert list(store.heads(b"t1")) == []
        assert list(store.heads(b"t2")) == [head(thread=b"t2", revision=2, value=b"")]

    def test_a_revision_may_go_down_and_may_need_63_bits(self, store: RecordStore) -> None:
        store.swap(head(revision=2**63 - 1), expected=None, ttl=None)
        assert store.swap(head(revision=0), expected=2**63 - 1, ttl=None)
        assert store.get_head(b"h") == head(revision=0)

    def test_a_revision_that_does_not_move_is_the_callers_mistake(self, store: RecordStore) -> None:
        store.swap(head(), expected=None, ttl=None)
        with pytest.raises(ValueError, match="revision"):
            store.swap(head(value=b"new"), expected=1, ttl=None)
        assert store.get_head(b"h") == head()

    def test_other_heads_are_left_alone(self, store: RecordStore) -> None:
        store.swap(head(key=b"a"), expected=None, ttl=None)
        store.swap(head(key=b"b"), expected=None, ttl=None)
        store.swap(head(key=b"a", revision=2), expected=1, ttl=None)
        assert store.get_head(b"b") == head(key=b"b")

    def test_thirty_two_threads_increment_one_head_and_no_increment_is_lost(self, store: RecordStore) -> None:
        store.swap(head(revision=0, value=b"0"), expected=None, ttl=None)

        def increment(_: int) -> None:
            for _ in range(5):
                while True:
                    now = store.get_head(b"h")
                    assert now is not None
                    new = head(revision=now.revision + 1, value=b"%d" % (int(now.value) + 1))
                    if store.swap(new, expected=now.revision, ttl=None):
                        break

        in_threads(32, increment)
        assert store.get_head(b"h") == head(revision=160, value=b"160")

    def test_sixteen_threads_make_one_head_and_one_wins(self, store: RecordStore) -> None:
        outcomes = in_threads(16, lambda n: store.swap(head(revision=n), expected=None, ttl=None))
        assert sorted(outcomes) == [False] * 15 + [True]
        assert store.get_head(b"h") == head(revision=outcomes.index(True))

    @shared_only
    def test_another_store_object_sees_the_swap_and_loses_the_race(
        self, store: RecordStore, other: RecordStore
    ) -> None:
        store.swap(head(), expected=None, ttl=None)
        assert other.get_head(b"h") == head()
        store.swap(head(revision=2), expected=1, ttl=None)
        assert other.swap(head(revision=3), expected=1, ttl=None) is False
        assert other.get_head(b"h") == head(revision=2)


class TestHeads:
    def test_heads_of_a_thread_are_those_with_exactly_its_bytes(self, store: RecordStore) -> None:
        threads = [b"t", b"t\0", b"T", b"\0", b"\xff\xfe", b"tt", "straße".encode(), b"x" * 900]
        for n, thread in enumerate(threads):
            store.swap(head(key=b"a%d" % n, thread=thread), expected=None, ttl=None)
            store.swap(head(key=b"b%d" % n, thread=thread), expected=None, ttl=None)
        for n, thread in enumerate(threads):
            found = sorted(record.key for record in store.heads(thread))
            assert found == [b"a%d" % n, b"b%d" % n]
        assert list(store.heads(b"absent")) == []

    def test_no_heads_at_first(self, store: RecordStore) -> None:
        assert list(store.heads()) == []

    def test_partitions_are_disjoint_and_cover_all(self, store: RecordStore) -> None:
        everything = [head(key=b"h%d" % n, thread=b"t%d" % (n % 3)) for n in range(MANY)]
        for record in everything:
            store.swap(record, expected=None, ttl=None)
        assert sorted(store.heads(), key=lambda h: h.key) == sorted(everything, key=lambda h: h.key)
        for count in (1, 2, 7):
            shares = [list(store.heads(partition=(i, count))) for i in range(count)]
            assert all(shares)
            assert sorted(h.key for share in shares for h in share) == sorted(h.key for h in everything)
        of_thread = [h.key for i in range(2) for h in store.heads(b"t1", partition=(i, 2))]
        assert sorted(of_thread) == sorted(h.key for h in everything if h.thread == b"t1")

    def test_a_head_swapped_meanwhile_is_seen_once_before_or_after(self, store: RecordStore) -> None:
        for n in range(MANY):
            store.swap(head(key=b"h%d" % n), expected=None, ttl=None)
        seen = store.heads()
        found = [next(seen)]
        for n in range(MANY):
            store.swap(head(key=b"h%d" % n, revision=2), expected=1, ttl=None)
        found += seen
        assert len({record.key for record in found}) == len(found) == MANY
        assert {record.revision for record in found} <= {1, 2}

    def test_an_iteration_begun_and_left_does_not_hinder_writers(self, store: RecordStore) -> None:
        for n in range(MANY):
            put(store, b"k%d" % n, b"v")
        left = store.keys()
        next(left)
        assert put(store, b"new", b"v")
        assert store.reclaim() >= 0

    @pytest.mark.parametrize("partition", [(1, 1), (-1, 2), (0, 0), (2, 2)])
    def test_a_share_that_does_not_exist_is_the_callers_mistake(
        self, store: RecordStore, partition: tuple[int, int]
    ) -> None:
        with pytest.raises(ValueError, match="partition"):
            list(store.heads(partition=partition))
        with pytest.raises(ValueError, match="partition"):
            list(store.keys(partition=partition))


class TestKeys:
    def test_keys_are_those_of_log_records_in_disjoint_shares(self, store: RecordStore) -> None:
        store.swap(head(key=b"a head"), expected=None, ttl=None)
        everything = [bytes([n % 256, n // 256]) for n in range(MANY)] + [b"large"]
        store.create([(key, b"v") for key in everything[:-1]] + [(b"large", bytes(9000))], ttl=None)
        assert sorted(store.keys()) == sorted(everything)
        for count in (2, 5):
            shares = [list(store.keys(partition=(i, count))) for i in range(count)]
            assert all(shares)
            assert sorted(key for share in shares for key in share) == sorted(everything)

    @pytest.mark.parametrize("count", [499, 500, 501, 1000])
    def test_iteration_ends_where_the_records_end(self, store: RecordStore, count: int) -> None:
        store.create([(b"%06d" % n, b"v") for n in range(count)], ttl=None)
        assert len(list(store.keys())) == count

    def test_no_key_is_lost_between_two_that_begin_alike(self, store: RecordStore) -> None:
        everything = [b"%06d" % n + b"\0" * zeros for n in range(MANY // 3) for zeros in range(3)]
        store.create([(key, b"v") for key in everything], ttl=None)
        assert sorted(store.keys()) == everything


class TestRemove:
    def test_removed_records_are_gone_and_their_keys_free(self, store: RecordStore) -> None:
        store.create([(b"a", b"1"), (b"b", bytes(9000)), (b"c", b"3")], ttl=None)
        store.remove_many([b"a", b"b", b"missing", b"a"])
        assert store.get_many([b"a", b"b", b"c"]) == [None, None, b"3"]
        assert list(store.keys()) == [b"c"]
        assert store.create([(b"a", b"new"), (b"b", b"new")], ttl=None) == [True, True]
        assert store.get_many([b"a", b"b"]) == [b"new", b"new"]

    def test_nothing_to_remove_is_no_error(self, store: RecordStore) -> None:
        store.remove_many([])
        store.remove_many(iter([b"missing"]))

    def test_many_are_removed_in_one_call_from_any_iterable(self, store: RecordStore) -> None:
        store.create([(b"k%d" % n, b"v") for n in range(MANY)], ttl=None)
        store.remove_many(b"k%d" % n for n in range(1, MANY))
        assert list(store.keys()) == [b"k0"]

    def test_removing_keys_while_iterating_over_them_misses_none(self, store: RecordStore) -> None:
        store.create([(b"k%d" % n, b"v") for n in range(MANY)], ttl=None)
        store.remove_many(store.keys())
        assert list(store.keys()) == []

    def test_heads_are_not_removed(self, store: RecordStore) -> None:
        store.swap(head(key=b"k"), expected=None, ttl=None)
        store.remove_many([b"k"])
        assert store.get_head(b"k") == head(key=b"k")


class TestEmpty:
    def test_emptied_records_hold_their_keys_and_nothing_else(self, store: RecordStore) -> None:
        store.create([(b"a", b"1"), (b"b", bytes(9000)), (b"c", b"3")], ttl=None)
        store.empty_many([b"a", b"b", b"missing", b"a"])
        assert store.get_many([b"a", b"b", b"c", b"missing"]) == [b"", b"", b"3", None]
        assert store.create([(b"a", b"new"), (b"b", bytes(9000))], ttl=None) == [False, False]
        assert sorted(store.keys()) == [b"a", b"b", b"c"]
        store.remove_many([b"a", b"b"])
        assert store.create([(b"a", b"new"), (b"b", bytes(9000))], ttl=None) == [True, True]

    def test_many_are_emptied_in_one_call_from_any_iterable(self, store: RecordStore) -> None:
        store.empty_many([])
        store.create([(b"k%d" % n, b"v") for n in range(MANY)], ttl=None)
        store.empty_many(b"k%d" % n for n in range(1, MANY))
        assert store.get_many([b"k%d" % n for n in range(MANY)]) == [b"v", *[b""] * (MANY - 1)]


class TestExpiry:
    """A TTL of 3 s is over after 5: a store may round up, and a server needs a moment."""

    @pytest.fixture(autouse=True)
    def _has_expiry(self, store: RecordStore) -> None:
        assert store.capabilities.ttl

    def test_a_record_lives_for_its_ttl_and_then_is_nowhere(self, store: RecordStore, harness: Harness) -> None:
        store.create([(b"k", b"v"), (b"large", bytes(9000))], ttl=3)
        store.swap(head(), expected=None, ttl=3)
        put(store, b"forever", b"v")
        harness.advance(1)
        assert store.get_many([b"k", b"large"]) == [b"v", bytes(9000)]
        assert store.get_head(b"h") == head()
        harness.advance(4)
        assert store.get_many([b"k", b"large", b"forever"]) == [None, None, b"v"]
        assert store.get_head(b"h") is None
        assert list(store.heads()) == list(store.heads(b"t")) == []
        assert list(store.keys()) == [b"forever"]

    def test_an_expired_key_is_free_for_records_of_any_size(self, store: RecordStore, harness: Harness) -> None:
        store.create([(b"a", b"old"), (b"b", b"old"), (b"c", bytes(9000)), (b"d", bytes(9000))], ttl=3)
        harness.advance(5)
        new = [(b"a", b"new"), (b"b", b"n" * 9000), (b"c", b"new"), (b"d", b"n" * 9000)]
        assert store.create(new, ttl=None) == [True] * 4
        assert store.create(new, ttl=None) == [False] * 4
        harness.advance(5)
        assert store.get_many([b"a", b"b", b"c", b"d"]) == [value for _, value in new]

    def test_records_created_all_at_once_expire(self, store: RecordStore, harness: Harness) -> None:
        if store.create_all([(b"a", b"v"), (b"b", bytes(9000))], ttl=100):
            harness.advance(50)
            assert store.get_many([b"a", b"b"]) == [b"v", bytes(9000)]
            harness.advance(51)
            assert store.get_many([b"a", b"b"]) == [None, None]
            assert store.create_all([(b"b", b"again"), (b"c", b"v")], ttl=None) is False
            assert store.create([(b"b", b"again"), (b"c", b"v")], ttl=None) == [True, True]

    def test_an_expired_head_is_absent_to_swap(self, store: RecordStore, harness: Harness) -> None:
        store.swap(head(), expected=None, ttl=3)
        harness.advance(5)
        assert store.swap(head(revision=2), expected=1, ttl=None) is False
        assert store.swap(head(revision=5, thread=b"new"), expected=None, ttl=None) is True
        assert store.get_head(b"h") == head(revision=5, thread=b"new")

    def test_every_swap_states_the_expiry_anew(self, store: RecordStore, harness: Harness) -> None:
        store.swap(head(key=b"a"), expected=None, ttl=3)
        store.swap(head(key=b"a", revision=2), expected=1, ttl=None)
        store.swap(head(key=b"b"), expected=None, ttl=None)
        store.swap(head(key=b"b", revision=2), expected=1, ttl=3)
        harness.advance(5)
        assert store.get_head(b"a") == head(key=b"a", revision=2)
        assert store.get_head(b"b") is None

    def test_unless_it_is_to_stay_as_it_is(self, store: RecordStore, harness: Harness) -> None:
        for key, ttl in ((b"a", 3), (b"b", None), (b"c", 60)):
            store.swap(head(key=key), expected=None, ttl=ttl)
        harness.advance(1)
        for key in (b"a", b"b", b"c"):
            assert store.swap(head(key=key, revision=2), expected=1, ttl=UNCHANGED) is True
        assert store.get_head(b"a") == head(key=b"a", revision=2)
        harness.advance(4)
        assert store.get_head(b"a") is None
        assert store.swap(head(key=b"a", revision=3), expected=2, ttl=UNCHANGED) is False
        assert [store.get_head(key) for key in (b"b", b"c")] == [head(key=key, revision=2) for key in (b"b", b"c")]
        with pytest.raises(ValueError, match="ttl is -1"):
            store.swap(head(key=b"d"), expected=None, ttl=UNCHANGED)

    def test_a_swap_or_create_that_fails_leaves_the_expiry(self, store: RecordStore, harness: Harness) -> None:
        store.swap(head(), expected=None, ttl=3)
        put(store, b"k", b"v", ttl=3)
        assert store.swap(head(revision=3), expected=2, ttl=None) is False
        assert put(store, b"k", b"w") is False
        harness.advance(5)
        assert store.get_head(b"h") is None
        assert get(store, b"k") is None

    def test_emptying_a_record_leaves_its_expiry(self, store: RecordStore, harness: Harness) -> None:
        store.create([(b"a", b"v"), (b"b", bytes(9000))], ttl=3)
        put(store, b"forever", b"v")
        store.empty_many([b"a", b"b", b"forever"])
        harness.advance(5)
        assert store.get_many([b"a", b"b", b"forever"]) == [None, None, b""]

    def test_extend_counts_from_now_for_records_and_heads(self, store: RecordStore, harness: Harness) -> None:
        store.create([(b"k", b"v"), (b"left", b"v")], ttl=3)
        store.swap(head(), expected=None, ttl=3)
        harness.advance(1)
        store.extend([b"k", b"missing"], heads=[b"h", b"missing"], ttl=60)
        harness.advance(4)
        assert store.get_many([b"k", b"left", b"missing"]) == [b"v", None, None]
        assert store.get_head(b"h") == head()
        assert store.get_head(b"missing") is None

    def test_extend_can_shorten_a_life_and_make_it_endless(self, store: RecordStore, harness: Harness) -> None:
        put(store, b"short", b"v")
        put(store, b"endless", b"v", ttl=3)
        store.extend([b"short"], ttl=3)
        store.extend(iter([b"endless"]), ttl=None)
        harness.advance(5)
        assert store.get_many([b"short", b"endless"]) == [None, b"v"]

    def test_extend_does_not_raise_the_dead(self, store: RecordStore, harness: Harness) -> None:
        put(store, b"k", b"v", ttl=3)
        store.swap(head(), expected=None, ttl=3)
        harness.advance(5)
        store.extend([b"k"], heads=[b"h"], ttl=None)
        assert get(store, b"k") is None
        assert store.get_head(b"h") is None

    def test_many_are_extended_in_one_call(self, store: RecordStore, harness: Harness) -> None:
        keys = [b"k%d" % n for n in range(MANY)]
        store.create([(key, b"v") for key in keys], ttl=3)
        store.extend(keys, ttl=60)
        harness.advance(5)
        assert store.get_many(keys) == [b"v"] * MANY

    @pytest.mark.parametrize("ttl", [0, -1])
    def test_a_ttl_under_a_second_is_the_callers_mistake(self, store: RecordStore, ttl: int) -> None:
        with pytest.raises(ValueError, match="ttl"):
            put(store, b"k", b"v", ttl=ttl)
        with pytest.raises(ValueError, match="ttl"):
            store.swap(head(), expected=None, ttl=ttl)
        with pytest.raises(ValueError, match="ttl"):
            store.extend([b"k"], ttl=ttl)

    def test_reclaim_keeps_what_lives_and_frees_what_expired(self, store: RecordStore, harness: Harness) -> None:
        store.create([(b"old%d" % n, bytes(2000)) for n in range(MANY)], ttl=3)
        store.swap(head(key=b"old"), expected=None, ttl=3)
        store.create([(b"k", b"v"), (b"large", bytes(9000))], ttl=60)
        store.swap(head(), expected=None, ttl=60)
        harness.advance(5)
        assert store.reclaim() >= 0
        assert store.get_many([b"k", b"large", b"old0"]) == [b"v", bytes(9000), None]
        assert list(store.heads()) == [head()]


class TestLife:
    def test_capabilities_are_fixed_and_positive(self, store: RecordStore) -> None:
        assert store.capabilities == store.capabilities
        assert store.capabilities.max_record >= 1 << 16

    def test_reclaim_of_an_empty_store_gives_a_count(self, store: RecordStore) -> None:
        assert store.reclaim() >= 0

    def test_writing_does_not_unsettle_it(self, store: RecordStore) -> None:
        before = store.settled()
        put(store, b"k", b"v")
        store.remove_many([b"k"])
        assert store.settled() == before

    def test_close_twice_is_no_error(self, store: RecordStore) -> None:
        store.close()
        store.close()

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.create([(b"k", b"v")], ttl=None),
            lambda store: store.create([], ttl=None),
            lambda store: store.create_all([(b"k", b"v")], ttl=None),
            lambda store: store.get_many([b"k"]),
            lambda store: store.get_many([]),
            lambda store: store.get_head(b"h"),
            lambda store: store.swap(head(revision=2), expected=1, ttl=None),
            lambda store: list(store.heads()),
            lambda store: list(store.heads(b"t")),
            lambda store: store.extend([b"k"], ttl=None),
            lambda store: store.extend([], ttl=None),
            lambda store: store.remove_many([b"k"]),
            lambda store: store.remove_many([]),
            lambda store: store.empty_many([b"k"]),
            lambda store: list(store.keys()),
            lambda store: store.settled(),
            lambda store: store.reclaim(),
        ],
    )
    def test_after_close_every_call_says_so(self, store: RecordStore, call: Callable[[RecordStore], object]) -> None:
        store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            call(store)

    def test_close_during_calls_of_other_threads_is_clean(self, store: RecordStore) -> None:
        started = threading.Barrier(5)

        def work(n: int) -> str:
            started.wait()
            for step in range(10_000):
                try:
                    put(store, b"%d.%d" % (n, step), b"v")
                except StoreUnavailable as error:
                    return str(error)
            return "never closed"

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(work, n) for n in range(4)]
            started.wait()
            store.close()
            assert all("closed" in future.result() for future in futures)
