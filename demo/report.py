"""The figures of a run, as a table for people and as an object for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

SAMPLE = 60


@dataclass(frozen=True)
class Figures:
    """The first nine describe the thread as it was run; the others what was then done with it."""

    turns: int
    messages: int
    checkpoints: int
    bytes_stored: int
    full_state_bytes: int
    times_smaller: float
    resume_ms: float
    put_ms_first: float
    put_ms_last: float
    continued_from_messages: int
    continued_to_messages: int
    forked_from_messages: int
    branch_messages: int
    history_checkpoints: int


def median_put_ms(seconds: Sequence[float]) -> float:
    return milliseconds(statistics.median(seconds))


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def table(figures: Figures) -> Table:
    digits = 0 if figures.times_smaller >= 10 else 1
    rows = Table(title=f"A thread of {figures.messages:,} messages in {figures.turns:,} turns", show_header=False)
    rows.add_column(style="bold")
    rows.add_column(justify="right")
    rows.add_row("checkpoints", f"{figures.checkpoints:,}")
    rows.add_row("stored by Foldpoint", _megabytes(figures.bytes_stored))
    rows.add_row("the same as full states", _megabytes(figures.full_state_bytes))
    rows.add_row("", f"[green]{figures.times_smaller:,.{digits}f} times smaller[/green]")
    rows.add_row("resume (read the latest checkpoint)", f"{figures.resume_ms:.1f} ms")
    rows.add_row(f"put, median of the first {SAMPLE}", f"{figures.put_ms_first:.2f} ms")
    rows.add_row(f"put, median of the last {SAMPLE}", f"{figures.put_ms_last:.2f} ms")
    rows.add_section()
    rows.add_row("continued by another process", _span(figures.continued_from_messages, figures.continued_to_messages))
    rows.add_row("forked from an old checkpoint", _span(figures.forked_from_messages, figures.branch_messages))
    rows.add_row("history read back and compared", f"{figures.history_checkpoints:,} checkpoints")
    return rows


def _span(start: int, end: int) -> str:
    return f"{start:,} → {end:,} messages"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
