"""Calls of the saver itself, without a graph: very many small checkpoints, and a few with a very large value."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.base.id import uuid6

from benchmarks.job import Case, Job
from benchmarks.text import sentence

LARGE = 20 * 10**6
WINDOW = 64
"""As Foldpoint seals."""


class Puts:
    """Driven like a graph: each input is the state of the next checkpoint of its thread."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self.saver = saver
        self.threads: dict[str, _Latest] = {}

    def invoke(self, value: dict[str, Any], config: RunnableConfig, *, durability: Any = None) -> None:
        thread_id = config["configurable"]["thread_id"]
        latest = self.threads.get(thread_id) or _Latest({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
        changed: ChannelVersions = {
            name: _version(latest.step)
            for name in value
            if name not in latest.values or latest.values[name] != value[name]
        }
        versions = {**latest.versions, **changed}
        made = _checkpoint(value, versions, latest.step)
        metadata: CheckpointMetadata = {"source": "loop", "step": latest.step, "parents": {}}
        stored = self.saver.put(latest.config, made, metadata, changed)
        self.threads[thread_id] = _Latest(stored, latest.step + 1, value, versions)

    async def ainvoke(self, value: dict[str, Any], config: RunnableConfig, *, durability: Any = None) -> None:
        raise NotImplementedError("only the synchronous calls are measured without a graph")


@dataclass(frozen=True)
class _Latest:
    """The latest checkpoint of a thread, and the number of the next."""

    config: RunnableConfig
    step: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)


def _checkpoint(values: dict[str, Any], versions: dict[str, Any], step: int) -> Checkpoint:
    return Checkpoint(
        v=4,
        id=str(uuid6(clock_seq=step)),
        ts=datetime.now(UTC).isoformat(),
        channel_values=values,
        channel_versions=versions,
        versions_seen={"agent": versions},
        updated_channels=sorted(values),
    )


def _version(step: int) -> str:
    """As the savers of the LangGraph packages number versions."""
    return f"{step + 1:032}.{random.Random(step).random()!r}"


def long(case: Case) -> Job:
    """100,000 checkpoints of a small state in which little changes, put without a graph."""
    first, last = case.pick((1_000, 100_000), (100, 1_000))
    notes = [sentence(random.Random(number)) for number in range(64)]
    states = _States(notes, last)
    return Job(build=Puts, inputs=states, marks=(first,), phases=WINDOW)


class _States(Sequence[Any]):
    """Makes each state when it is asked for: a hundred thousand would be memory of the benchmark."""

    def __init__(self, notes: list[str], length: int) -> None:
        self.notes, self.length = notes, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: Any) -> Any:
        if step >= self.length:
            raise IndexError(step)
        recent = [self.notes[(step + back) % len(self.notes)] for back in range(12)]
        return {"step": step, "recent": recent, "total": step * 7, "profile": {"name": "Mia", "tier": "gold"}}


def large(case: Case) -> Job:
    """A value of 20 MB in one channel, put three times: whole, with a few bytes changed, and unchanged."""
    size = case.pick(LARGE, LARGE // 20)
    value = base64.b64encode(random.Random("large").randbytes(size * 3 // 4)).decode()
    middle = size // 2
    changed = value[:middle] + "changed" + value[middle + 7 :]
    return Job(
        build=Puts,
        inputs=[{"document": value, "step": 0}, {"document": changed, "step": 1}, {"document": changed, "step": 2}],
    )
