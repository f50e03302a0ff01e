"""How put and resume grow with a thread, beside the bare cost of serializing its state.

    python -m benchmarks.growth                       # a generated conversation
    python -m benchmarks.growth --trace airline.jsonl.gz --json

At 60 and at 900 messages: the median time of a put and of reading the latest checkpoint with a saver that has read
nothing before, each less the time that `dumps_typed` or `loads_typed` of the same state takes right after it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import click
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata

from demo.conversation import generate, load_trace
from demo.graph import MESSAGES_PER_TURN, build_graph, run_turns
from foldpoint import FoldpointSaver
from foldpoint.compaction import compact

THREAD: RunnableConfig = {"configurable": {"thread_id": "growth"}}
TURNS_AROUND = 10  # figures at n messages are medians over this many turns up to there


class TimedSaver(FoldpointSaver):
    """Notes of each put its own seconds and those of serializing the same values again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.puts: list[tuple[float, float]] = []
        super().__init__(*args, **kwargs)

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, versions: ChannelVersions
    ) -> RunnableConfig:
        seconds, stored = timed(lambda: FoldpointSaver.put(self, config, checkpoint, metadata, versions))
        bare, _ = timed(lambda: [self.serde.dumps_typed(value) for value in checkpoint["channel_values"].values()])
        self.puts.append((seconds, bare))
        return stored


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def resume(url: str) -> tuple[float, float]:
    """(reading the latest checkpoint cold, deserializing its values again)."""
    with FoldpointSaver.from_conn_string(url) as saver:
        seconds, _ = timed(lambda: saver.get_tuple(THREAD))
        latest = saver.engine.latest("growth", "")
        assert latest is not None
        state = latest.state()
        bare, _ = timed(lambda: [saver.serde.loads_typed(value) for value in state.values()])
    return seconds, bare


def excess(pairs: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "total_ms": round(1e3 * statistics.median(total for total, _ in pairs), 3),
        "bare_ms": round(1e3 * statistics.median(bare for _, bare in pairs), 3),
        "excess_ms": round(1e3 * statistics.median(total - bare for total, bare in pairs), 3),
    }


def measure(script: Any, folder: Path) -> dict[str, Any]:
    url = f"sqlite:///{folder}/growth.db"
    figures: dict[str, Any] = {}
    with TimedSaver.from_conn_string(url) as saver:
        graph = build_graph(script, saver)
        for messages in (60, 900):
            turns = messages // MESSAGES_PER_TURN
            held = len(graph.get_state(THREAD).values.get("messages", ())) // MESSAGES_PER_TURN
            run_turns(graph, script, THREAD, turns - TURNS_AROUND - held, lambda: None)
            saver.puts.clear()
            resumes = []
            for _ in range(TURNS_AROUND):
                run_turns(graph, script, THREAD, 1, lambda: None)
                resumes.append(resume(url))
            figures[str(messages)] = {"put": excess(saver.puts), "resume": excess(resumes)}
        figures["file_bytes_before_compaction"] = stored(folder)
        for _ in compact(saver.engine, grace=0):  # nobody else uses this store
            pass
    figures["file_bytes"] = stored(folder)
    for what in ("put", "resume"):
        figures[f"{what}_growth"] = round(figures["900"][what]["excess_ms"] / figures["60"][what]["excess_ms"], 2)
    return figures


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@click.command(help=__doc__)
@click.option("--trace", type=click.Path(exists=True, path_type=Path), help="Conversations to take instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(trace: Path | None, as_json: bool) -> None:
    script = load_trace(trace) if trace else [*islice(generate(seed=0), 900)]
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(script, Path(folder))
    if as_json:
        click.echo(json.dumps(figures))
        return
    for messages in ("60", "900"):
        for what, row in figures[messages].items():
            click.echo(f"{what:7} at {messages:>3} messages: " + ", ".join(f"{k} {v}" for k, v in row.items()))
    for key in ("put_growth", "resume_growth", "file_bytes_before_compaction", "file_bytes"):
        click.echo(f"{key}: {figures[key]}")


if __name__ == "__main__":
    main()
