"""Connections to one SQLite file, lent to one thread at a time."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _NoneFree(sqlite3.OperationalError):
    """The pool had no connection to lend for too long."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


class Pool:
    """Lends connections, each to one thread at a time, at most `limit` at once."""

    def __init__(self, open_one: Callable[[], sqlite3.Connection], limit: int, patience: float) -> None:
        self._open_one = open_one
        self._limit = limit
        self._patience = patience  # seconds
        self._closed: str | None = None
        self.renew()

    def renew(self) -> None:
        """Start empty, in this process. REQUIRES no connection open."""
        self._pid = os.getpid()
        self._gate = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._paused = False

    def why_closed(self) -> str | None:
        if self._pid != os.getpid():
            return "the process was forked unseen by Python while the store was open; open it after the fork"
        return self._closed

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One of the connections; after any error it is closed, which rolls its transaction back."""
        gate = self._gate
        db = self._take()
        try:
            if db is None:
                db = self._open_one()
            yield db
        except BaseException:
            if db is not None:
                db.close()
            db = None
            raise
        finally:
            with gate:
                self._put_back(db)

    def close(self, reason: str) -> None:
        with self._gate:
            self._closed = self._closed or reason
            self._close_idle()

    def quiesce(self) -> None:
        """Wait until nothing is lent, close all, and lend nothing until `resume` (or `renew`)."""
        self._gate.acquire()
        self._paused = True
        self._gate.wait_for(lambda: self._lent == 0)
        self._close_idle()

    def resume(self) -> None:
        self._paused = False
        self._gate.notify_all()
        self._gate.release()

    def _take(self) -> sqlite3.Connection | None:
        """An idle connection, or None for leave to open one."""
        with self._gate:
            if not self._gate.wait_for(self._may_lend, timeout=self._patience):
                raise _NoneFree(f"all {self._limit} connections were in use for {self._patience} s")
            self._lent += 1
            return self._idle.pop() if self._idle else None

    def _may_lend(self) -> bool:
        return self._lent < self._limit and not self._paused

    def _put_back(self, db: sqlite3.Connection | None) -> None:
        self._lent -= 1
        if db is not None:
            self._idle.append(db)
        if self._closed:
            self._close_idle()
        self._gate.notify_all()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
