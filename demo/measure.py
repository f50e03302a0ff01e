"""A saver that notes how long each put takes, and what a saver of full states would have stored for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata

from foldpoint import FoldpointSaver


@dataclass
class Costs:
    """One entry per put or pending write, in the order they returned. Lists, because puts come from several threads."""

    put_seconds: list[float] = field(default_factory=list)
    checkpoint_bytes: list[int] = field(default_factory=list)
    write_bytes: list[int] = field(default_factory=list)

    @property
    def full_state_bytes(self) -> int:
        return sum(self.checkpoint_bytes) + sum(self.write_bytes)


class MeasuredSaver(FoldpointSaver):
    """Sizes are taken once the clock has stopped, so that they are no part of the time of a put."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.costs = Costs()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        start = time.perf_counter()
        result = super().put(config, checkpoint, metadata, new_versions)
        self.costs.put_seconds.append(time.perf_counter() - start)
        self.costs.checkpoint_bytes.append(self._size(checkpoint))
        return result

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        super().put_writes(config, writes, task_id, task_path)
        self.costs.write_bytes.extend(self._size(value) for _, value in writes)

    def _size(self, value: Any) -> int:
        return len(self.serde.dumps_typed(value)[1])
