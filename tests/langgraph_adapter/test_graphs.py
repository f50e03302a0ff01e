"""Real graphs give what they give on LangGraph's own saver in memory."""

from __future__ import annotations

import operator
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from building import config
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from foldpoint import Engine, FoldpointSaver


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[str], operator.add]
    task: str


def answer(state: Chat) -> dict[str, Any]:
    number = len(state["messages"])
    return {"messages": [AIMessage(f"answer {number}", id=f"a{number}")], "log": [f"answered {number}"]}


def ask(state: Chat) -> dict[str, Any]:
    said = interrupt(f"after {len(state['messages'])} messages")
    return {"log": [f"human said {said}"]}


def spread(state: Chat) -> list[Send]:
    return [Send("work", {"task": f"task {n}", "messages": state["messages"]}) for n in range(4)]


def work(state: Chat) -> dict[str, Any]:
    return {"log": [f"did {state['task']} knowing {len(state['messages'])}"]}


def build(saver: BaseCheckpointSaver[Any]) -> Any:
    child = StateGraph(Chat)
    child.add_node("inner", lambda state: {"log": [f"inner {len(state['log'])}"]})
    child.add_node("inner2", lambda state: {"log": ["inner2"]})
    child.add_edge(START, "inner")
    child.add_edge("inner", "inner2")
    graph = StateGraph(Chat)
    graph.add_node("answer", answer)
    graph.add_node("ask", ask)
    graph.add_node("work", work)
    graph.add_node("child", child.compile())
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", spread, ["work"])
    graph.add_edge("work", "child")
    graph.add_edge("child", "ask")
    graph.add_edge("ask", END)
    return graph.compile(checkpointer=saver)


def converse(graph: Any, durability: str) -> dict[str, Any]:
    """Turns with interrupts, a resume, a fork from the past; what the thread is afterwards."""
    where = config("t", None)
    for turn in range(3):
        graph.invoke({"messages": [HumanMessage(f"q{turn}", id=f"h{turn}")], "log": []}, where, durability=durability)
        graph.invoke(Command(resume=f"yes {turn}"), where, durability=durability)
    history = list(graph.get_state_history(where))
    past = history[len(history) // 2]
    forked = graph.update_state(past.config, {"log": ["changed"]})
    graph.invoke(None, forked, durability=durability)
    graph.invoke(Command(resume="in the fork"), where, durability=durability)
    history = list(graph.get_state_history(where))
    return {
        "final": graph.get_state(where).values,
        "history": [(state.values, state.next, state.metadata) for state in history],
        "interrupts": [[task.interrupts for task in state.tasks] for state in history],
    }


def without_ids(result: Any) -> str:
    import re

    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}", "ID", repr(result))


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_graph_with_interrupts_sends_subgraphs_and_forks(
    make_saver: Callable[..., FoldpointSaver], durability: str
) -> None:
    expected = converse(build(InMemorySaver()), durability)
    for window in (4, 64):
        saver = make_saver(window=window)
        found = converse(build(saver), durability)
        assert without_ids(found) == without_ids(expected)
        saver.delete_thread("t")


async def test_the_same_asynchronously(saver: FoldpointSaver) -> None:
    graph = build(saver)
    where = config("t", None)
    await graph.ainvoke({"messages": [HumanMessage("q", id="h")], "log": []}, where)
    await graph.ainvoke(Command(resume="yes"), where)
    state = await graph.aget_state(where)
    assert state.values["log"][-1] == "human said yes"
    assert len([one async for one in graph.aget_state_history(where)]) >= 5


def test_many_threads_of_a_process_work_on_their_graphs_at_once(saver: FoldpointSaver) -> None:
    graph = build(saver)

    def one(number: int) -> list[str]:
        where = config(f"t{number}", None)
        for turn in range(3):
            graph.invoke({"messages": [HumanMessage(f"q{turn}", id=f"h{turn}")], "log": []}, where)
            graph.invoke(Command(resume=f"yes {number}"), where)
        return list(graph.get_state(where).values["log"])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(16)))
    assert all(result[-1] == f"human said yes {number}" for number, result in enumerate(results))
    assert len({len(result) for result in results}) == 1


COUNTER = """
    import sys
    from typing_extensions import TypedDict
    from langgraph.graph import START, StateGraph
    from foldpoint import FoldpointSaver

    class State(TypedDict):
        seen: list

    with FoldpointSaver.from_conn_string(sys.argv[1]) as saver:
        graph = StateGraph(State)
        graph.add_node("count", lambda state: {"seen": [*state["seen"], sys.argv[2]]})
        graph.add_edge(START, "count")
        compiled = graph.compile(checkpointer=saver)
        where = {"configurable": {"thread_id": "t"}}
        for _ in range(3):
            seen = (compiled.get_state(where).values or {"seen": []})["seen"]
            compiled.invoke({"seen": seen}, where)
        print(",".join(compiled.get_state(where).values["seen"]))
"""


def test_processes_take_turns_on_one_file(tmp_path: Path) -> None:
    printed = ""
    for name in ("a", "b", "c"):
        command = [sys.executable, "-c", textwrap.dedent(COUNTER), f"sqlite:///{tmp_path}/store.db", name]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert printed == "a,a,a,b,b,b,c,c,c"


