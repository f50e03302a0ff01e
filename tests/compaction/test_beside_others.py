"""What compaction, copies and checks do while others write, seal and compact the same streams."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from checkpoints import id_of, numbered, numbers, write
from moving import Interrupted, MovingClock

from foldpoint import Engine, Settings
from foldpoint.codecs.model import Checkpoint, Header, Value
from foldpoint.compaction import DropAll, compact, copy_thread, rewrite_thread, sweep, upkeep
from foldpoint.compaction import verify as verifying
from foldpoint.compaction.overlay import Overlay
from foldpoint.compaction.policy import Policies, Retention
from foldpoint.compaction.threads import rehearse
from foldpoint.compaction.verify import verify
from foldpoint.engine import keys
from foldpoint.engine.io import RecordIO
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import HeadRecord

SETTINGS = Settings(window=8, compaction="off")
OLD = "1ea2c123-0000-6000-8000-000000000001"
"""A version 6 id of 2020."""


def two() -> tuple[MemoryStore, Engine, Engine]:
    store = MemoryStore()
    return store, Engine(store, SETTINGS), Engine(store, SETTINGS)


def put(engine: Engine, first: int, end: int) -> None:
    for n in range(first, end):
        engine.put("t", "", numbered(n, noise=random.Random(n).randbytes(60)))


@pytest.mark.parametrize("verb", ["create", "swap", "get_many", "get_head", "heads"])
def test_a_copy_into_a_thread_in_use_keeps_writes_that_come_before_their_checkpoint(verb: str) -> None:
    for turn in range(40):
        store = MemoryStore()
        seam = Interrupted(store)
        copier, other = Engine(seam, SETTINGS), Engine(store, SETTINGS)  # type: ignore[arg-type]
        other.put("source", "", numbered(1))
        other.put("target", "", numbered(2))
        left = turn

        def at_last() -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                seam.before[verb] = at_last  # noqa: B023
                return
            other.put_writes("target", "", id_of(5), [write(5)])  # noqa: B023

        seam.before[verb] = at_last
        copy_thread(copier, "source", "target")
        if left >= 0:
            assert turn > 0
            return
        other.put("target", "", numbered(5, 2))
        entry = Engine(store, SETTINGS).find("target", "", id_of(5))
        assert entry is not None
        assert entry.writes() == [write(5)]
    pytest.fail("it never came to an end")


def test_what_is_acknowledged_after_a_deletion_stays_with_a_grace_of_a_second_too() -> None:
    """Times in heads are whole seconds."""
    clock = MovingClock()
    clock.advance(0.95 - clock.now() % 1)
    store, settings = MemoryStore(), SETTINGS.model_copy(update={"grace": 1.0})
    one, other = (Engine(store, settings, clock=clock) for _ in range(2))
    one.put("t", "", numbered(1))
    other.latest("t", "")
    rewrite_thread(one, "t", DropAll())
    clock.advance(0.06)
    upkeep(one, "t", "")
    other.put("t", "", numbered(2))
    assert numbers(Engine(store, settings, clock=clock)) == [2]


def purged(begin: Callable[[Engine], object]) -> bool:
    """Whether a thread goes that has been idle for long, where `begin` did something in another namespace."""
    clock = MovingClock()
    engine = Engine(MemoryStore(), SETTINGS, clock=clock)
    header = Header(OLD, None, 4, "2020-01-01T00:00:00+00:00", {"a": 1})
    engine.put("t", "", Checkpoint(header, {"a": Value("bytes", b"x")}, {"source": "loop"}))
    begin(engine)
    clock.advance(100 * 86_400)
    policies = Policies(default=Retention(purge_idle=timedelta(days=90)))
    for _ in range(2):
        assert all(not report.outdated for report in compact(engine, policies=policies))
    return not [*engine.heads("t")]


def test_a_thread_of_which_a_namespace_was_begun_and_has_no_checkpoint_is_purged_too() -> None:
    def killed_at_its_first_put(engine: Engine) -> None:
        with engine.log("t", "sub") as log:
            log.create_stream(None)

    assert purged(lambda engine: None)
    assert purged(killed_at_its_first_put)
    assert purged(lambda engine: engine.put_writes("t", "sub", OLD, [write(1)]))
    assert not purged(lambda engine: engine.put_writes("t", "sub", "of a time that nobody knows", [write(1)]))


@pytest.mark.parametrize("swaps", range(1, 7))
@pytest.mark.parametrize("retention", [Retention(), Retention(keep_last=3)])
def test_a_rehearsal_that_a_compactor_overtakes_begins_anew(
    monkeypatch: pytest.MonkeyPatch, retention: Retention, swaps: int
) -> None:
    _, one, other = two()
    put(one, 0, 300)
    upkeep(one, "t", "")
    put(one, 300, 340)
    swap, left = Overlay.swap, swaps

    def overtaken(store: Overlay, head: HeadRecord, *, expected: int | None, ttl: object) -> bool:
        nonlocal left
        done = swap(store, head, expected=expected, ttl=ttl)  # type: ignore[arg-type]
        left -= 1
        if left == 0:
            put(other, 340, 540)
            upkeep(other, "t", "", idle=True)
        return done

    monkeypatch.setattr(Overlay, "swap", overtaken)
    reports = [report for _, report in rehearse(one, "t", retention)]
    assert reports
    assert not any(report.outdated for report in reports)


@pytest.mark.parametrize("step", ["_positions", "_segments", "_slices", "_tail", "_in_grace"])
def test_a_check_that_a_compactor_overtakes_mends_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    store, one, other = two()
    put(one, 0, 50)
    run, after = getattr(verifying._Check, step), list[bytes]()

    def overtaken(check: object) -> None:
        if not after:
            put(other, 50, 66)  # another snapshot follows; the one that is looked for goes
            upkeep(other, "t", "")
            after.extend(store.keys())
        run(check)

    monkeypatch.setattr(verifying._Check, step, overtaken)
    assert [finding for verified in verify(one, repair=True) for finding in verified.findings] == []
    assert after
    assert {*store.keys()} == {*after}


def test_a_kept_snapshot_that_lost_its_race_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    store, one, other = two()
    lost: list[bytes] = []
    create = RecordIO.create_parts

    def raced(io: RecordIO, part_keys: Sequence[bytes], chunks: Sequence[bytes], ttl: int | None) -> bool:
        done = create(io, part_keys, chunks, ttl)
        if io is one.io and part_keys and keys.kind_of(part_keys[0]) == b"k" and not lost:
            lost.extend(part_keys)
            with other.log("t", "") as log:
                log.seal()
        return done

    monkeypatch.setattr(RecordIO, "create_parts", raced)
    n = 0
    while not lost:
        put(one, n, n + 1)
        n += 1
    put(one, n, n + 100)
    assert not [key for key in lost if store.get_many([key])[0]]
    assert numbers(Engine(store, SETTINGS)) == [*reversed(range(n + 100))]
    assert all(not verified.findings for verified in verify(Engine(store, SETTINGS)))


def test_a_large_value_that_lost_the_race_for_its_number_leaves_no_parts() -> None:
    store = MemoryStore(max_record=1000)
    one, other = Engine(store, SETTINGS), Engine(store, SETTINGS)
    put(one, 0, 1)
    other.latest("t", "")
    put(one, 1, 2)
    other.put("t", "", numbered(2, noise=random.Random(2).randbytes(5000)))
    parts = [key for key in store._log if keys.kind_of(key) == b"b"]
    assert len({key[17:25] for key in parts}) == 1
    assert numbers(Engine(store, SETTINGS)) == [2, 1, 0]
    assert sweep(other).removed == 0
