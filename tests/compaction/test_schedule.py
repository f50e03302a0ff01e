"""A schedule compacts and sweeps by itself while the process serves."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import numbered, numbers
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction.job import Job
from foldpoint.compaction.policy import Policies, Retention
from foldpoint.compaction.schedule import Schedule
from foldpoint.engine import keys
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import StoreUnavailable

SOON = 0.05
"""Seconds of an interval."""


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "foldpoint-schedule"]


@pytest.fixture
def engine() -> Engine:
    """Two threads of twenty checkpoints, nothing sealed."""
    engine = Engine(MemoryStore(), Settings(grace=SOON))
    for thread in ("a", "b"):
        for n in range(20):
            engine.put(thread, "", numbered(n))
    return engine


def orphan(engine: Engine) -> bytes:
    key = keys.event(b"x" * 16, 1)
    engine.store.create([(key, b"?")], ttl=None)
    return key


def test_it_compacts_by_its_policies_again_and_again(engine: Engine) -> None:
    with Schedule(engine, Policies(default=Retention(keep_last=3)), compact_every=SOON):
        until(lambda: numbers(engine, "a") == numbers(engine, "b") == [19, 18, 17])
        engine.put("a", "", numbered(20))
        until(lambda: numbers(engine, "a") == [20, 19, 18])
    assert threads() == []


def test_it_sweeps(engine: Engine) -> None:
    left = orphan(engine)
    with Schedule(engine, sweep_every=SOON):
        until(lambda: left not in set(engine.store.keys()))
    assert numbers(engine, "a") == list(range(19, -1, -1))


def test_what_has_no_interval_is_not_done(engine: Engine) -> None:
    left = orphan(engine)
    with Schedule(engine, compact_every=SOON):
        until(lambda: all(head.sealed for head in engine.heads()))
        time.sleep(4 * SOON)
    assert left in set(engine.store.keys())


class Unreliable(MemoryStore):
    fails = True

    def heads(self, thread=None, *, partition=(0, 1)):  # type: ignore[no-untyped-def]
        if self.fails:
            raise StoreUnavailable("no heads today")
        return super().heads(thread, partition=partition)


def test_what_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    store = Unreliable()
    engine = Engine(store, Settings())
    engine.put("t", "", numbered(0))
    with caplog.at_level(logging.WARNING, "foldpoint"), Schedule(engine, compact_every=SOON):
        until(lambda: "compact of the store failed, and is tried again: no heads today" in caplog.text)
        store.fails = False
        until(lambda: next(engine.heads("t")).sealed)


def test_an_unforeseen_error_is_logged_and_tried_again_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, errors = Job.run, iter([MemoryError("no more of it")])

    def failing(*args: Any) -> Any:
        for error in errors:
            raise error
        return run(*args)

    monkeypatch.setattr(Job, "run", failing)
    with Schedule(engine, compact_every=SOON):
        until(lambda: next(engine.heads("a")).sealed)
    assert "no more of it" in caplog.text


def test_closing_does_not_wait_for_the_whole_store(engine: Engine) -> None:
    for t in range(500):
        engine.put(f"t{t}", "", numbered(0))
    schedule = Schedule(engine, compact_every=SOON)
    schedule.start()
    until(lambda: any(head.sealed for head in engine.heads()))
    schedule.close()
    schedule.close()
    assert not all(head.sealed for head in engine.heads())


def test_a_saver_starts_it_when_configured_and_stops_it(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"default": {"keep_last": 2}}')
    with FoldpointSaver.from_conn_string("memory:", compact_every=SOON, policy=file) as saver:
        for n in range(9):
            saver.engine.put("t", "", numbered(n))
        until(lambda: numbers(saver.engine, "t") == [8, 7])
        assert threads() == ["foldpoint-schedule"]
    assert threads() == []
    with FoldpointSaver.from_conn_string("memory:"):
        assert threads() == []


def test_it_follows_the_serializer_of_its_saver() -> None:
    with FoldpointSaver.from_conn_string("memory:", compact_every=SOON) as saver:
        saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
        saver.with_allowlist([("a", "B")])
        saver.engine.put("t", "", numbered(0))
        until(lambda: next(saver.engine.heads("t")).sealed)


def test_a_policy_file_that_is_wrong_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="policy file"):
        FoldpointSaver.from_conn_string("memory:", compact_every=1, policy=tmp_path / "missing.toml")


@pytest.mark.parametrize("every", [0, -5, "3600", True, math.inf, math.nan])
def test_an_interval_that_is_none_is_refused_at_once(every: Any) -> None:
    for name in ("compact_every", "sweep_every"):
        with pytest.raises(ValueError, match="expected seconds above 0, 100 years at most, got"):
            Schedule(Engine(MemoryStore()), **{name: every})


def test_something_else_than_an_engine_or_policies_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"expected an Engine, such as saver\.engine, got str"):
        Schedule("memory:")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected Policies\(default=…, threads=…\), got Retention"):
        Schedule(Engine(MemoryStore()), Retention(keep_last=1))  # type: ignore[arg-type]


def test_a_policy_that_nothing_goes_by_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FoldpointSaver.from_conn_string("memory:", policy=tmp_path / "policy.toml"):
        assert "FOLDPOINT_POLICY is set and FOLDPOINT_COMPACT_EVERY is not: this process drops nothing" in caplog.text
    assert threads() == []
