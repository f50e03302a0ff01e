"""Checkpoints that are unusual, and what a reader gets of them; `test_saver.py` has the usual ones."""

from __future__ import annotations

import enum
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from building import chain, checkpoint, config, id_of, ids, put
from counting import CountingStore
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel
from typing_extensions import TypedDict

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import compact
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import StoreBusy


class Name(str, enum.Enum):
    """Many name their nodes and channels like this."""

    ALPHA = "alpha"
    BETA = "beta"


class Person(BaseModel):
    name: str
    tags: set[str] = set()


def values(saver: FoldpointSaver, where: Any = None) -> Any:
    found = saver.get_tuple(where or config())
    return found and found.checkpoint["channel_values"]


# -- names and headers -------------------------------------------------------------------------------------------------


def test_names_may_be_subclasses_of_str(make_saver: Callable[..., FoldpointSaver]) -> None:
    made = checkpoint({Name.ALPHA: 1})
    made["versions_seen"] = {Name.BETA: {Name.ALPHA: 1}}
    made["updated_channels"] = [Name.ALPHA]
    where = make_saver().put(config(), made, {"source": "loop", Name.ALPHA: Name.BETA}, {})  # type: ignore[typeddict-unknown-key]
    make_saver().put_writes(where, [(Name.ALPHA, 2)], "task")
    found = make_saver().get_tuple(where)
    assert found is not None
    assert found.checkpoint == made
    assert found.metadata == {"source": "loop", "alpha": Name.BETA}
    assert found.pending_writes == [("task", "alpha", 2)]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("channel_values", {1: "a"}),
        ("channel_versions", {1: 1}),
        ("versions_seen", {1: {}}),
        ("versions_seen", {"node": {1: 1}}),
        ("updated_channels", [1]),
    ],
)
def test_a_name_that_is_no_string_is_refused_and_does_no_harm(saver: FoldpointSaver, field: str, bad: Any) -> None:
    good = put(saver, None, {"a": 1})
    made: Any = {**checkpoint({"a": 2}, step=1), field: bad}
    with pytest.raises(ValueError, match="strings"):
        saver.put(good, made, {}, {})
    assert ids(saver, config()) == [id_of(good)]


def test_metadata_and_writes_of_names_that_are_no_strings_are_refused(saver: FoldpointSaver) -> None:
    good = put(saver, None, {"a": 1})
    metadata: Any = {1: "x"}
    with pytest.raises(ValueError, match="metadata"):
        saver.put(good, checkpoint({"a": 2}, step=1), metadata, {})
    with pytest.raises(ValueError, match="writes"):
        saver.put_writes(good, [("a", 1), (2, 3)], "task")  # type: ignore[list-item]
    found = saver.get_tuple(config())
    assert found is not None
    assert (found.config, found.pending_writes) == (good, [])


def test_checkpoint_ids_may_be_any_text_and_are_ordered_as_text(make_saver: Callable[..., FoldpointSaver]) -> None:
    names = ["b", "a", "B", "10", "9", "\u00e9", "ab\ud800", "1EF4F797-8335-6428-8001-8A1503F9B875", "\U0001f600"]
    saver = make_saver(window=4)
    for name in names:
        saver.put(config(), {**checkpoint({"name": name}), "id": name}, {}, {})
    assert ids(make_saver(), config()) == sorted(names, reverse=True)
    assert ids(make_saver(), config(), before=config("thread", "", "a")) == sorted(names, reverse=True)[-4:]
    for name in names:
        saver.put_writes(config("thread", "", name), [("w", names.index(name))], "task")
        found = saver.get_tuple(config("thread", "", name))
        assert found is not None
        assert found.pending_writes == [("task", "w", names.index(name))]


@pytest.mark.parametrize(
    "versions",
    [{"a": 1.5, "b": 2.0, "c": -1}, {"a": 2**63, "b": 1, "c": "x"}, {"a": "1.x", "": ""}, {"a": True}],
    ids=str,
)
def test_versions_of_any_scalar_type_come_back_with_it(saver: FoldpointSaver, versions: dict[str, Any]) -> None:
    first = saver.put(config(), checkpoint({"a": 1}, 0, versions), {}, {})
    saver.put(first, checkpoint({"a": 1}, 1, {**versions, "more": 1}), {}, {})
    read = [found.checkpoint["channel_versions"] for found in saver.list(config())]
    assert read == [{**versions, "more": 1}, versions]
    assert [type(version) for version in read[1].values()] == [type(version) for version in versions.values()]


