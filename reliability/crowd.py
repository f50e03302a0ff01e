"""Many writers on few threads: every put is there, none twice. `python -m reliability.crowd --help`."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import quantiles
from threading import Barrier
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from foldpoint import Engine, FoldpointSaver
from foldpoint.compaction.verify import verify
from foldpoint.errors import FoldpointError
from reliability.check import Verdict, check
from reliability.cluster import HEARTBEATS, connect, start_server
from reliability.workload import Step, Writer, config, make_checkpoint

EXAMPLES_OF_ERRORS = 3
SAVERS = 4
"""On Aerospike the threads share so many, each with a client and with knowledge of its own."""


@dataclass(frozen=True)
class Crowd:
    """How many writers put how often, to how many threads."""

    writers: int
    puts: int
    threads: int

    def names(self) -> list[tuple[str, str]]:
        """Of each writer and its thread."""
        return [(f"w{n}", f"thread {n % self.threads}") for n in range(self.writers)]


@dataclass
class Put:
    """What one writer was told. steps: as in `Writer`; waits: seconds of each put; errors: as callers saw them."""

    steps: dict[str, Step]
    waits: list[float]
    errors: list[str]


@dataclass
class Result:
    """What came of it. median, percentile_99, longest: milliseconds of a put. findings: of `verify`."""

    store: str
    writers: int
    acknowledged: int
    seconds: float
    median: float
    percentile_99: float
    longest: float
    errors: dict[str, int]
    verdict: Verdict
    findings: int


@dataclass
class _Ran:
    store: str
    seconds: float
    writers: list[Writer]
    puts: list[Put]


def put_all(saver: FoldpointSaver, name: str, thread_id: str, count: int) -> Put:
    """Put a line of checkpoints, each again until it succeeds."""
    put, parent = Put({}, [], []), None
    for number in range(count):
        checkpoint = make_checkpoint(name, number)
        began, metadata = time.perf_counter(), dict[str, Any](source="loop", writer=name)
        step = put.steps[checkpoint["id"]] = Step(number, parent)
        while not step.acknowledged:
            try:
                saver.put(config(thread_id, parent), checkpoint, metadata, checkpoint["channel_versions"])  # type: ignore[arg-type]
                step.acknowledged = True
            except FoldpointError as error:
                put.errors.append(f"{type(error).__name__}: {error}")
        put.waits.append(time.perf_counter() - began)
        parent = checkpoint["id"]
    return put


def on_sqlite(crowd: Crowd, path: Path) -> Result:
    """Each writer a process."""
    context = multiprocessing.get_context("spawn")
    url, gate = f"sqlite:///{path}", context.Barrier(crowd.writers)
    with ProcessPoolExecutor(crowd.writers, context, _in_process, (url, gate)) as pool:
        ran = _run(crowd, pool, _put_in_process, "SQLite")
    with FoldpointSaver.from_conn_string(url) as saver:
        return _checked(ran, saver)


_process: tuple[str, Any]


def _in_process(url: str, gate: Any) -> None:
    global _process
    _process = url, gate


def _put_in_process(index: int, name: str, thread_id: str, count: int) -> tuple[float, Put]:
    url, gate = _process
    with FoldpointSaver.from_conn_string(url) as saver:
        gate.wait()
        return time.time(), put_all(saver, name, thread_id, count)


def on_aerospike(crowd: Crowd, hosts: Sequence[tuple[str, int]], namespace: str) -> Result:
    """All writers in one process."""
    gate = Barrier(crowd.writers)
    with ExitStack() as stack:
        savers = []
        for _ in range(SAVERS):
            store = connect(hosts, namespace)
            stack.callback(store.close)
            store.setup()
            savers.append(stack.enter_context(FoldpointSaver(Engine(store))))

        def put(index: int, name: str, thread_id: str, count: int) -> tuple[float, Put]:
            gate.wait()
            return time.time(), put_all(savers[index // crowd.threads % SAVERS], name, thread_id, count)

        with ThreadPoolExecutor(crowd.writers) as pool:
            ran = _run(crowd, pool, put, "Aerospike")
    store = connect(hosts, namespace)
    try:
        with FoldpointSaver(Engine(store)) as saver:
            return _checked(ran, saver)
    finally:
        store.close()


def _run(crowd: Crowd, pool: Executor, put: Callable[..., tuple[float, Put]], store: str) -> _Ran:
    names = crowd.names()
    futures = [pool.submit(put, index, *name, crowd.puts) for index, name in enumerate(names)]
    began, puts = zip(*(future.result() for future in futures), strict=True)
    writers = [Writer(*name, None, one.steps) for name, one in zip(names, puts, strict=True)]  # type: ignore[arg-type]
    return _Ran(store, time.time() - min(began), writers, list(puts))


def _checked(ran: _Ran, saver: FoldpointSaver) -> Result:
    """With a saver that has read nothing yet."""
    errors = [error for put in ran.puts for error in put.errors]
    verdict = Verdict(examples=errors[:EXAMPLES_OF_ERRORS])
    in_order = sorted(ran.writers, key=lambda writer: writer.thread_id)
    for _, together in groupby(in_order, key=lambda writer: writer.thread_id):
        check(saver, list(together), verdict)
    waits = [1000 * wait for put in ran.puts for wait in put.waits]
    percentiles = quantiles(waits, n=100)
    return Result(
        store=ran.store,
        writers=len(ran.writers),
        acknowledged=sum(writer.puts for writer in ran.writers),
        seconds=ran.seconds,
        median=percentiles[49],
        percentile_99=percentiles[98],
        longest=max(waits),
        errors=dict(Counter(error.split(": ", 1)[0] for error in errors)),
        verdict=verdict,
        findings=sum(len(verified.findings) for verified in verify(saver.engine)),
    )


EXAMPLES = """
\b
Examples:
  python -m reliability.crowd                       both stores, some minutes
  python -m reliability.crowd --on sqlite --puts 100
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--on", type=click.Choice(["sqlite", "aerospike"]), help="Only this store.")
@click.option("--puts", default=1000, show_default=True, type=click.IntRange(min=2), help="Of each writer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a store instead of a table.")
def main(on: str | None, puts: int, as_json: bool) -> None:
    """Let 24 processes put to 8 threads of one SQLite file, and 64 threads to 8 threads on Aerospike.

    Then everything is read back and compared, and the store verified. Aerospike takes `asd` on PATH.
    """
    table = Table("store", "writers", "acknowledged", "puts/s", "median, 99 %, longest", "lost", "wrong", "errors")
    for store in [on] if on else ["sqlite", "aerospike"]:
        result = on_file(Crowd(24, puts, 8)) if store == "sqlite" else on_server(Crowd(64, puts, 8))
        if as_json:
            click.echo(json.dumps(asdict(result)))
        table.add_row(*row(result))
    if not as_json:
        Console().print(table)


def on_file(crowd: Crowd) -> Result:
    with tempfile.TemporaryDirectory() as directory:
        return on_sqlite(crowd, Path(directory) / "crowd.db")


def on_server(crowd: Crowd) -> Result:
    server = start_server(**HEARTBEATS)
    try:
        return on_aerospike(crowd, server.hosts, server.namespace)
    finally:
        server.stop()


def row(result: Result) -> list[str]:
    found = result.verdict
    return [
        result.store,
        str(result.writers),
        f"{result.acknowledged:,}",
        f"{result.acknowledged / result.seconds:,.0f}",
        f"{result.median:.1f}, {result.percentile_99:.0f}, {result.longest:,.0f} ms",
        str(found.lost + found.unreadable),
        str(found.doubled + found.wrong + found.stale + result.findings),
        ", ".join(f"{count} {name}" for name, count in result.errors.items()) or "none",
    ]


if __name__ == "__main__":
    main()
