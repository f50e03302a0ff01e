"""What a DeltaChannel asks of its saver: its ancestors' writes, and the value that they start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from building import config, id_of, ids, put
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from foldpoint import FoldpointSaver


def build(saver: FoldpointSaver, steps: list[tuple[dict[str, Any], list[Any]]], **options: Any) -> list[RunnableConfig]:
    """A line of checkpoints: of each its stored values and what was written to channel `d` after it."""
    made: list[RunnableConfig] = []
    for step, (values, written) in enumerate(steps):
        made.append(put(saver, made[-1] if made else None, values, step=step, **options))
        if written:
            saver.put_writes(made[-1], [("d", value) for value in written], f"task-{step}")
    return made


def history(saver: FoldpointSaver, where: RunnableConfig, channel: str = "d") -> tuple[list[Any], Any]:
    found = saver.get_delta_channel_history(config=where, channels=[channel])[channel]
    return [write[2] for write in found["writes"]], found.get("seed", "no seed")


def test_writes_come_oldest_first_from_the_nearest_stored_value(saver: FoldpointSaver) -> None:
    line = build(saver, [({"d": _DeltaSnapshot([0])}, [1]), ({}, [2]), ({}, [3, 4]), ({}, ["pending"])])
    assert history(saver, line[-1]) == ([1, 2, 3, 4], _DeltaSnapshot([0]))


def test_what_lies_before_the_nearest_stored_value_does_not_count(saver: FoldpointSaver) -> None:
    line = build(saver, [({"d": ["old"]}, ["older"]), ({"d": ["plain"]}, ["at seed"]), ({}, ["after"]), ({}, [])])
    assert history(saver, line[-1]) == (["at seed", "after"], ["plain"])


def test_the_targets_own_value_and_writes_do_not_count(saver: FoldpointSaver) -> None:
    line = build(saver, [({"d": [1]}, [2]), ({"d": [1, 2]}, [3])])
    assert history(saver, line[-1]) == ([2], [1])


def test_without_a_stored_value_there_is_no_seed(saver: FoldpointSaver) -> None:
    line = build(saver, [({}, [1]), ({}, [2]), ({}, [])])
    assert history(saver, line[-1]) == ([1, 2], "no seed")


def test_channels_end_on_their_own(saver: FoldpointSaver) -> None:
    parent: RunnableConfig | None = None
    for step, values in enumerate([{}, {"a": "A"}, {}, {"b": "B"}, {}]):
        parent = put(saver, parent, values, step=step)
        saver.put_writes(parent, [("a", step), ("b", step)], f"task-{step}")
    assert parent is not None
    found = saver.get_delta_channel_history(config=parent, channels=["a", "b", "never"])
    assert [write[2] for write in found["a"]["writes"]] == [1, 2, 3]
    assert [write[2] for write in found["b"]["writes"]] == [3]
    assert found["never"] == {"writes": []}


def test_no_channels_and_no_thread_give_nothing(saver: FoldpointSaver) -> None:
    assert saver.get_delta_channel_history(config=config(), channels=[]) == {}
    assert saver.get_delta_channel_history(config=config("unknown"), channels=["d"]) == {"d": {"writes": []}}


def test_only_ancestors_count_in_a_fork(saver: FoldpointSaver) -> None:
    line = build(saver, [({"d": [0]}, [1]), ({}, ["other branch"]), ({}, [])])
    fork = put(saver, line[0], {}, step=9)
    assert history(saver, fork) == ([1], [0])


def test_writes_of_one_step_are_ordered_by_task_path(saver: FoldpointSaver) -> None:
    first = put(saver, None, {}, step=0)
    saver.put_writes(first, [("d", "second")], "task-a", "~2")
    saver.put_writes(first, [("d", "first")], "task-b", "~1")
    assert history(saver, put(saver, first, {}, step=1)) == (["first", "second"], "no seed")


async def test_the_asynchronous_form_gives_the_same(saver: FoldpointSaver) -> None:
    line = build(saver, [({"d": [0]}, [1]), ({}, [])])
    found = await saver.aget_delta_channel_history(config=line[-1], channels=["d"])
    assert [write[2] for write in found["d"]["writes"]] == [1]


@pytest.mark.parametrize("window", [4, 64])
@pytest.mark.parametrize("keep", [1, 2, 5])
def test_pruning_carries_the_history_of_what_stays(
    make_saver: Callable[..., FoldpointSaver], window: int, keep: int
) -> None:
    saver = make_saver(window=window)
    steps: list[tuple[dict[str, Any], list[Any]]] = [({"d": ["seed"]} if n == 3 else {}, [n]) for n in range(12)]
    line = build(saver, steps)
    kept = line[-keep:]
    before = [history(saver, where) for where in kept]
    saver.prune(["thread"], keep_last=keep)
    assert ids(saver, config()) == [id_of(where) for where in reversed(kept)]
    assert [history(saver, where) for where in kept] == before
    saver.prune(["thread"])
    assert history(saver, line[-1]) == before[-1]
    following = put(saver, line[-1], {}, step=20)
    assert history(saver, following)[0] == [*before[-1][0], 11]


def test_deleting_runs_carries_the_history_of_what_stays(saver: FoldpointSaver) -> None:
    parent: RunnableConfig | None = None
    for step in range(9):
        parent = put(saver, parent, {"d": ["seed"]} if step == 1 else {}, step=step, run_id=f"run-{step // 3}")
        saver.put_writes(parent, [("d", step)], f"task-{step}")
    assert parent is not None
    before = history(saver, parent)
    saver.delete_for_runs(["run-1"])
    assert history(saver, parent) == before == ([1, 2, 3, 4, 5, 6, 7], ["seed"])
    saver.delete_for_runs(["run-0"])
    assert history(saver, parent) == before


def test_a_copied_thread_has_the_same_history(saver: FoldpointSaver) -> None:
    line = build(saver, [({"d": ["seed"]}, [0]), *[({}, [n]) for n in range(1, 8)]])
    saver.prune(["thread"], keep_last=2)
    saver.copy_thread("thread", "copy")
    copied = config("copy", "", id_of(line[-1]))
    assert history(saver, copied) == history(saver, line[-1])


@pytest.mark.parametrize("frequency", [3, 1000])
def test_a_pruned_graph_with_a_delta_channel_goes_on_like_its_unpruned_twin(
    make_saver: Callable[..., FoldpointSaver], frequency: int
) -> None:
    saver = make_saver(window=8)

    def append(state: list[int], writes: list[list[int]]) -> list[int]:
        return [*state, *(item for write in writes for item in write)]

    # Not a class: its annotations could not see `append` and `frequency`.
    channel = Annotated[list, DeltaChannel(append, snapshot_frequency=frequency)]  # type: ignore[type-arg]
    builder = StateGraph(TypedDict("State", {"items": channel, "count": int}))  # type: ignore[operator]
    builder.add_node("work", lambda state: {"items": [len(state["items"])], "count": state.get("count", 0) + 1})
    builder.add_edge(START, "work")
    graph = builder.compile(checkpointer=saver)
    for turn in range(12):
        for thread in ("pruned", "twin"):
            graph.invoke({"items": [-turn]}, config(thread, None))
        saver.prune(["pruned"], keep_last=1 + turn % 3)
        pruned, twin = (graph.get_state(config(thread, None)).values for thread in ("pruned", "twin"))
        assert pruned == twin
        assert len(twin["items"]) == 2 * (turn + 1)