STRICT = """
    import dataclasses, operator, sys
    from typing import Annotated
    from pydantic import BaseModel
    from typing_extensions import TypedDict
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
    from langgraph.graph import START, StateGraph
    from foldpoint import FoldpointSaver

    @dataclasses.dataclass
    class Seen:
        by: str

    class Person(BaseModel):
        name: str

    class State(TypedDict):
        seen: Annotated[list[Seen], operator.add]
        person: Person

    def see(state):
        assert all(type(one) is Seen for one in state["seen"])
        assert type(state["person"]) is Person
        return {"seen": [Seen("node")]}

    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16) if sys.argv[2] == "encrypted" else None
    with FoldpointSaver.from_conn_string(sys.argv[1], serde=serde, window=4) as saver:
        graph = StateGraph(State)
        graph.add_node("see", see)
        graph.add_edge(START, "see")
        compiled = graph.compile(checkpointer=saver)
        where = {"configurable": {"thread_id": "t"}}
        for turn in range(4):
            compiled.invoke({"seen": [Seen("user")], "person": Person(name=f"p{turn}")}, where)
        values = compiled.get_state(where).values
        assert values == {"seen": [Seen("user"), Seen("node")] * 4, "person": Person(name="p3")}, values
        assert len(list(compiled.get_state_history(where))) == 12
        # The saver itself was not told of these classes.
        assert Seen("user") not in saver.get_tuple(where).checkpoint["channel_values"]["seen"]
        print("fine")
"""


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_classes_of_the_state_are_read_where_msgpack_is_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    command = [sys.executable, "-c", textwrap.dedent(STRICT), f"sqlite:///{tmp_path}/store.db", kind]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


# -- puts that come later than the steps that follow -------------------------------------------------------------------


class Late(FoldpointSaver):
    """Puts the checkpoint of one step only when a later step says so."""

    step = 4
    held = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.later = threading.Event()

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] == self.step:
            self.held = self.later.wait(10)
        return super().put(config, checkpoint, metadata, new_versions)


class Log(TypedDict):
    log: Annotated[list[str], operator.add]


def barrier(saver: Any, seen: Callable[[], None]) -> Any:
    """LangGraph changes in place what waits for x and y."""

    def z(state: Log) -> Log:
        seen()
        return {"log": ["z"]}

    graph = StateGraph(Log)
    for name in "xy":
        graph.add_node(name, lambda state, name=name: {"log": [name]})
        graph.add_edge(START, name)
    graph.add_node("z", z)
    graph.add_edge(["x", "y"], "z")
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("again", [False, True], ids=["known", "by a saver that has read nothing"])
def test_a_late_put_stores_nothing_of_the_steps_after_it(tmp_path: Path, again: bool) -> None:
    with Late.from_conn_string(f"sqlite:///{tmp_path}/agents.db") as saver:
        assert isinstance(saver, Late)
        barrier(saver, lambda: None).invoke({"log": ["first"]}, config())
        if again:
            saver = Late(Engine(saver.engine.store))
        graph = barrier(saver, saver.later.set)
        graph.invoke({"log": ["second"]}, config())
        assert saver.held
        [before] = [one for one in graph.get_state_history(config()) if one.metadata["step"] == Late.step]
        assert before.next == ("x", "y")
        assert graph.invoke(None, before.config)["log"] == ["first", "x", "y", "z", "second", "x", "y", "z"]


def test_a_fork_that_is_put_at_its_end_has_its_parents_values_whatever_became_of_the_objects() -> None:
    """LangGraph puts it with no new versions at all."""

    def work(given: Any) -> Log:
        given["todo"].append("in place")
        interrupt("go on?")
        return {"log": [*given["todo"]]}

    def logged(saver: Any, durability: Any) -> list[str]:
        graph = StateGraph(Log)
        graph.add_node("plan", lambda state: {})
        graph.add_node("work", work)
        graph.add_edge(START, "plan")
        graph.add_conditional_edges("plan", lambda state: [Send("work", {"todo": []})], ["work"])
        compiled: Any = graph.compile(checkpointer=saver)
        compiled.invoke({"log": []}, config(), durability="sync")
        fork = next(one for one in compiled.get_state_history(config()) if one.next == ("work",)).config
        compiled.invoke(None, fork, durability=durability)
        log: list[str] = compiled.invoke(Command(resume="yes"), config(), durability=durability)["log"]
        return log

    for durability in ("sync", "exit"):
        with FoldpointSaver.from_conn_string("memory:") as saver:
            assert logged(saver, durability) == logged(InMemorySaver(), durability) == ["in place"]


class Settled(Log):
    settings: dict[str, str]


@pytest.mark.parametrize("turns", [2, 40])
def test_a_fork_from_far_back_has_its_parents_values_too(turns: int) -> None:
    def work(state: Settled) -> Any:
        if state["log"][-1] == "fork":
            state["settings"]["scratch"] = "in place"
        return {"log": ["done"]}

    def settings(saver: Any) -> dict[str, str]:
        graph = StateGraph(Settled)
        graph.add_node("work", work)
        graph.add_edge(START, "work")
        compiled: Any = graph.compile(checkpointer=saver)
        compiled.invoke({"log": ["0"], "settings": {"a": "b"}}, config(), durability="sync")
        first = compiled.get_state(config()).config
        for n in range(1, turns):
            compiled.invoke({"log": [f"{n}"]}, config(), durability="sync")
        compiled.invoke({"log": ["fork"]}, first, durability="exit")
        found: dict[str, str] = compiled.get_state(config()).values["settings"]
        return found

    with FoldpointSaver.from_conn_string("memory:", window=8, snapshot_ratio=0.01, compaction="inline") as saver:
        assert settings(saver) == settings(InMemorySaver()) == {"a": "b"}
