"""The backends that the contract suite runs against, and how a test handles each.

To add a backend, write a function like `sqlite` below and enter it in BACKENDS, and in SHARED if two store objects
can work on the same data. A backend whose server keeps the time advances it by sleeping.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aerospike_server

from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Harness:
    """Stores on one set of data, empty at first. `advance(seconds)` lets the stores' time pass."""

    make: Callable[[], RecordStore]
    advance: Callable[[float], None]
    opened: list[RecordStore] = field(default_factory=list)
    clean: Callable[[], object] = lambda: None

    def open(self) -> RecordStore:
        """A store on the data; a second one only for the backends in SHARED."""
        self.opened.append(self.make())
        return self.opened[-1]

    def close(self) -> None:
        for store in self.opened:
            store.close()
        self.clean()


def memory(directory: Path) -> Harness:
    clock = Clock()
    return Harness(make=lambda: MemoryStore(clock=clock), advance=clock.advance)


def sqlite(directory: Path) -> Harness:
    clock = Clock()
    return Harness(make=lambda: SqliteStore(directory / "store.db", clock=clock), advance=clock.advance)


def aerospike(directory: Path) -> Harness:
    """On the server that all tests share, in sets of its own; time passes there by itself."""
    server = aerospike_server.target()
    prefix = aerospike_server.fresh_prefix()
    return Harness(make=lambda: server.open(prefix), advance=time.sleep, clean=lambda: server.drop(prefix))


BACKENDS: dict[str, Callable[[Path], Harness]] = {"memory": memory, "sqlite": sqlite, "aerospike": aerospike}
SHARED = ("sqlite", "aerospike")
