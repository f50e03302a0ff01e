"""`foldpoint threads`: which threads a store holds."""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import islice

import click

from foldpoint.cli.ages import age_of, age_option
from foldpoint.cli.opening import json_option, open_engine, unreadable, url_option
from foldpoint.cli.output import print_rows

EXAMPLES = """
\b
Examples:
  foldpoint threads --url sqlite:///agents.db
  foldpoint threads --prefix user- --limit 20 --age
  foldpoint threads --json | jq -r 'select(.sealed > 1000) | .thread_id'
"""


@click.command("threads", epilog=EXAMPLES)
@url_option
@click.option("--prefix", default="", metavar="P", help="Only threads whose id begins with P.")
@click.option("--limit", type=click.IntRange(1, sys.maxsize), metavar="N", help="At most N threads.")
@age_option
@json_option
def command(url: str | None, prefix: str, limit: int | None, age: bool, as_json: bool) -> None:
    """List threads and what they hold.

    For each thread: its namespaces, the events in its sealed segments, their number and bytes, and the bytes of the
    snapshots that it is resumed from; with --age also when its newest checkpoint was made.
    """
    with open_engine(url) as engine, unreadable() as unread:
        infos = islice(engine.threads(prefix, unread=unread), limit)
        rows = (asdict(info) | (age_of(engine, info, as_json) if age else {}) for info in infos)
        print_rows(rows, as_json=as_json, nothing="No threads.")
