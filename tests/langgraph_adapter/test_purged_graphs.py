"""Which threads of real graphs a policy deletes: those that nobody goes on with, and only those."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from building import config
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from moving import MovingClock
from typing_extensions import TypedDict

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import Policies, Retention, compact
from foldpoint.engine.memory import MemoryStore

DAY = 86_400
IDLE, FINISHED = Retention(purge_idle=timedelta(days=30)), Retention(purge_finished=timedelta(days=30))
Use = Callable[[FoldpointSaver], object]


class State(TypedDict):
    asked: list[str]


def failing(state: State) -> State:
    raise RuntimeError("the tool failed")


def asking(*questions: str, then: Callable[[State], State] = lambda state: state) -> Callable[[State], State]:
    def node(state: State) -> State:
        return then({"asked": [interrupt(question) for question in questions]})

    return node


def run(saver: FoldpointSaver, node: Callable[[State], Any], *answers: str) -> None:
    """A thread of a graph of one node, and what is said to its interrupts."""
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    compiled = graph.compile(checkpointer=saver)
    for value in ({"asked": []}, *(Command(resume=answer) for answer in answers)):
        with contextlib.suppress(RuntimeError):
            compiled.invoke(value, config("thread", None))


def sent(saver: FoldpointSaver) -> None:
    """A thread that waits before it goes on with what was sent."""
    graph = StateGraph(State)
    graph.add_node("plan", lambda state: state)
    graph.add_node("work", lambda state: state)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: [Send("work", state)], ["work"])
    graph.add_edge("work", END)
    graph.compile(checkpointer=saver, interrupt_before=["work"]).invoke({"asked": []}, config("thread", None))


USES: dict[str, tuple[Use, bool]] = {
    "ended": (lambda saver: run(saver, lambda state: state), True),
    "ended, and answered once more": (lambda saver: run(saver, asking("sure?"), "yes", "yes"), True),
    "waits for a person": (lambda saver: run(saver, asking("sure?")), False),
    "answered, and failed": (lambda saver: run(saver, asking("sure?", then=failing), "yes"), False),
    "waits for a second answer": (lambda saver: run(saver, asking("sure?", "really?"), "yes"), False),
    "failed": (lambda saver: run(saver, failing), False),
    "waits before what was sent": (sent, False),
}


@pytest.fixture
def clock() -> MovingClock:
    clock = MovingClock()
    clock.advance(time.time() - clock.now())  # LangGraph's checkpoints tell the time of the machine
    return clock


def goes(saver: FoldpointSaver, retention: Retention) -> bool:
    return any(report.deleted for report in compact(saver.engine, policies=Policies(default=retention)))


@pytest.fixture
def saver(clock: MovingClock) -> FoldpointSaver:
    return FoldpointSaver(Engine(MemoryStore(), Settings(compaction="off"), clock=clock))


@pytest.mark.parametrize(("use", "ends"), USES.values(), ids=USES)
def test_an_idle_thread_goes_wherever_it_stands_and_a_finished_one_only_if_nothing_follows(
    saver: FoldpointSaver, clock: MovingClock, use: Use, ends: bool
) -> None:
    use(saver)
    assert not goes(saver, IDLE)
    assert not goes(saver, FINISHED)
    clock.advance(31 * DAY)
    assert goes(saver, FINISHED) is ends
    assert ends or goes(saver, IDLE)
    assert not [*saver.engine.heads()]


def test_a_thread_that_was_answered_lately_stays_however_old_its_checkpoint_is(
    saver: FoldpointSaver, clock: MovingClock
) -> None:
    run(saver, asking("sure?", "really?"))
    clock.advance(100 * DAY)
    run_on = StateGraph(State)
    run_on.add_node("node", asking("sure?", "really?"))
    run_on.add_edge(START, "node")
    run_on.compile(checkpointer=saver).invoke(Command(resume="yes"), config("thread", None))
    assert not goes(saver, IDLE), "it may have been answered a moment ago"
    clock.advance(29 * DAY)
    assert not goes(saver, IDLE), "it is 29 days since the answer was seen first"
    clock.advance(2 * DAY)
    assert goes(saver, IDLE)
