"""Where the script of a thread comes from: a trace, or a seed for the generator."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click

from demo.conversation import generate, load_trace
from demo.graph import Script


@dataclass(frozen=True)
class Source:
    trace: Path | None
    seed: int

    def script(self, count: int) -> Script:
        """The first `count` messages."""
        if self.trace is None:
            return list(islice(generate(self.seed), count))
        messages = _read(self.trace)
        if len(messages) < count:
            raise click.UsageError(
                f"{self.trace} holds {len(messages)} messages, and this needs {count}: three a turn, with a few turns "
                "for the other process and the fork. Give fewer --turns, or no --trace."
            )
        return messages[:count]

    def options(self) -> list[str]:
        """The command-line options that make another process say the same."""
        return ["--seed", str(self.seed)] if self.trace is None else ["--trace", str(self.trace.resolve())]


def _read(trace: Path) -> Script:
    try:
        return load_trace(trace)
    except (OSError, EOFError, ValueError) as error:
        raise click.UsageError(
            f"Cannot read the trace: {error}. Give a file with one JSON conversation a line, or leave out --trace to "
            "have a conversation generated."
        ) from error
