"""Sixty-four threads at once, each with 300 messages before the clock starts."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig

from benchmarks.job import Case, Job
from benchmarks.workloads.long import Puts
from demo.graph import CHECKPOINTS_PER_TURN, MESSAGES_PER_TURN, build_graph

THREADS = 64
SAID_BEFORE = 300


def crowd(case: Case) -> Job:
    """64 threads at once through a graph, five turns each at 300 messages."""
    return _job(case, asynchronous=False)


def crowd_async(case: Case) -> Job:
    """The same on one event loop, through the asynchronous savers."""
    return _job(case, asynchronous=True)


def _job(case: Case, *, asynchronous: bool) -> Job:
    turns = case.pick(5, 1)
    before = case.pick(SAID_BEFORE, 60)
    script = case.script(before + turns * MESSAGES_PER_TURN)
    return Job(
        build=lambda saver: build_graph(script, saver),
        inputs=[
            {"messages": list(script[: before - MESSAGES_PER_TURN + 1])},
            *({"messages": [script[before + turn * MESSAGES_PER_TURN]]} for turn in range(turns)),
        ],
        warmup=1,
        at_once=case.pick(THREADS, 8),
        asynchronous=asynchronous,
    )


def crowd_bare(case: Case) -> Job:
    """The savers' part of that without LangGraph: a turn is reading the latest, four checkpoints, three writes."""
    turns = case.pick(5, 1)
    before = case.pick(SAID_BEFORE, 60)
    script = case.script(before + turns * MESSAGES_PER_TURN)
    starts = range(before, before + turns * MESSAGES_PER_TURN, MESSAGES_PER_TURN)
    return Job(
        build=Turns,
        inputs=[
            [script[:before]],
            *([script[: start + step] for step in range(CHECKPOINTS_PER_TURN)] for start in starts),
        ],
        warmup=1,
        at_once=case.pick(THREADS, 8),
    )


class Turns(Puts):
    """Each input is a turn: the messages at each of its checkpoints."""

    def invoke(self, value: Any, config: RunnableConfig, *, durability: Any = None) -> None:
        self.saver.get_tuple(config)
        for messages, following in zip(value, [*value[1:], None], strict=True):
            super().invoke({"messages": list(messages)}, config)
            if following is not None:
                put = self.threads[config["configurable"]["thread_id"]].config
                self.saver.put_writes(put, [("messages", [following[-1]])], task_id=f"task-{len(messages)}")
