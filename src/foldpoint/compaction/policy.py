"""Which checkpoints of a stream stay. Pure: from what the log says of each checkpoint to a set of ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from foldpoint.codecs.event import Folded


class Policy(Protocol):
    """A rule of retention."""

    def keep(self, checkpoints: Sequence[Folded]) -> set[str]:
        """The ids that stay, of `checkpoints` with the greatest id first."""
        ...


@dataclass(frozen=True, slots=True)
class KeepLast:
    """The `count` checkpoints with the greatest ids."""

    count: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"keep_last must be a whole number of at least 1, got {self.count!r}")

    def keep(self, checkpoints: Sequence[Folded]) -> set[str]:
        return {folded.header.id for folded in checkpoints[: self.count]}


@dataclass(frozen=True, slots=True)
class DropRuns:
    """All but the checkpoints whose metadata names one of these run ids."""

    run_ids: Collection[str]

    def keep(self, checkpoints: Sequence[Folded]) -> set[str]:
        return {folded.header.id for folded in checkpoints if folded.labels.get("run_id") not in self.run_ids}


@dataclass(frozen=True, slots=True)
class DropAll:
    """None: the stream is deleted."""

    def keep(self, checkpoints: Sequence[Folded]) -> set[str]:
        return set()
