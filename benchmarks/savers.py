"""Who is measured.

Each saver is opened on a place as its documentation says; what one imports is not loaded for another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.meter import TalliedStore
from benchmarks.places import AerospikePlace, Kind, sqlite_path, vacuum
from foldpoint import Engine, FoldpointSaver
from foldpoint.compaction import compact
from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.engine.url import open_store
from foldpoint.settings import load_settings

Saver = BaseCheckpointSaver[Any]
CONNECTIONS = 16  # of a pool, as many as FoldpointSaver has threads for asynchronous calls


def _keep(saver: Saver, place: str) -> None:
    """Nothing to be done."""


def _vacuum(saver: Saver, place: str) -> None:
    vacuum(place)


@dataclass(frozen=True)
class Contender:
    """A saver to measure.

    role: foldpoint; peer, a durable saver of another project; or reference, what Foldpoint is not compared with.
    open: on a place, for as long as the block lasts. open_loop: likewise for asynchronous calls, where that is another
    class. shrink: make what a place holds smaller, as far as the saver or its store can without losing history.
    slow_to_open: for seconds, and what it has read before changes nothing: it is not opened anew for each cold read.
    module: what has to be installed.
    """

    name: str
    title: str
    kind: Kind
    role: Literal["foldpoint", "peer", "reference"]
    open: Callable[[str], AbstractContextManager[Saver]]
    open_loop: Callable[[str], AbstractAsyncContextManager[Saver]] | None = None
    shrink: Callable[[Saver, str], None] = _keep
    slow_to_open: bool = False
    module: str = "foldpoint"

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None

    @asynccontextmanager
    async def aopen(self, place: str) -> AsyncIterator[Saver]:
        """As `open`, for asynchronous calls."""
        if self.open_loop is None:
            with self.open(place) as saver:
                yield saver
        else:
            async with self.open_loop(place) as saver:
                yield saver


# -- Foldpoint ---------------------------------------------------------------------------------------------------------


@contextmanager
def _foldpoint(place: str) -> Iterator[Saver]:
    with closing(TalliedStore(open_store(place))) as store:
        if isinstance(store.inner, AerospikeStore):
            store.inner.setup()
        with closing(FoldpointSaver(Engine(store, load_settings(url=place)))) as saver:
            yield saver


def _compact(saver: Saver, place: str) -> None:
    assert isinstance(saver, FoldpointSaver)
    for _ in compact(saver.engine, grace=0):  # nobody else uses this place
        pass


# -- the others --------------------------------------------------------------------------------------------------------


@contextmanager
def _floor(place: str) -> Iterator[Saver]:
    from benchmarks.floor import FloorSaver

    yield FloorSaver()


@contextmanager
def _in_memory(place: str) -> Iterator[Saver]:
    from langgraph.checkpoint.memory import InMemorySaver

    yield InMemorySaver()


@contextmanager
def _sqlite(place: str) -> Iterator[Saver]:
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(sqlite_path(place)) as saver:
        saver.setup()
        yield saver


@asynccontextmanager
async def _async_sqlite(place: str) -> AsyncIterator[Saver]:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(sqlite_path(place)) as saver:
        await saver.setup()
        yield saver


@contextmanager
def _postgres(place: str) -> Iterator[Saver]:
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import ConnectionPool

    how = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    with ConnectionPool[Any](place, min_size=1, max_size=CONNECTIONS, kwargs=how, open=True) as pool:
        saver = PostgresSaver(pool)
        saver.setup()
        yield saver


@asynccontextmanager
async def _async_postgres(place: str) -> AsyncIterator[Saver]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    how = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool[Any](place, min_size=1, max_size=CONNECTIONS, kwargs=how, open=False) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


@contextmanager
def _aerospike(place: str) -> Iterator[Saver]:
    from langgraph.checkpoint.aerospike import AerospikeSaver

    at = AerospikePlace.parse(place)
    with at.client() as client:
        sets: Any = {name: f"{at.prefix}_{name}" for name in ("set_cp", "set_writes", "set_meta")}
        yield AerospikeSaver(client, at.namespace, **sets)


SAVERS: tuple[Contender, ...] = (
    Contender("floor", "no serializing", "memory", "reference", _floor),
    Contender("in-memory", "InMemorySaver", "memory", "reference", _in_memory),
    Contender("sqlite", "SqliteSaver", "sqlite", "peer", _sqlite, _async_sqlite, _vacuum, module="aiosqlite"),
    Contender(
        "postgres", "PostgresSaver", "postgres", "peer", _postgres, _async_postgres, _vacuum, module="psycopg_pool"
    ),
    Contender(
        "aerospike",
        "AerospikeSaver",
        "aerospike",
        "peer",
        _aerospike,
        slow_to_open=True,
        module="langgraph.checkpoint.aerospike",
    ),
    Contender("foldpoint-memory", "Foldpoint, memory", "memory", "reference", _foldpoint, shrink=_compact),
    Contender("foldpoint-sqlite", "Foldpoint, SQLite", "sqlite", "foldpoint", _foldpoint, shrink=_compact),
    Contender("foldpoint-aerospike", "Foldpoint, Aerospike", "aerospike", "foldpoint", _foldpoint, shrink=_compact),
)
BY_NAME = {contender.name: contender for contender in SAVERS}
PEERS = [contender.name for contender in SAVERS if contender.role == "peer"]
FOLDPOINT = [contender.name for contender in SAVERS if contender.role == "foldpoint"]
