"""A run of 200 steps on DeltaChannels that is pruned after every step goes on as its untouched twin does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, NamedTuple

import pytest
from building import checkpoint, config
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from moving import MovingClock
from typing_extensions import TypedDict

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.codecs.header import id_micros
from foldpoint.compaction import DropRuns, KeepLast, Retention, compact_thread, rewrite_thread
from foldpoint.engine.history import History
from foldpoint.engine.memory import MemoryStore

STEPS = 200
LINEAR = 100
"""From this step on there are forks, one in so many steps."""
FORK_EVERY = 20
RUN = 40
YOUNG = 12
"""So many checkpoints are younger than AGE: the clock is set so."""
AGE = timedelta(seconds=60)
THREAD = config("thread", None)


def append(state: list[int], writes: list[list[int]]) -> list[int]:
    return [*state, *(item for write in writes for item in write)]


OFTEN = Annotated[list, DeltaChannel(append, snapshot_frequency=7)]  # type: ignore[type-arg]
NEVER = Annotated[list, DeltaChannel(append, snapshot_frequency=1000)]  # type: ignore[type-arg]


class State(TypedDict):
    often: OFTEN
    never: NEVER
    rare: NEVER
    at: int


def one(state: Any) -> dict[str, Any]:
    at = state.get("at", 0) + 1
    return {"at": at, "often": [at], "never": [-len(state["never"])], **({"rare": [at]} if at % 15 == 0 else {})}


def looping_graph(saver: Any) -> Any:
    """One node, then two at once, and again; it stops before each step."""
    builder = StateGraph(State)
    builder.add_node("one", one)
    for number, node in enumerate(("left", "right")):
        builder.add_node(node, lambda state, number=number: {"often": [state["at"]], "never": [number]})
        builder.add_edge("one", node)
    builder.add_edge(START, "one")
    builder.add_edge(["left", "right"], "one")
    return builder.compile(checkpointer=saver, interrupt_before="*")


def run(graph: Any) -> Iterator[Any]:
    """Resume `STEPS` times; the state after each. Now and then it is resumed from the checkpoint before, as a fork."""
    for step in range(STEPS):
        where = config("thread", None)
        where["metadata"] = {"run_id": f"run-{step // RUN}", **({"pinned": True} if step % 40 == 3 else {})}
        state = graph.invoke(None if step else {"never": [0]}, where)
        if step > LINEAR and step % FORK_EVERY == 0:
            _, before = graph.checkpointer.list(THREAD, limit=2)
            graph.update_state({**where, **before.config}, {"never": [1000 + step]}, as_node="one")
            state = graph.invoke(None, where)
        yield state


class Found(NamedTuple):
    values: dict[str, Any]
    next: tuple[str, ...]

    @classmethod
    def at(cls, graph: Any, where: Any) -> Found:
        found = graph.get_state(where)
        return cls(found.values, found.next)


Run = tuple[list[Any], list[Found]]
"""The state after each step, and what is found at each checkpoint, oldest first."""


@cache
def twin() -> Run:
    """As two runs have it: in memory, writes that a thread puts late change what a DeltaChannel is told."""
    runs: list[Run] = []
    while (found := run_in_memory()) not in runs:
        runs.append(found)
    return found


def run_in_memory() -> Run:
    saver = InMemorySaver()
    graph = looping_graph(saver)
    states = list(run(graph))
    return states, [Found.at(graph, found.config) for found in saver.list(THREAD)][::-1]


Prune = Callable[[Engine, int], object]


def retain(**rules: Any) -> Prune:
    return lambda engine, step: rewrite_thread(engine, "thread", Retention(**rules))


def compacted(**rules: Any) -> Prune:
    """With merging and cleaning."""
    return lambda engine, step: list(compact_thread(engine, "thread", Retention(**rules), grace=0))


PRUNINGS: dict[str, Prune] = {
    "latest": compacted(keep_last=1),
    "last 7": retain(keep_last=7),
    "newer than": retain(keep_newer_than=AGE),
    "one per run": retain(keep_one_per_run=True),
    "metadata": retain(keep_with_metadata=("pinned",)),
    "any rule, superseded writes go": retain(
        keep_last=2,
        keep_newer_than=AGE,
        keep_one_per_run=True,
        keep_with_metadata=("pinned",),
        drop_superseded_writes=True,
    ),
    "prune": lambda engine, step: rewrite_thread(engine, "thread", KeepLast(1 + step % 5)),
    "drop runs": lambda engine, step: rewrite_thread(engine, "thread", DropRuns({f"run-{step // RUN - 1}"})),
}


@pytest.mark.parametrize("pruning", PRUNINGS)
def test_a_run_that_is_pruned_after_every_step_goes_on_as_its_twin(pruning: str) -> None:
    clock = MovingClock()
    with FoldpointSaver(Engine(MemoryStore(), Settings(window=8), clock=clock), compaction="off") as saver:
        graph = looping_graph(saver)
        states, checkpoints = twin()
        times: list[float] = []
        for step, state in enumerate(run(graph)):
            assert state == states[step]
            latest = saver.engine.latest("thread", "")
            assert latest is not None
            times.append(id_micros(latest.folded.header.id) / 1e6)
            clock.seconds = times[-YOUNG:][0] + AGE.total_seconds()
            PRUNINGS[pruning](saver.engine, step)
        kept = [Found.at(graph, found.config) for found in saver.list(THREAD)]
        assert kept[0] == checkpoints[-1]
        assert len(kept) < len(checkpoints) / 4
        assert all(found in checkpoints for found in kept)


def extend(state: list[Any] | None, writes: Any) -> list[Any]:
    return [*(state or []), *(one for write in writes for one in write)]


class Logged(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend)]


def test_a_copy_of_what_a_prune_kept_has_its_delta_channels() -> None:
    """LangGraph puts a copy upon the parent of what it copies, which is gone here."""

    with FoldpointSaver.from_conn_string("memory:") as saver:
        graph = StateGraph(Logged)
        graph.add_node("a", lambda state: {"log": ["a"]})
        graph.add_edge(START, "a")
        compiled: Any = graph.compile(checkpointer=saver)
        for n in range(3):
            compiled.invoke({"log": [n]}, config())
        expected = [0, "a", 1, "a", 2, "a"]
        saver.prune(["thread"])
        for _ in range(2):
            compiled.update_state(compiled.get_state(config()).config, None, as_node="__copy__")
            assert compiled.get_state(config()).values == {"log": expected}
            saver.prune(["thread"])
            assert compiled.get_state(config()).values == {"log": expected}
        assert compiled.invoke({"log": ["x"]}, config()) == {"log": [*expected, "x", "a"]}


def test_to_prune_again_reads_a_history_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where parents were dropped before, and a channel stands in no checkpoint."""
    read = 0
    entries = History.entries

    def counted(history: History, *args: Any) -> Any:
        nonlocal read
        for entry in entries(history, *args):
            read += 1
            yield entry

    with FoldpointSaver.from_conn_string("memory:") as saver:
        for run in range(60):
            where = None
            for step in range(3):
                made = checkpoint({"a": run}, step)
                made["channel_versions"]["never stored"] = 1
                where = saver.put(where or config(), made, {"run_id": f"{run}"}, {})
        rewrite_thread(saver.engine, "thread", Retention(keep_one_per_run=True))
        monkeypatch.setattr(History, "entries", counted)
        rewrite_thread(saver.engine, "thread", KeepLast(50))
    assert 50 <= read <= 8 * 60
