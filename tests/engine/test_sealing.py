"""Two sealers, broken-off sealers and batches that are no snapshots: nothing is lost, nothing reads wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from checkpoints import id_of, numbered, numbers
from moving import Interrupted

from foldpoint import Engine, Settings
from foldpoint.compaction import KeepLast, reseal_thread, rewrite_thread
from foldpoint.compaction import verify as verifying
from foldpoint.compaction.verify import verify
from foldpoint.engine import appending, keys, sealing
from foldpoint.engine.layout import Layout
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import Capabilities


def test_a_segment_that_another_sealer_wrote_hides_nothing_that_this_one_has_not_seen() -> None:
    store = MemoryStore()
    engine = Engine(store, Settings(window=8))
    for n in range(5):
        engine.put("t", "", numbered(n))
    slow = engine.reader("t", "")
    view = slow.load()
    assert view is not None
    engine.put("t", "", numbered(5))
    other = engine.reader("t", "")
    seen = other.load()
    assert seen is not None
    other.sealer.advance(seen)  # writes a segment of six events and dies before it swaps the head
    sealed = slow.sealer.advance(view)  # knows five, finds the segment of six
    assert slow.swap(sealed.head, view.revision)
    assert numbers(Engine(store)) == [5, 4, 3, 2, 1, 0]
    assert numbers(engine) == [5, 4, 3, 2, 1, 0]


def test_what_was_put_upon_events_that_a_crash_took_is_not_taken_to_others_in_their_place() -> None:
    store = MemoryStore()
    engine, other = (Engine(store, Settings(window=8)) for _ in range(2))
    for n in range(4):
        engine.put("t", "", numbered(n))
    with engine.log("t", "") as log:
        assert log.view is not None
        store.remove_many([keys.event(log.view.head.epoch, seq) for seq in (2, 3, 4)])
    other.put("t", "", numbered(9, parent=0))
    with other.log("t", "") as sealing_log:
        assert sealing_log.seal()
    with engine.log("t", "") as log:
        beside = engine.reader("t", "")
        log.join(beside.load())
        log.seal()
    assert numbers(Engine(store)) == numbers(engine) == [9, 0]


@pytest.mark.parametrize("joins", [True, False])
def test_what_was_known_of_an_event_that_a_crash_took_is_not_taken_for_another_in_its_place(joins: bool) -> None:
    store = MemoryStore()
    engine, other = (Engine(store, Settings(window=8, snapshot_ratio=1000)) for _ in range(2))
    for n in range(4):
        engine.put("t", "", numbered(n))
    with engine.log("t", "") as log:
        assert log.view is not None
        store.remove_many([keys.event(log.view.head.epoch, 4)])
    other.put("t", "", numbered(9, parent=2))
    with other.log("t", "") as sealing_log:
        assert sealing_log.seal()
    with engine.log("t", "") as log:
        if joins:
            log.join(engine.reader("t", "").load())
    latest = engine.latest("t", "")
    assert latest is not None
    assert latest.folded.header.id == id_of(9)
    assert latest.state() == numbered(9).channels
    assert numbers(Engine(store)) == numbers(engine) == [9, 2, 1, 0]


class TornBatches(MemoryStore):
    """Reads of many keys at once miss the records in `hidden`, as if they were created while the batch ran."""

    hidden: set[bytes] = frozenset()  # type: ignore[assignment]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        torn = len(keys) > 2
        return [
            None if torn and key in self.hidden else value
            for key, value in zip(keys, super().get_many(keys), strict=True)
        ]


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_a_batch_that_misses_an_event_and_holds_its_successor_is_read_again(hidden: int) -> None:
    store = TornBatches()
    engine = Engine(store, Settings(window=8))
    for n in range(4):
        engine.put("t", "", numbered(n))
    head = next(engine.heads("t"))
    store.hidden = {keys.event(head.epoch, hidden)}
    assert numbers(Engine(store)) == [3, 2, 1, 0]


def test_a_writer_that_loses_the_race_to_seal_a_full_window_goes_on_in_the_next() -> None:
    store = MemoryStore()
    interrupted = Interrupted(store)
    late, other = Engine(interrupted, Settings(window=4)), Engine(store, Settings(window=4))  # type: ignore[arg-type]
    for n in range(4):
        late.put("t", "", numbered(n))
    interrupted.before["swap"] = lambda: other.put("t", "", numbered(4))
    late.put("t", "", numbered(5))
    [head] = late.heads("t")
    assert (head.segments, head.sealed) == (1, 4)
    assert numbers(late) == [*reversed(range(6))]


def snapshot_bytes(*, idle: bool) -> int:
    engine = Engine(MemoryStore(), Settings(window=64, snapshot_ratio=0.001))
    text = "".join(f"{n} {n * n % 1009} " for n in range(20_000))
    for n in range(20):
        engine.put("t", "", numbered(n, text=text, noise=random.Random(n).randbytes(3000).hex()))
    log = engine.reader("t", "")
    assert log.seal(idle=idle)
    [head] = engine.heads("t")
    assert head.snapshot is not None
    assert numbers(Engine(engine.store)) == [*reversed(range(20))]
    return head.snapshot_bytes


def test_a_snapshot_of_an_idle_thread_is_made_smaller() -> None:
    assert snapshot_bytes(idle=True) < snapshot_bytes(idle=False)


class Unordered(MemoryStore):
    """As a cluster, whose crashes need not keep the order of writes: what is superseded mostly stays for the grace."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, ordered=False)


