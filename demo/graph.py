"""The LangGraph graph that says a script: each turn takes three messages of it, in three supersteps.

The first message of a turn is the graph's input; the nodes `agent` and `tools` append the next one each, as a model
and its tools would. Where the script goes on follows from the number of messages in the state, and from nothing else:
so any process that has the script can continue the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias, TypedDict, cast

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph

MESSAGES_PER_TURN = 3
CHECKPOINTS_PER_TURN = 4  # one for the input, one after each superstep

Script = Sequence[AnyMessage]
Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def build_graph(script: Script, saver: BaseCheckpointSaver[Any]) -> Graph:
    """The graph START → agent → tools → END, which keeps its threads in `saver`."""

    def say_next(state: State) -> dict[str, list[AnyMessage]]:
        return {"messages": [script[len(state["messages"])]]}

    builder = StateGraph(State)
    builder.add_node("agent", say_next)
    builder.add_node("tools", say_next)
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "tools")
    builder.add_edge("tools", END)
    return builder.compile(checkpointer=saver)


def messages_of(graph: Graph, config: RunnableConfig) -> list[AnyMessage]:
    """The messages of the checkpoint that `config` names, or of the latest; empty for a thread without any."""
    return cast("list[AnyMessage]", graph.get_state(config).values.get("messages", []))


def message_counts(first: int, last: int) -> list[int]:
    """How many messages the state has at each checkpoint of the turns from `first` up to, not including, `last`."""
    return [turn * MESSAGES_PER_TURN + step for turn in range(first, last) for step in range(CHECKPOINTS_PER_TURN)]


def run_turns(
    graph: Graph,
    script: Script,
    config: RunnableConfig,
    turns: int,
    on_turn: Callable[[], None] = lambda: None,
) -> None:
    """Take the thread `turns` turns further from its latest checkpoint, every step made durable before the next."""
    position = len(messages_of(graph, config))
    for _ in range(turns):
        values = graph.invoke({"messages": [script[position]]}, config, durability="sync")
        position = len(values["messages"])
        on_turn()
