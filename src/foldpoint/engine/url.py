"""Stores by URL."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, unquote, urlsplit

from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import StoreUnavailable

FORMS = "memory:, sqlite:///file.db, or aerospike://host:3000,host2:3000/namespace?prefix=fp"


def open_store(url: str, *, create: bool = True, durable: bool = True) -> RecordStore:
    """The store that `url` names, open.

    sqlite:///relative.db and sqlite:////absolute.db as in SQLAlchemy. create: a file that is not there is made.
    durable: a write lasts when it returns; otherwise one in a file lasts as soon as a later, durable one does,
    whoever's that is. Raises ValueError for a malformed URL, StoreUnavailable where the store cannot be opened.
    """
    parts = urlsplit(url)
    if url in ("memory:", "memory://"):
        return MemoryStore()
    if parts.scheme == "sqlite":
        return _open_sqlite(url, create, durable)
    if parts.scheme == "aerospike":
        return _open_aerospike(url)
    raise ValueError(f"url: expected {FORMS}, got {url!r}")


def _open_sqlite(url: str, create: bool, durable: bool) -> RecordStore:
    prefix = "sqlite:///"
    path = unquote(url[len(prefix) :])
    if not url.startswith(prefix) or not path or path == ":memory:":
        raise ValueError(f"url: expected sqlite:///file.db (sqlite:////absolute/file.db), got {url!r}")
    if not create and not os.path.exists(path):
        raise StoreUnavailable(
            f"SQLite store {os.path.abspath(path)}: there is no such file; is the URL {url!r} right?"
        )
    return SqliteStore(path, synchronous="FULL" if durable else "NORMAL")


def _open_aerospike(url: str) -> RecordStore:
    from foldpoint.engine.aerospike import AerospikeStore

    parts = urlsplit(url)
    namespace = parts.path.strip("/")
    options = dict(parse_qsl(parts.query))
    unknown = set(options) - {"prefix"}
    if not parts.netloc or not namespace or "/" in namespace or unknown:
        raise ValueError(f"url: expected aerospike://host:3000,host2:3000/namespace?prefix=fp, got {url!r}")
    hosts = [_host(url, part) for part in parts.netloc.rpartition("@")[2].split(",")]
    return AerospikeStore.connect(hosts, namespace, prefix=options.get("prefix", "fp"))


def _host(url: str, part: str) -> tuple[str, int]:
    name, _, port = part.rpartition(":")
    if not name:
        name, port = part, "3000"
    if not name or not port.isdigit():
        raise ValueError(f"url: expected host or host:port, got {part!r} in {url!r}")
    return name, int(port)
