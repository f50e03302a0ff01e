"""Stores that commands look at."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from commands import HOSTILE, fill

from foldpoint import FoldpointSaver


@pytest.fixture(autouse=True)
def _priority_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that lowers its priority would lower that of all tests that follow, for good."""
    monkeypatch.setattr(os, "nice", lambda by: by)


@pytest.fixture
def empty(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/empty.db"
    FoldpointSaver.from_conn_string(url).close()
    return url


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a store with two threads, a strange one, and one that was deleted."""
    url = f"sqlite:///{tmp_path}/store.db"
    with FoldpointSaver.from_conn_string(url, window=16, compaction="off") as saver:
        fill(saver, "user-1", 100)
        fill(saver, "user-1", 5, "child|1")
        fill(saver, "user-2", 3)
        fill(saver, HOSTILE, 2)
        fill(saver, "deleted", 20)
        saver.delete_thread("deleted")
    return url


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """Of a store with two threads of five checkpoints; the fourth event of one of them is damaged."""
    url = f"sqlite:///{tmp_path}/agents.db"
    with FoldpointSaver.from_conn_string(url, compaction="off") as saver:
        fill(saver, "well", 5)
        fill(saver, "ill", 5)
        epoch = next(saver.engine.heads("ill")).epoch
    with sqlite3.connect(tmp_path / "agents.db") as file:
        file.execute("UPDATE log SET value = x'01' WHERE key = ?", (epoch + b"e" + (4).to_bytes(6, "big"),))
    file.close()
    return url


@pytest.fixture
def many(tmp_path: Path) -> str:
    """A store with 60 threads."""
    url = f"sqlite:///{tmp_path}/many.db"
    with FoldpointSaver.from_conn_string(url, compaction="off") as saver:
        for n in range(60):
            fill(saver, f"t{n}", 2)
    return url
