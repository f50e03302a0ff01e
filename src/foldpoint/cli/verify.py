"""`foldpoint verify`: whether everything in a store is as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from foldpoint.cli.opening import json_option, open_engine, url_option
from foldpoint.cli.output import print_rows
from foldpoint.compaction.verify import Verified, verify

EXAMPLES = """
\b
Examples:
  foldpoint verify --url sqlite:///agents.db
  foldpoint verify --thread user-17 --repair
  foldpoint verify --json | jq 'select(.findings != [])'
"""


@click.command("verify", epilog=EXAMPLES)
@url_option
@click.option("--thread", metavar="T", help="Only the thread with the id T.")
@click.option("--repair", is_flag=True, help="Write again what can be told exactly from other records.")
@json_option
@click.pass_context
def command(ctx: click.Context, url: str | None, thread: str | None, repair: bool, as_json: bool) -> None:
    """Check every checksum, every fold and every invariant of each thread.

    Safe beside live writers. Findings name the invariant by its number in docs/DESIGN.md, and the record by its key.
    The exit code is 2 if anything is found that was not repaired.
    """
    checked: list[Verified] = []
    with open_engine(url) as engine:
        found = _seen(verify(engine, thread, repair=repair), checked)
        if as_json:
            print_rows(map(asdict, found), as_json=True, nothing="")
        else:
            rows = [asdict(finding) for verified in found for finding in verified.findings]
            streams = "1 stream" if len(checked) == 1 else f"{len(checked):,} streams"
            print_rows(rows, as_json=False, nothing=f"Checked {streams}, found nothing.")
    ctx.exit(0 if all(verified.sound for verified in checked) else 2)


def _seen(found: Iterator[Verified], checked: list[Verified]) -> Iterator[Verified]:
    for verified in found:
        checked.append(verified)
        yield verified
