"""Which checkpoints of a tree stay: decided one by one, newest first, it is what the rules say of the whole tree."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from foldpoint.codecs.model import PARENTS
from foldpoint.compaction import DropRuns, KeepLast, Policy, Retention
from foldpoint.compaction.selection import Circumstances, Kept, Selection, Summary

NOW = 1_700_000_000.0


@dataclass(frozen=True)
class Node:
    """A checkpoint of a tree. parent: its place in the tree, None: none, -1: one that is not in the log any more."""

    parent: int | None
    run: str | None
    pinned: bool
    age: float | None
    pending: bool


def id_of(n: int) -> str:
    return f"{n:04}"


def summary(n: int, node: Node) -> Summary:
    parent = None if node.parent is None else id_of(node.parent) if node.parent >= 0 else "gone"
    labels = {**({"run_id": node.run} if node.run else {}), **({"pinned": True} if node.pinned else {})}
    return Summary(id_of(n), parent, labels, None if node.age is None else NOW - node.age, lambda: node.pending)


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    """Oldest first; as ids ascend, times do not come back."""
    nodes: list[Node] = []
    age = draw(st.integers(0, 200))
    for n in range(draw(st.integers(1, 25))):
        age -= draw(st.integers(0, 15))
        choices = [n - 1] * 6 + list(range(-1, n)) + [None]  # type: ignore[list-item]
        nodes.append(
            Node(
                parent=draw(st.sampled_from(choices)) if n else None,
                run=draw(st.sampled_from(["r1", "r1", "r2", "r3", None])),
                pinned=draw(st.integers(0, 6)) == 0,
                age=draw(st.sampled_from([max(age, 0)] * 4 + [None])),
                pending=draw(st.booleans()),
            )
        )
    return nodes


retentions = st.builds(
    Retention,
    keep_last=st.sampled_from([None, 1, 2, 5]),
    keep_newer_than=st.sampled_from([None, timedelta(seconds=20), timedelta(seconds=100)]),
    keep_one_per_run=st.booleans(),
    keep_with_metadata=st.sampled_from([(), ("pinned",)]),
)


def shown_to(policy: Policy, nodes: list[Node]) -> set[int]:
    selection = policy.selection(Circumstances(NOW))
    return {n for n in range(len(nodes) - 1, -1, -1) if selection.keeps(summary(n, nodes[n]))}


def named(retention: Retention, nodes: list[Node]) -> set[int]:
    """What the rules name, each on its own."""
    newest_first = range(len(nodes) - 1, -1, -1)
    found = {len(nodes) - 1}
    if retention.keeps_all:
        return set(newest_first)
    if retention.keep_last:
        found |= set(newest_first[: retention.keep_last])
    if retention.keep_newer_than is not None:
        limit = retention.keep_newer_than.total_seconds()
        # One that tells no time is as old as what is around it: kept unless something newer is too old.
        too_old = [n for n in newest_first if (age := nodes[n].age) is not None and age > limit]
        found |= {n for n in newest_first if not too_old or n > too_old[0]}
    if retention.keep_one_per_run:
        found |= {max(n for n in newest_first if nodes[n].run == run) for run in {node.run for node in nodes} - {None}}
    if retention.keep_with_metadata:
        found |= {n for n in newest_first if nodes[n].pinned}
    return found


@given(trees(), retentions)
def test_what_stays_is_what_the_rules_name_what_waits_and_what_two_kept_ones_come_from(
    nodes: list[Node], retention: Retention
) -> None:
    kept = shown_to(retention, nodes)
    parents = {node.parent for node in nodes}
    expected = named(retention, nodes) | {n for n, node in enumerate(nodes) if node.pending and n not in parents}
    while True:
        forks = {n for n in range(len(nodes)) if sum(nodes[child].parent == n for child in expected) > 1}
        if forks <= expected:
            break
        expected |= forks
    assert kept == expected
    assert len(nodes) - 1 in kept


@given(trees(), retentions)
def test_applying_a_retention_to_what_it_kept_drops_nothing_but_what_nobody_goes_on_from(
    nodes: list[Node], retention: Retention
) -> None:
    """Fork points and ages are judged again among what is left; nothing that a rule names goes."""
    kept = sorted(shown_to(retention, nodes))
    place = {n: at for at, n in enumerate(kept)}
    left = [replace(nodes[n], parent=p if (p := nodes[n].parent) is None else place.get(p, -1)) for n in kept]
    again = {kept[at] for at in shown_to(retention, left)}
    assert named(retention, nodes) <= again


def test_a_selection_is_done_as_soon_as_it_can_be() -> None:
    line = [Node(n - 1 if n else None, "r1", False, 100.0 - n, False) for n in range(50)]

    def looked_at(policy: Policy) -> int:
        selection = policy.selection(Circumstances(NOW))
        for n in range(len(line) - 1, -1, -1):
            selection.keeps(summary(n, line[n]))
            if selection.done:
                return len(line) - n
        return -1

    assert [looked_at(KeepLast(count)) for count in (1, 7)] == [1, 7]
    assert looked_at(Retention(keep_last=1)) == -1, "an older branch may wait for an answer"


def test_a_selection_remembers_what_it_keeps_and_not_what_it_drops() -> None:
    def remembered(policy: Policy, length: int) -> int:
        selection = policy.selection(Circumstances(NOW))
        for n in range(length, -1, -1):
            selection.keeps(summary(n, Node(n - 1 if n else None, f"r{n % 7}", False, None, False)))
        return len(pickle.dumps(selection.__dict__))

    for policy in (KeepLast(3), Retention(keep_last=3), Retention(keep_one_per_run=True), DropRuns(["r1"])):
        assert remembered(policy, 9_999) - remembered(policy, 100) < 50


@given(trees(), st.sets(st.sampled_from(["r1", "r2"])))
def test_dropping_runs_drops_their_checkpoints_and_no_others(nodes: list[Node], runs: set[str]) -> None:
    assert shown_to(DropRuns(runs), nodes) == {n for n, node in enumerate(nodes) if node.run not in runs}


@given(trees(), st.integers(1, 6))
def test_keeping_the_last_keeps_so_many_whatever_waits(nodes: list[Node], count: int) -> None:
    assert shown_to(KeepLast(count), nodes) == set(range(len(nodes))[-count:])


def test_a_child_with_a_smaller_id_than_its_parent_makes_nothing_go_that_waits() -> None:
    late, parent, newest = (
        Node(1, None, False, None, False),
        Node(None, None, False, None, True),
        Node(1, None, False, None, False),
    )
    assert shown_to(Retention(keep_last=1), [late, replace(parent, parent=None), newest]) == {2}
    assert shown_to(Retention(keep_last=1), [late, parent, replace(newest, parent=None)]) == {1, 2}


def test_a_checkpoint_is_as_old_as_it_says_whatever_stands_around_it() -> None:
    """Ids that tell no time need not be in the order in which they were made."""
    nodes = [Node(n - 1 if n else None, None, False, age, False) for n, age in enumerate([200, 5, 200, 5])]
    assert shown_to(Retention(keep_newer_than=timedelta(seconds=100)), nodes) == {1, 3}


# -- subgraphs ---------------------------------------------------------------------------------------------------------


def beneath(policy: Policy, namespace: str, above: dict[str, Kept]) -> Selection:
    return policy.selection(Circumstances(NOW, namespace, above))


def child(checkpoint_id: str, **parents: str) -> Summary:
    labels = {PARENTS + ("" if name == "root" else name): id_ for name, id_ in parents.items()}
    return Summary(checkpoint_id, None, labels, None, lambda: False)


def root(*kept: str, dropped: tuple[str, ...] = (), settled: str = "") -> dict[str, Kept]:
    held = {*kept, *dropped}
    return {"": Kept(set(kept), settled, held.__contains__)}


def test_the_stream_of_a_task_goes_with_the_checkpoint_it_belongs_to() -> None:
    for policy in (KeepLast(2), Retention(keep_last=2)):
        going = beneath(policy, "tools:1", root("50", dropped=("10",)))
        assert not any(going.keeps(child(id_, root="10")) for id_ in ("13", "12", "11"))
        staying = beneath(policy, "tools:2", root("50", dropped=("10",)))
        assert [staying.keeps(child(id_, root="50")) for id_ in ("54", "53", "52", "51")] == [True, True, False, False]


def test_under_each_checkpoint_that_stays_the_newest_of_the_subgraph_stays() -> None:
    selection = beneath(KeepLast(1), "tools:1", root("10", "20"))
    ids = [("22", "20"), ("21", "20"), ("12", "10"), ("11", "10")]
    assert [selection.keeps(child(id_, root=parent)) for id_, parent in ids] == [True, False, True, False]


def test_what_may_still_get_its_parent_stays() -> None:
    above = root("50", dropped=("40",), settled="30")
    for parent, stays in (("60", True), ("45", True), ("40", False), ("30", False), ("20", False)):
        assert beneath(KeepLast(1), "tools:1", above).keeps(child("70", root=parent)) == stays


def test_a_subgraph_with_memory_keeps_its_latest_and_what_replays_of_its_parents_begin_with() -> None:
    above = root("40", "70", dropped=("10", "20", "30", "50", "60"))
    shown = [("62", "60"), ("61", "60"), ("51", "50"), ("41", "40"), ("32", "30"), ("31", "30"), ("21", "20")]
    for namespace, stays in (("agent", {"62", "41", "32"}), ("agent:1", {"41"})):
        selection = beneath(KeepLast(1), namespace, above)
        kept = {id_ for id_, parent in shown if selection.keeps(child(id_, root=parent))}
        assert kept == stays
    selection = beneath(KeepLast(1), "agent", above)
    done = []
    for id_, parent in shown:
        selection.keeps(child(id_, root=parent))
        done.append(selection.done)
    assert done == [False, False, False, False, True, True, True]


def test_a_nested_subgraph_goes_with_any_graph_around_it() -> None:
    above = {**root("50"), "a:1": Kept({"52"}, "", {"51", "52"}.__contains__)}
    for parents, stays in (
        ({"root": "50", "a:1": "52"}, True),
        ({"root": "50", "a:1": "51"}, False),
        ({"root": "40", "a:1": "52"}, True),  # the root's 40 is not there; it may come
    ):
        assert beneath(KeepLast(1), "a:1|b:2", above).keeps(child("60", **parents)) == stays


def test_a_second_subgraph_of_one_task_is_a_tasks_too() -> None:
    for namespace, stays in (("a:1|1", False), ("a:1", False), ("a", True), ("a|b", True), ("a|b:7", False)):
        selection = beneath(KeepLast(1), namespace, root("50", dropped=("10",)))
        assert selection.keeps(child("11", root="10")) == stays


def test_a_subgraph_that_names_no_parent_is_treated_like_a_root() -> None:
    selection = beneath(KeepLast(2), "tools:1", root("50"))
    assert [selection.keeps(child(id_)) for id_ in ("13", "12", "11")] == [True, True, False]
