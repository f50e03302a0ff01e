"""A sweep removes what nothing leads to, and never what something may lead to."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import id_of, numbered, numbers, value, write
from moving import Interrupted, MovingClock
from stores import BACKENDS, Harness

from foldpoint import Engine, Settings
from foldpoint.codecs.envelope import Cipher
from foldpoint.compaction import DropAll, KeepLast, copy_thread, rewrite_thread, upkeep
from foldpoint.compaction.sweep import SweepReport, sweep
from foldpoint.engine import keys
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import HeadRecord, RecordStore
from foldpoint.errors import Conflict, CorruptRecord, StoreBusy

GRACE = 600.0
SNAPPY = Settings(window=8, grace=GRACE, snapshot_ratio=0.001)
"""A snapshot at each seal, once there is one."""


class Died(Exception):
    """Of a process that was killed here."""


def die() -> None:
    raise Died


@pytest.fixture(params=sorted(BACKENDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordStore]:
    harness: Harness = BACKENDS[request.param](tmp_path)
    yield harness.open()
    harness.close()


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


def engine_on(store: Any, clock: MovingClock | None = None, window: int = 8) -> Engine:
    return Engine(store, Settings(window=window, grace=GRACE), clock=clock)


def fill(engine: Engine, count: int, thread: str = "t", **channels: object) -> None:
    for n in range(count):
        engine.put(thread, "", numbered(n, **channels))


def swept(engine: Engine, clock: MovingClock) -> SweepReport:
    """Two sweeps, the grace apart: what the second did."""
    sweep(engine)
    clock.advance(GRACE + 1)
    return sweep(engine)


def stored(store: RecordStore) -> set[bytes]:
    """The log's records without those of the sweeps themselves."""
    every = store.keys()
    return {key for key in every if keys.epoch_of(key) != keys.LOOKS}


def leave_an_epoch(store: RecordStore, clock: MovingClock, thread: str = "t") -> None:
    """A rewriter writes a new epoch and dies before its swap; long ago, so that no head names the epoch any more."""
    seam = Interrupted(store)
    seam.after["swap"] = lambda: seam.before.update(swap=die)  # the announcement succeeds
    with pytest.raises(Died):
        rewrite_thread(engine_on(seam, clock), thread, KeepLast(3))
    clock.advance(GRACE + 1)
    upkeep(engine_on(store, clock), thread, "")


# -- what goes ---------------------------------------------------------------------------------------------------------


def test_what_a_rewriter_left_goes_at_the_second_look(store: RecordStore, clock: MovingClock) -> None:
    engine = engine_on(store, clock)
    fill(engine, 20)
    before = stored(store)
    leave_an_epoch(store, clock)
    left = {key for key in stored(store) if keys.epoch_of(key) not in map(keys.epoch_of, before)}
    assert left
    report = sweep(engine)
    assert (report.removed, report.waiting) == (0, 1)
    clock.advance(GRACE - 1)
    assert sweep(engine) == replace(report, records=report.records + 1)  # the first look's own record
    assert left <= stored(store)
    clock.advance(1)
    assert sweep(engine).removed == len(left)
    assert not left & stored(store)
    assert numbers(engine_on(store)) == list(range(19, -1, -1))
    assert sweep(engine) == SweepReport(records=len(stored(store)), removed=0, waiting=0)
    assert set(store.keys()) == stored(store)


def test_a_dry_run_tells_the_same_and_changes_nothing(store: RecordStore, clock: MovingClock) -> None:
    engine = engine_on(store, clock)
    fill(engine, 20)
    leave_an_epoch(store, clock)
    before = set(store.keys())
    assert sweep(engine, dry_run=True).waiting == 1
    assert set(store.keys()) == before
    sweep(engine)
    clock.advance(GRACE + 1)
    before = set(store.keys())
    would = sweep(engine, dry_run=True)
    assert set(store.keys()) == before
    assert sweep(engine) == would


def test_records_that_came_back_go_at_once(store: RecordStore, clock: MovingClock) -> None:
    engine = engine_on(store, clock)
    fill(engine, 100, text="x" * 100)
    engine.put_writes("t", "", id_of(99), [write(1)])
    before = [*stored(store)]
    old = dict(zip(before, store.get_many(before), strict=True))
    for _ in range(3):
        upkeep(engine, "t", "", idle=True)
        clock.advance(GRACE + 1)
    remaining = stored(store)
    back = {key: record for key, record in old.items() if key not in remaining and record}
    assert {key[16:17] for key in back} >= {b"e", b"p", b"s"}
    assert all(store.create(list(back.items()), ttl=None))  # as a server does that starts cold
    kept_snapshots = {key for key in back if key[16:17] == b"k"}
    assert sweep(engine).removed == len(back) - len(kept_snapshots)
    assert stored(store) == remaining | kept_snapshots
    assert numbers(engine_on(store)) == list(range(99, -1, -1))


