"""Where a saver's streams are sealed and cleaned: beside it, in its own puts, or not at all."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from building import chain, config, id_of, ids, put

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import background
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import HeadRecord
from foldpoint.errors import StoreUnavailable

WINDOW = 16
DUE = 12
"""Events in the tail after which upkeep is due."""


class Refusing(MemoryStore):
    """Swaps no head while `refuses`."""

    refuses = False

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        if self.refuses:
            raise StoreUnavailable("no swaps today")
        return super().swap(head, expected=expected, ttl=ttl)


@pytest.fixture
def store() -> Refusing:
    return Refusing()


@pytest.fixture
def make(store: MemoryStore) -> Iterator[Callable[..., FoldpointSaver]]:
    made: list[FoldpointSaver] = []

    def saver(where: Any = None, **settings: Any) -> FoldpointSaver:
        made.append(FoldpointSaver(Engine(store, Settings(window=WINDOW, **settings)), compaction=where))
        return made[-1]

    yield saver
    for each in made:
        each.close()


def sealed(saver: FoldpointSaver) -> int:
    return next(saver.engine.heads("thread")).sealed


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("foldpoint-upkeep")]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_in_the_background_a_thread_seals_without_a_put(make: Callable[..., FoldpointSaver]) -> None:
    saver = make()
    chain(saver, DUE - 1)
    assert threads() == []
    chain(saver, 1)
    until(lambda: sealed(saver) >= DUE)
    assert threads() == ["foldpoint-upkeep"]
    saver.close()
    assert threads() == []


class Holding(MemoryStore):
    """Holds up the swaps of the upkeep's thread until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.go = threading.Event(), threading.Event()

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        if threading.current_thread().name == "foldpoint-upkeep":
            self.held.set()
            assert self.go.wait(30)
        return super().swap(head, expected=expected, ttl=ttl)


def test_what_is_put_while_a_thread_is_sealed_waits_until_it_is_enough_for_a_segment() -> None:
    store = Holding()
    with FoldpointSaver(Engine(store, Settings(window=WINDOW))) as saver:
        last = chain(saver, DUE)[-1]
        assert store.held.wait(30)
        for n in range(3):  # each asks again
            last = put(saver, last, {"n": n}, step=n)
        for n in range(DUE):
            put(saver, config("another"), {"n": n}, step=n)
        store.go.set()
        until(lambda: next(saver.engine.heads("another")).sealed == DUE)
        assert sealed(saver) == DUE
        for n in range(DUE - 3):
            last = put(saver, last, {"n": n}, step=n)
        until(lambda: sealed(saver) == 2 * DUE)


def test_a_thread_in_use_is_not_sealed_for_a_few_events_when_the_grace_is_over_and_an_idle_one_is(
    make: Callable[..., FoldpointSaver],
) -> None:
    saver = make(grace=0.2)
    last, count = chain(saver, DUE)[-1], DUE
    until(lambda: sealed(saver) == DUE)
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        last, count = put(saver, last, {"n": count}, step=count), count + 1
        time.sleep(0.03)
    [head] = saver.engine.heads("thread")
    assert head.segments >= 3
    assert head.sealed >= DUE * head.segments
    assert len(saver._upkeep._due) <= 2  # type: ignore[attr-defined]
    last, count = put(saver, last, {"n": count}, step=count), count + 1
    until(lambda: sealed(saver) == count)


def test_inline_the_put_that_finds_it_due_seals(make: Callable[..., FoldpointSaver]) -> None:
    saver = make("inline")
    chain(saver, DUE - 1)
    assert sealed(saver) == 0
    last = chain(saver, 1)[-1]
    assert sealed(saver) == DUE
    for n in range(3 * DUE):
        last = put(saver, last, {"n": n}, step=n)
    assert sealed(saver) == 4 * DUE
    assert len(ids(saver, config())) == 4 * DUE
    assert threads() == []


