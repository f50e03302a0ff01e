"""Showing long work while it goes on, and ending it early."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from foldpoint.cli.output import printable

_STEP = 0.1  # seconds


class Bar:
    """Counts what is done; on a terminal one sees it."""

    def __init__(self, shown: Progress, total: int | None, done: int) -> None:
        self._shown = shown
        self._task = shown.add_task("", total=total, completed=done)

    def step(self) -> None:
        self._shown.advance(self._task)

    def say(self, line: str) -> None:
        """One line on stderr, above the bar."""
        self._shown.console.print(Text(printable(line)), soft_wrap=True)


def shows_progress() -> bool:
    """Whether there is somebody to show it to."""
    return Console(stderr=True).is_terminal


@contextmanager
def progress(what: str, total: int | None, done: int, visible: bool) -> Iterator[Bar]:
    """A bar on stderr if `visible`; a count where the total is not known."""
    measure = [SpinnerColumn()] if total is None else [BarColumn(), TimeRemainingColumn()]
    columns = [TextColumn(what), MofNCompleteColumn(), *measure]
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not visible) as shown:
        yield Bar(shown, total, done)


class Stop:
    """Whether the user wants an end. signal: which one said so."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the user wants an end; whether that is so."""
        until = time.monotonic() + seconds
        while not self and (rest := until - time.monotonic()) > 0:
            time.sleep(min(rest, _STEP))
        return bool(self)


@contextmanager
def stopping(advice: str) -> Iterator[Stop]:
    """In this block the first SIGINT or SIGTERM only asks for an end; a second one ends the process as ever."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number)
        click.echo(advice, err=True)
        restore()

    def restore() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    before = {one: signal.signal(one, ask) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        restore()
