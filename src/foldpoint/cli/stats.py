"""`foldpoint stats`: sums over the threads of a store."""

from __future__ import annotations

from collections.abc import Iterator

import click

from foldpoint.cli.failure import Refused
from foldpoint.cli.opening import json_option, open_engine, url_option
from foldpoint.cli.output import print_rows
from foldpoint.engine.engine import Engine, ThreadInfo

EXAMPLES = """
\b
Examples:
  foldpoint stats --url sqlite:///agents.db
  foldpoint stats --thread user-17 --json
"""


@click.command("stats", epilog=EXAMPLES)
@url_option
@click.option("--thread", metavar="T", help="Only the thread with the id T.")
@json_option
def command(url: str | None, thread: str | None, as_json: bool) -> None:
    """Add up threads, sealed events, segments and snapshots."""
    with open_engine(url) as engine:
        totals = _sum(engine.threads("") if thread is None else _only(engine, thread))
    print_rows([totals], as_json=as_json, nothing="")


def _only(engine: Engine, thread: str) -> Iterator[ThreadInfo]:
    info = next((info for info in engine.threads(thread) if info.thread_id == thread), None)
    if info is None:
        raise Refused(f"there is no thread {thread!r} in the store: `foldpoint threads` lists those there are")
    yield info


def _sum(infos: Iterator[ThreadInfo]) -> dict[str, int]:
    totals = dict.fromkeys(("threads", "namespaces", "sealed", "segments", "snapshot_bytes"), 0)
    for info in infos:
        totals["threads"] += 1
        totals["namespaces"] += len(info.namespaces)
        totals["sealed"] += info.sealed
        totals["segments"] += info.segments
        totals["snapshot_bytes"] += info.snapshot_bytes
    return totals
