"""Statements on an SQLite connection that may meet the locks of others."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from foldpoint.engine.sqlite.errors import is_busy

T = TypeVar("T")


def when_free(db: sqlite3.Connection, statement: str, patience: float) -> sqlite3.Cursor:
    """Execute `statement`, again and again for `patience` seconds while the file is locked."""
    return done_when_free(lambda: db.execute(statement), patience)


def done_when_free(call: Callable[[], T], patience: float) -> T:
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.0005, 0.005))


def scalar(db: sqlite3.Connection, statement: str) -> Any:
    return db.execute(statement).fetchone()[0]


def wait_for_locks(db: sqlite3.Connection, seconds: float) -> None:
    """How long SQLite itself waits for other connections' locks from now on."""
    db.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
