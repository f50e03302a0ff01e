"""Fan-out with Send: fifty tasks, each of which is sent the whole state; and the same work with less of that."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send

from benchmarks.job import Case, Job, Runs
from benchmarks.text import prose, sentence

TASKS = 50
SAID_BEFORE = 30  # messages of the conversation that the first packets repeat


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    findings: Annotated[list[str], operator.add]


class Packet(TypedDict, total=False):
    task: int
    round: int
    messages: list[AnyMessage]
    findings: list[str]


def fanout(case: Case) -> Job:
    """Six rounds of 50 tasks whose Send packets each repeat the state."""
    return _job(case, lambda state, packet: {**packet, **state})


def fanout_numbers(case: Case) -> Job:
    """The same six rounds of 50 tasks; their packets hold only the task's number."""
    return _job(case, lambda state, packet: packet)


def fanout_one_node(case: Case) -> Job:
    """The same six rounds; one node does all 50 tasks, so there are neither packets nor writes of single tasks."""
    return _job(case, None)


def _job(case: Case, pack: Callable[[State, Packet], Packet] | None) -> Job:
    rounds = case.pick(6, 2)
    said = list(case.script(SAID_BEFORE))
    asked = [HumanMessage(sentence(random.Random(number)), id=f"h{number}") for number in range(rounds)]
    inputs = [{"messages": [*said, asked[0]]}, *({"messages": [message]} for message in asked[1:])]
    return Job(build=lambda saver: _graph(pack, saver), inputs=inputs, marks=(1,))


def _graph(pack: Callable[[State, Packet], Packet] | None, saver: BaseCheckpointSaver[Any]) -> Runs:
    def packets(state: State) -> list[Packet]:
        return [Packet(task=task, round=len(state["findings"])) for task in range(TASKS)]

    def send(state: State) -> list[Send]:
        assert pack is not None
        return [Send("work", pack(state, packet)) for packet in packets(state)]

    def work(state: Packet) -> dict[str, Any]:
        return {"findings": [_finding(state)]}

    def work_all(state: State) -> dict[str, Any]:
        return {"findings": [_finding(packet) for packet in packets(state)]}

    graph: StateGraph[Any] = StateGraph(State)
    graph.add_node("plan", lambda state: {})
    graph.add_node("gather", _gather)
    graph.add_edge(START, "plan")
    if pack is None:
        graph.add_node("work", work_all)
        graph.add_edge("plan", "work")
    else:
        graph.add_node("work", work)
        graph.add_conditional_edges("plan", send, ["work"])
    graph.add_edge("work", "gather")
    return graph.compile(checkpointer=saver)


def _finding(packet: Packet) -> str:
    return prose(random.Random(f"{packet['round']}/{packet['task']}"), 600)


def _gather(state: State) -> dict[str, Any]:
    number = len(state["messages"])
    return {"messages": [AIMessage(prose(random.Random(number), 400), id=f"a{number}")]}
