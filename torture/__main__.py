"""The command line: `python -m torture --help`."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from reliability.network import NetworkUnavailable, enter
from torture import flips as flipping
from torture import fuzz as fuzzing
from torture import interleaved, plays, targets
from torture import kills as killing
from torture.batch import Outcome, outcomes

EXAMPLES = """
\b
Examples:
  python -m torture                                  everything, two hours
  python -m torture machine --runs 500 --store node
  python -m torture machine --store node --seed 17 --runs 100 --shrink
  python -m torture interleave --runs 5000
  python -m torture kills --store sqlite --runs 50
  python -m torture flips --kind head --json
  python -m torture fuzz --only event --minutes 10
"""


@dataclass
class Told:
    """What a command did: figures by name, and what failed, with what repeats it."""

    what: str
    seconds: float = 0.0
    figures: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@click.group(invoke_without_command=True, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Try very often to read something wrong from Foldpoint, or to lose something. Without a command: everything.

    A failure is printed with the seed, and the command, that repeats it; the exit code is 1 then.
    """
    if context.invoked_subcommand is not None:
        return
    _in_a_network()
    failed = False
    for command in (machine, interleave, kills, flips, fuzz):
        try:
            context.invoke(command)
        except SystemExit:
            failed = True
    if failed:
        sys.exit(1)


_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
_WORKERS = click.option("--workers", default=os.cpu_count() or 1, show_default=True, help="Processes.")
_SEED = click.option("--seed", type=int, help="Begin with this seed.  [default: a random one]")


@main.command()
@click.option("--runs", default=20_000, show_default=True, help="Histories in all.")
@click.option("--store", "stores", multiple=True, type=click.Choice(list(plays.STORES)),
              help="Only on this; may be repeated.  [default: half in memory, a tenth of these with keys, the "
              "rest on a model of a node that loses power, and a twentieth in files]")  # fmt: skip
@_SEED
@click.option("--shrink", is_flag=True, help="Look for the fewest steps that fail; takes minutes.")
@_WORKERS
@_JSON
def machine(runs: int, stores: Sequence[str], seed: int | None, shrink: bool, workers: int, as_json: bool) -> None:
    """Random histories of two processes that put, compact, prune, copy, delete and sweep, on stores that fail.

    After each, all is read by every path and compared with dicts, and verified. 100 runs share a seed.
    """
    shares = {"memory": 9, "keys": 1, "node": 7, "torn": 2, "sqlite": 1} if not stores else dict.fromkeys(stores, 1)
    jobs = []
    for store, share in shares.items():
        count = max(1, round(runs * share / sum(shares.values()) / plays.RUNS))
        batch = partial(plays.play, store, runs=min(runs, plays.RUNS), shrink=shrink)
        jobs += [(f"machine --store {store}", batch, number) for number in _seeds(seed, count)]
    _finish(_batches("machine", "histories", jobs, workers), as_json)


@main.command()
@click.option("--runs", default=20_000, show_default=True, help="Histories in all.")
@_SEED
@_WORKERS
@_JSON
def interleave(runs: int, seed: int | None, workers: int, as_json: bool) -> None:
    """Writers, readers, compactors and others on one thread, interleaved call by call, and a crash of all nodes.

    What was acknowledged is compared while they are at it, afterwards, and verified. 20 runs share a seed.
    """
    count = max(1, round(runs / interleaved.RUNS))
    batch = partial(interleaved.play, runs=min(runs, interleaved.RUNS))
    jobs = [("interleave", batch, number) for number in _seeds(seed, count)]
    _finish(_batches("interleave", "histories", jobs, workers), as_json)


@main.command()
@click.option("--kind", "kinds", multiple=True, help="Only records of this kind, as the names of the table.")
@_SEED
@_WORKERS
@_JSON
def flips(kinds: Sequence[str], seed: int | None, workers: int, as_json: bool) -> None:
    """Every bit of one record of each kind flipped, and every end of it cut off; then all is read by every path.

    The seed says which record of each kind.
    """
    (number,) = _seeds(seed, 1)
    jobs = [(f"flips --kind {kind!r}", partial(flipping.flip, kind), number) for kind in kinds or flipping.kinds()]
    _finish(_batches("flips", "damaged records", jobs, workers), as_json)


