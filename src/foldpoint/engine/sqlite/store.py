"""The store in one SQLite file: several threads and several processes at once, durable when a call returns.

Layout (the DDL is in `schema`): a value that leaves at least four rows on a page lies in its row of `log`; a
larger one lies in `large`, which packs pages to the last byte, and its row of `log` holds the rowid there.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from foldpoint.engine.clock import SystemClock
from foldpoint.engine.records import (
    MIB,
    UNCHANGED,
    Capabilities,
    Finding,
    HeadRecord,
    check_partition,
    check_records,
    check_swap,
    check_ttl,
    in_partition,
)
from foldpoint.engine.sqlite.file import SYNCHRONOUS, SqliteFile, absolute
from foldpoint.engine.sqlite.schema import PAGE_SIZE

INLINE_BYTES = 476  # key and value together; a longer row would spill into an overflow page of its own
TOUCHED = 4 * PAGE_SIZE  # bytes of pages that a small record changes, about
CHUNK = 500  # rows per statement and transaction; below SQLite's oldest limit of 999 variables
ROWS = CHUNK // 2  # at three variables each

_LIVE = "(expires IS NULL OR expires > ?)"
_VALUE = "CASE WHEN typeof(value) = 'integer' THEN (SELECT body FROM large WHERE id = value) ELSE value END"
_CREATE = (
    "INSERT INTO log(key, value, expires) VALUES (?, ?, ?) ON CONFLICT(key) DO UPDATE"
    " SET value = excluded.value, expires = excluded.expires WHERE log.expires <= ?"
)
_NEXT_PAGE = f"key > ? ORDER BY key LIMIT {CHUNK}"
_HEAD_COLUMNS = "key, thread, revision, value"
_CREATE_HEAD = (
    "INSERT INTO heads(thread, revision, value, expires, key) VALUES (?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE"
    " SET thread = excluded.thread, revision = excluded.revision, value = excluded.value, expires = excluded.expires"
    " WHERE heads.expires <= ?"
)
_SWAP_HEAD = (
    f"UPDATE heads SET thread = ?, revision = ?, value = ?, expires = ? WHERE key = ? AND {_LIVE} AND revision = ?"
)
_SWAP_VALUE = f"UPDATE heads SET thread = ?, revision = ?, value = ? WHERE key = ? AND {_LIVE} AND revision = ?"


class SqliteStore:
    """A `RecordStore` in the SQLite file at `path`, which is created if its directory exists.

    `busy_timeout`: seconds to wait for another process's lock, and again for another thread's, before StoreBusy.
    `synchronous`: FULL makes a write durable when it returns; NORMAL may lose the last ones when the machine (not
    the process) crashes; OFF may lose the file.

    Raises StoreMismatch for a file that is something else or of a newer schema, and leaves it untouched. The
    object may be used on both sides of a fork; the fork waits until no call is under way.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: float = 30.0,
        synchronous: str = "FULL",
        clock: Callable[[], float] | None = None,
    ) -> None:
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"synchronous is {synchronous!r}: give one of {', '.join(SYNCHRONOUS)}")
        self._clock = clock or SystemClock().now
        self._capabilities = Capabilities(max_record=256 * MIB, ordered=True, ttl=True)
        self._file = SqliteFile(absolute(path), busy_timeout, synchronous)
        with self._file.reading():
            pass  # creates the file, or refuses it

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def setup(self, *, ttl: bool = False) -> list[Finding]:
        with self._file.reading():
            return []  # opening the file made it ready

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        """As `RecordStore.create`, in one transaction; it may be shared with calls of other threads."""
        self._file.require_open()
        check_records(records, self._capabilities.max_record)
        expires, now = self._expiry(ttl), self._clock()
        if not records:
            return []
        return self._file.together(
            lambda db: [_create_one(db, key, value, expires, now) for key, value in records],
            size=sum(len(value) + TOUCHED for _, value in records),
            single=len(records) == 1 and _is_inline(*records[0]),
        )

    def create_all(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> bool:
        """As `RecordStore.create_all`, in one transaction; it may be shared with calls of other threads."""
        self._file.require_open()
        check_records(records, self._capabilities.max_record)
        expires = self._expiry(ttl)
        single = len(records) <= ROWS and all(_is_inline(*record) for record in records)
        return self._file.together(
            lambda db: (single or _are_free(db, records)) and _create_all(db, records, expires),
            size=sum(len(value) + TOUCHED for _, value in records),
            single=single,
        )

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        now = self._clock()
        found: dict[bytes, bytes] = {}
        with self._file.reading() as db:
            for chunk in _chunks(keys):
                select = f"SELECT key, {_VALUE} FROM log WHERE key IN ({_marks(chunk)}) AND {_LIVE}"
                found.update(db.execute(select, (*chunk, now)).fetchall())
        return [found.get(key) for key in keys]

    def get_head(self, key: bytes) -> HeadRecord | None:
        now = self._clock()
        select = f"SELECT {_HEAD_COLUMNS} FROM heads WHERE key = ? AND {_LIVE}"
        with self._file.reading() as db:
            row = db.execute(select, (key, now)).fetchone()
        return HeadRecord(*row) if row else None

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        self._file.require_open()
        check_swap(head, expected, ttl)
        told = (head.thread, head.revision, head.value)
        with self._file.writing() as db:
            if ttl == UNCHANGED:
                done = db.execute(_SWAP_VALUE, (*told, head.key, self._clock(), expected))
            else:
                new = (*told, self._expiry(ttl), head.key, self._clock())
                done = db.execute(_CREATE_HEAD, new) if expected is None else db.execute(_SWAP_HEAD, (*new, expected))
            return done.rowcount == 1

    def heads(self, thread: bytes | None = None, *, partition: tuple[int, int] = (0, 1)) -> Iterator[HeadRecord]:
        self._file.require_open()
        check_partition(partition)
        of_thread, bound = ("", ()) if thread is None else ("thread = ? AND ", (thread,))
        pages = self._pages(f"SELECT {_HEAD_COLUMNS} FROM heads WHERE {of_thread}{_LIVE} AND {_NEXT_PAGE}", *bound)
        return (HeadRecord(*row) for row in pages if in_partition(row[0], partition))

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        """As `RecordStore.extend`, in one transaction for each 500 records."""
        self._file.require_open()
        expires, now = self._expiry(ttl), self._clock()
        for table, wanted in (("log", keys), ("heads", heads)):
            for chunk in _chunks(wanted):
                update = f"UPDATE {table} SET expires = ? WHERE key IN ({_marks(chunk)}) AND {_LIVE}"
                with self._file.writing() as db:
                    db.execute(update, (expires, *chunk, now))

    def remove_many(self, keys: Iterable[bytes]) -> None:
        """As `RecordStore.remove_many`, in one transaction for each 500 records."""
        self._file.require_open()
        for chunk in _chunks(keys):
            with self._file.writing(lasting=False) as db:
                db.execute(f"DELETE FROM log WHERE key IN ({_marks(chunk)})", chunk)
        self._file.trim()

    def empty_many(self, keys: Iterable[bytes]) -> None:
        """As `RecordStore.empty_many`, in one transaction for each 500 records."""
        self._file.require_open()
        for chunk in _chunks(keys):
            update = f"UPDATE log SET value = x'' WHERE key IN ({_marks(chunk)}) AND {_LIVE}"
            with self._file.writing(lasting=False) as db:
                db.execute(update, (*chunk, self._clock()))
        self._file.trim()

    def keys(self, *, partition: tuple[int, int] = (0, 1)) -> Iterator[bytes]:
        self._file.require_open()
        check_partition(partition)
        pages = self._pages(f"SELECT key FROM log WHERE {_LIVE} AND {_NEXT_PAGE}")
        return (key for (key,) in pages if in_partition(key, partition))

    def incarnation(self) -> object:
        return None  # what survives is all there is

    def settled(self) -> bytes:
        self._file.require_open()
        return b""

    def reclaim(self) -> int:
        """The bytes by which the file and its write-ahead log shrank. Expired records are purged first."""
        self._file.require_open()
        before = self._file.size()
        for table in ("log", "heads"):
            self._purge_expired(table)
        self._file.vacuum()
        return max(0, before - self._file.size())

    def close(self) -> None:
        """As `RecordStore.close`. A call that is under way in another thread finishes."""
        self._file.close()

    def _expiry(self, ttl: int | None) -> int | None:
        check_ttl(ttl)
        return None if ttl is None else math.ceil(self._clock() + ttl)

    def _pages(self, select: str, *bound: bytes) -> Iterator[tuple[Any, ...]]:
        """The rows of `select` in the order of their first column, the key; no transaction is open between pages."""
        last: bytes | int = -1  # SQLite orders every integer before every blob
        rows: list[tuple[Any, ...]] = []
        while last == -1 or len(rows) == CHUNK:
            now = self._clock()
            with self._file.reading() as db:
                rows = db.execute(select, (*bound, now, last)).fetchall()
            yield from rows
            last = rows[-1][0] if rows else b""

    def _purge_expired(self, table: str) -> None:
        expired = self._pages(f"SELECT key FROM {table} WHERE NOT {_LIVE} AND {_NEXT_PAGE}")
        for chunk in _chunks(key for (key,) in expired):
            delete = f"DELETE FROM {table} WHERE key IN ({_marks(chunk)}) AND NOT {_LIVE}"
            now = self._clock()
            with self._file.writing(lasting=False) as db:
                db.execute(delete, (*chunk, now))


def _create_one(db: sqlite3.Connection, key: bytes, value: bytes, expires: int | None, now: float) -> bool:
    """REQUIRES a write transaction unless the record is inline: it looks before it inserts."""
    stored: bytes | int | None = value
    if not _is_inline(key, value):
        if db.execute(f"SELECT 1 FROM log WHERE key = ? AND {_LIVE}", (key, now)).fetchone():
            return False
        stored = _create_large(db, value)
    return db.execute(_CREATE, (key, stored, expires, now)).rowcount == 1


def _are_free(db: sqlite3.Connection, records: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether no key is taken, not even by a record that has expired."""
    found = (
        db.execute(f"SELECT 1 FROM log WHERE key IN ({_marks(keys)})", keys).fetchone()
        for keys in _chunks(key for key, _ in records)
    )
    return not any(found)


def _create_all(db: sqlite3.Connection, records: Sequence[tuple[bytes, bytes]], expires: int | None) -> bool:
    """REQUIRES free keys in a write transaction, unless it is one statement: that has all its effect or none."""
    remaining = iter(records)
    while some := list(islice(remaining, ROWS)):
        rows: list[bytes | int | None] = []
        for key, value in some:
            rows += key, value if _is_inline(key, value) else _create_large(db, value), expires
        try:
            db.execute(f"INSERT INTO log(key, value, expires) VALUES {', '.join(['(?, ?, ?)'] * len(some))}", rows)
        except sqlite3.IntegrityError:
            return False
    return True


def _create_large(db: sqlite3.Connection, value: bytes) -> int | None:
    return db.execute("INSERT INTO large(body) VALUES (?)", (value,)).lastrowid


def _is_inline(key: bytes, value: bytes) -> bool:
    return len(key) + len(value) <= INLINE_BYTES


def _chunks(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _marks(chunk: list[bytes]) -> str:
    return ",".join("?" * len(chunk))