def strays(store: RecordStore) -> set[bytes]:
    """Snapshots with numbers beyond the head's."""
    (head,) = Engine(store).heads("t")
    return {
        key
        for key in stored(store)
        if key[16:17] in (b"p", b"k") and int.from_bytes(key[17:21], "big") > head.snapshots
    }


def seal_and_meet(store: RecordStore, clock: MovingClock, before_swap: Callable[[], object]) -> None:
    """Seal a tail, with a snapshot; at the swap that would name it something happens."""
    seam = Interrupted(store)
    seam.before["swap"] = before_swap
    with Engine(seam, SNAPPY, clock=clock).log("t", "") as log:
        log.seal()


def test_a_snapshot_that_a_sealer_left_goes(store: RecordStore, clock: MovingClock) -> None:
    engine = Engine(store, SNAPPY, clock=clock)
    fill(engine, 46)
    with pytest.raises(Died):
        seal_and_meet(store, clock, die)
    left = strays(store)
    assert left
    assert swept(engine, clock).removed == len(left)
    assert not left & stored(store)
    for n in range(46, 80):
        engine.put("t", "", numbered(n))
    assert numbers(engine) == numbers(engine_on(store)) == list(range(79, -1, -1))


def large(n: int) -> str:
    """Does not compress below two of the records that `small_records` takes."""
    return random.Random(n).randbytes(3000).hex()


@pytest.fixture
def small_records() -> MemoryStore:
    return MemoryStore(max_record=1024)


def leave_parts(store: RecordStore, clock: MovingClock, n: int, cipher: Cipher | None = None) -> None:
    seam = Interrupted(store)
    seam.after["create"] = die  # four parts, and no stub
    with pytest.raises(Died):
        engine_on(seam, clock).with_cipher(cipher).put("t", "", numbered(n, text=large(n)))


def test_parts_that_a_writer_left_go_and_those_in_use_stay(small_records: MemoryStore, clock: MovingClock) -> None:
    engine = engine_on(small_records, clock)
    for n in range(20):
        engine.put("t", "", numbered(n, text=large(n)))
    in_use = stored(small_records)
    leave_parts(small_records, clock, 20)
    assert sweep(engine).waiting == 1
    clock.advance(GRACE + 1)
    assert sweep(engine).removed == 4
    assert in_use <= stored(small_records)
    engine.put("t", "", numbered(20, text="small"))
    assert numbers(engine_on(small_records)) == list(range(20, -1, -1))
    found = engine_on(small_records).find("t", "", id_of(19))
    assert found is not None
    assert found.value("text") == value(large(19))


def test_records_of_a_stream_whose_head_expired_go(clock: MovingClock) -> None:
    store = MemoryStore(clock=clock.now)
    engine = engine_on(store, clock)
    for n in range(20):
        engine.put("t", "", numbered(n), ttl=1000)
    fill(engine, 3, "stays")
    clock.advance(1300)  # the head is gone; what it named lives on for a while
    assert len(stored(store)) > 3
    swept(engine, clock)
    assert len(stored(store)) == 3
    assert numbers(engine_on(store, clock), "stays") == [2, 1, 0]


# -- what stays --------------------------------------------------------------------------------------------------------


def test_a_store_without_garbage_stays_as_it_is(store: RecordStore, clock: MovingClock) -> None:
    engine = engine_on(store, clock)
    fill(engine, 50)
    fill(engine, 30, "pruned")
    fill(engine, 3, "deleted")
    rewrite_thread(engine, "pruned", KeepLast(7))
    rewrite_thread(engine, "deleted", DropAll())
    copy_thread(engine, "t", "copy")
    before = set(store.keys())
    assert swept(engine, clock) == SweepReport(len(before), 0, 0)
    assert set(store.keys()) == before
    assert numbers(engine_on(store)) == numbers(engine_on(store), "copy") == list(range(49, -1, -1))


