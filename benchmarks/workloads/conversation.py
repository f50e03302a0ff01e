"""Long conversations: growing, sliding, beside a channel that never changes, and in a DeltaChannel."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, trim_messages
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from benchmarks.job import Case, Job, Runs
from benchmarks.text import prose, sentence
from demo.graph import MESSAGES_PER_TURN, Script, build_graph

KEPT = 200  # messages of the sliding window
SKILLS, SKILL_SIZE = 40, 5_000


class Said(TypedDict):
    """`said`: how many messages there have been, which a state that forgets some cannot tell otherwise."""

    messages: Annotated[list[AnyMessage], add_messages]
    said: int


class Skilled(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    skills: dict[str, str]


def extend(messages: list[AnyMessage], writes: Sequence[list[AnyMessage]]) -> list[AnyMessage]:
    return [*messages, *(message for write in writes for message in write)]


class Delta(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(extend, snapshot_frequency=100)]


def airline(case: Case) -> Job:
    """One thread of 900 messages, three supersteps a turn: the trace, or a generated conversation."""
    turns = case.pick(300, 24)
    script = case.script(turns * MESSAGES_PER_TURN)
    return Job(
        build=lambda saver: build_graph(script, saver),
        inputs=[{"messages": [script[turn * MESSAGES_PER_TURN]]} for turn in range(turns)],
        marks=case.pick((20, 50, 100, 150, 200, 250), (12,)),
    )


def window(case: Case) -> Job:
    """600 messages of which the last 200 stay: trim_messages and RemoveMessage at the end of each turn."""
    turns = case.pick(200, 12)
    script = case.script(turns * MESSAGES_PER_TURN)

    def say(state: Said) -> dict[str, Any]:
        return {"messages": [script[state["said"]]], "said": state["said"] + 1}

    def trim(state: Said) -> dict[str, Any]:
        kept = trim_messages(state["messages"], max_tokens=KEPT, token_counter=len, strategy="last")
        gone = state["messages"][: len(state["messages"]) - len(kept)]
        return {"messages": [RemoveMessage(id=str(message.id)) for message in gone]}

    return Job(
        build=lambda saver: _chain(Said, {"agent": say, "tools": say, "trim": trim}, saver),
        inputs=[
            {"messages": [script[turn * MESSAGES_PER_TURN]], "said": turn * MESSAGES_PER_TURN + 1}
            for turn in range(turns)
        ],
        marks=case.pick((80, 140), ()),
    )


def skills(case: Case) -> Job:
    """A channel of 200 KB that never changes, beside 900 short messages."""
    turns = case.pick(300, 10)
    rng = random.Random("skills")
    manual = {f"skills/{n}/SKILL.md": prose(rng, SKILL_SIZE) for n in range(SKILLS)}

    def answer(state: Skilled) -> dict[str, Any]:
        number = len(state["messages"])
        return {"messages": [AIMessage(sentence(random.Random(number)), id=f"a{number}")]}

    chat = [{"messages": [HumanMessage(sentence(rng), id=f"h{turn}")]} for turn in range(turns)]
    return Job(
        build=lambda saver: _chain(Skilled, {"agent": answer, "review": answer}, saver),
        inputs=[{**chat[0], "skills": manual}, *chat[1:]],
        marks=case.pick((20, 150), ()),
    )


def delta_channel(case: Case) -> Job:
    """The conversation in a DeltaChannel with a snapshot every 100 updates; resume includes rebuilding it."""
    turns = case.pick(300, 24)
    script: Script = case.script(turns * MESSAGES_PER_TURN)

    def say(state: Delta) -> dict[str, Any]:
        return {"messages": [script[len(state["messages"])]]}

    return Job(
        build=lambda saver: _chain(Delta, {"agent": say, "tools": say}, saver),
        inputs=[{"messages": [script[turn * MESSAGES_PER_TURN]]} for turn in range(turns)],
        marks=case.pick((20, 150), ()),
        delta=("messages",),
    )


def _chain(schema: Any, nodes: dict[str, Any], saver: BaseCheckpointSaver[Any]) -> Runs:
    """START → each node in turn."""
    graph = StateGraph(schema)
    for before, (name, node) in zip([START, *nodes], nodes.items(), strict=False):
        graph.add_node(name, node)
        graph.add_edge(before, name)
    return graph.compile(checkpointer=saver)
