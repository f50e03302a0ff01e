"""Graphs whose threads are pruned, copied and moved while they work give what their untouched twins give."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pytest
from building import config, ids, put
from counting import CountingStore
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import compact
from foldpoint.engine.memory import MemoryStore


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[str], operator.add]


def decide(state: Chat) -> dict[str, Any]:
    """A model that calls a tool twice a turn and then answers."""
    said = len(state["messages"])
    if isinstance(state["messages"][-1], ToolMessage) and said % 3 == 0:
        return {"messages": [AIMessage("done", id=f"m{said}")]}
    call = {"name": "look", "args": {"n": said}, "id": f"call-{said}"}
    return {"messages": [AIMessage("", id=f"m{said}", tool_calls=[call])]}


def look(state: Chat) -> dict[str, Any]:
    """A tool that asks a person first."""
    (call,) = state["messages"][-1].tool_calls  # type: ignore[union-attr]
    allowed = interrupt({"may I": call["args"]})
    return {
        "messages": [ToolMessage(str(allowed), tool_call_id=call["id"], id=f"t{call['id']}")],
        "log": [f"looked {call['args']['n']}: {allowed}"],
    }


def agent(saver: Any, *, nested: bool) -> Any:
    tools = StateGraph(Chat)
    tools.add_node("note", lambda state: {"log": [f"note {len(state['messages'])}"]})
    tools.add_node("look", look)
    tools.add_edge(START, "note")
    tools.add_edge("note", "look")
    graph = StateGraph(Chat)
    graph.add_node("decide", decide)
    graph.add_node("tools", tools.compile() if nested else look)
    graph.add_edge(START, "decide")
    graph.add_conditional_edges(
        "decide", lambda state: "tools" if state["messages"][-1].tool_calls else END, ["tools", END]
    )
    graph.add_edge("tools", "decide")
    return graph.compile(checkpointer=saver)


def turn(graph: Any, thread: str, number: int, between: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """One question, with as many answers to interrupts as the agent wants; `between` runs while it waits."""
    where = config(thread, None)
    state = graph.invoke({"messages": [HumanMessage(f"q{number}", id=f"{number}")], "log": []}, where)
    for _ in range(10):
        if not graph.get_state(where).next:
            break
        between()
        state = graph.invoke(Command(resume=f"yes {number}"), where)
    assert not graph.get_state(where).next
    return dict(state)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "subgraph"])
def test_an_agent_that_waits_for_a_person_survives_any_care(saver: FoldpointSaver, nested: bool) -> None:
    graph, twin = agent(saver, nested=nested), agent(InMemorySaver(), nested=nested)

    def prune() -> None:
        saver.prune(["thread"])

    def copy() -> None:
        saver.copy_thread("thread", "copy")
        saver.delete_thread("thread")
        saver.copy_thread("copy", "thread")
        saver.delete_thread("copy")

    def clean() -> None:
        assert list(compact(saver.engine, "thread"))

    for number, care in enumerate((prune, copy, clean, prune, lambda: None)):
        assert turn(graph, "thread", number, care) == turn(twin, "thread", number)
    for namespace in saver.engine.namespaces("thread"):
        assert ids(saver, config("thread", namespace))


def append(state: list[int], writes: list[list[int]]) -> list[int]:
    return [*state, *(item for write in writes for item in write)]


def delta_graph(saver: Any, frequency: int) -> Any:
    """Three workers a turn write to one DeltaChannel; a second channel is written every other turn only."""
    # Not a class: its annotations could not see `frequency`.
    items = Annotated[list, DeltaChannel(append, snapshot_frequency=frequency)]  # type: ignore[type-arg]
    builder = StateGraph(TypedDict("State", {"items": items, "rare": items, "at": int}))  # type: ignore[operator]
    builder.add_node("start", lambda state: {"at": state.get("at", 0) + 1})
    builder.add_node(
        "work", lambda task: {"items": [task["n"]], **({"rare": [task["n"]]} if task["n"] % 20 == 0 else {})}
    )
    builder.add_node("end", lambda state: {"items": [-len(state["items"])]})
    builder.add_edge(START, "start")
    builder.add_conditional_edges(
        "start", lambda state: [Send("work", {"n": 10 * state["at"] + n}) for n in range(3)], ["work"]
    )
    builder.add_edge("work", "end")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("frequency", [3, 1000])
@pytest.mark.parametrize("care", ["keep_latest", "keep_last", "runs", "copy", "fork"])
def test_a_delta_channel_survives_any_care(
    make_saver: Callable[..., FoldpointSaver], frequency: int, care: str
) -> None:
    saver = make_saver(window=8)
    graph, twin = delta_graph(saver, frequency), delta_graph(InMemorySaver(), frequency)
    for number in range(6):
        for one in (graph, twin):
            where = config("thread", None)
            where["metadata"] = {"run_id": f"run-{number}"}
            one.invoke({"items": [number]}, where)
        if care == "keep_latest":
            saver.prune(["thread"])
        elif care == "keep_last":
            saver.prune(["thread"], keep_last=1 + number % 6)
        elif care == "runs" and number % 2:
            saver.delete_for_runs([f"run-{number - 1}"])
        elif care == "copy":
            saver.copy_thread("thread", f"copy {number}")
            saver.delete_thread("thread")
            saver.copy_thread(f"copy {number}", "thread")
        elif care == "fork" and number % 3 == 2:
            for one in (graph, twin):
                past = list(one.get_state_history(config("thread", None)))[2]
                one.update_state(past.config, {"items": [1000 + number]}, as_node="end")
            saver.prune(["thread"], keep_last=4)
        found, expected = (one.get_state(config("thread", None)) for one in (graph, twin))
        assert found.values == expected.values
        assert found.next == expected.next
    kept = list(graph.get_state_history(config("thread", None)))
    by_step = [(state.metadata["step"], state.values) for state in twin.get_state_history(config("thread", None))]
    assert all((state.metadata["step"], state.values) in by_step for state in kept)


class CountingRecords(MemoryStore):
    """Counts the records that are found."""

    found = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        records = super().get_many(keys)
        self.found += sum(record is not None for record in records)
        return records


@pytest.mark.parametrize("length", [100, 800])
def test_a_history_is_read_in_one_pass_over_the_log(length: int) -> None:
    records = CountingRecords()
    store = CountingStore(records)
    where = None
    with FoldpointSaver(Engine(store, Settings(window=16))) as saver:
        for step in range(length):
            where = put(saver, where, {"static": "x" * 50, "n": step}, step=step)
            saver.put_writes(where, [("items", step), ("other", step)], f"task-{step}")
    assert where is not None
    with FoldpointSaver(Engine(store, Settings(window=16))) as reader:
        assert list(compact(reader.engine, grace=0))
        records.found = 0
        store.reset()
        found = reader.get_delta_channel_history(config=where, channels=["items", "other", "never"])
        assert [write[2] for write in found["items"]["writes"]] == list(range(length - 1))
        assert len(found["other"]["writes"]) == length - 1
        # Every segment is read twice, for what it says of itself and for its events, with the snapshots they fold from.
        assert records.found <= 3 * next(reader.engine.heads("thread")).segments + 2
        assert store.round_trips <= 2 + records.found
