"""Clocks that jump, and processes whose clocks differ: order and latest stay right, and nothing goes early."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import id_of, numbered, numbers
from moving import Interrupted, MovingClock

from foldpoint import Engine, Settings
from foldpoint.compaction import compact, upkeep
from foldpoint.compaction.verify import verify
from foldpoint.engine.clock import SystemClock
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore

TEN_YEARS = 10 * 365.25 * 86_400
JUMPS = pytest.mark.parametrize("jump", [-TEN_YEARS, TEN_YEARS], ids=["ten years back", "ten years ahead"])
TTL = 600


class Wrong:
    """A clock that shows another time than the true one; both go on alike."""

    def __init__(self, true: MovingClock, by: float) -> None:
        self._true = true
        self._by = by

    def monotonic(self) -> float:
        return self._true.monotonic()

    def now(self) -> float:
        return self._true.now() + self._by


def engines(by: float, *, grace: float = 100, ttl: bool = False) -> tuple[MovingClock, MemoryStore, Engine, Engine]:
    """On one store that keeps the true time: an engine whose clock is right, and one whose clock is not."""
    clock = MovingClock()
    store = MemoryStore(clock=clock.now)
    settings = Settings(window=4, grace=grace, ttl=TTL if ttl else None)
    return clock, store, Engine(store, settings, clock=clock), Engine(store, settings, clock=Wrong(clock, by))


def sound(engine: Engine) -> bool:
    return not any(verified.findings for verified in verify(engine))


@JUMPS
def test_a_clock_that_jumps_is_not_seen_by_a_process(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, right = SystemClock(), time.time
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: right() + jump)
    assert 0 <= clock.now() - before < 60


@JUMPS
@pytest.mark.parametrize("make", [lambda path: MemoryStore(), lambda path: SqliteStore(path / "a.db")])
def test_nothing_expires_in_a_process_whose_clock_jumps(
    make: Callable[[Path], RecordStore], jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, right = make(tmp_path), time.time
    engine = Engine(store, Settings(window=4))
    for n in range(10):
        engine.put("t", "", numbered(n), ttl=TTL)
    monkeypatch.setattr(time, "time", lambda: right() + jump)
    for n in range(10, 20):
        engine.put("t", "", numbered(n), ttl=TTL)
    assert list(compact(engine))
    assert numbers(engine) == [*reversed(range(20))]
    store.close()


@JUMPS
def test_writers_whose_clocks_differ_share_a_thread(jump: float) -> None:
    """Whose checkpoints come in whatever order: the latest is the one with the greatest id."""
    clock, store, right, wrong = engines(jump)
    for n in range(40):
        # The ids of the one are always below those of the other, as its clock is behind.
        right.put("t", "", numbered(100 + n, None))
        wrong.put("t", "", numbered(n, None))
        clock.advance(30)
        if n % 7 == 0:
            upkeep(right if n % 2 else wrong, "t", "")
        for engine in (right, wrong, Engine(store, right.settings, clock=clock)):
            latest = engine.latest("t", "")
            assert latest is not None
            assert latest.folded.header.id == id_of(100 + n)
    assert numbers(right) == [*reversed(range(100, 140)), *reversed(range(40))]
    assert sound(wrong)


@JUMPS
def test_a_compactor_whose_clock_is_wrong_lets_no_thread_expire_early(jump: float) -> None:
    clock, store, right, wrong = engines(jump, ttl=True)
    for n in range(10):
        right.put("t", "", numbered(n), ttl=TTL)
    clock.advance(TTL / 2)
    assert list(compact(wrong))
    clock.advance(TTL / 2 - 1)
    assert numbers(right) == [*reversed(range(10))]
    clock.advance(3 * TTL)  # and none lives on for years
    assert list(store.heads()) == []
    assert list(store.keys()) == []


@JUMPS
def test_a_thread_that_is_used_lives_though_a_wrong_clock_extended_it(jump: float) -> None:
    clock, _, right, wrong = engines(jump, ttl=True)
    for n in range(5):
        right.put("t", "", numbered(n), ttl=TTL)
    wrong.put("t", "", numbered(5), ttl=TTL)
    for n in range(6, 30):
        clock.advance(TTL / 3)
        right.put("t", "", numbered(n), ttl=TTL)
    assert numbers(right) == [*reversed(range(30))]
    assert sound(right)


@pytest.mark.parametrize("by", [-80, 80])
def test_clocks_that_differ_by_less_than_the_grace_let_nothing_go_that_a_writer_may_need(by: float) -> None:
    """The writer is held up, right before it puts, for nearly as long as it trusts what it knows."""
    clock, store, right, wrong = engines(by)
    interrupted = Interrupted(store)
    held_up = Engine(interrupted, right.settings, clock=clock)  # type: ignore[arg-type]
    for n in range(3):
        held_up.put("t", "", numbered(n))

    def meanwhile() -> None:
        for n in range(3, 20):
            right.put("t", "", numbered(n))
        for one in (right, wrong):
            clock.advance(4)
            upkeep(one, "t", "")

    interrupted.before["create"] = meanwhile
    held_up.put("t", "", numbered(50, None))
    assert numbers(right) == [50, *reversed(range(20))]
    assert sound(right)
