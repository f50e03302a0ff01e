"""What a store's SQLite file is: its tables and its settings, made where it is empty, looked at where it is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from foldpoint.engine.records import MIB
from foldpoint.engine.sqlite.statements import scalar, when_free
from foldpoint.errors import StoreMismatch, StoreUnavailable

APPLICATION_ID = 0x464C4450  # "FLDP", written to disk
SCHEMA_VERSION = 1  # user_version, written to disk
PAGE_SIZE = 2048
WAL_PAGES = 128
"""The write-ahead log begins anew about every so many pages: a few hundred KB stand beside the file, not two MB."""
WAL_KEPT = MIB
VACUUM_AT_COMMIT, VACUUM_ON_DEMAND = 1, 2  # modes of auto_vacuum: FULL and INCREMENTAL

_DDL = (
    "CREATE TABLE heads(key BLOB PRIMARY KEY, thread BLOB, revision INTEGER, value BLOB, expires INTEGER)"
    " WITHOUT ROWID",
    "CREATE INDEX heads_thread ON heads(thread)",
    "CREATE TABLE log(key BLOB PRIMARY KEY, value BLOB, expires INTEGER) WITHOUT ROWID",
    "CREATE TABLE large(id INTEGER PRIMARY KEY, body BLOB)",
    "CREATE TRIGGER log_removed AFTER DELETE ON log WHEN typeof(old.value) = 'integer'"
    " BEGIN DELETE FROM large WHERE id = old.value; END",
    "CREATE TRIGGER log_replaced AFTER UPDATE OF value ON log WHEN typeof(old.value) = 'integer'"
    " BEGIN DELETE FROM large WHERE id = old.value; END",
)


def prepare(db: sqlite3.Connection, path: Path, synchronous: str, busy_timeout: float) -> None:
    """Bring a new connection, and a new file, to the state that the store relies on."""
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
    db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    if not _is_ours(db, path):
        _create_schema(db, path)
    _use_wal(db, path, busy_timeout)


def _is_ours(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file holds a store; False if it is empty. Raises StoreMismatch for anything else."""
    application, version, tables = db.execute(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),"
        " (SELECT count(*) FROM sqlite_master)"
    ).fetchone()
    if application == APPLICATION_ID and version == SCHEMA_VERSION:
        return True
    if application == APPLICATION_ID:
        raise StoreMismatch(
            f"SQLite store {path}: its schema is version {version} and this Foldpoint reads"
            f" {SCHEMA_VERSION}; upgrade Foldpoint"
        )
    if application or version or tables:
        raise StoreMismatch(
            f"{path} is another application's SQLite database (application_id {application:#x}, user_version"
            f" {version}, {tables} schema entries); give Foldpoint a file of its own"
        )
    return False


def _create_schema(db: sqlite3.Connection, path: Path) -> None:
    """REQUIRES an empty file; another process may be doing the same."""
    db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    db.execute(f"PRAGMA auto_vacuum = {VACUUM_ON_DEMAND}")
    db.execute("BEGIN EXCLUSIVE")
    if not _is_ours(db, path):
        for statement in _DDL:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _use_wal(db: sqlite3.Connection, path: Path, patience: float) -> None:
    """Switch the file to a write-ahead log. SQLite does not wait for others' locks here, so this does."""
    if scalar(db, "PRAGMA journal_mode") == "wal":
        return
    [mode] = when_free(db, "PRAGMA journal_mode = WAL", patience).fetchone()
    if mode != "wal":
        raise StoreUnavailable(f"SQLite store {path}: its file system cannot share memory; move it to a local disk")
