"""Running commands as a shell would, and stores for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from click.testing import CliRunner, Result
from langgraph.checkpoint.base import Checkpoint

from foldpoint import FoldpointSaver
from foldpoint.cli import main

HOSTILE = "[red]x[/red]\x1b[31m\n\ud800"
CHECKPOINT = Checkpoint(
    v=2, id="", ts="", channel_values={}, channel_versions={}, versions_seen={}, updated_channels=None
)


def run(*arguments: str, **environment: str) -> Result:
    """The command as a shell would run it; an exception that a user would see as a traceback is raised."""
    result = CliRunner().invoke(main, list(arguments), env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def fill(saver: FoldpointSaver, thread: str, count: int, namespace: str = "") -> None:
    parent: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
    for n in range(count):
        made = Checkpoint(**{**CHECKPOINT, "id": f"{n:06}", "channel_values": {"n": list(range(n))}})  # type: ignore[typeddict-item]
        parent = saver.put(parent, made, {"step": n}, {})


def start(*arguments: str) -> subprocess.Popen[str]:
    program = "from foldpoint.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines_of(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    return (json.loads(line) for line in process.stdout)
