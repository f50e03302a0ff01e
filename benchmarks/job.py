"""What a workload says: the graph, what it is asked, and where to take figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from demo.graph import Script
from demo.source import Source

T = TypeVar("T")


class Runs(Protocol):
    """A compiled graph, or what is driven like one."""

    def invoke(self, value: Any, config: RunnableConfig, /, *, durability: Any) -> Any: ...

    def ainvoke(self, value: Any, config: RunnableConfig, /, *, durability: Any) -> Awaitable[Any]: ...


@dataclass(frozen=True)
class Case:
    """How large a workload should be, and what is said in it."""

    source: Source
    quick: bool

    def pick(self, full: T, quick: T) -> T:
        return quick if self.quick else full

    def script(self, count: int) -> Script:
        """The first `count` messages of the conversation."""
        return self.source.script(count)


@dataclass(frozen=True)
class Job:
    """One workload, ready to run.

    inputs: the graph is invoked with each in turn, all on one thread; with `fresh` each on a thread of its own.
    warmup: how many of the inputs come before the clock starts.
    marks: after how many inputs figures are taken, besides the last.
    phases: the latest is read after each of so many inputs up to a mark; 1: after the mark alone. What it costs depends
    on where a log was sealed last.
    at_once: on how many threads all inputs are run at the same time.
    asynchronous: through `ainvoke`, on one event loop.
    delta: the channels that resume has to rebuild from the history.
    """

    build: Callable[[BaseCheckpointSaver[Any]], Runs]
    inputs: Sequence[Any]
    fresh: bool = False
    warmup: int = 0
    marks: Sequence[int] = field(default=())
    phases: int = 1
    at_once: int = 1
    asynchronous: bool = False
    delta: Sequence[str] = field(default=())


def thread(number: int) -> RunnableConfig:
    """The config of one of a job's threads."""
    return {"configurable": {"thread_id": f"thread-{number}"}, "recursion_limit": 1_000_000}
