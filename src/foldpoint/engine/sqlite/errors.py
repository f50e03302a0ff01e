"""What SQLite's errors are in our terms."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from foldpoint.errors import StoreBusy, StoreFull, StoreMismatch, StoreReadOnly, StoreUnavailable

_GROWN = (StoreFull, "the file could not grow: look for a full disk, a quota, a file-size limit or a failing disk")
_HELD = (StoreBusy, "it is in use; try again, or find what keeps a transaction open")
_MEANINGS: dict[int, tuple[type[StoreUnavailable], str]] = {
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_PROTOCOL: _HELD,
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "make the file, those beside it (-wal, -shm) and its directory writable"),
    sqlite3.SQLITE_READONLY_DBMOVED: (StoreUnavailable, "the file was moved or removed while open; open it again"),
    sqlite3.SQLITE_FULL: (StoreFull, "free space on the disk"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "the disk failed; look at the system's log"),
    sqlite3.SQLITE_IOERR_WRITE: _GROWN,
    sqlite3.SQLITE_IOERR_SHMSIZE: _GROWN,
    sqlite3.SQLITE_CORRUPT: (
        StoreUnavailable,
        "the file is damaged; restore a copy, or recover it with sqlite3's .recover",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailable,
        "check that its directory exists and that this user may read and write there",
    ),
    sqlite3.SQLITE_NOTADB: (StoreMismatch, "the file is not a SQLite database; give Foldpoint a file of its own"),
}


def translate(error: sqlite3.Error, path: Path) -> StoreUnavailable:
    """The store's error for one of SQLite's, saying what happened, to which file, and what to do."""
    code = _code(error)
    kind, advice = _MEANINGS.get(code) or _MEANINGS.get(code & 0xFF) or (StoreUnavailable, "see the cause")
    return kind(f"SQLite store {path}: {error}; {advice}")


def is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and _code(error) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: sqlite3.Error) -> int:
    """SQLite's extended result code; 0 where it is the module's own error."""
    return getattr(error, "sqlite_errorcode", 0)
