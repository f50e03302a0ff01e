"""`foldpoint compact`: fold what threads have accumulated, beside live writers."""

from __future__ import annotations

from dataclasses import asdict

import click

from foldpoint.cli.opening import json_option, open_engine, url_option
from foldpoint.cli.output import print_rows
from foldpoint.compaction import compact

EXAMPLES = """
\b
Examples:
  foldpoint compact --url sqlite:///agents.db --thread user-17
  foldpoint compact --all --json
"""

COLUMNS = ("thread_id", "namespace", "events_sealed", "segments", "bytes_written", "bytes_removed")


@click.command("compact", epilog=EXAMPLES)
@url_option
@click.option("--thread", metavar="T", help="Only the thread with the id T.")
@click.option("--all", "every", is_flag=True, help="All threads of the store.")
@json_option
def command(url: str | None, thread: str | None, every: bool, as_json: bool) -> None:
    """Compact one thread or all of them. The history stays readable; live writers need not stop."""
    if every == (thread is not None):
        raise click.UsageError("Say what to compact: either --thread T or --all.")
    with open_engine(url) as engine:
        reports = map(asdict, compact(engine, thread))
        rows = reports if as_json else ({name: report[name] for name in COLUMNS} for report in reports)
        print_rows(rows, as_json=as_json, nothing="Nothing to compact.")
