"""Stores by URL, or on a client that somebody else connected."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import StoreUnavailable
from foldpoint.settings import Settings

if TYPE_CHECKING:
    import aerospike

LASTING = ("sqlite:///", "aerospike://")
"""How URLs begin of stores that outlive the process."""
FORMS = "memory:, sqlite:///file.db, or aerospike://host:3000,host2:3000/namespace?prefix=fp"


def open_store(url: str, settings: Settings | None = None, *, create: bool = True, durable: bool = True) -> RecordStore:
    """The store that `url` names, open.

    sqlite:///relative.db and sqlite:////absolute.db as in SQLAlchemy; ?busy_timeout=5: the seconds to wait for another
    process's lock, and again for another thread's, by default 30. settings: give the passwords that an Aerospike
    URL leaves out. create: a file that is not there is made. durable: a write lasts when it returns; otherwise one in a
    file lasts as soon as a later, durable one does, whoever's that is. Raises ValueError for a malformed URL,
    StoreUnavailable where the store cannot be opened.
    """
    if url in ("memory:", "memory://"):
        return MemoryStore()
    if url.startswith("sqlite:"):
        return _open_sqlite(url, create, durable)
    if url.startswith("aerospike:"):
        return _open_aerospike(url, settings or Settings())
    raise ValueError(f"url: expected {FORMS}, got {without_secrets(url)!r}")


def open_on_client(client: aerospike.Client, namespace: str, prefix: str) -> RecordStore:
    """A store on a connected client, which stays open when the store is closed. Raises as `open_store`."""
    from foldpoint.engine.aerospike import AerospikeStore

    return AerospikeStore(client, namespace, prefix=prefix)


def without_secrets(url: str) -> str:
    """The URL without user, password and options."""
    return re.sub(r"//.*@", "//", url, flags=re.DOTALL).partition("?")[0]


def _open_sqlite(url: str, create: bool, durable: bool) -> RecordStore:
    prefix = "sqlite:///"
    name, _, query = url[len(prefix) :].partition("?")
    path, options = unquote(name), dict(parse_qsl(query, keep_blank_values=True))
    if not url.startswith(prefix) or not path or path == ":memory:":
        raise ValueError(f"url: expected sqlite:///file.db (sqlite:////absolute/file.db), got {url!r}")
    patience = options.pop("busy_timeout", "30")
    if options or not re.fullmatch(r"\d+(\.\d+)?", patience, re.ASCII):
        raise ValueError(f"url: expected ?busy_timeout=SECONDS or nothing after the file (%3F is a ?), got {url!r}")
    if not create and not os.path.exists(path):
        raise StoreUnavailable(
            f"SQLite store {os.path.abspath(path)}: there is no such file; is the URL {url!r} right?"
        )
    return SqliteStore(path, busy_timeout=float(patience), synchronous="FULL" if durable else "NORMAL")


def _open_aerospike(url: str, settings: Settings) -> RecordStore:
    from foldpoint.engine.aerospike import AerospikeStore
    from foldpoint.engine.aerospike.url import parse

    password, keyfile_pw = settings.aerospike_password, settings.aerospike_keyfile_pw
    arguments = parse(
        url,
        password=password.get_secret_value() if password else None,
        keyfile_pw=keyfile_pw.get_secret_value() if keyfile_pw else None,
    )
    return AerospikeStore.connect(**arguments)
