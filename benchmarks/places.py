"""Where savers keep their data: a fresh place for each run, what it holds, and its removal.

A place is a URL: memory:, sqlite:////folder/bench.db, postgresql://…, aerospike://host:port/namespace?prefix=….
"""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from reliability.cluster import raw_client

Kind = Literal["memory", "sqlite", "postgres", "aerospike"]


@dataclass(frozen=True)
class Servers:
    """Those that answer: a PostgreSQL DSN, and aerospike://host:port/namespace. None: that kind is left out."""

    postgres: str | None = None
    aerospike: str | None = None

    def has(self, kind: Kind) -> bool:
        return kind in ("memory", "sqlite") or getattr(self, kind) is not None

    def fresh(self, kind: Kind) -> AbstractContextManager[str]:
        """An empty place, gone with all it holds when the block ends."""
        if kind == "sqlite":
            return _sqlite_file()
        if kind == "postgres":
            return _postgres_database(str(self.postgres))
        if kind == "aerospike":
            return _aerospike_sets(str(self.aerospike))
        return _memory()


def stored_bytes(place: str) -> int:
    """What a place occupies: the file without its log, the tables with their indexes, the sets' data."""
    scheme = urlsplit(place).scheme
    return {"sqlite": _sqlite_size, "postgresql": _postgres_size, "aerospike": _aerospike_size}[scheme](place)


def vacuum(place: str) -> None:
    """Have the store itself give back what it can; Aerospike has nothing to do."""
    scheme = urlsplit(place).scheme
    if scheme == "sqlite":
        with closing(sqlite3.connect(sqlite_path(place))) as connection:
            connection.execute("VACUUM")
    if scheme == "postgresql":
        with _connect(place) as connection:
            connection.execute("VACUUM FULL")


@contextmanager
def _memory() -> Iterator[str]:
    yield "memory:"


# -- SQLite ------------------------------------------------------------------------------------------------------------


def sqlite_path(place: str) -> str:
    return place.removeprefix("sqlite:///")


@contextmanager
def _sqlite_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="foldpoint-bench-") as folder:
        yield f"sqlite:///{folder}/bench.db"


def _sqlite_size(place: str) -> int:
    """Without the -shm file: it is memory that processes share while they have the file open, and goes with them."""
    path = sqlite_path(place)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(file.stat().st_size for file in (Path(path), Path(f"{path}-wal")) if file.exists())


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def _connect(dsn: str) -> Any:
    import psycopg

    return psycopg.connect(dsn, autocommit=True)


@contextmanager
def _postgres_database(server: str) -> Iterator[str]:
    name = f"bench_{uuid.uuid4().hex[:12]}"
    with _connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with _connect(server) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _postgres_size(place: str) -> int:
    with _connect(place) as connection:
        connection.execute("VACUUM")
        (size,) = connection.execute(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchone()
    return int(size)


# -- Aerospike ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AerospikePlace:
    """A prefix of set names in a namespace."""

    host: str
    port: int
    namespace: str
    prefix: str

    @classmethod
    def parse(cls, place: str) -> AerospikePlace:
        parts = urlsplit(place)
        prefix = parse_qs(parts.query).get("prefix", [""])[0]
        return cls(str(parts.hostname), parts.port or 3000, parts.path.strip("/"), prefix)

    @contextmanager
    def client(self) -> Iterator[Any]:
        with closing(raw_client([(self.host, self.port)])) as client:
            yield client

    def sets(self, client: Any) -> list[dict[str, str]]:
        """The statistics of each set of this prefix, from every node."""
        return [one for one in _info(client, f"sets/{self.namespace}") if one["set"].startswith(f"{self.prefix}_")]

    def drop(self, client: Any) -> None:
        for one in self.sets(client):
            client.truncate(self.namespace, one["set"], 0)
        for index in _info(client, f"sindex-list:namespace={self.namespace}"):
            if index["indexname"].startswith(f"{self.prefix}_"):
                client.index_remove(self.namespace, index["indexname"])


def _info(client: Any, command: str) -> list[dict[str, str]]:
    """The answer's lines as dicts, of all nodes one after the other."""
    answers = [answer.strip() for _, answer in client.info_all(command).values()]
    lines = [line for answer in answers for line in answer.split(";") if line]
    return [dict(pair.split("=", 1) for pair in line.split(":") if "=" in pair) for line in lines]


@contextmanager
def _aerospike_sets(server: str) -> Iterator[str]:
    place = f"{server}?prefix=b{uuid.uuid4().hex[:12]}"
    try:
        yield place
    finally:
        at = AerospikePlace.parse(place)
        with at.client() as client:
            at.drop(client)


def _aerospike_size(place: str) -> int:
    at = AerospikePlace.parse(place)
    with at.client() as client:
        return sum(int(one["data_used_bytes"]) for one in at.sets(client))
