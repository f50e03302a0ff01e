"""A saver that serializes nothing: what remains of a run's time with it is LangGraph's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
)

_Stream = tuple[str, str]


class FloorSaver(BaseCheckpointSaver[Any]):
    """Keeps the objects that it is given. Not for use: later changes to them would show in old checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[_Stream, dict[str, CheckpointTuple]] = {}

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id, namespace = _stream(config)
        named: RunnableConfig = {
            "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint["id"]}
        }
        parent = config if config["configurable"].get("checkpoint_id") else None
        kept = self.kept.setdefault((thread_id, namespace), {})
        kept[checkpoint["id"]] = CheckpointTuple(named, checkpoint, metadata, parent, [])
        return named

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        pending: list[PendingWrite] = [(task_id, channel, value) for channel, value in writes]
        found = self.kept[_stream(config)][config["configurable"]["checkpoint_id"]].pending_writes
        assert found is not None
        found.extend(pending)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        kept = self.kept.get(_stream(config), {})
        checkpoint_id = config["configurable"].get("checkpoint_id")
        return kept.get(checkpoint_id or max(kept, default=""))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.put_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.get_tuple(config)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return (current or 0) + 1


def _stream(config: RunnableConfig) -> _Stream:
    return config["configurable"]["thread_id"], config["configurable"].get("checkpoint_ns", "")
