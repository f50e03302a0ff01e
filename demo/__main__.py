"""The demo's command line: `python -m demo --help`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo import steps
from demo.graph import MESSAGES_PER_TURN, Script
from demo.report import SAMPLE, Figures, median_put_ms, milliseconds, table
from demo.source import Source
from foldpoint.errors import FoldpointError

TURNS = 300

EXAMPLES = """
\b
Examples:
  python -m demo                              300 turns of a generated conversation
  python -m demo --turns 20                   a short one
  python -m demo --trace airline.jsonl.gz     real conversations instead
  python -m demo --db thread.db               keep the file ...
  python -m demo --continue-from thread.db    ... and take its thread three turns further
  python -m demo --json                       only the figures, as one JSON object
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--turns",
    type=click.IntRange(min=1),
    help="Turns of three messages each.  [default: 300, or 3 more with --continue-from]",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Conversations to replay, as JSON lines (.gz or plain), instead of generated ones.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the generated conversation.")
@click.option(
    "--db",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Keep the thread in this new file.  [default: a temporary one]",
)
@click.option(
    "--continue-from",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Only continue the thread that an earlier run kept with --db.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the figures as one JSON object, and nothing else, on stdout."
)
def main(
    turns: int | None, trace: Path | None, seed: int, db: Path | None, continue_from: Path | None, as_json: bool
) -> None:
    """Keep a long agent thread in one SQLite file, and see what that costs.

    Runs a LangGraph graph turn by turn, continues its thread from another process, forks it from an old checkpoint,
    reads the whole history back, and compares the file with what full-state checkpoints would take.
    """
    if db is not None and continue_from is not None:
        raise click.UsageError("--db names a new file and --continue-from an existing one: give only one of them.")
    source = Source(trace, seed)
    try:
        if continue_from is not None:
            _continue(continue_from, source, turns or steps.CONTINUED_TURNS, as_json)
        else:
            _run(db, source, turns or TURNS, as_json)
    except FoldpointError as error:
        raise click.ClickException(str(error)) from error


def _run(db: Path | None, source: Source, turns: int, as_json: bool) -> None:
    script = source.script((turns + steps.CONTINUED_TURNS) * MESSAGES_PER_TURN)
    console = Console(stderr=as_json)
    with _file(db) as path, _progress(console) as progress:
        figures = _figures(path, source, script, turns, progress)
    if as_json:
        click.echo(json.dumps(asdict(figures)))
        return
    console.print(table(figures))
    if db is not None:
        console.print(f"The thread is in {db}; take it further with --continue-from.", markup=False)


def _figures(db: Path, source: Source, script: Script, turns: int, progress: Progress) -> Figures:
    messages, fork_turn = turns * MESSAGES_PER_TURN, max(1, turns // 2)
    with _bar(progress, "running the graph", turns) as advance:
        costs = steps.run(db, script, turns, advance)
    bytes_stored, resume = steps.stored_bytes(db), steps.resume_seconds(db)
    with _bar(progress, "continuing in another process"):
        continued = steps.continue_elsewhere(db, source, messages)
    with _bar(progress, "forking from an old checkpoint"):
        forked = steps.fork(db, script, fork_turn)
    counts = steps.history_counts(turns + steps.CONTINUED_TURNS, fork_turn)
    with _bar(progress, "reading the history back", len(counts)) as advance:
        history = steps.read_history(db, script, forked.branch, counts, advance)
    return Figures(
        turns=turns,
        messages=messages,
        checkpoints=len(costs.put_seconds),
        bytes_stored=bytes_stored,
        full_state_bytes=costs.full_state_bytes,
        times_smaller=round(costs.full_state_bytes / bytes_stored, 1),
        resume_ms=milliseconds(resume),
        put_ms_first=median_put_ms(costs.put_seconds[:SAMPLE]),
        put_ms_last=median_put_ms(costs.put_seconds[-SAMPLE:]),
        continued_from_messages=continued.messages_found,
        continued_to_messages=continued.messages_after,
        forked_from_messages=forked.after_messages,
        branch_messages=len(forked.branch),
        history_checkpoints=history,
    )


@contextmanager
def _bar(progress: Progress, title: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A progress bar; without a total it only shows that something is going on. Gives the function that advances it."""
    task = progress.add_task(title, total=total)
    yield lambda: progress.advance(task)
    progress.update(task, total=total or 1, completed=total or 1)


def _continue(db: Path, source: Source, turns: int, as_json: bool) -> None:
    if not db.is_file():
        raise click.UsageError(f"There is no file {db}: make one with `python -m demo --db {db}`.")
    continued = steps.continue_here(db, source, turns)
    if as_json:
        click.echo(json.dumps(asdict(continued)))
    else:
        click.echo(
            f"Process {continued.pid} found {continued.messages_found} messages and took the thread to "
            f"{continued.messages_after}."
        )


@contextmanager
def _file(db: Path | None) -> Iterator[Path]:
    """The file to keep the thread in: `db`, which must be new, or one that goes when the demo is done."""
    if db is None:
        with tempfile.TemporaryDirectory(prefix="foldpoint-demo-") as folder:
            yield Path(folder, "thread.db")
        return
    if db.exists():
        raise click.UsageError(f"{db} exists already: remove it, name another --db, or --continue-from {db}.")
    if not db.absolute().parent.is_dir():
        raise click.UsageError(f"There is no directory {db.absolute().parent} for --db: make it first.")
    yield db


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=console.stderr and not console.is_terminal)


if __name__ == "__main__":
    main(prog_name="python -m demo")