@main.command()
@click.option("--store", "stores", multiple=True, type=click.Choice(["sqlite", "aerospike"]),
              help="Only on this; may be repeated.  [default: both]")  # fmt: skip
@click.option("--runs", type=int, help="Kills.  [default: 500 on SQLite, 100 on Aerospike]")
@click.option("--split", is_flag=True, help="Cut nodes off from each other alone, too; see docs/RELIABILITY.md.")
@_SEED
@_JSON
def kills(stores: Sequence[str], runs: int | None, split: bool, seed: int | None, as_json: bool) -> None:
    """Two writers and a compactor on shared threads, one of them killed every half second.

    On Aerospike three nodes (`asd` on PATH) are killed, paused and cut off meanwhile, one at a time. The seed says who
    is killed when; what the processes do meanwhile differs.
    """
    if not stores or "aerospike" in stores:
        _in_a_network()
    for store in stores or ("sqlite", "aerospike"):
        (number,) = _seeds(seed, 1)
        told, started = Told(f"kills on {store}"), time.monotonic()
        say = Console(stderr=True).print
        with TemporaryDirectory() as folder:
            if store == "sqlite":
                found = killing.on_sqlite(Path(folder), runs or 500, number, say)
            else:
                found = killing.on_aerospike(Path(folder), runs or 100, number, say, split=split)
        told.figures = {
            "kills of processes": found.kills,
            "faults of nodes": found.faults,
            "checkpoints acknowledged": found.acknowledged,
        }
        told.failures = [f"kills --store {store} --seed {number}: {one}" for one in found.wrong]
        told.seconds = time.monotonic() - started
        _finish(told, as_json)


@main.command()
@click.option("--only", "names", multiple=True, type=click.Choice(list(fuzzing.names())),
              help="Only this target; may be repeated.")  # fmt: skip
@click.option("--minutes", default=10.0, show_default=True, help="Of each target.")
@_SEED
@_WORKERS
@click.option("--input", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Feed one target with this, that made it fail.")  # fmt: skip
@_JSON
def fuzz(
    names: Sequence[str], minutes: float, seed: int | None, workers: int, file: Path | None, as_json: bool
) -> None:
    """Feed every decoder with bytes that nobody wrote, guided by coverage: only typed errors, little memory."""
    if file is not None:
        for name in names:
            targets.targets()[name](file.read_bytes())
        return
    (number,) = _seeds(seed, 1)
    jobs = [
        (f"fuzz --only {name!r}", partial(fuzzing.fuzz, name, minutes * 60), number)
        for name in names or fuzzing.names()
    ]
    _finish(_batches("fuzz", "inputs", jobs, workers), as_json)


def _in_a_network() -> None:
    """Begin again in one, so that nodes can be cut off."""
    try:
        enter()
    except NetworkUnavailable as error:
        click.echo(f"No node will be cut off: {error}", err=True)


def _seeds(first: int | None, count: int) -> Iterable[int]:
    first = random.randrange(1 << 32) if first is None else first
    return range(first, first + count)


def _batches(what: str, unit: str, jobs: Sequence[tuple[str, Any, int]], workers: int) -> Told:
    told, started = Told(what, figures={unit: 0}), time.monotonic()
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("batches"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=len(jobs))
        for done, outcome in enumerate(outcomes(jobs, workers), start=1):
            progress.advance(task)
            if not progress.console.is_terminal and done * 10 // len(jobs) > (done - 1) * 10 // len(jobs):
                progress.console.print(f"{what}: {done} of {len(jobs)} batches")
            told.figures[unit] += outcome.runs
            told.figures[outcome.name] = told.figures.get(outcome.name, 0) + outcome.runs
            if outcome.failure:
                told.failures.append(str(outcome))
                progress.console.print(_how(outcome), markup=False)
    told.seconds = time.monotonic() - started
    return told


def _how(outcome: Outcome) -> str:
    return f"FAILED: {outcome.failure}\nAgain: python -m torture {outcome.name} --seed {outcome.seed}"


def _finish(told: Told, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(told)))
    else:
        table = Table(told.what, "")
        for name, count in {**told.figures, "failures": len(told.failures)}.items():
            table.add_row(name, f"{count:,}")
        table.add_row("seconds", f"{told.seconds:,.0f}")
        Console().print(table)
        for failure in told.failures[:20]:
            click.echo(failure, err=True)
    if told.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
