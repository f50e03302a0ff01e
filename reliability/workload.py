"""Agents that write checkpoints and pending writes as fast as they are acknowledged, and note what they were told.

Every value follows from the writer's name and the number of the step, so that what is read back can be compared.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.base.id import uuid6

from foldpoint import FoldpointSaver
from foldpoint.errors import FoldpointError

MESSAGES = 20
TASKS = ("first", "second")
PAUSE = 0.05


@dataclass
class Step:
    """One checkpoint that a writer tried to put, and what of it was acknowledged. `writes`: task ids."""

    number: int
    parent: str | None
    acknowledged: bool = False
    writes: list[str] = field(default_factory=list)


@dataclass
class Writer:
    """One agent. `thread_id` may be another writer's too. `steps` by checkpoint id; `errors` as callers saw them."""

    name: str
    thread_id: str
    saver: FoldpointSaver
    steps: dict[str, Step] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    longest_wait: float = 0.0  # seconds, from the first call to the one that succeeded
    longest_trouble: float = 0.0  # the same, of those that raised before

    @property
    def puts(self) -> int:
        return sum(step.acknowledged for step in self.steps.values())

    @property
    def writes(self) -> int:
        return sum(len(step.writes) for step in self.steps.values())

    def work(self, stop: threading.Event) -> None:
        parent: str | None = None
        number = 0
        while not stop.is_set():
            checkpoint = make_checkpoint(self.name, number)
            step = self.steps[checkpoint["id"]] = Step(number, parent)
            step.acknowledged = self._persist(stop, self._put, checkpoint, parent)
            if not step.acknowledged:
                return
            parent, number = checkpoint["id"], number + 1
            for task in TASKS:
                if self._persist(stop, self._put_writes, parent, step.number, f"{task} {self.name}"):
                    step.writes.append(f"{task} {self.name}")

    def _put(self, checkpoint: Checkpoint, parent: str | None) -> None:
        metadata: Any = {"source": "loop", "writer": self.name}
        self.saver.put(config(self.thread_id, parent), checkpoint, metadata, checkpoint["channel_versions"])

    def _put_writes(self, checkpoint_id: str, number: int, task: str) -> None:
        self.saver.put_writes(config(self.thread_id, checkpoint_id), [("messages", message(task, number))], task)

    def _persist(self, stop: threading.Event, call: Callable[..., None], *args: Any) -> bool:
        """Call until it succeeds, as one runs an agent again; False if it had not when the run ended."""
        errors: list[str] = []
        began, done = time.monotonic(), False
        while not done and not (errors and stop.is_set()):
            try:
                call(*args)
                done = True
            except FoldpointError as error:
                errors.append(f"{type(error).__name__}: {error}")
                time.sleep(PAUSE)
        waited = time.monotonic() - began
        self.longest_wait = max(self.longest_wait, waited)
        if errors:
            self.errors += errors
            self.longest_trouble = max(self.longest_trouble, waited)
        return done


def make_writers(savers: Sequence[FoldpointSaver], count: int, shared: int) -> list[Writer]:
    """`count` writers, of which the last `shared` write two to a thread, each through another saver."""
    alone = [Writer(f"w{n}", f"thread {n}", savers[0]) for n in range(count - shared)]
    return alone + [Writer(f"s{n}", f"shared {n // 2}", savers[n % 2]) for n in range(shared)]


@contextmanager
def working(writers: Sequence[Writer]) -> Iterator[None]:
    """Let the writers write while the block runs. What goes wrong in one, other than a store's error, is raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(writers)) as pool:
        futures = [pool.submit(writer.work, stop) for writer in writers]
        try:
            yield
        finally:
            stop.set()
        for future in futures:
            future.result()


def make_checkpoint(writer: str, number: int) -> Checkpoint:
    values = channel_values(writer, number)
    return Checkpoint(
        v=2,
        id=str(uuid6(clock_seq=number)),
        ts="2026-01-01T00:00:00+00:00",
        channel_values=values,
        channel_versions=dict.fromkeys(values, number + 1),
        versions_seen={},
        updated_channels=None,
    )


def channel_values(writer: str, number: int) -> dict[str, Any]:
    """A counter, a conversation of which the last messages are kept, and a note that sometimes changes."""
    return {
        "number": number,
        "messages": [message(writer, n) for n in range(max(0, number - MESSAGES + 1), number + 1)],
        "note": f"{writer} since {number // 7}",
    }


def message(writer: str, number: int) -> str:
    return f"{writer} says {number}: {hashlib.blake2b(f'{writer}/{number}'.encode()).hexdigest()}"


def config(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **named}}
