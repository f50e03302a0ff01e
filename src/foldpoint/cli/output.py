"""Rows for people (a table) or for programs (JSON lines)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]
_UNFOLDED = 100_000  # columns


def print_rows(rows: Iterable[Row], *, as_json: bool = False, nothing: str = "") -> None:
    """Print rows that all have the same keys; `nothing` goes to stderr where a table would be empty."""
    if as_json:
        for row in rows:
            print_json(row)
    else:
        _print_table(list(rows), nothing)


def print_json(row: Row) -> None:
    click.echo(json.dumps(row, default=str))


def _print_table(rows: list[Row], nothing: str) -> None:
    if not rows:
        click.echo(nothing, err=True)
        return
    console = Console()
    if not console.is_terminal:
        console.width = _UNFOLDED  # what comes next looks for whole ids and keys
    table = _across(rows)
    unfolded = console.measure(table, options=console.options.update(max_width=_UNFOLDED)).maximum
    if len(rows) == 1 and unfolded > console.width:
        table = _across([{"": key.replace("_", " "), "value": value} for key, value in rows[0].items()])
    console.print(table)


def _across(rows: list[Row]) -> Table:
    table = Table()
    for key, value in rows[0].items():
        table.add_column(key.replace("_", " "), justify="right" if _is_number(value) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> Text:
    """Plain text: a stored name may look like markup."""
    return Text(printable(_words(value)))


def printable(text: str) -> str:
    """The same without what a terminal would obey: a stored name may hold it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) or "(root)" for item in value)
    return f"{value:,}" if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
