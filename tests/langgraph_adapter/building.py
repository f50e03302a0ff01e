"""Checkpoints for tests, built by hand."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.base.id import uuid6

from foldpoint import FoldpointSaver


def config(thread_id: Any = "thread", namespace: str | None = "", checkpoint_id: str | None = None) -> RunnableConfig:
    configurable: dict[str, Any] = {"thread_id": thread_id}
    if namespace is not None:
        configurable["checkpoint_ns"] = namespace
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def checkpoint(
    values: dict[str, Any] | None = None, step: int = 0, versions: dict[str, Any] | None = None
) -> Checkpoint:
    values = values or {}
    return Checkpoint(
        v=2,
        id=str(uuid6(clock_seq=step)),
        ts="2026-01-01T00:00:00+00:00",
        channel_values=values,
        channel_versions=versions if versions is not None else dict.fromkeys(values, step + 1),
        versions_seen={},
        updated_channels=None,
    )


def put(
    saver: FoldpointSaver,
    parent: RunnableConfig | None = None,
    values: dict[str, Any] | None = None,
    *,
    thread: Any = "thread",
    namespace: str = "",
    step: int = 0,
    **metadata: Any,
) -> RunnableConfig:
    """Put one checkpoint after `parent`; the config that names it."""
    made = checkpoint(values, step)
    where = parent or config(thread, namespace)
    return saver.put(where, made, {"source": "loop", "step": step, **metadata}, made["channel_versions"])  # type: ignore[typeddict-unknown-key]


def chain(saver: FoldpointSaver, count: int, **options: Any) -> list[RunnableConfig]:
    """A line of checkpoints, oldest first, each with its number in channel `n`."""
    made: list[RunnableConfig] = []
    for step in range(count):
        made.append(put(saver, made[-1] if made else None, {"n": step}, step=step, **options))
    return made


def id_of(where: RunnableConfig) -> str:
    found: str = where["configurable"]["checkpoint_id"]
    return found


def ids(saver: FoldpointSaver, where: RunnableConfig | None, **options: Any) -> list[str]:
    return [id_of(found.config) for found in saver.list(where, **options)]
