"""`foldpoint sweep`: remove records that no thread leads to."""

from __future__ import annotations

from dataclasses import asdict

import click

from foldpoint.cli.opening import json_option, open_engine, url_option
from foldpoint.cli.output import print_rows
from foldpoint.cli.progress import progress, shows_progress
from foldpoint.compaction.sweep import sweep

EXAMPLES = """
\b
Examples:
  foldpoint sweep --url sqlite:///agents.db
  foldpoint sweep --dry-run --json
"""


@click.command("sweep", epilog=EXAMPLES)
@url_option
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@json_option
def command(url: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove records that no thread leads to: what crashed jobs, lost races and restarted servers leave behind.

    Most of it goes when two sweeps, at least the grace (FOLDPOINT_GRACE, 10 minutes) apart, both find it so: run this
    once a day, or twice. Live writers need not stop. Do not run it while servers are away that hold the only copies of
    records.
    """
    with open_engine(url) as engine, progress("records", None, 0, shows_progress() and not as_json) as bar:
        report = sweep(engine, dry_run=dry_run, tick=bar.step)
        grace = engine.settings.grace
    print_rows([asdict(report)], as_json=as_json)
    if report.waiting and not as_json:
        click.echo(f"What is waiting goes with a sweep in {grace:g} seconds or later.", err=True)
