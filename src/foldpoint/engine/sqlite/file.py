"""Connections to the SQLite file of a store: who may write when, what a fork and other processes must not meet.

What can go wrong here, and what guards against it:

* POSIX locks belong to the process: closing *any* descriptor of the file drops every lock SQLite holds on it. So
  nothing in this module opens the file itself; sizes come from `stat`.
* SQLite's own tables of locks are copied by a fork, and a child that opens the file again relies on locks it does not
  have: the parent may then delete the write-ahead log under it. So no connection is open while the process forks.
* A reader that is always there would keep the write-ahead log from being reused; writers trim it by force.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from foldpoint.engine.forks import forks
from foldpoint.engine.records import MIB
from foldpoint.engine.sqlite.errors import translate
from foldpoint.engine.sqlite.pool import Pool
from foldpoint.engine.sqlite.schema import VACUUM_AT_COMMIT, VACUUM_ON_DEMAND, prepare
from foldpoint.engine.sqlite.statements import done_when_free, scalar, wait_for_locks, when_free
from foldpoint.errors import StoreBusy, StoreMismatch, StoreReadOnly, StoreUnavailable

MAX_CONNECTIONS = 8
WAL_LIMIT = 16 * MIB
WAL_UNSEEN = MIB // 4  # written before the log's size is asked for
CHECKPOINT_PATIENCE = 1.0  # seconds
MOST_TRIMMED = 2048  # pages
TRIM_PATIENCE = 0.1  # seconds
TRIM_PAUSE = 60.0  # seconds
WRITER_PATIENCE = 0.01  # seconds
"""A writer's connection waits no longer for locks: SQLite backs off to 100 ms, and starves beside one that never rests.
So what may meet a lock there is executed `when_free`."""

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class SqliteFile:
    """Connections to the file, one writer at a time among this object's threads, and errors in our terms."""

    def __init__(self, path: Path, busy_timeout: float, synchronous: str) -> None:
        self._path = path
        self._name, self._wal_name = str(path), f"{path}-wal"
        self._busy_timeout = busy_timeout
        self._synchronous = synchronous
        self._identity: tuple[int, int] | None = None  # device and inode, once the file was opened
        self._wal_limit = WAL_LIMIT
        self._unseen = 0  # bytes written since the log was looked at, about
        self._trim_after = 0.0  # monotonic seconds
        self._write_lock = threading.RLock()
        self._waiting: deque[_Request] = deque()
        self._pool = Pool(self._open, MAX_CONNECTIONS, busy_timeout)
        self._writer = Pool(self._open_writer, 1, busy_timeout)
        forks.close_for(self)

    def require_open(self) -> None:
        if reason := self._pool.why_closed():
            raise StoreUnavailable(f"SQLite store {self._path}: {reason}")

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection in autocommit: each statement sees what was committed before it."""
        return self._connection(self._pool)

    @contextmanager
    def _connection(self, pool: Pool) -> Iterator[sqlite3.Connection]:
        self.require_open()
        try:
            with pool.connection() as db:
                yield db
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def together(self, work: Callable[[sqlite3.Connection], T], *, size: int, single: bool) -> T:
        """What `work` gives, done in a write transaction that is durable when this returns.

        It may be shared with other threads that wait for one: the disk is asked once for all of them. size: bytes that
        are written. single: it is one statement, which alone is a transaction.
        """
        request = _Request(work, size, single)
        self._waiting.append(request)
        try:
            with self._turn():
                if not request.done:
                    self._commit([one for one in [*self._waiting] if not one.done])
        finally:
            self._waiting.remove(request)
        answer: T = request.answer()
        return answer

    def _commit(self, requests: list[_Request]) -> None:
        """REQUIRES the turn. All of them are done then; one that fails does not take the others with it."""
        try:
            self._try(requests)
        except BaseException:
            # Without a cause: that would lead back here, and keep what was broken off, and all that it has, in use.
            reason = StoreUnavailable(f"SQLite store {self._path}: the thread that wrote was interrupted; try again")
            for request in requests:
                if not request.done:
                    request.settle(error=reason)
            raise

    def _try(self, requests: list[_Request]) -> None:
        try:
            answers = self._answers(requests)
        except StoreUnavailable as error:
            if len(requests) == 1:
                requests[0].settle(error=error)
                return
            for request in requests:
                self._try([request])
        else:
            for request, answer in zip(requests, answers, strict=True):
                request.settle(answer)

    def _answers(self, requests: list[_Request]) -> list[Any]:
        """REQUIRES the turn. At each statement other threads are let in, and waited for: so one does not make three."""
        size = sum(request.size for request in requests)
        if len(requests) > 1 or not requests[0].single:
            with self._transaction(size=size) as db:
                return [request.work(db) for request in requests]
        with self._connection(self._writer) as db:
            self._check_identity()
            answer = done_when_free(lambda: requests[0].work(db), self._busy_timeout)
            self._trim_wal(db, size)
            return [answer]

    @contextmanager
    def writing(self, *, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """A write transaction; an error leaves nothing of it.

        Durable when the block ends, or, unless it is to be `lasting`, when the next one is that is.
        """
        with self._turn(), self._transaction(lasting) as db:
            yield db

    @contextmanager
    def _transaction(self, lasting: bool = True, size: int = WAL_UNSEEN) -> Iterator[sqlite3.Connection]:
        """REQUIRES the turn. size: bytes that are written, or as many as need a look at the log."""
        with self._connection(self._writer) as db:
            self._check_identity()
            if not lasting:
                self._ask_disk(db, lasting=False)
            when_free(db, "BEGIN IMMEDIATE", self._busy_timeout)
            yield db
            db.execute("COMMIT")
            if not lasting:
                self._ask_disk(db, lasting=True)
            self._trim_wal(db, size)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread of this process at a time."""
        self.require_open()
        lock = self._write_lock
        try:
            if not lock.acquire(timeout=self._busy_timeout):
                raise StoreBusy(
                    f"SQLite store {self._path}: another thread wrote for over {self._busy_timeout} s; try again"
                )
            yield
        finally:
            # An exception from outside may come right after it was taken, or before any call made here.
            try:  # noqa: SIM105
                lock.release()
            except RuntimeError:  # not ours
                pass

    def trim(self) -> None:
        """Give free pages back as they come, once they are an eighth of the file: fewer will be used again.

        Never fails, as what it follows is done.

        More than `MOST_TRIMMED` are left to `vacuum`, as other writers wait meanwhile. All are while a reader keeps the
        log from being reused, which would grow, and for `TRIM_PAUSE` after a failure: the disk may be full."""
        if time.monotonic() < self._trim_after:
            return
        try:
            with self._turn(), self._connection(self._writer) as db:
                free, pages = scalar(db, "PRAGMA freelist_count"), scalar(db, "PRAGMA page_count")
                if pages / 8 <= free <= MOST_TRIMMED and _may_reuse_log(db):
                    self._give_back(db, TRIM_PATIENCE)
        except StoreUnavailable as error:
            self._trim_after = time.monotonic() + TRIM_PAUSE
            _logger.info("SQLite store %s: its free pages stay: %s", self._path, error)

    def vacuum(self) -> None:
        """Give free pages back and empty the log. Other writers wait."""
        with self._turn(), self._connection(self._writer) as db:
            if scalar(db, "PRAGMA freelist_count"):
                self._give_back(db, self._busy_timeout)
            self._checkpoint(db)

    def _give_back(self, db: sqlite3.Connection, patience: float) -> None:
        """Give all free pages back: about 5 ms for each MiB of data moved. REQUIRES the turn.

        Vacuuming at one commit moves each page once; `PRAGMA incremental_vacuum` searches the list of free pages for
        each page, which is quadratic (28 s for 256 MiB). Broken off in between, the file is vacuumed at every commit
        until it is opened again for writing: as good, but slower to remove from.
        """
        self._ask_disk(db, lasting=False)
        when_free(db, "BEGIN IMMEDIATE", patience)
        db.execute(f"PRAGMA auto_vacuum = {VACUUM_AT_COMMIT}")
        db.execute("COMMIT")
        when_free(db, f"PRAGMA auto_vacuum = {VACUUM_ON_DEMAND}", patience)
        self._ask_disk(db, lasting=True)

    def _ask_disk(self, db: sqlite3.Connection, *, lasting: bool) -> None:
        """Whether commits from now on are to be durable each, or with the next one that is."""
        wanted = self._synchronous if lasting else min(self._synchronous, "NORMAL", key=SYNCHRONOUS.index)
        db.execute(f"PRAGMA synchronous = {wanted}")

    def size(self) -> int:
        """Bytes of the file and its write-ahead log."""
        return _size(self._name) + _size(self._wal_name)

    def close(self) -> None:
        for pool in (self._pool, self._writer):
            pool.close("it was closed; open it again")

    def before_fork(self) -> None:
        try:
            self._writer.quiesce()
        finally:  # interrupted: both are resumed, whatever happens
            self._pool.quiesce()

    def after_fork_in_parent(self) -> None:
        self._pool.resume()
        self._writer.resume()

    def after_fork_in_child(self) -> None:
        """The threads that held or awaited the locks do not exist here."""
        self._write_lock = threading.RLock()
        self._waiting.clear()
        self._pool.renew()
        self._writer.renew()

    def _trim_wal(self, db: sqlite3.Connection, written: int) -> None:
        """Truncate a log that readers kept from being reused. What was committed stays so if this fails.

        written: bytes. The log is looked at now and then: to ask for its size takes a tenth of a write.
        """
        self._unseen += written
        if self._unseen < WAL_UNSEEN:
            return
        self._unseen = 0
        size = _size(self._wal_name)
        if size <= self._wal_limit:
            return
        try:
            trimmed = self._checkpoint(db)
        except sqlite3.Error as error:
            _logger.warning("SQLite store %s: its write-ahead log has %d bytes and stays: %s", self._path, size, error)
            trimmed = False
        self._wal_limit = WAL_LIMIT if trimmed else size + WAL_LIMIT

    def _checkpoint(self, db: sqlite3.Connection) -> bool:
        """Whether the log is empty now. Waits a short while for readers: other writers wait behind it."""
        wait_for_locks(db, CHECKPOINT_PATIENCE)
        try:
            return bool(scalar(db, "PRAGMA wal_checkpoint(TRUNCATE)") == 0)
        finally:
            wait_for_locks(db, WRITER_PATIENCE)

    def _open_writer(self) -> sqlite3.Connection:
        db = self._open()
        wait_for_locks(db, WRITER_PATIENCE)
        if scalar(db, "PRAGMA auto_vacuum") == VACUUM_AT_COMMIT:
            with suppress(sqlite3.OperationalError):  # locked: the next writer's turn
                db.execute(f"PRAGMA auto_vacuum = {VACUUM_ON_DEMAND}")
        return db

    def _open(self) -> sqlite3.Connection:
        if self._path.exists():
            self._check_kind()
        mode = "rwc" if self._identity is None else "rw"
        db = sqlite3.connect(
            f"{self._path.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,  # the pool lends a connection to one thread at a time
            cached_statements=256,
        )
        try:
            self._check_identity()
            prepare(db, self._path, self._synchronous, self._busy_timeout)
        except BaseException:
            db.close()
            raise
        return db

    def _check_kind(self) -> None:
        """Hazard: what SQLite puts beside the file is its first opener's, and may keep the owner from ever writing."""
        if not self._path.is_file():
            raise StoreMismatch(f"SQLite store {self._path}: it is no regular file; give Foldpoint a file of its own")
        foreign = hasattr(os, "geteuid") and self._path.stat().st_uid != os.geteuid()
        if foreign and not os.access(self._path, os.W_OK) and not os.path.exists(self._wal_name):
            raise StoreReadOnly(
                f"SQLite store {self._path}: it is another user's, who could not write any more once it was read here; "
                "do this as its owner, or while its owner has it open"
            )

    def _check_identity(self) -> None:
        """A file removed or replaced under us would take writes that nobody reads again."""
        try:
            found = os.stat(self._name)
        except OSError as error:
            raise StoreUnavailable(f"SQLite store {self._path}: the file was removed; open it again") from error
        if self._identity not in (None, (found.st_dev, found.st_ino)):
            raise StoreUnavailable(f"SQLite store {self._path}: the file was replaced by another; open it again")
        self._identity = (found.st_dev, found.st_ino)


class _Request:
    """Something to be written, and what came of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], Any], size: int, single: bool) -> None:
        self.work = work
        self.size = size
        self.single = single
        self.done = False
        self._answer: Any = None
        self._error: StoreUnavailable | None = None

    def settle(self, answer: Any = None, error: StoreUnavailable | None = None) -> None:
        self._answer, self._error = answer, error
        self.done = True

    def answer(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._answer


def _may_reuse_log(db: sqlite3.Connection) -> bool:
    """Whether all that was committed is in the file, and no reader needs the log for it."""
    _, frames, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return bool(frames == moved)


def absolute(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if text in ("", ":memory:") or "\0" in text:
        raise ValueError(f"{text!r} is no file; for a store in memory use the URL memory:")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!r} is no name of a file: {error.reason}") from error
    return Path(os.path.realpath(text))  # SQLite too puts its log beside the target of a link


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
