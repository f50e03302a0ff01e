"""Whole threads: deleting, dropping runs, copying, pruning; noticed by everybody who uses the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from building import chain, config, id_of, ids, put
from moving import Interrupted
from stores import SHARED, Harness

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import DropAll, compact, rewrite_thread
from foldpoint.engine import keys
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import Conflict, CorruptRecord
from foldpoint.settings import Where


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


@pytest.mark.parametrize("compaction", ["background", "inline", "off"])
def test_a_deleted_thread_leaves_a_file_at_once(tmp_path: Path, compaction: Where) -> None:
    file = tmp_path / "agents.db"
    with FoldpointSaver.from_conn_string(f"sqlite:///{file}", compaction=compaction) as saver:
        for thread in ("deleted", "other"):
            where = None
            for n in range(90):
                where = put(saver, where, {"n": f"{thread}-{n}" * 5}, thread=thread)
    assert b"deleted-" in file.read_bytes()
    with FoldpointSaver.from_conn_string(f"sqlite:///{file}", compaction=compaction) as saver:
        saver.delete_thread("deleted")
    assert b"deleted-" not in file.read_bytes()
    with FoldpointSaver.from_conn_string(f"sqlite:///{file}") as saver:
        assert len(ids(saver, config("other"))) == 90
        assert ids(saver, config("deleted", None)) == []


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
def two(harness: Harness, backend: str) -> Iterator[tuple[FoldpointSaver, FoldpointSaver]]:
    """Savers with store objects of their own, as two processes have; on memory they share one."""
    shared = backend in SHARED
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
    with FoldpointSaver(Engine(store, Settings(window=8, grace=0)), compaction="off") as saver:
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


def test_copying_a_thread_onto_itself_changes_nothing(make_saver: Callable[..., FoldpointSaver]) -> None:
    saver = make_saver(window=4)
    line = chain(saver, 10)
    saver.put_writes(line[4], [("n", "pending")], "task")
    before = list(saver.list(config()))
    saver.copy_thread("thread", "thread")
    assert list(saver.list(config())) == before


def test_copying_again_brings_what_is_new_and_changed(saver: FoldpointSaver) -> None:
    line = chain(saver, 3)
    saver.copy_thread("thread", "copy")
    own = put(saver, config("copy", "", id_of(line[-1])), {"n": "own"}, step=7)
    saver.put_writes(line[-1], [("n", "late")], "task")
    new = put(saver, line[-1], {"n": "new"}, step=8)
    saver.copy_thread("thread", "copy")
    assert ids(saver, config("copy")) == [id_of(new), id_of(own), *map(id_of, reversed(line))]
    found = saver.get_tuple(config("copy", "", id_of(line[-1])))
    assert found is not None
    assert found.pending_writes == [("task", "n", "late")]


def test_a_deleted_thread_can_be_copied_into_and_one_that_is_deleted_copies_nothing(saver: FoldpointSaver) -> None:
    line = chain(saver, 3)
    chain(saver, 2, thread="target")
    saver.delete_thread("target")
    saver.copy_thread("thread", "target")
    saver.delete_thread("thread")
    saver.copy_thread("thread", "target")
    assert ids(saver, config("target")) == [id_of(one) for one in reversed(line)]


def test_runs_are_dropped_from_every_namespace_and_a_thread_may_lose_all(saver: FoldpointSaver) -> None:
    chain(saver, 5, run_id="drop")
    chain(saver, 5, namespace="child", run_id="drop")
    kept = chain(saver, 2, namespace="other", run_id="keep")
    saver.delete_for_runs(["drop"])
    assert ids(saver, config("thread", None)) == [id_of(one) for one in reversed(kept)]
    saver.delete_for_runs(["keep"])
    assert ids(saver, config("thread", None)) == []
    assert list(saver.list(None)) == []
    again = put(saver, kept[-1], {"n": "again"}, step=9, run_id="new")
    assert ids(saver, config("thread", None)) == [id_of(again)]


def test_a_fork_keeps_its_values_when_what_it_comes_from_is_pruned(make_saver: Callable[..., FoldpointSaver]) -> None:
    saver = make_saver(window=4)
    parent = None
    line = []
    for step in range(24):
        parent = put(saver, parent, {"list": list(range(step)), "same": "x" * 500}, step=step)
        line.append(parent)
    old, new = (put(saver, line[at], {"list": [*range(at), "fork"], "same": "x" * 500}, step=50) for at in (2, 20))
    saver.prune(["thread"], keep_last=3)
    assert ids(saver, config()) == [id_of(new), id_of(old), id_of(line[-1])]
    found = {id_of(one.config): one for one in saver.list(config())}
    assert found[id_of(old)].checkpoint["channel_values"] == {"list": [0, 1, "fork"], "same": "x" * 500}
    assert found[id_of(new)].checkpoint["channel_values"] == {"list": [*range(20), "fork"], "same": "x" * 500}
    assert found[id_of(old)].parent_config == line[2]
    assert saver.get_tuple(line[2]) is None
    saver.prune(["thread"], keep_last=3)
    assert len(ids(saver, config())) == 3


def test_pruning_with_more_than_there_is_leaves_all(saver: FoldpointSaver) -> None:
    line = chain(saver, 5)
    head = next(saver.engine.heads("thread"))
    saver.prune(["thread"], keep_last=100)
    assert len(ids(saver, config())) == len(line)
    assert next(saver.engine.heads("thread")).epoch == head.epoch


def test_a_thread_id_that_begins_like_another_is_another(saver: FoldpointSaver) -> None:
    for thread in ("a", "ab", "a|", "A", ""):
        chain(saver, 2, thread=thread)
    saver.delete_thread("a")
    saver.prune(["A"])
    assert {thread: len(ids(saver, config(thread))) for thread in ("a", "ab", "a|", "A", "")} == {
        "a": 0,
        "ab": 2,
        "a|": 2,
        "A": 1,
        "": 2,
    }
    assert len(list(saver.list(None))) == 7


def test_ids_are_given_as_a_list(saver: FoldpointSaver) -> None:
    put(saver, None, {"n": 1}, thread="1", run_id="r")
    for call in (lambda: saver.prune("12", strategy="delete"), lambda: saver.delete_for_runs("r")):
        with pytest.raises(ValueError, match="its letters would be taken for ids"):
            call()
    assert len(ids(saver, config("1"))) == 1


def test_a_copy_of_a_thread_that_is_deleted_meanwhile_leaves_no_empty_one() -> None:
    store = Interrupted(MemoryStore())
    saver = FoldpointSaver(Engine(store))  # type: ignore[arg-type]
    chain(saver, 3, thread="source")
    store.before["swap"] = lambda: rewrite_thread(Engine(store), "source", DropAll())  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="deleted while it was copied"):
        saver.copy_thread("source", "copy")
    assert list(saver.engine.threads()) == []


def test_a_copy_of_a_damaged_thread_leaves_no_empty_one() -> None:
    store = MemoryStore()
    with FoldpointSaver(Engine(store)) as saver:
        chain(saver, 5)
        head = next(saver.engine.heads("thread"))
    store.remove_many([keys.event(head.epoch, 3)])
    with FoldpointSaver(Engine(store)) as saver:
        with pytest.raises(CorruptRecord) as caught:
            saver.copy_thread("thread", "copy")
        assert "foldpoint verify --thread" in "".join(caught.value.__notes__)
        assert [info.thread_id for info in saver.engine.threads()] == ["thread"]