def test_a_returned_checkpoint_may_be_changed_without_changing_what_is_stored(saver: FoldpointSaver) -> None:
    where = put(saver, None, {"list": [1, {"a": []}]}, note={"k": [1]})
    for asked in (where, config()):
        found: Any = saver.get_tuple(asked)
        found.checkpoint["channel_values"]["list"][1]["a"].append("changed")
        found.checkpoint["channel_versions"]["list"] = 99
        found.checkpoint["versions_seen"]["node"] = {}
        found.metadata["note"]["k"].append(2)
        again: Any = saver.get_tuple(asked)
        assert again.checkpoint["channel_values"] == {"list": [1, {"a": []}]}
        assert again.checkpoint["channel_versions"] == {"list": 1}
        assert again.checkpoint["versions_seen"] == {}
        assert again.metadata["note"] == {"k": [1]}


@pytest.mark.filterwarnings("ignore")
def test_pydantic_models_and_mutated_containers_come_back(saver: FoldpointSaver) -> None:
    person, shared = Person(name="Ada", tags={"x", "y"}), {"list": [HumanMessage("hi", id="1")]}
    reader = saver.with_allowlist([(Person.__module__, "Person")])
    first = put(saver, None, {"person": person, "one": shared, "two": shared})
    shared["list"].append(HumanMessage("again", id="2"))
    person.name = "Grace"
    second = put(saver, first, {"person": person, "one": shared, "two": shared}, step=1)
    before, after = values(reader, first), values(reader, second)
    assert (before["person"].name, len(before["one"]["list"])) == ("Ada", 1)
    assert after == {"person": person, "one": shared, "two": shared}


# -- large things ------------------------------------------------------------------------------------------------------


PARENTS: list[Any] = [
    {},
    {"": "1f0"},
    {"": "1f0", "tools:7|a": "1f1"},
    {"": 1},
    {1: "1f0"},
    {"": None},
    [],
    "1f0",
]


@pytest.mark.parametrize("parents", PARENTS, ids=repr)
def test_parents_come_back_whatever_they_are(saver: FoldpointSaver, parents: Any) -> None:
    metadata = {"parents": parents, "parents:": "not LangGraph's", "parents:x": 1}
    put(saver, put(saver), step=1, **metadata)
    found = saver.get_tuple(config())
    assert found is not None
    assert {key: found.metadata[key] for key in metadata} == metadata  # type: ignore[literal-required]
    for key, value in metadata.items():
        assert len(ids(saver, config(), filter={key: value})) == 1
    assert ids(saver, config(), filter={"parents:": "1f0"}) == []


def test_large_metadata_and_large_writes_come_back(saver: FoldpointSaver) -> None:
    text = "".join(chr(32 + (n * 7919) % 90) for n in range(3_000_000))
    where = put(saver, None, {"a": 1}, note=text, notes=[text])
    saver.put_writes(where, [("a", text), ("b", [text, text])], "task")
    saver.put_writes(where, [(f"channel {n}", n) for n in range(5000)], "task-of-many")
    found = saver.get_tuple(config())
    assert found is not None
    assert found.metadata["note"] == text  # type: ignore[typeddict-item]
    assert found.metadata["notes"] == [text]  # type: ignore[typeddict-item]
    assert found.pending_writes is not None
    assert found.pending_writes[:2] == [("task", "a", text), ("task", "b", [text, text])]
    assert [value for _, _, value in found.pending_writes[2:]] == list(range(5000))


def test_a_saver_that_may_remember_nothing_works() -> None:
    store = MemoryStore()
    with FoldpointSaver(Engine(store, Settings(cache_bytes=0, window=4))) as saver:
        lines = {thread: chain(saver, 12, thread=thread) for thread in ("a", "b", "c")}
        for thread, line in lines.items():
            where = put(saver, line[-1], {"n": "last"}, step=20, thread=thread)
            saver.put_writes(where, [("n", 1)], "task")
            assert ids(saver, config(thread)) == [id_of(where), *map(id_of, reversed(line))]


