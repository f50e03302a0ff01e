"""A coding agent: a map of files that it edits a line at a time, and what its tools print."""

from __future__ import annotations

import random
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from benchmarks.job import Case, Job, Runs
from benchmarks.text import code, code_line, listing, prose, sentence, test_run, words

FILES, FILE_SIZE = 60, 6_800
EDITS_PER_TASK = 5


def merge(files: dict[str, str], changed: dict[str, str]) -> dict[str, str]:
    return {**files, **changed}


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    files: Annotated[dict[str, str], merge]


def coding(case: Case) -> Job:
    """A coding agent: 60 files of 400 KB in one channel, 150 edits of a line, tool results of 2 to 40 KB."""
    tasks = case.pick(30, 2)
    rng = random.Random("files")
    files = {f"src/{'/'.join(words(rng, 2))}_{n}.py": code(rng, FILE_SIZE) for n in range(FILES)}
    asked = [{"messages": [HumanMessage(prose(rng, 300), id=f"h{task}")]} for task in range(tasks)]
    return Job(build=_graph, inputs=[{**asked[0], "files": files}, *asked[1:]], marks=case.pick((3, 15), ()))


def _graph(saver: BaseCheckpointSaver[Any]) -> Runs:
    graph = StateGraph(State)
    graph.add_node("agent", _agent)
    graph.add_node("tools", _tools)
    graph.add_edge(START, "agent")
    graph.add_edge("agent", "tools")
    graph.add_conditional_edges("tools", _go_on, ["agent", END])
    return graph.compile(checkpointer=saver)


def _agent(state: State) -> dict[str, Any]:
    number = len(state["messages"])
    rng = random.Random(number)
    path = rng.choice(sorted(state["files"]))
    old = rng.choice(state["files"][path].split("\n"))
    edit = {"path": path, "old": old, "new": code_line(rng)}
    call = {"id": f"call_{number}", "name": "edit_and_test", "args": edit}
    return {"messages": [AIMessage(sentence(rng), tool_calls=[call], id=f"a{number}")]}


def _tools(state: State) -> dict[str, Any]:
    number = len(state["messages"])
    rng = random.Random(number)
    said = state["messages"][-1]
    assert isinstance(said, AIMessage)
    call = said.tool_calls[0]
    path, old, new = (call["args"][name] for name in ("path", "old", "new"))
    edited = state["files"][path].replace(old, new, 1)
    return {
        "messages": [ToolMessage(_printed(edited, rng), tool_call_id=call["id"], name=call["name"], id=f"t{number}")],
        "files": {path: edited},
    }


def _printed(edited: str, rng: random.Random) -> str:
    """2 to 40 KB, small ones more often: the edited file, and a run of the tests."""
    size = int(2_000 * 20 ** rng.random())
    return f"{listing(edited.splitlines(), size // 2)}\n\n{test_run(rng, size // 2)}"


def _go_on(state: State) -> str:
    done = sum(isinstance(message, ToolMessage) for message in state["messages"])
    return END if done % EDITS_PER_TASK == 0 else "agent"
