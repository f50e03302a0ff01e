"""Whole threads: deleting, dropping runs, copying, pruning; noticed by everybody who uses the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from building import chain, config, id_of, ids, put
from stores import SHARED, Harness

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import compact


def test_a_deleted_thread_is_gone_in_all_namespaces_and_can_be_used_again(saver: FoldpointSaver) -> None:
    chain(saver, 3)
    chain(saver, 3, namespace="child")
    other = chain(saver, 2, thread="other")
    saver.delete_thread("thread")
    assert ids(saver, config("thread", None)) == []
    assert saver.get_tuple(config()) is None
    assert len(ids(saver, config("other"))) == len(other)
    again = put(saver, None, {"n": "again"})
    assert ids(saver, config("thread", None)) == [id_of(again)]
    saver.delete_thread("thread")
    saver.delete_thread("never there")


def test_dropping_runs_takes_their_checkpoints_and_writes(saver: FoldpointSaver) -> None:
    kept = put(saver, None, {"n": 1}, run_id="keep")
    dropped = put(saver, kept, {"n": 2}, step=1, run_id="drop")
    saver.put_writes(dropped, [("n", 3)], "task")
    last = put(saver, dropped, {"n": 4}, step=2, run_id="keep")
    put(saver, None, {"n": 5}, thread="other", run_id="drop")
    saver.delete_for_runs(["drop", "unknown"])
    assert ids(saver, config()) == [id_of(last), id_of(kept)]
    assert saver.get_tuple(dropped) is None
    assert ids(saver, config("other")) == []
    found = saver.get_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": 4}
    saver.delete_for_runs([])


def test_a_copy_has_everything_and_goes_its_own_way(saver: FoldpointSaver) -> None:
    line = chain(saver, 5)
    saver.put_writes(line[-1], [("n", "pending")], "task")
    chain(saver, 2, namespace="child")
    saver.copy_thread("thread", "copy")
    for namespace in ("", "child"):
        source = list(saver.list(config("thread", namespace)))
        copied = list(saver.list(config("copy", namespace)))
        assert [one._replace(config={}, parent_config={}) for one in source] == [
            one._replace(config={}, parent_config={}) for one in copied
        ]
    put(saver, config("copy", "", id_of(line[-1])), {"n": "only here"}, step=9)
    assert len(ids(saver, config("copy"))) == 6
    assert len(ids(saver, config("thread"))) == 5


def test_copying_into_a_thread_keeps_what_it_has(saver: FoldpointSaver) -> None:
    source = chain(saver, 2)
    target = chain(saver, 2, thread="target")
    saver.copy_thread("thread", "target")
    assert ids(saver, config("target")) == sorted((id_of(one) for one in source + target), reverse=True)
    saver.copy_thread("never there", "target")
    assert len(ids(saver, config("target"))) == 4


@pytest.mark.parametrize("strategy", ["delete", "delete_all"])
def test_pruning_can_delete(saver: FoldpointSaver, strategy: str) -> None:
    chain(saver, 3)
    saver.prune(["thread"], strategy=strategy)
    assert ids(saver, config()) == []


def test_pruning_keeps_the_last_of_every_namespace_with_values_and_writes(
    make_saver: Callable[..., FoldpointSaver],
) -> None:
    saver = make_saver(window=4)
    root = chain(saver, 30)
    fork = put(saver, root[3], {"n": "fork"}, step=40)
    saver.put_writes(fork, [("n", "pending")], "task")
    child = chain(saver, 7, namespace="child")
    other = chain(saver, 3, thread="other")
    saver.prune(["thread", "unknown"], keep_last=3)
    assert ids(saver, config()) == [id_of(fork), id_of(root[-1]), id_of(root[-2])]
    assert ids(saver, config("thread", "child")) == [id_of(one) for one in child[:3:-1]]
    found = saver.get_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": "fork"}
    assert found.pending_writes == [("task", "n", "pending")]
    saver.prune(["thread"])
    assert ids(saver, config("thread", None)) == sorted([id_of(fork), id_of(child[-1])], reverse=True)
    assert len(ids(saver, config("other"))) == len(other)
    following = put(saver, fork, {"n": "after"}, step=41)
    assert ids(saver, config()) == [id_of(following), id_of(fork)]


@pytest.fixture
def two(harness: Harness, request: pytest.FixtureRequest) -> Iterator[tuple[FoldpointSaver, FoldpointSaver]]:
    """Savers with store objects of their own, as two processes have; on memory they share one."""
    shared = any(request.node.callspec.params["harness"] == name for name in SHARED)
    first = harness.open()
    second = harness.open() if shared else first
    with (
        FoldpointSaver(Engine(first, Settings(window=8))) as one,
        FoldpointSaver(Engine(second, Settings(window=8))) as other,
    ):
        yield one, other


def test_a_warm_saver_notices_what_another_one_does(two: tuple[FoldpointSaver, FoldpointSaver]) -> None:
    one, other = two
    line = chain(one, 12)
    assert len(ids(other, config())) == 12
    one.prune(["thread"], keep_last=2)
    assert ids(other, config()) == [id_of(line[-1]), id_of(line[-2])]
    following = put(other, line[-1], {"n": "more"}, step=20)
    assert ids(one, config())[0] == id_of(following)
    one.delete_thread("thread")
    assert other.get_tuple(config()) is None


def test_a_put_of_a_saver_that_missed_a_deletion_is_not_lost(two: tuple[FoldpointSaver, FoldpointSaver]) -> None:
    one, other = two
    line = chain(other, 3)
    one.delete_thread("thread")
    late = put(other, line[-1], {"n": "late"}, step=9)  # it has not read since
    assert ids(one, config()) == [id_of(late)]
    found = one.get_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": "late"}


def test_savers_take_turns_on_one_thread(two: tuple[FoldpointSaver, FoldpointSaver]) -> None:
    where = None
    made = []
    for step in range(40):
        where = put(two[step % 2], where, {"n": list(range(step))}, step=step)
        two[(step + 1) % 2].put_writes(where, [("n", step)], f"task-{step}")
        made.append(id_of(where))
    for saver in two:
        found = list(saver.list(config()))
        assert [id_of(one.config) for one in found] == made[::-1]
        assert [one.checkpoint["channel_values"]["n"] for one in found] == [list(range(n)) for n in range(40)][::-1]
        assert all(len(one.pending_writes or ()) == 1 for one in found)


def test_the_store_shrinks_when_the_grace_is_over(harness: Harness) -> None:
    store = harness.open()
    with FoldpointSaver(Engine(store, Settings(window=8, grace=0))) as saver:
        line = chain(saver, 60)
        saver.prune(["thread"])
        assert list(compact(saver.engine))
        assert len(list(store.keys())) <= 12
        found = saver.get_tuple(config())
        assert found is not None
        assert id_of(found.config) == id_of(line[-1])
        saver.delete_thread("thread")
        assert list(compact(saver.engine))
        assert list(store.keys()) == []