def with_snapshots(store: MemoryStore, **settings: float) -> Engine:
    """Of a thread whose segments weigh a twentieth of a snapshot, which takes several records."""
    engine = Engine(store, Settings(window=4, **settings))
    state = random.Random(0).randbytes(40_000).hex()
    for n in range(200):
        engine.put("t", "", numbered(n, large=state, small=random.Random(n).randbytes(500).hex()))
    return engine


def test_snapshots_are_as_frequent_as_their_ratio_says() -> None:
    [often] = with_snapshots(MemoryStore()).heads("t")
    [seldom] = with_snapshots(MemoryStore(), snapshot_ratio=0.25).heads("t")
    assert often.snapshots >= 2 * seldom.snapshots >= 2


def test_of_a_snapshot_that_was_replaced_only_the_number_stays_where_a_crash_may_bring_its_head_back() -> None:
    store = Unordered(max_record=10_000)
    engine = with_snapshots(store)
    [head] = engine.heads("t")
    assert head.snapshot is not None
    assert head.snapshot.parts > 1
    assert head.cleaned.snapshots == 0
    stored = [key for key in store._log if keys.is_snapshot(key)]
    assert {int.from_bytes(key[17:21], "big") for key in stored} == set(range(1, head.snapshots + 1))
    held = [key for key in stored if keys.kind_of(key) == b"p" and store.get_many([key]) != [b""]]
    assert sorted(held) == ([] if head.snapshot.kept else keys.snapshot_parts(head.epoch, head.snapshot))
    assert numbers(Engine(store)) == [*reversed(range(200))]


def test_so_it_is_in_an_epoch_that_is_written_anew() -> None:
    store = Unordered(max_record=10_000)
    engine = with_snapshots(store)
    assert [*reseal_thread(engine, "t")]
    [head] = engine.heads("t")
    assert head.snapshot is not None
    stored = [key for key in store._log if keys.epoch_of(key) == head.epoch and keys.kind_of(key) == b"p"]
    held = [key for key in stored if store.get_many([key]) != [b""]]
    assert sorted(held) == ([] if head.snapshot.kept else keys.snapshot_parts(head.epoch, head.snapshot))
    assert numbers(Engine(store)) == [*reversed(range(200))]


# -- what is too large to be read as a whole ---------------------------------------------------------------------------


def test_a_window_that_holds_more_than_a_segment_may_is_sealed_into_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MOST_SEALED", 10_000)
    engine = Engine(MemoryStore(), Settings(window=64))
    for n in range(20):
        engine.put("t", "", numbered(n, noise=random.Random(n).randbytes(20_000 if n == 7 else 3000)))
    log = engine.reader("t", "")
    assert log.seal()
    [head] = engine.heads("t")
    assert head.sealed == 20
    segments = log.reader.segments(Layout.of(head), range(head.segments))
    sizes = [sum(len(payload) for _, payload in segment.events) for segment in segments]
    assert len(sizes) == 8
    assert sum(size > 10_000 for size in sizes) == 1  # of the one event that is larger
    for reader in (engine, Engine(engine.store)):
        assert numbers(reader) == [*reversed(range(20))]
    assert rewrite_thread(engine, "t", KeepLast(15)) == 15
    assert numbers(Engine(engine.store)) == [*reversed(range(5, 20))]
    assert all(not verified.findings for verified in verify(engine))


def test_a_state_that_could_not_be_read_from_a_snapshot_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_PAYLOAD", 50_000)
    engine = Engine(MemoryStore(), Settings(window=8, snapshot_ratio=0.01))
    for n in range(60):
        parts = {f"part {m}": random.Random(m).randbytes(1000) for m in range(n)}
        engine.put("t", "", numbered(n, **parts, changing=random.Random(-n).randbytes(3000)))
    [head] = engine.heads("t")
    assert head.snapshot is not None
    assert 20 < head.snapshot.covers < 50
    assert numbers(Engine(engine.store)) == [*reversed(range(60))]


def test_what_could_not_be_read_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "MAX_EVENT", 1000)
    engine = Engine(MemoryStore())
    engine.put("t", "", numbered(0))
    with pytest.raises(ValueError, match=r"thread 't': 1,\d+ bytes to be stored at once, at most 1,000 can be read"):
        engine.put("t", "", numbered(1, text="x" * 1000))
    engine.put("t", "", numbered(1))
    assert numbers(Engine(engine.store)) == [1, 0]


def test_a_repair_that_does_not_help_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Unordered()
    engine = Engine(store, Settings(window=4))
    for n in range(10):
        engine.put("t", "", numbered(n))
    [head] = engine.heads("t")
    store.remove_many([keys.segment(head.epoch, 0)])
    monkeypatch.setattr(verifying, "restore", lambda *args, **options: True)
    [verified] = verify(Engine(store), repair=True)
    assert not verified.sound