@pytest.mark.parametrize("upkept", [False, True], ids=["alone", "and its announcement was dropped"])
def test_a_rewriter_that_is_held_up_longer_than_the_grace_loses_nothing(
    store: RecordStore, clock: MovingClock, upkept: bool
) -> None:
    engine = engine_on(store, clock)
    fill(engine, 20)

    def meanwhile() -> None:
        clock.advance(GRACE + 1)
        if upkept:
            upkeep(engine, "t", "")
        swept(engine, clock)

    seam = Interrupted(store)
    seam.after["swap"] = lambda: seam.before.update(swap=meanwhile)
    rewrite_thread(engine_on(seam, clock), "t", KeepLast(12))
    assert "swap" not in seam.before
    assert numbers(engine_on(store)) == list(range(19, 7, -1))
    swept(engine, clock)
    engine.put("t", "", numbered(20))
    assert numbers(engine) == numbers(engine_on(store)) == list(range(20, 7, -1))


def test_a_sealer_that_is_held_up_longer_than_the_grace_loses_nothing(store: RecordStore, clock: MovingClock) -> None:
    engine = Engine(store, SNAPPY, clock=clock)
    fill(engine, 46)

    def meanwhile() -> None:
        assert strays(store)
        assert swept(engine, clock).removed

    seal_and_meet(store, clock, meanwhile)
    assert numbers(engine) == numbers(engine_on(store)) == list(range(45, -1, -1))


@pytest.mark.parametrize("grace_over_again", [False, True])
def test_a_writer_that_is_held_up_between_parts_and_stub_loses_nothing(
    small_records: MemoryStore, clock: MovingClock, grace_over_again: bool
) -> None:
    engine = engine_on(small_records, clock)
    fill(engine, 5)

    def meanwhile() -> None:
        assert swept(engine, clock).removed == 4
        if grace_over_again:  # the slot that the stub is about to take is emptied
            for _ in range(2):
                clock.advance(GRACE + 1)
                upkeep(engine, "t", "")

    seam = Interrupted(small_records)
    writer = engine_on(seam, clock)
    assert numbers(writer) == [4, 3, 2, 1, 0]
    writer.latest("t", "")
    seam.after["create"] = meanwhile
    writer.put("t", "", numbered(5, text=large(5)))
    assert "create" not in seam.after
    for reader in (writer, engine, engine_on(small_records)):
        assert numbers(reader) == [5, 4, 3, 2, 1, 0]
        found = reader.find("t", "", id_of(5))
        assert found is not None
        assert found.value("text") == value(large(5))


def test_parts_of_a_segment_that_awaits_its_head_stay(small_records: MemoryStore, clock: MovingClock) -> None:
    engine = engine_on(small_records, clock)
    for n in range(5):
        engine.put("t", "", numbered(n, text=large(n)))
    with pytest.raises(Died):
        seal_and_meet(small_records, clock, die)
    left = strays(small_records)
    before = stored(small_records) - left
    assert sweep(engine).waiting == len({key[:21] for key in left})
    swept(engine, clock)
    assert before <= stored(small_records)
    upkeep(engine, "t", "")  # adopts the segment
    assert numbers(engine) == numbers(engine_on(small_records)) == [4, 3, 2, 1, 0]


def test_the_first_put_of_a_stream_may_be_held_up(store: RecordStore, clock: MovingClock) -> None:
    seam = Interrupted(store)
    seam.before["create"] = lambda: swept(engine_on(store, clock), clock)
    engine_on(seam, clock).put("t", "", numbered(0))
    assert "create" not in seam.before
    swept(engine_on(store, clock), clock)
    assert numbers(engine_on(store)) == [0]


def test_what_begins_during_a_look_is_no_suspect(store: RecordStore, clock: MovingClock) -> None:
    writer, seam = engine_on(store, clock), Interrupted(store)
    fill(writer, 20)

    def meanwhile() -> None:
        fill(writer, 3, "new")
        rewrite_thread(writer, "t", KeepLast(5))

    seam.before["keys"] = meanwhile  # the heads were read before
    assert sweep(engine_on(seam, clock)) == SweepReport(len(stored(store)), 0, 0)


class Moving(MemoryStore):
    """Its records move between servers when a test says so."""

    token = b"one"

    def settled(self) -> bytes:
        return self.token


def test_a_look_before_data_moved_counts_no_more(clock: MovingClock) -> None:
    store = Moving()
    engine = engine_on(store, clock)
    fill(engine, 20)
    leave_an_epoch(store, clock)
    sweep(engine)
    store.token = b"two"
    clock.advance(GRACE + 1)
    assert sweep(engine).removed == 0
    clock.advance(GRACE + 1)
    assert sweep(engine).removed > 0


