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


class _Loan:
    """A connection in use; None while it is to be opened, and once it is closed."""

    __slots__ = ("db",)

    def __init__(self) -> None:
        self.db: sqlite3.Connection | None = None


class Pool:
    """Lends connections, each to one thread at a time, at most `limit` at once.

    Hazard: an exception from outside (a signal's, a time limit's) may come between any two calls. So nothing is taken
    that the block which gives it back does not know of yet, and that block makes no call of Python code before it has.
    """

    def __init__(self, open_one: Callable[[], sqlite3.Connection], limit: int, patience: float) -> None:
        self._open_one = open_one
        self._limit = limit
        self._patience = patience  # seconds
        self._closed: str | None = None
        self.renew()

    def renew(self) -> None:
        """Start empty, in this process. REQUIRES no connection open."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._gate = threading.Condition(self._lock)
        self._idle: list[sqlite3.Connection] = []
        self._lent: set[_Loan] = set()
        self._paused = False

    def why_closed(self) -> str | None:
        if self._pid != os.getpid():
            return "the process was forked unseen by Python while the store was open; open it after the fork"
        return self._closed

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One of the connections; after any error it is closed, which rolls its transaction back."""
        loan = _Loan()
        try:
            self._lend(loan)
            if loan.db is None:
                loan.db = self._open_one()
            yield loan.db
        except BaseException:
            if loan.db is not None:
                loan.db.close()
            loan.db = None
            raise
        finally:
            with self._lock:
                self._lent.discard(loan)
                if loan.db is not None:
                    self._idle.append(loan.db)
                if self._closed:
                    self._close_idle()
                self._gate.notify_all()

    def close(self, reason: str) -> None:
        with self._lock:
            self._closed = self._closed or reason
            self._close_idle()

    def quiesce(self) -> None:
        """Wait until nothing is lent, close all, and lend nothing until `resume` (or `renew`)."""
        self._lock.acquire()
        self._paused = True
        self._gate.wait_for(lambda: not self._lent)
        self._close_idle()

    def resume(self) -> None:
        self._paused = False
        self._gate.notify_all()
        self._lock.release()

    def _lend(self, loan: _Loan) -> None:
        """An idle connection, or leave to open one."""
        with self._lock:
            if not self._gate.wait_for(self._may_lend, timeout=self._patience):
                raise _NoneFree(f"all {self._limit} connections were in use for {self._patience} s")
            self._lent.add(loan)
            if self._idle:
                loan.db = self._idle.pop()

    def _may_lend(self) -> bool:
        return len(self._lent) < self._limit and not self._paused

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
