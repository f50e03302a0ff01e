"""The shapes that LangGraph measures itself by: a tool loop, subgraphs, many channels, many nodes."""

from __future__ import annotations

import operator
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send
from pydantic import BaseModel, Field, field_validator

from benchmarks.job import Case, Job, Runs

# -- a tool loop -------------------------------------------------------------------------------------------------------


class Agent(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    tools_left: int


def react_10(case: Case) -> Job:
    """A model that calls a tool 10 times, with results of 36 KB; 10 threads one after the other."""
    return _react(case.pick(10, 3), case.pick(10, 2))


def react_100(case: Case) -> Job:
    """The same with 100 calls, so that the state reaches 4 MB."""
    return _react(case.pick(100, 6), case.pick(2, 1))


def _react(calls: int, threads: int) -> Job:
    question = {"messages": [HumanMessage("hi?", id="question")], "tools_left": calls}
    return Job(build=_react_graph, inputs=[question] * (threads + 1), fresh=True, warmup=1)


def _react_graph(saver: BaseCheckpointSaver[Any]) -> Runs:
    graph = StateGraph(Agent)
    graph.add_node("agent", _call_tool)
    graph.add_node("tools", _use_tool)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", _tool_wanted, ["tools", END])
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=saver)


def _call_tool(state: Agent) -> dict[str, Any]:
    number, left = len(state["messages"]), state["tools_left"]
    if not left:
        return {"messages": [AIMessage("answer" * 100, id=f"a{number}")]}
    call = {"id": f"call_{number}", "name": "search", "args": {"query": _id(number) * 100}}
    return {"messages": [AIMessage("", tool_calls=[call], id=f"a{number}")], "tools_left": left - 1}


def _use_tool(state: Agent) -> dict[str, Any]:
    asked = state["messages"][-1]
    assert isinstance(asked, AIMessage)
    call = asked.tool_calls[0]
    result = f"result for query: {call['args']['query']}" * 10
    return {"messages": [ToolMessage(result, tool_call_id=call["id"], id=f"t{len(state['messages'])}")]}


def _tool_wanted(state: Agent) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else END


def _id(number: int) -> str:
    return str(uuid.UUID(int=random.Random(number).getrandbits(128)))


# -- subgraphs ---------------------------------------------------------------------------------------------------------


class Jokes(TypedDict):
    subjects: list[list[str]]
    jokes: Annotated[list[str], operator.add]


class Joke(TypedDict, total=False):
    subject: Any
    jokes: list[str]


def subgraphs_10(case: Case) -> Job:
    """Fan-out to 10 subgraphs of 13 supersteps; 5 threads one after the other."""
    return _subgraphs(case.pick(10, 3), case.pick(5, 1))


def subgraphs_100(case: Case) -> Job:
    """The same with 100 subgraphs."""
    return _subgraphs(case.pick(100, 6), case.pick(2, 1))


def _subgraphs(count: int, threads: int) -> Job:
    rng = random.Random("subjects")
    subjects = [rng.choices(string.ascii_lowercase, k=1000) for _ in range(count)]
    return Job(
        build=_subgraphs_graph, inputs=[{"subjects": subjects, "jokes": []}] * (threads + 1), fresh=True, warmup=1
    )


def _subgraphs_graph(saver: BaseCheckpointSaver[Any]) -> Runs:
    child = StateGraph(Joke)
    child.add_node("edit", lambda state: {"subject": f"{state['subject']} - hohoho"})
    child.add_node("generate", lambda state: {"jokes": [f"Joke about {state['subject']}"]})
    child.add_node("bump", lambda state: {"jokes": [state["jokes"][0] + " a"]})
    child.add_edge(START, "edit")
    child.add_edge("edit", "generate")
    child.add_edge("generate", "bump")
    child.add_conditional_edges("bump", _bumped, ["bump", END])
    graph = StateGraph(Jokes)
    graph.add_node("joke", child.compile())
    graph.add_conditional_edges(
        START, lambda state: [Send("joke", {"subject": one}) for one in state["subjects"]], ["joke"]
    )
    graph.add_edge("joke", END)
    return graph.compile(checkpointer=saver)


def _bumped(state: Joke) -> str:
    return END if state["jokes"][0].endswith(" a" * 10) else "bump"


# -- many channels -----------------------------------------------------------------------------------------------------


def either(old: Any, new: Any) -> Any:
    return new or old


@dataclass(kw_only=True)
class WideState:
    messages: Annotated[list[Any], operator.add] = field(default_factory=list)
    events: Annotated[list[Any], operator.add] = field(default_factory=list)
    medium: Annotated[str, either] = "email"
    reply: dict[str, Any] | None = None
    issue: Annotated[dict[str, Any] | None, either] = None
    rules: list[Any] | None = None
    documents: list[Any] | None = None
    categories: Annotated[list[Any], operator.add] = field(default_factory=list)
    responses: Annotated[list[Any], operator.add] = field(default_factory=list)
    user: Annotated[dict[str, Any] | None, either] = None
    company: Annotated[dict[str, Any] | None, either] = None
    mail_thread: Annotated[str | None, either] = None
    people: Annotated[dict[str, Any], operator.or_] = field(default_factory=dict)
    bot: str | None = None
    told: Annotated[dict[str, Any], operator.or_] = field(default_factory=dict)