# -- memory ------------------------------------------------------------------------------------------------------------


@contextmanager
def taking_at_most(size: int) -> Iterator[None]:
    """Bytes, at any moment, beyond what was held before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


MEGABYTE = 1 << 20


def test_a_put_takes_memory_for_what_changed_and_for_one_value_more() -> None:
    with FoldpointSaver(Engine(MemoryStore(), Settings(compaction="off"))) as saver:
        state: dict[str, Any] = {f"file {n}": [f"{n}" * MEGABYTE] for n in range(8)}
        where = put(saver, None, state)
        where = put(saver, where, state)
        with taking_at_most(4 * MEGABYTE):
            where = put(saver, where, {**state, "n": 1})
        with taking_at_most(4 * MEGABYTE):
            saver.put_writes(where, [("result", state["file 3"])], "task")


def test_a_state_is_sealed_and_held_without_copies_of_it() -> None:
    engine = Engine(MemoryStore(), Settings(compaction="off", snapshot_ratio=0.01))
    with FoldpointSaver(engine) as saver:
        state: dict[str, Any] = {f"file {n}": [f"{n}" * MEGABYTE] for n in range(8)}
        where = put(saver, None, state)
        for snapshots in (0, 1, 2):
            for n in range(9):
                where = put(saver, where, {**state, "n": n})
            with taking_at_most((5 if snapshots else 10) * MEGABYTE), engine.log("thread", "") as log:
                assert log.seal()
                assert log.view is not None
                assert log.view.head.snapshots == snapshots + 1
        where = put(saver, where, {**state, "n": 9})
        with engine.log("thread", "") as log:
            assert log.view is not None
            assert log.view.slice.memory < 9 * MEGABYTE
        assert values(saver) == {**state, "n": 9}


def test_small_threads_are_held_within_the_bytes_of_the_cache_too() -> None:
    saver = FoldpointSaver(Engine(MemoryStore(), Settings(cache_bytes=MEGABYTE)), compaction="off")
    for n in range(1000):
        chain(saver, 3, thread=f"thread {n}")
    held = [log.view.slice for log in saver.engine._logs.values() if log.view]
    assert 50 < len(held) < 200  # 7 KB each
    assert saver.engine._held == sum(slice_.memory for slice_ in held) <= MEGABYTE


def test_what_was_read_is_held_within_the_bytes_of_the_cache() -> None:
    store, threads = MemoryStore(), [f"thread {n}" for n in range(12)]
    with FoldpointSaver(Engine(store, Settings(compaction="off", snapshot_ratio=0.01))) as saver:
        for thread in threads:
            where = None
            for n in range(4):
                where = put(saver, where, {"text": [thread[-1] * MEGABYTE], "n": n}, thread=thread)
                with saver.engine.log(thread, "") as log:
                    assert log.seal()
    assert all(head.snapshot is not None for head in Engine(store).heads())
    engine = Engine(store, Settings(cache_bytes=3 * MEGABYTE))
    with taking_at_most(8 * MEGABYTE):
        for thread in threads:
            entry = engine.latest(thread, "")
            assert entry is not None
            assert len(entry.state()["text"].data) > MEGABYTE


# -- versions of other savers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("current", ["00000000000000000000000000000002.0.24", f"{9:032}.0.5", f"{99:032}"])
def test_the_next_string_version_is_greater_and_of_the_same_form(saver: FoldpointSaver, current: str) -> None:
    following = saver.get_next_version(current, None)
    assert following > current
    assert len(following) == len(current)
    assert following.partition(".")[2] == current.partition(".")[2]


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]
    count: int


def counting_graph(saver: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("count", lambda state: {"count": state.get("count", 0) + 1})
    builder.add_node("say", lambda state: {"messages": [HumanMessage(f"n{state['count']}", id=f"a{state['count']}")]})
    builder.add_edge(START, "count")
    builder.add_edge("count", "say")
    return builder.compile(checkpointer=saver)


def test_a_thread_of_another_saver_goes_on_like_its_twin_there(saver: FoldpointSaver) -> None:
    other = InMemorySaver()
    where = config("thread", None)
    for turn in range(3):
        counting_graph(other).invoke({"messages": [HumanMessage("q", id=f"q{turn}")]}, where)
    for found in reversed(list(other.list(where))):
        saver.put(
            found.parent_config or config(), found.checkpoint, found.metadata, found.checkpoint["channel_versions"]
        )
        for task_id, channel, value in found.pending_writes or ():
            saver.put_writes(found.config, [(channel, value)], task_id)
    for turn in range(3, 6):
        for graph in (counting_graph(other), counting_graph(saver)):
            graph.invoke({"messages": [HumanMessage("q", id=f"q{turn}")]}, where)
    ours, theirs = counting_graph(saver), counting_graph(other)
    assert ours.get_state(where).values == theirs.get_state(where).values
    assert [state.values for state in ours.get_state_history(where)] == [
        state.values for state in theirs.get_state_history(where)
    ]
    latest = saver.get_tuple(where)
    assert latest is not None
    versions = latest.checkpoint["channel_versions"]
    assert all(isinstance(version, str) and len(version.partition(".")[0]) == 32 for version in versions.values())


# -- list --------------------------------------------------------------------------------------------------------------


def test_list_joins_filter_before_and_limit(saver: FoldpointSaver) -> None:
    parent = None
    made = []
    for step in range(20):
        parent = put(saver, parent, {"n": step}, step=step, even=step % 2 == 0)
        made.append(id_of(parent))
    evens = made[::2]
    before = config("thread", "", made[11])
    assert ids(saver, config(), filter={"even": True}, before=before, limit=3) == [evens[5], evens[4], evens[3]]
    assert ids(saver, config(), filter={"even": True}, limit=100) == evens[::-1]
    assert ids(saver, config("thread", "", made[4]), filter={"even": True}) == [made[4]]
    assert ids(saver, config("thread", "", made[5]), filter={"even": True}) == []
    assert ids(saver, config("thread", "", made[4]), before=config("thread", "", made[4])) == []
    assert ids(saver, None, before=config("any", "", made[2])) == made[1::-1]


def test_list_matches_like_the_saver_in_memory(saver: FoldpointSaver) -> None:
    other = InMemorySaver()
    kinds: list[dict[str, Any]] = [
        {"a": 1, "b": "x"},
        {"a": None, "c": {"d": [1, {"e": None}]}},
        {"a": True, "c": {"d": [1]}},
        {"a": 1.0, "l": [1, 2]},
        {"l": [2, 1], "big": 2**63},
        {},
    ]
    for step, metadata in enumerate(kinds):
        made = checkpoint({}, step)
        for target in (saver, other):
            target.put(config(), made, metadata, {})  # type: ignore[arg-type]
    wanted = [dict([pair]) for metadata in kinds for pair in metadata.items()]
    for one in [{}, {"unknown": None}, {"unknown": 1}, {"a": 1, "b": "x"}, {"a": 1, "c": None}, *wanted]:
        assert ids(saver, config(), filter=one) == [id_of(found.config) for found in other.list(config(), filter=one)]


def test_list_reads_only_as_far_as_it_is_consumed() -> None:
    store = CountingStore(MemoryStore())
    with FoldpointSaver(Engine(store, Settings(window=8))) as saver:
        chain(saver, 600)
    with FoldpointSaver(Engine(store, Settings(window=8))) as reader:
        assert list(compact(reader.engine))
        found = reader.list(config())
        store.reset()
        next(found)
        first = store.round_trips
        assert len([*found]) == 599
        assert first <= 2 < store.round_trips
        store.reset()
        assert ids(reader, config("unknown"), limit=1) == []
        assert store.round_trips == 1


def test_list_of_several_namespaces_is_merged_newest_first_and_lazily() -> None:
    store = CountingStore(MemoryStore())
    with FoldpointSaver(Engine(store, Settings(window=8))) as saver:
        made = [id_of(put(saver, None, {"n": n}, step=n, namespace=f"ns{n % 3}")) for n in range(300)]
    with FoldpointSaver(Engine(store, Settings(window=8))) as reader:
        assert ids(reader, config("thread", None)) == made[::-1]
        for where in (config("thread", None), None):
            found = [one.config["configurable"]["checkpoint_ns"] for one in reader.list(where)]
            assert sorted(found) == [f"ns{n // 100}" for n in range(300)]
        store.reset()
        assert ids(reader, config("thread", None), limit=2) == made[:-3:-1]
        assert store.round_trips <= 1 + 3 * 4  # the heads of the thread, and of each stream at most two slices


def test_what_is_put_while_a_list_is_consumed_does_not_disturb_it(saver: FoldpointSaver) -> None:
    line = chain(saver, 200)
    found = saver.list(config())
    read = [id_of(next(found).config)]
    more = [put(saver, line[-1], {"n": -step}, step=200 + step) for step in range(100)]
    saver.prune(["thread"], keep_last=150)
    read += [id_of(one.config) for one in found]
    assert read == [id_of(one) for one in reversed(line)]
    assert len(ids(saver, config())) == 150
    assert ids(saver, config(), limit=1) == [id_of(more[-1])]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"strategy": "everything", "keep_last": 2}, {"strategy": "delete", "keep_last": 2}]
)
def test_a_strategy_that_contradicts_keep_last_is_refused(saver: FoldpointSaver, options: dict[str, Any]) -> None:
    line = chain(saver, 3)
    with pytest.raises(ValueError, match="strategy"):
        saver.prune(["thread"], **options)
    assert len(ids(saver, config())) == len(line)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2"])
def test_a_senseless_count_is_refused(saver: FoldpointSaver, count: Any) -> None:
    with pytest.raises(ValueError, match="keep_last"):
        saver.prune(["thread"], keep_last=count)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:relative.db",
        "sqlite://host/file.db",
        "postgres://host/db",
        "memory",
        "/tmp/file.db",
    ],
)
def test_a_url_that_cannot_be_understood_is_named_with_the_forms_that_can(url: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        FoldpointSaver.from_conn_string(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize(
    "ttl", [5, "10", {"default_ttl": float("inf")}, {"default_ttl": float("nan")}, {"default_ttl": 1e18}]
)
def test_a_lifetime_that_is_none_is_refused(ttl: Any) -> None:
    with pytest.raises(ValueError, match="ttl: "):
        FoldpointSaver(Engine(MemoryStore()), ttl=ttl)


def test_a_serializer_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="dumps_typed and loads_typed"):
        FoldpointSaver(Engine(MemoryStore()), serde=object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda saver: saver.get_tuple(None), "thread_id"),
        (lambda saver: saver.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": 5}}), "checkpoint_ns"),
        (lambda saver: list(saver.list(config(), before={"x": 1})), "before: expected a config"),
        (lambda saver: list(saver.list(config(), limit="3")), "limit: expected"),
        (lambda saver: FoldpointSaver("sqlite:///agents.db"), "from_conn_string"),  # type: ignore[call-overload]
    ],
)
def test_what_is_no_argument_is_refused_by_its_name(
    saver: FoldpointSaver, call: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(saver)


def test_a_negative_limit_is_refused(saver: FoldpointSaver) -> None:
    with pytest.raises(ValueError, match="limit: expected"):
        list(saver.list(config(), limit=-1))


def test_deleting_and_keeping_at_once_is_refused(saver: FoldpointSaver) -> None:
    with pytest.raises(ValueError, match="'delete' keeps nothing"):
        saver.prune(["thread"], strategy="delete", keep_last=2)


@pytest.mark.parametrize("query", ["mode=ro", "busy_timeout=soon", "busy_timeout=5&x=1", "busy_timeout=-1"])
def test_options_that_no_file_has_are_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(ValueError, match="busy_timeout=SECONDS"):
        FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a.db?{query}")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_waits_for_a_lock_as_long_as_its_url_says(tmp_path: Path) -> None:
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a%3Fb.db?busy_timeout=0.2") as saver:
        put(saver)
        with closing(sqlite3.connect(tmp_path / "a?b.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(StoreBusy):
                put(saver)
            assert time.monotonic() - began < 5