def test_a_sweep_stops_when_data_begins_to_move(clock: MovingClock) -> None:
    store = Moving()
    engine = engine_on(store, clock)
    fill(engine, 20)
    leave_an_epoch(store, clock)
    sweep(engine)
    clock.advance(GRACE + 1)
    before = set(store.keys())

    def move() -> None:
        store.token = b"two"

    with pytest.raises(StoreBusy, match="sweep again"):
        sweep(engine, tick=move)
    assert set(store.keys()) == before


def test_nothing_goes_while_a_head_cannot_be_read(clock: MovingClock) -> None:
    store = MemoryStore()
    engine = engine_on(store, clock)
    fill(engine, 20)
    leave_an_epoch(store, clock)
    sweep(engine)
    clock.advance(GRACE + 1)
    fill(engine, 3, "other")
    (head,) = store.heads(b"other")
    store.swap(HeadRecord(head.key, head.thread, 99, head.value[:-1]), expected=head.revision, ttl=None)
    before = set(store.keys())
    with pytest.raises(CorruptRecord, match=head.key.hex()):
        sweep(engine)
    assert set(store.keys()) == before


def test_a_damaged_look_only_delays(clock: MovingClock, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    engine = engine_on(store, clock)
    fill(engine, 20)
    leave_an_epoch(store, clock)
    sweep(engine)
    (look,) = set(store.keys()) - stored(store)
    store.remove_many([look])
    store.create([(look, b"damaged")], ttl=None)
    clock.advance(GRACE + 1)
    assert sweep(engine).removed == 0
    assert f"record {look.hex()}" in caplog.text
    clock.advance(GRACE + 1)
    assert sweep(engine).removed > 0


def test_what_cannot_be_decrypted_is_passed_over(
    small_records: MemoryStore, clock: MovingClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Reversed:
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            return "reversed", plaintext[::-1]

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            return ciphertext[::-1]

    engine = engine_on(small_records, clock)
    secret = engine.with_cipher(Reversed())
    fill(secret, 5)
    leave_parts(small_records, clock, 5, secret.io.cipher)
    assert swept(engine, clock).removed == 0
    assert "passes over thread 't'" in caplog.text
    assert sweep(secret).removed == 4
    assert numbers(secret) == [4, 3, 2, 1, 0]


# -- at once -----------------------------------------------------------------------------------------------------------


def test_sweeps_beside_writers_sealers_and_rewriters_lose_nothing(store: RecordStore) -> None:
    """Real threads and real time, with a grace so short that it passes several times."""
    settings = Settings(window=8, grace=0.5, snapshot_ratio=0.01)
    until = time.monotonic() + 2
    made = {f"t{n}": 0 for n in range(3)}
    removed = []

    def write_all(engine: Engine) -> None:
        for thread, count in made.items():
            engine.put(thread, "", numbered(count, text=large(count)))
            made[thread] = count + 1

    def rewrite(engine: Engine) -> None:
        with suppress(Conflict):
            rewrite_thread(engine, "t0", KeepLast(5))
            copy_thread(engine, "t1", "copy")
            rewrite_thread(engine, "copy", DropAll())

    def die_rewriting(engine: Engine) -> None:
        seam = Interrupted(store)
        seam.after["swap"] = lambda: seam.before.update(swap=die)
        with suppress(Conflict, Died):
            rewrite_thread(Engine(seam, settings), "t2", KeepLast(1000))
            rewrite_thread(Engine(seam, settings), "t0", KeepLast(2))

    def keep_up(engine: Engine) -> None:
        for head in list(engine.all_heads()):
            upkeep(engine, head.thread_id, head.namespace)

    def sweep_all(engine: Engine) -> None:
        removed.append(sweep(engine).removed)

    def repeat(work: Callable[[Engine], None]) -> None:
        engine = Engine(store, settings)
        while time.monotonic() < until:
            work(engine)
            time.sleep(0.01)

    works = [write_all, rewrite, die_rewriting, keep_up, sweep_all, sweep_all]
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(repeat, work) for work in works]:
            done.result()
    reader = Engine(store, settings)
    removed.clear()
    reader.put("t0", "", numbered(made["t0"]))
    made["t0"] += 1
    die_rewriting(reader)
    for _ in range(3):  # until what the dead left is named no more, seen twice, and gone
        time.sleep(settings.grace)
        keep_up(reader)
        sweep_all(reader)
    assert sum(removed) > 0
    assert numbers(reader, "t0")[:2] == [made["t0"] - 1, made["t0"] - 2]
    for thread in ("t1", "t2"):
        assert made[thread] > 1
        assert numbers(reader, thread) == list(range(made[thread] - 1, -1, -1))