def test_inline_what_was_pruned_leaves_with_later_puts_when_the_grace_is_over(
    make: Callable[..., FoldpointSaver], store: MemoryStore
) -> None:
    saver = make("inline", grace=0.05)
    last = chain(saver, 4 * DUE)[-1]
    saver.prune(["thread"])
    left = set(store.keys())
    time.sleep(1.06)
    assert set(store.keys()) == left
    for n in range(DUE):
        last = put(saver, last, {"n": n}, step=n)
    assert len(left & set(store.keys())) <= 2  # the checkpoint that stayed: a segment and a snapshot


@pytest.mark.parametrize("where", ["inline", "background"])
def test_a_put_succeeds_although_its_upkeep_fails(
    make: Callable[..., FoldpointSaver], store: Refusing, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    saver = make(where)
    made = chain(saver, DUE - 1)
    store.refuses = True
    with caplog.at_level(logging.WARNING, "foldpoint"):
        made += chain(saver, 1)
        until(lambda: "no swaps today" in caplog.text)
    assert "upkeep of thread 'thread'" in caplog.text
    store.refuses = False
    assert ids(saver, config()) == [id_of(each) for each in reversed(made)]


def test_an_unforeseen_error_of_one_stream_does_not_end_the_upkeep_of_the_others(
    make: Callable[..., FoldpointSaver], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upkeep, errors = background.upkeep, iter([MemoryError("no more of it")])

    def failing(*args: Any, **kwargs: Any) -> Any:
        for error in errors:
            raise error
        return upkeep(*args, **kwargs)

    monkeypatch.setattr(background, "upkeep", failing)
    saver = make("background")
    chain(saver, DUE, thread="other")
    until(lambda: "upkeep of thread 'other', namespace '' failed" in caplog.text)
    assert "no more of it" in caplog.text
    chain(saver, DUE)
    until(lambda: sealed(saver))


def test_off_a_put_seals_only_when_its_window_is_full(make: Callable[..., FoldpointSaver]) -> None:
    saver = make("off")
    made = chain(saver, WINDOW)
    assert sealed(saver) == 0
    made += chain(saver, 2 * WINDOW)
    assert sealed(saver) == 2 * WINDOW
    saver.prune(["thread"], keep_last=5)
    assert ids(saver, config()) == [id_of(each) for each in reversed(made[-5:])]
    assert threads() == []


def test_the_setting_counts_where_the_argument_says_nothing(make: Callable[..., FoldpointSaver]) -> None:
    for argument, setting, expected in (("inline", "off", DUE), (None, "inline", DUE), (None, "off", 0)):
        saver = make(argument, compaction=setting)
        saver.delete_thread("thread")
        chain(saver, DUE)
        assert sealed(saver) == expected
    with FoldpointSaver.from_conn_string("memory:", compaction="inline", window=WINDOW) as saver:
        chain(saver, DUE)
        assert sealed(saver) == DUE


def test_another_place_is_refused(make: Callable[..., FoldpointSaver]) -> None:
    with pytest.raises(ValueError, match=r"compaction: expected 'background', 'inline' or 'off', got 'later'"):
        make("later")
    with pytest.raises(ValueError, match="compaction"):
        FoldpointSaver.from_conn_string("memory:", compaction="later")


def test_stats_tell_what_the_saver_did(make: Callable[..., FoldpointSaver]) -> None:
    saver = make("inline")
    assert set(saver.stats().values()) == {0}
    made = chain(saver, DUE)
    saver.put_writes(made[-1], [("n", 1)], "task")
    assert saver.get_tuple(made[0]) is not None
    assert saver.get_tuple(config("nobody")) is None
    assert saver.stats()["resumes"] == 0
    assert saver.get_tuple(config()) is not None
    stats = saver.stats()
    assert stats["puts"] == DUE + 1
    assert stats["seals"] == 1
    assert stats["resumes"] == 1
    assert stats["resume_seconds"] > 0
    assert stats["bytes_logged"] > stats["bytes_of_state"] > 0
    clone = saver.with_allowlist([("a", "B")])
    assert clone.stats() == stats