class WideDict(TypedDict, total=False):
    messages: Annotated[list[Any], operator.add]
    events: Annotated[list[Any], operator.add]
    medium: Annotated[str, either]
    reply: dict[str, Any] | None
    issue: Annotated[dict[str, Any] | None, either]
    rules: list[Any] | None
    documents: list[Any] | None
    categories: Annotated[list[Any], operator.add]
    responses: Annotated[list[Any], operator.add]
    user: Annotated[dict[str, Any] | None, either]
    company: Annotated[dict[str, Any] | None, either]
    mail_thread: Annotated[str | None, either]
    people: Annotated[dict[str, Any], operator.or_]
    bot: str | None
    told: Annotated[dict[str, Any], operator.or_]


class WideModel(BaseModel):
    messages: Annotated[list[Any], operator.add] = Field(default_factory=list)
    events: Annotated[list[Any], operator.add] = Field(default_factory=list)
    medium: Annotated[str, either] = "email"
    reply: dict[str, Any] | None = None
    issue: Annotated[dict[str, Any] | None, either] = None
    rules: list[Any] | None = None
    documents: list[Any] | None = None
    categories: Annotated[list[Any], operator.add] = Field(default_factory=list)
    responses: Annotated[list[Any], operator.add] = Field(default_factory=list)
    user: Annotated[dict[str, Any] | None, either] = None
    company: Annotated[dict[str, Any] | None, either] = None
    mail_thread: Annotated[str | None, either] = None
    people: Annotated[dict[str, Any], operator.or_] = Field(default_factory=dict)
    bot: str | None = None
    told: Annotated[dict[str, Any], operator.or_] = Field(default_factory=dict)

    @field_validator("messages", "events", "categories", "responses", mode="after")
    @classmethod
    def keys_are_text(cls, values: list[Any]) -> list[Any]:
        if not all(isinstance(key, str) for value in values for key in value):
            raise ValueError("give dicts with keys that are text")
        return values


_LISTS = {"messages", "events", "categories", "responses", "documents", "rules"}
_DICTS = {"user", "company", "people", "told", "reply", "issue"}


def wide_state(case: Case) -> Job:
    """15 channels in a dataclass, lists that grow to 300 dicts of 6 KB; 2 threads one after the other."""
    return _wide(case, WideState, getattr)


def wide_dict(case: Case) -> Job:
    """The same in a TypedDict."""
    return _wide(case, WideDict, lambda state, name: state.get(name))


def pydantic_state(case: Case) -> Job:
    """The same in a pydantic model with validators."""
    return _wide(case, WideModel, getattr)


def _wide(case: Case, schema: Any, read: Callable[[Any, str], Any]) -> Job:
    most = case.pick(300, 10)
    first = {
        str(i) * 10: {str(j) * 10: ["hi?" * 10, True, 1, 6327816386138, None] * 5 for j in range(5)} for i in range(5)
    }
    return Job(
        build=lambda saver: _wide_graph(schema, read, most, saver),
        inputs=[{"messages": [first]}] * case.pick(3, 2),
        fresh=True,
        warmup=1,
    )


def _wide_graph(schema: Any, read: Callable[[Any, str], Any], most: int, saver: BaseCheckpointSaver[Any]) -> Runs:
    def copies(source: str, *targets: str) -> Callable[..., dict[str, Any]]:
        def copy(state: Any) -> dict[str, Any]:
            value = read(state, source)
            many = value if isinstance(value, list) else [value]
            text = "".join(random.Random(len(many)).choices(string.ascii_lowercase, k=most))
            return {name: many if name in _LISTS else many[-1] if name in _DICTS else text for name in targets}

        return copy

    graph: StateGraph[Any] = StateGraph(schema)
    graph.add_node("one", copies("messages", "events", "medium"))
    graph.add_node("two", copies("events", "reply", "issue"))
    graph.add_node("three", copies("reply", "rules"))
    graph.add_node("four", copies("events", "categories", "responses", "documents"))
    graph.add_node("five", copies("categories", "user", "company", "mail_thread", "people", "bot", "told"))
    graph.add_node("six", copies("responses", "messages"))
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.add_edge("two", "three")
    graph.add_edge("two", "four")
    graph.add_edge(["three", "four"], "five")
    graph.add_edge("five", "six")
    graph.add_conditional_edges(
        "six", lambda state: END if len(read(state, "messages")) > most else "one", ["one", END]
    )
    return graph.compile(checkpointer=saver)


# -- many nodes --------------------------------------------------------------------------------------------------------


def sequential(case: Case) -> Job:
    """300 nodes in a row that do nothing; 2 threads one after the other."""
    nodes = case.pick(300, 20)
    return Job(build=lambda saver: _row(nodes, saver), inputs=[{"messages": []}] * 3, fresh=True, warmup=1)


def _row(count: int, saver: BaseCheckpointSaver[Any]) -> Runs:
    graph = StateGraph(MessagesState)
    before = START
    for number in range(count):
        name = f"node_{number}"
        graph.add_node(name, lambda state: None)
        graph.add_edge(before, name)
        before = name
    return graph.compile(checkpointer=saver)
