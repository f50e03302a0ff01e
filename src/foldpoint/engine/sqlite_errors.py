"""What SQLite's errors are in our terms."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from foldpoint.errors import StoreBusy, StoreFull, StoreMismatch, StoreReadOnly, StoreUnavailable

# SQLite's result codes (the sqlite3 module names them from Python 3.11 on).
BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _PROTOCOL, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 15, 26
_IOERR_WRITE, _IOERR_SHMSIZE, _READONLY_DBMOVED = 778, 4874, 1032

_GROWN = (StoreFull, "the file could not grow: look for a full disk, a quota, a file-size limit or a failing disk")
_HELD = (StoreBusy, "it is in use; try again, or find what keeps a transaction open")
_MEANINGS: dict[int, tuple[type[StoreUnavailable], str]] = {
    BUSY: _HELD,
    _LOCKED: _HELD,
    _PROTOCOL: _HELD,
    _READONLY: (StoreReadOnly, "make the file and its directory writable"),
    _READONLY_DBMOVED: (StoreUnavailable, "the file was moved or removed while open; open it again"),
    _FULL: (StoreFull, "free space on the disk"),
    _IOERR: (StoreUnavailable, "the disk failed; look at the system's log"),
    _IOERR_WRITE: _GROWN,
    _IOERR_SHMSIZE: _GROWN,
    _CORRUPT: (StoreUnavailable, "the file is damaged; restore a copy, or recover it with sqlite3's .recover"),
    _CANTOPEN: (StoreUnavailable, "check that its directory exists and that this user may read and write there"),
    _NOTADB: (StoreMismatch, "the file is no SQLite database; give Foldpoint a file of its own"),
}
_TEXTS = (
    ("database is locked", BUSY),
    ("database table is locked", _LOCKED),
    ("locking protocol", _PROTOCOL),
    ("attempt to write a readonly database", _READONLY),
    ("database or disk is full", _FULL),
    ("disk I/O error", _IOERR),
    ("database disk image is malformed", _CORRUPT),
    ("unable to open database file", _CANTOPEN),
    ("file is not a database", _NOTADB),
)


def translate(error: sqlite3.Error, path: Path) -> StoreUnavailable:
    """The store's error for one of SQLite's, saying what happened, to which file, and what to do."""
    code = _code(error)
    kind, advice = _MEANINGS.get(code) or _MEANINGS.get(code & 0xFF) or (StoreUnavailable, "see the cause")
    return kind(f"SQLite store {path}: {error}; {advice}")


def is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and _code(error) & 0xFF in (BUSY, _LOCKED)


def _code(error: sqlite3.Error) -> int:
    """SQLite's extended result code; before Python 3.11, what the message tells of it."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code)
    return next((code for text, code in _TEXTS if str(error).startswith(text)), 0)
