"""When threads were last written to. Heads do not tell, so their newest checkpoints are read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from foldpoint.cli.output import printable
from foldpoint.compaction.selection import made_at
from foldpoint.engine.engine import Engine, ThreadInfo
from foldpoint.errors import RecordError, said

age_option = click.option("--age", is_flag=True, help="Also how old threads are; reads the newest checkpoint of each.")

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def last_made(engine: Engine, info: ThreadInfo) -> float | None:
    """When the newest checkpoint of a thread was made, in seconds since 1970; None if nothing tells.

    What cannot be read is said on stderr: the other threads are not held up by it.
    """
    try:
        latest = [engine.latest(info.thread_id, namespace) for namespace in info.namespaces]
    except RecordError as error:
        click.echo(printable(said(error)), err=True)
        return None
    return max((made for entry in latest if entry and (made := made_at(entry.folded.header)) is not None), default=None)


def age_of(engine: Engine, info: ThreadInfo, as_json: bool) -> dict[str, Any]:
    """As further columns: for programs the time and seconds, for people the age in its largest unit."""
    made = last_made(engine, info)
    seconds = None if made is None else max(0.0, engine.clock.now() - made)
    if not as_json:
        return {"age": "?" if seconds is None else _spell(seconds)}
    time = None if made is None else datetime.fromtimestamp(made, UTC).isoformat(timespec="seconds")
    return {"last_checkpoint": time, "age_seconds": None if seconds is None else round(seconds)}


def _spell(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds / size:.0f} {unit}"
