"""A thread of very many checkpoints, built through the engine: what resuming, putting, finding and compacting cost.

Each step runs in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgpack
from rich.console import Console
from rich.table import Table

from foldpoint import Engine, Settings
from foldpoint.codecs.model import Checkpoint, Header, Value
from foldpoint.compaction import compact, upkeep
from foldpoint.engine.sqlite import SqliteStore

THREAD = "long"
EXAMPLES = """
\b
Examples:
  python -m benchmarks.long_thread --checkpoints 20000      half a minute
  python -m benchmarks.long_thread --checkpoints 1000000    half an hour
"""
STEPS: dict[str, Callable[..., dict[str, Any]]] = {}


def step(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    STEPS[function.__name__] = function
    return function


def id_of(n: int) -> str:
    return str(uuid.UUID(int=(0x1EF << 116) + (n << 32)))


def checkpoint(n: int) -> Checkpoint:
    """A window of the last 20 of short, varied lines, as an agent's trimmed conversation."""
    lines = [f"{line}: {random.Random(line).getrandbits(160):x}" for line in range(max(0, n - 19), n + 1)]
    header = Header(id_of(n), id_of(n - 1) if n else None, 4, "", {"lines": n + 1}, {"node": {"lines": n}}, ["lines"])
    return Checkpoint(header, {"lines": Value("msgpack", msgpack.packb(lines))}, {"step": n, "source": "loop"})


def open_engine(file: str) -> Engine:
    return Engine(SqliteStore(file, synchronous="OFF"), Settings())


@step
def build(file: str, count: str, care: str) -> dict[str, Any]:
    """Put `count` checkpoints, with upkeep at three quarters of the window if `care` is "yes"."""
    engine, began = open_engine(file), time.monotonic()
    for n in range(int(count)):
        if engine.put(THREAD, "", checkpoint(n)) >= 48 and care == "yes":
            upkeep(engine, THREAD, "")
    return {"seconds": time.monotonic() - began}


@step
def use(file: str, count: str) -> dict[str, Any]:
    """Median microseconds of reading the latest cold and of a put, at the end of `count` checkpoints."""

    def resume() -> None:
        entry = open_engine(file).latest(THREAD, "")
        assert entry is not None
        entry.state()

    engine, last = open_engine(file), int(count)
    upkeep(engine, THREAD, "")  # so that threads of any length are read with as many events after the last sealed one
    puts = [micros(lambda n=n: engine.put(THREAD, "", checkpoint(n))) for n in range(last, last + 32)]  # type: ignore[misc]
    latest = [micros(resume) for _ in range(100)]
    puts += [micros(lambda n=n: engine.put(THREAD, "", checkpoint(n))) for n in range(last + 32, last + 300)]  # type: ignore[misc]
    return {"latest": statistics.median(latest), "put": statistics.median(puts)}


@step
def find(file: str, count: str) -> dict[str, Any]:
    """Round trips, and median microseconds, of 200 checkpoints by id, each with a new engine."""
    trips: Counter[int] = Counter()
    times = []
    for n in random.Random(1).sample(range(int(count)), 200):
        store = Trips(SqliteStore(file))
        times.append(micros(lambda n=n, store=store: read_one(Engine(store, Settings()), n)))  # type: ignore[misc]
        trips[store.made] += 1
    return {"find": statistics.median(times), "trips": max(trips)}


def read_one(engine: Engine, n: int) -> None:
    entry = engine.find(THREAD, "", id_of(n))
    assert entry is not None
    assert entry.state() == checkpoint(n).channels


class Trips:
    """A store that counts the calls which are round trips to a server."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.made = 0

    def __getattr__(self, name: str) -> Any:
        self.made += name in ("create", "get_many", "get_head", "swap", "heads", "extend", "remove_many", "empty_many")
        return getattr(self._store, name)


@step
def fold(file: str) -> dict[str, Any]:
    """Compact it all; seconds, and how much memory the process took at most."""
    engine, began = open_engine(file), time.monotonic()
    for _ in compact(engine, grace=0):
        pass
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak, "file": Path(file).stat().st_size}


@step
def read_all(file: str, count: str) -> dict[str, Any]:
    """Read every checkpoint, newest first, and compare each twentieth."""
    engine, began, found = open_engine(file), time.monotonic(), 0
    for n, entry in zip(reversed(range(int(count))), engine.history(THREAD, ""), strict=True):
        assert entry.folded.labels["step"] == n
        if n % 20 == 0:
            assert entry.state() == checkpoint(n).channels
        found += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.monotonic() - began, "peak": peak, "found": found}


def micros(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def run(name: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.long_thread", "--step", name, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(count: int, folder: Path) -> Iterator[tuple[str, str]]:
    kept, short, raw, part = (folder / f"{name}.db" for name in ("kept", "short", "raw", "part"))
    run("build", short, 1000, "yes")
    built = run("build", kept, count, "yes")
    yield "putting, with compaction beside it", f"{count / built['seconds']:,.0f} checkpoints a second"
    few, many = run("use", short, 1000), run("use", kept, count)
    for what in ("put", "latest"):
        yield (
            f"{what}, at 1,000 and at {count:,}",
            (f"{few[what]:,.0f} µs, {many[what]:,.0f} µs: {many[what] / few[what]:.2f} times"),
        )
    found = run("find", kept, count)
    yield "by id", f"{found['trips']} round trips at most, {found['find']:,.0f} µs"
    whole = run("read_all", kept, count + 300)
    yield "reading them all", f"{whole['found'] / whole['seconds']:,.0f} a second, {whole['peak']:.0f} MiB at most"
    run("build", part, count // 10, "no")
    run("build", raw, count, "no")
    before = raw.stat().st_size
    tenth, all_ = run("fold", part), run("fold", raw)
    yield (
        f"compacting {count // 10:,} and {count:,} at once",
        (f"{tenth['seconds']:.1f} s, {all_['seconds']:.1f} s: {all_['seconds'] / tenth['seconds']:.1f} times"),
    )
    yield "memory of that", f"{tenth['peak']:.0f} MiB, {all_['peak']:.0f} MiB"
    yield "bytes before and after", f"{before:,}, {all_['file']:,}: {all_['file'] / count:.1f} a checkpoint"


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoints", default=20_000, show_default=True, type=click.IntRange(min=2000))
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="Where the files go.  [default: a new one]"
)
@click.option("--step", "name", hidden=True, type=click.Choice(list(STEPS)))
@click.argument("arguments", nargs=-1)
def main(checkpoints: int, folder: Path | None, name: str | None, arguments: Sequence[str]) -> None:
    """Build a thread of very many checkpoints in SQLite files, and measure it."""
    if name is not None:
        click.echo(json.dumps(STEPS[name](*arguments)))
        return
    table = Table("what", "measured")
    with tempfile.TemporaryDirectory() as temporary:
        for what, measured in measure(checkpoints, folder or Path(temporary)):
            table.add_row(what, measured)
            Console(stderr=True).print(f"{what}: {measured}")
    Console().print(table)


if __name__ == "__main__":
    main()
