"""The command line: `python -m benchmarks --help`."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import postgres
from benchmarks.places import Servers
from benchmarks.plots import WORKLOAD, draw
from benchmarks.report import about, claims_table, failures, tables
from benchmarks.results import Cell, Results
from benchmarks.savers import BY_NAME, SAVERS, Contender
from benchmarks.workloads import WORKLOADS
from reliability.cluster import HEARTBEATS
from reliability.cluster import start_server as start_aerospike

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("foldpoint", "langgraph", "langchain-core", "aerospike", "psycopg")

EXAMPLES = """
\b
Examples:
  python -m benchmarks --trace airline.jsonl.gz             everything; takes most of an hour
  python -m benchmarks --quick                              small sizes, a minute or two
  python -m benchmarks --only airline --savers sqlite --savers foldpoint-sqlite
  python -m benchmarks --only long --rounds 5 --json long.json
"""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    workloads: Sequence[str]
    savers: Sequence[Contender]
    rounds: int
    trace: Path | None
    seed: int
    quick: bool
    timeout: float

    @property
    def at_a_time(self) -> int:
        """Cells run beside each other only where their times do not matter."""
        return os.cpu_count() or 1 if self.quick else 1

    def cells(self) -> Iterator[tuple[str, Contender]]:
        """The savers take turns at each workload, and the workloads in each round."""
        for _ in range(self.rounds):
            for workload in self.workloads:
                for saver in self.savers:
                    yield workload, saver


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(list(WORKLOADS)), help="Only this workload; may be repeated.")
@click.option("--savers", multiple=True, type=click.Choice(list(BY_NAME)), help="Only this saver; may be repeated.")
@click.option("--quick", is_flag=True, help="Small sizes: to see that everything works. The figures mean little.")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(min=1), help="Run all so often; medians.")
@click.option("--trace", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Conversations as JSON lines, instead of generated ones.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Seed of the generated conversation.")
@click.option("--postgres", "dsn", metavar="DSN", envvar="FOLDPOINT_BENCH_POSTGRES",
              help="A server where databases may be created.  [default: a private one]")  # fmt: skip
@click.option("--aerospike", metavar="HOST:PORT/NAMESPACE", envvar="FOLDPOINT_TEST_AEROSPIKE",
              help="A server and a namespace that may be written to.  [default: a private one]")  # fmt: skip
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds for one saver on one workload.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all figures there.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Draw the plots there.")
@click.option("--list", "listing", is_flag=True, help="List the workloads and savers, and run nothing.")
def main(
    only: Sequence[str],
    savers: Sequence[str],
    dsn: str | None,
    aerospike: str | None,
    json_file: Path | None,
    plots: Path | None,
    listing: bool,
    **sizes: Any,
) -> None:
    """Run each workload on Foldpoint and on other savers in turn, each in a process of its own, and compare.

    Prints a table for each workload with ratios to the best durable saver of another project, how cost grows within a
    run, and what Foldpoint claims. CPU time and memory are the process's own, not its server's. Runs on Linux.
    """
    console = Console(stderr=True)
    if listing:
        _list()
        return
    chosen = [contender for contender in SAVERS if not savers or contender.name in savers]
    with ExitStack() as stack:
        servers = _servers(stack, chosen, dsn, aerospike)
        present = [contender for contender in chosen if not _left_out(contender, servers, console)]
        if not present:
            raise click.ClickException("no saver is left to measure")
        plan = Plan(workloads=list(only) or list(WORKLOADS), savers=present, **sizes)
        cells = list(_run(plan, servers, console))
    results = Results(cells)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"machine": _machine(), "cells": [asdict(cell) for cell in cells]}, indent=1))
    out = Console(width=None if sys.stdout.isatty() else 200)
    for table in tables(results):
        out.print(table)
    for failure in failures(results):
        out.print(failure, markup=False, soft_wrap=True)
    if not sizes["quick"]:
        out.print(claims_table(results))
    if plots and WORKLOAD in results.workloads:
        for path in draw(results, plots):
            console.print(f"drew {path}", markup=False)


def _list() -> None:
    for name in WORKLOADS:
        click.echo(f"{name:18} {about(name)}")
    for contender in SAVERS:
        click.echo(f"{contender.name:18} {contender.title}")


def _servers(stack: ExitStack, chosen: Sequence[Contender], dsn: str | None, aerospike: str | None) -> Servers:
    """The servers that the chosen savers need: those named, else private ones where their programs are installed."""
    kinds = {contender.kind for contender in chosen if contender.installed}
    if "postgres" in kinds and not dsn and (programs := postgres.find_server()):
        dsn = stack.enter_context(postgres.start_server(programs))
    if "aerospike" in kinds and not aerospike and shutil.which("asd"):
        node = start_aerospike(memory="6G", **HEARTBEATS)
        stack.callback(node.stop)
        ((host, port),) = node.hosts
        aerospike = f"{host}:{port}/{node.namespace}"
    if aerospike and not re.fullmatch(r"[^/]+:\d+/[^/]+", aerospike):
        raise click.UsageError(f"--aerospike is {aerospike!r}: give host:port/namespace")
    return Servers(dsn, f"aerospike://{aerospike}" if aerospike else None)


def _left_out(contender: Contender, servers: Servers, console: Console) -> bool:
    """Whether a saver cannot run here, with one line that says why."""
    missing = {
        "postgres": "no server: install PostgreSQL, or give --postgres",
        "aerospike": "no server: put `asd` on PATH, or give --aerospike",
    }
    why = None
    if not contender.installed:
        why = "not installed: pip install 'foldpoint[bench]'"
    elif not servers.has(contender.kind):
        why = missing[contender.kind]
    if why:
        console.print(f"{contender.title} is left out: {why}", markup=False, soft_wrap=True)
    return why is not None


def _run(plan: Plan, servers: Servers, console: Console) -> Iterator[Cell]:
    cells = list(plan.cells())
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(cells))

        def run(workload: str, saver: Contender) -> Cell:
            progress.update(task, description=f"{workload}: {saver.title}")
            with servers.fresh(saver.kind) as place:
                cell = _cell(plan, workload, saver, place)
            progress.advance(task)
            return cell

        with ThreadPoolExecutor(plan.at_a_time) as pool:
            yield from pool.map(run, *zip(*cells, strict=True))


def _cell(plan: Plan, workload: str, saver: Contender, place: str) -> Cell:
    spec = {
        "workload": workload,
        "saver": saver.name,
        "place": place,
        "trace": str(plan.trace.resolve()) if plan.trace else None,
        "seed": plan.seed,
        "quick": plan.quick,
    }
    command = [sys.executable, "-m", "benchmarks.cell", json.dumps(spec)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=plan.timeout, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Cell(workload, saver.name, None, f"not done after {plan.timeout:g} s")
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return Cell(workload, saver.name, None, said[-1][:400] if said else f"exit code {done.returncode}")
    return Cell(workload, saver.name, json.loads(done.stdout))


def _machine() -> dict[str, Any]:
    installed = {one.metadata["Name"].lower(): one.version for one in metadata.distributions()}
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "packages": {name: installed[name] for name in installed if name.startswith(PACKAGES)},
    }


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
