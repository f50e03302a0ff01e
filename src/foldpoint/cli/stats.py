"""`foldpoint stats`: sums over the threads of a store."""

from __future__ import annotations

from collections.abc import Iterator

import click

from foldpoint.cli.ages import age_option, last_made
from foldpoint.cli.opening import json_option, no_thread, open_engine, unreadable, url_option
from foldpoint.cli.output import print_rows
from foldpoint.engine.engine import Engine, ThreadInfo

EXAMPLES = """
\b
Examples:
  foldpoint stats --url sqlite:///agents.db
  foldpoint stats --thread user-17 --json
  foldpoint stats --age
"""


_DAYS = (1, 7, 30, 90)
_SUMS = ("sealed", "segments", "log_bytes", "snapshot_bytes")


@click.command("stats", epilog=EXAMPLES)
@url_option
@click.option("--thread", metavar="T", help="Only the thread with the id T.")
@age_option
@json_option
def command(url: str | None, thread: str | None, age: bool, as_json: bool) -> None:
    """Add up threads, sealed events, segments and their bytes, and the bytes of snapshots.

    With --age also how many threads got their newest checkpoint more than 1, 7, 30 and 90 days ago.
    """
    with open_engine(url) as engine, unreadable() as unread:
        totals = _sum(engine, engine.threads(thread_id=thread, unread=unread), age)
        if thread is not None and not totals["threads"]:
            raise no_thread(thread)
        print_rows([totals], as_json=as_json)


def _sum(engine: Engine, infos: Iterator[ThreadInfo], age: bool) -> dict[str, int]:
    older = {f"older_than_{days}d": days for days in _DAYS} if age else {}
    totals = dict.fromkeys(("threads", "namespaces", *_SUMS, *older), 0)
    for info in infos:
        totals["threads"] += 1
        totals["namespaces"] += len(info.namespaces)
        for name in _SUMS:
            totals[name] += getattr(info, name)
        made = last_made(engine, info) if age else None
        for name, days in older.items():
            totals[name] += made is not None and engine.clock.now() - made > days * 86_400
    return totals
