"""`foldpoint copy` as a person runs it; what copying a thread means is told in tests/compaction."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import CHECKPOINT, HOSTILE, fill, rows, run

from foldpoint import Engine, FoldpointSaver
from foldpoint.cli import copy
from foldpoint.compaction.copying import copy_thread


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/other.db"


def held(url: str, thread: str) -> list[Any]:
    """Every checkpoint of a thread as a saver reads it, but for the id of the thread."""
    with FoldpointSaver.from_conn_string(url) as saver:
        found = saver.list({"configurable": {"thread_id": thread}})
        return [(one.config["configurable"]["checkpoint_ns"], *one[1:3], one.pending_writes) for one in found]


def test_all_threads_are_copied_whole(url: str, other: str) -> None:
    copied = rows(run("copy", "--url", url, "--all", "--into", other, "--json"))
    assert [(row["thread_id"], row["checkpoints"]) for row in copied] == [(HOSTILE, 2), ("user-1", 105), ("user-2", 3)]
    for thread in ("user-1", "user-2", HOSTILE):
        assert held(other, thread) == held(url, thread) != []
    assert run("verify", "--url", other).exit_code == 0
    assert "Copied 3 threads with 110 checkpoints." in run("copy", "--url", url, "--all", "--into", other).stdout


def test_run_again_it_takes_along_what_came_since(url: str, other: str) -> None:
    run("copy", "--url", url, "--prefix", "user-", "--into", other)
    with FoldpointSaver.from_conn_string(url) as saver:
        fill(saver, "user-2", 9)
    run("copy", "--url", url, "--prefix", "user-", "--into", other)
    assert held(other, "user-2") == held(url, "user-2")
    assert len(held(other, "user-2")) == 9
    assert held(other, HOSTILE) == []


def test_a_thread_is_copied_under_another_id(url: str, other: str) -> None:
    copied = rows(run("copy", "--url", url, "--thread", "user-2", "--as", "before", "--json"))
    assert copied == [{"thread_id": "user-2", "copy_id": "before", "checkpoints": 3}]
    assert held(url, "before") == held(url, "user-2") != []
    run("copy", "--url", url, "--thread", "user-2", "--as", "before", "--into", other)
    assert held(other, "before") == held(url, "user-2")
    assert held(other, "user-2") == []


def test_what_was_exported_is_taken_back(url: str, other: str) -> None:
    idle: Any = {**CHECKPOINT, "id": "1", "ts": "2020-01-01T00:00:00+00:00", "channel_values": {"said": ["much"]}}
    with FoldpointSaver.from_conn_string(url) as saver:
        saver.put({"configurable": {"thread_id": "idle", "checkpoint_ns": ""}}, idle, {"step": 1}, {})
    before = held(url, "idle")
    run("compact", "--url", url, "--thread", "idle", "--purge-idle", "1d", "--export-to", other)
    assert held(url, "idle") == []
    run("copy", "--url", other, "--thread", "idle", "--into", url)
    assert held(url, "idle") == before != []


def test_a_damaged_thread_keeps_no_other_from_being_copied(damaged: str, other: str) -> None:
    result = run("copy", "--url", damaged, "--all", "--into", other)
    assert result.exit_code == 2
    assert "Copied 1 thread with 5 checkpoints." in result.stdout
    assert "thread 'ill': record " in result.stderr
    assert "Error: 1 thread could not be copied" in result.stderr
    assert held(other, "well") == held(damaged, "well") != []
    assert [row["thread_id"] for row in rows(run("threads", "--url", other, "--json"))] == ["well"]
    told = [
        json.loads(line)
        for line in run("copy", "--url", damaged, "--all", "--into", other, "--json").stdout.splitlines()
    ]
    assert [row["thread_id"] for row in told if "failure" in row] == ["ill"]


def test_a_signal_stops_it_after_the_present_thread_and_the_next_run_goes_on(
    many: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(engine: Engine, thread_id: str, *more: Any, **options: Any) -> int:
        if thread_id == "t20":
            os.kill(os.getpid(), signal.SIGINT)
        return copy_thread(engine, thread_id, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(copy, "copy_thread", interrupted)
        result = run("copy", "--url", many, "--all", "--into", other)
    assert result.exit_code == 128 + signal.SIGINT
    assert "stopping after the present thread" in result.stderr
    assert "run the same command again" in result.stderr
    copied = {row["thread_id"] for row in rows(run("threads", "--url", other, "--json"))}
    assert "t20" in copied
    assert len(copied) < 60
    assert run("copy", "--url", many, "--all", "--into", other).exit_code == 0
    assert len(rows(run("threads", "--url", other, "--json"))) == 60


@pytest.mark.parametrize("thread", ["user", "deleted", ""])
def test_a_thread_that_is_not_there_is_refused(url: str, other: str, thread: str) -> None:
    result = run("copy", "--url", url, "--thread", thread, "--into", other)
    assert result.exit_code == 1
    assert f"no thread {thread!r}" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--into", "{other}"], 2, "one of --thread T, --prefix P and --all"),
        (["--all", "--thread", "user-1", "--into", "{other}"], 2, "one of --thread T, --prefix P and --all"),
        (["--prefix", "", "--into", "{other}"], 2, "for all threads say --all"),
        (["--all", "--as", "new", "--into", "{other}"], 2, "give it with --thread"),
        (["--all"], 2, "Say where to"),
        (["--thread", "user-1", "--as", "user-1"], 2, "Say where to"),
        (["--all", "--into", "{url}"], 1, "is the store that is worked on"),
        (["--all", "--into", "memory:"], 1, "a store that lasts"),
        (["--all", "--into", "sqlite:////nowhere/other.db"], 2, "/nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, other: str, options: list[str], code: int, said: str) -> None:
    result = run("copy", "--url", url, *(option.format(url=url, other=other) for option in options))
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
