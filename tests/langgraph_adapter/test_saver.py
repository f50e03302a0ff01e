"""What is put comes back, through every way of asking; what cannot be stored says why."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from building import chain, checkpoint, config, id_of, ids, put
from counting import CountingStore
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED
from langgraph.types import Send

from foldpoint import Engine, FoldpointSaver, Keyring, Settings, open_store
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import StoreUnavailable


@dataclasses.dataclass
class Point:
    x: int
    y: list[str]


ODD_NAMES = [
    "",
    " ",
    "a/b|c:d,e\x1f",
    "\u2028\u0000\ufeff",
    "\U0001f600" * 20,
    "\ud800 lone",
    "x" * 5000,
    "'; DROP TABLE log",
]
VALUES: dict[str, Any] = {
    "none": None,
    "bytes": b"\x00\xff" * 10,
    "bytearray": bytearray(b"abc"),
    "text": "\u00e9\u0000\U0001f600",
    "numbers": [0, -1, 2**63 - 1, 1.5, float("inf"), True],
    "empty": [[], {}, "", set()],
    "set": {1, 2, 3},
    "nested": {"a": {"b": [{"c": None}]}},
    "uuid": uuid.UUID(int=5),
    "time": datetime(2026, 1, 1, tzinfo=UTC),
    "messages": [
        HumanMessage("hi", id="1"),
        AIMessage("", id="2", tool_calls=[{"name": "f", "args": {"x": [1]}, "id": "c"}]),
        ToolMessage("done", tool_call_id="c", id="3", artifact={"k": 1}),
    ],
    "send": [Send("node", {"messages": ["x" * 100]})],
}


def test_any_value_comes_back_equal(saver: FoldpointSaver) -> None:
    where = put(saver, None, VALUES)
    for asked in (where, config()):
        found = saver.get_tuple(asked)
        assert found is not None
        assert found.checkpoint["channel_values"] == VALUES
        assert {name: type(value) for name, value in found.checkpoint["channel_values"].items()} == {
            name: type(value) for name, value in VALUES.items()
        }


@pytest.mark.filterwarnings("ignore")
def test_classes_of_the_user_come_back(saver: FoldpointSaver) -> None:
    put(saver, None, {"point": Point(1, ["a"])})
    found = saver.with_allowlist([(Point.__module__, "Point")]).get_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"]["point"] == Point(1, ["a"])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_thread_ids_namespaces_and_channels_may_be_any_text(saver: FoldpointSaver, name: str) -> None:
    where = put(saver, None, {f"{name}": 1, f"{name}|": 2}, thread=f"t{name}", namespace=name, step=3)
    saver.put_writes(where, [(name, "w")], name, name)
    found = saver.get_tuple(config(f"t{name}", name))
    assert found is not None
    assert found.checkpoint["channel_values"] == {name: 1, f"{name}|": 2}
    assert found.pending_writes == [(name, name, "w")]
    assert ids(saver, config(f"t{name}", None)) == [id_of(where)]
    assert saver.get_tuple(config(f"t{name}", name + "x")) is None


@pytest.mark.parametrize("thread", [7, uuid.UUID(int=7)])
def test_thread_ids_need_not_be_text(saver: FoldpointSaver, thread: object) -> None:
    where = put(saver, None, {"a": 1}, thread=thread)
    assert where["configurable"]["thread_id"] == thread
    found = saver.get_tuple(config(thread))
    assert found is not None
    assert found.config["configurable"]["thread_id"] == thread


def test_ten_thousand_channels_and_64_mb_in_one_channel(saver: FoldpointSaver) -> None:
    many = {f"channel {number}": number for number in range(10_000)}
    first = put(saver, None, many, thread="many")
    put(saver, first, {**many, "channel 5": "changed"}, step=1)
    large = os.urandom(1 << 20) * 64
    put(saver, put(saver, None, {"large": large}, thread="large"), {"large": large + b"!"}, step=1)
    for thread, expected in (("many", {**many, "channel 5": "changed"}), ("large", {"large": large + b"!"})):
        found = saver.get_tuple(config(thread))
        assert found is not None
        assert found.checkpoint["channel_values"] == expected


def test_header_and_metadata_come_back(saver: FoldpointSaver) -> None:
    made = checkpoint({"a": 1}, versions={"a": 3, "gone": 2})
    made["versions_seen"] = {"node": {"a": 2}, "other": {}}
    made["updated_channels"] = ["a"]
    made["pending_sends"] = [1]  # type: ignore[typeddict-unknown-key]
    metadata: Any = {"source": "loop", "step": -1, "parents": {"": "x"}, "score": 0.5, "ok": True, "nothing": None}
    where = saver.put(config(), made, metadata, {"a": 3})
    found = saver.get_tuple(where)
    assert found is not None
    assert found.checkpoint == made
    assert found.metadata == metadata
    assert found.metadata["ok"] is True  # type: ignore[typeddict-item]
    assert found.parent_config is None


def test_metadata_of_the_config_is_added(saver: FoldpointSaver) -> None:
    where: Any = config()
    where["metadata"] = {"user": "u", "__hidden": 1}
    saver.put(where, checkpoint(), {"source": "input", "step": 0}, {})
    assert [found.metadata for found in saver.list(config())] == [{"source": "input", "step": 0, "user": "u"}]


def test_latest_is_the_greatest_id_in_whatever_order_they_arrive(saver: FoldpointSaver) -> None:
    made = [checkpoint({"n": n}, n) for n in range(5)]
    for at in (3, 4, 0, 2, 1):
        saver.put(config(), made[at], {}, {})
    found = saver.get_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": 4}
    assert ids(saver, config()) == [one["id"] for one in reversed(made)]


def test_what_is_not_there_is_none(saver: FoldpointSaver) -> None:
    put(saver, None, {})
    assert saver.get_tuple(config("unknown")) is None
    assert saver.get_tuple(config("thread", "unknown")) is None
    assert saver.get_tuple(config("thread", "", str(uuid6()))) is None
    assert saver.get_tuple(config("thread", "", "")) is not None
    assert list(saver.list(config("unknown"))) == []


def test_a_second_put_of_one_id_wins_and_children_of_the_first_stay(saver: FoldpointSaver) -> None:
    first = checkpoint({"list": [1, 2, 3], "b": 1})
    where = saver.put(config(), first, {}, {})
    child = put(saver, where, {"list": [1, 2, 3, 4], "b": 1}, step=1)
    saver.put(config(), {**first, "channel_values": {"list": ["other"]}}, {}, {})
    again, kept = saver.get_tuple(where), saver.get_tuple(child)
    assert again is not None
    assert again.checkpoint["channel_values"] == {"list": ["other"]}
    assert kept is not None
    assert kept.checkpoint["channel_values"] == {"list": [1, 2, 3, 4], "b": 1}


def test_a_message_changed_in_place_is_stored_by_the_next_put_and_not_before(saver: FoldpointSaver) -> None:
    messages = [HumanMessage("one", id="1"), AIMessage("two", id="2", additional_kwargs={"k": [1]})]
    first = put(saver, None, {"messages": messages})
    messages[1].additional_kwargs["k"].append(2)
    second = put(saver, first, {"messages": messages}, step=1)
    before, after = saver.get_tuple(first), saver.get_tuple(second)
    assert before is not None
    assert before.checkpoint["channel_values"]["messages"][1].additional_kwargs == {"k": [1]}
    assert after is not None
    assert after.checkpoint["channel_values"]["messages"][1].additional_kwargs == {"k": [1, 2]}


# -- pending writes ----------------------------------------------------------------------------------------------------


def test_writes_are_ordered_by_path_task_and_position(saver: FoldpointSaver) -> None:
    where = put(saver, None, {})
    saver.put_writes(where, [("b", 1), ("a", 2)], "task-2", "~1")
    saver.put_writes(where, [("c", 3)], "task-1", "~2")
    saver.put_writes(where, [("d", 4)], "task-3")
    found = saver.get_tuple(where)
    assert found is not None
    assert found.pending_writes == [("task-3", "d", 4), ("task-2", "b", 1), ("task-2", "a", 2), ("task-1", "c", 3)]


def test_a_write_that_is_there_stays_and_a_special_one_is_replaced(saver: FoldpointSaver) -> None:
    where = put(saver, None, {})
    for value in ("first", "second"):
        saver.put_writes(where, [("a", value), ("b", value)], "task")
        for channel in (ERROR, INTERRUPT, RESUME, SCHEDULED):
            saver.put_writes(where, [(channel, value)], "task")
    found = saver.get_tuple(where)
    assert found is not None
    assert found.pending_writes is not None
    assert {channel: value for _, channel, value in found.pending_writes} == {
        "a": "first",
        "b": "first",
        **dict.fromkeys((ERROR, INTERRUPT, RESUME, SCHEDULED), "second"),
    }
    assert len(found.pending_writes) == 6


def test_writes_may_come_before_their_checkpoint(saver: FoldpointSaver) -> None:
    made = checkpoint({"a": 1})
    saver.put_writes(config("thread", "", made["id"]), [("a", "early")], "task")
    assert saver.get_tuple(config()) is None
    saver.put(config(), made, {}, {})
    found = saver.get_tuple(config())
    assert found is not None
    assert found.pending_writes == [("task", "a", "early")]


def test_writes_to_an_old_checkpoint_are_its_own(make_saver: Callable[..., FoldpointSaver]) -> None:
    saver = make_saver(window=4)
    line = chain(saver, 40)
    saver.put_writes(line[2], [("a", "late")], "task")
    chain(saver, 10, thread="other")
    found = saver.get_tuple(line[2])
    assert found is not None
    assert found.pending_writes == [("task", "a", "late")]
    assert [one.pending_writes for one in saver.list(config()) if one.pending_writes] == [[("task", "a", "late")]]


# -- versions ----------------------------------------------------------------------------------------------------------


def test_versions_are_integers(saver: FoldpointSaver) -> None:
    assert saver.get_next_version(None, None) == 1
    assert saver.get_next_version(1, None) == 2
    assert saver.get_next_version(1.0, None) == 2.0


def test_the_string_versions_of_another_saver_are_continued(saver: FoldpointSaver) -> None:
    current = "00000000000000000000000000000009.0.8417"
    following = saver.get_next_version(current, None)
    assert following == "00000000000000000000000000000010.0.8417"
    assert following > current
    where = saver.put(config(), checkpoint({"a": 1}, versions={"a": following}), {}, {"a": following})
    found = saver.get_tuple(where)
    assert found is not None
    assert found.checkpoint["channel_versions"] == {"a": following}


# -- list --------------------------------------------------------------------------------------------------------------


def test_list_filters_on_any_metadata_key(saver: FoldpointSaver) -> None:
    a = put(saver, None, {}, step=1, tag="x", nested={"k": [1]})
    b = put(saver, a, {}, step=2, tag="x")
    assert ids(saver, config(), filter={"tag": "x"}) == [id_of(b), id_of(a)]
    assert ids(saver, config(), filter={"tag": "x", "step": 1}) == [id_of(a)]
    assert ids(saver, config(), filter={"nested": {"k": [1]}}) == [id_of(a)]
    assert ids(saver, config(), filter={"nested": None}) == [id_of(b)]
    assert ids(saver, config(), filter={"missing": 1}) == []


def test_list_has_before_and_limit(saver: FoldpointSaver) -> None:
    line = [id_of(where) for where in chain(saver, 6)]
    assert ids(saver, config(), limit=0) == []
    assert ids(saver, config(), limit=2) == line[:3:-1]
    assert ids(saver, config(), before=config("thread", "", line[3])) == line[2::-1]
    assert ids(saver, config(), before=config("thread", "", line[3]), limit=1) == [line[2]]
    assert ids(saver, config("thread", "", line[2])) == [line[2]]


def test_the_namespace_is_applied_before_the_limit(saver: FoldpointSaver) -> None:
    root = put(saver, None, {})
    child = put(saver, None, {}, namespace="child", step=1)
    newest = put(saver, None, {}, namespace="child", step=2)
    assert ids(saver, config("thread", ""), limit=1) == [id_of(root)]
    assert ids(saver, config("thread", None)) == [id_of(newest), id_of(child), id_of(root)]


def test_list_of_everything_has_all_threads(saver: FoldpointSaver) -> None:
    made = {id_of(where) for thread in ("a", "b", "c") for where in chain(saver, 3, thread=thread)}
    assert set(ids(saver, None)) == made
    assert len(ids(saver, None, limit=4)) == 4
    assert len(ids(saver, None, filter={"step": 1})) == 3


def test_listing_one_of_a_long_thread_reads_a_bounded_number_of_records() -> None:
    store = CountingStore(MemoryStore())
    with FoldpointSaver(Engine(store, Settings(window=16))) as saver:
        line = chain(saver, 1500)
    with FoldpointSaver(Engine(store, Settings(window=16))) as reader:
        store.reset()
        assert ids(reader, config(), limit=1) == [id_of(line[-1])]
        assert store.round_trips <= 2


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{}, {"configurable": {}}, {"configurable": {"checkpoint_ns": ""}}])
def test_a_missing_thread_id_is_named(saver: FoldpointSaver, bad: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: saver.put(bad, checkpoint(), {}, {}),
        lambda: saver.put_writes(bad, [("a", 1)], "task"),
        lambda: saver.get_tuple(bad),
        lambda: list(saver.list(bad)),
        lambda: saver.get_delta_channel_history(config=bad, channels=["a"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="thread_id"):
            call()


def test_writes_without_a_checkpoint_id_are_refused(saver: FoldpointSaver) -> None:
    with pytest.raises(ValueError, match="checkpoint_id"):
        saver.put_writes(config(), [("a", 1)], "task")


def test_an_id_that_is_no_text_is_refused(saver: FoldpointSaver) -> None:
    given = config("thread", checkpoint_id=5)  # type: ignore[arg-type]
    calls: list[Callable[[], object]] = [
        lambda: saver.put(given, checkpoint(), {}, {}),
        lambda: saver.put_writes(given, [("a", 1)], "task"),
        lambda: saver.get_tuple(given),
        lambda: list(saver.list(given)),
        lambda: list(saver.list(config(), before=given)),
        lambda: saver.get_delta_channel_history(config=given, channels=["a"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"checkpoint_id.*expected a text, got 5"):
            call()
    with pytest.raises(ValueError, match="task_id, task_path: expected texts, got None"):
        saver.put_writes(config(checkpoint_id="1"), [("a", 1)], None)  # type: ignore[arg-type]


def test_no_thread_is_not_taken_for_one_with_that_name(saver: FoldpointSaver) -> None:
    put(saver, None, {"a": 1}, thread="None")
    for call in (
        lambda: saver.delete_thread(None),  # type: ignore[arg-type]
        lambda: saver.prune([None], strategy="delete"),  # type: ignore[list-item]
        lambda: saver.copy_thread("None", None),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="expected a thread's id, got None"):
            call()
    assert len(ids(saver, config("None"))) == 1


def test_a_url_is_no_engine_and_a_serializer_no_cipher() -> None:
    with pytest.raises(ValueError, match=r"give Engine\(foldpoint\.open_store\(url\)\)"):
        Engine("memory:")  # type: ignore[arg-type]
    assert Engine(open_store("memory:")).latest("t", "") is None
    with pytest.raises(ValueError, match=r"such as the \.cipher of a serializer, got JsonPlusSerializer"):
        Keyring(JsonPlusSerializer())  # type: ignore[arg-type]


def test_an_unknown_strategy_and_a_senseless_count_are_refused(saver: FoldpointSaver) -> None:
    with pytest.raises(ValueError, match="keep_latest"):
        saver.prune(["thread"], strategy="keep_everything")
    with pytest.raises(ValueError, match="at least 1"):
        saver.prune(["thread"], keep_last=0)


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:", "redis://host", "aerospike://host"],
)
def test_a_malformed_url_says_what_was_expected(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        FoldpointSaver.from_conn_string(url)


@pytest.mark.parametrize("setting", [{"window": 0}, {"grace": -1}, {"compression_level": 99}, {"unknown": 1}])
def test_a_wrong_setting_names_itself(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        FoldpointSaver.from_conn_string("memory:", **setting)


def test_a_value_that_cannot_be_serialized_stores_nothing(saver: FoldpointSaver) -> None:
    good = put(saver, None, {"a": 1})
    with pytest.raises(TypeError):
        put(saver, good, {"a": 2, "bad": object.__new__(type("Bad", (), {"__reduce__": None}))}, step=1)
    with pytest.raises(TypeError):
        saver.put_writes(good, [("a", 1), ("b", lambda: None)], "task")
    found = saver.get_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": 1}
    assert found.pending_writes == []
    assert ids(saver, config()) == [id_of(good)]


@pytest.mark.parametrize(
    ("what", "odd"),
    [
        ("channels", {"channel_values": {"a": 1, 5: 2}}),
        ("channel_versions", {"channel_versions": {"a": 2, 5: 2}}),
        ("versions_seen", {"versions_seen": {5: {"a": 1}}}),
        ("versions_seen", {"versions_seen": {"n": {5: 1}}}),
        ("updated_channels", {"updated_channels": [5]}),
    ],
)
def test_a_name_that_is_no_text_stores_nothing(saver: FoldpointSaver, what: str, odd: dict[str, Any]) -> None:
    """It would be read back as a position, and nothing that follows could be read."""
    good = put(saver, None, {"a": 1})
    with pytest.raises(ValueError, match=f"{what}: names are strings, got 5"):
        saver.put(good, {**checkpoint({"a": 1}, step=1), **odd}, {}, {"a": 2})
    with pytest.raises(ValueError, match="metadata: names are strings, got 5"):
        saver.put(good, checkpoint({"a": 1}, step=1), {5: 1}, {"a": 2})  # type: ignore[misc]
    with pytest.raises(ValueError, match="writes: names are strings, got 5"):
        saver.put_writes(good, [(5, 1)], "task")  # type: ignore[list-item]
    assert ids(saver, config()) == [id_of(good)]


def test_a_file_that_cannot_be_opened_says_so(tmp_path: Any) -> None:
    (tmp_path / "text.db").write_text("this is no database, but it is long enough to have a header " * 100)
    for url in (f"sqlite:///{tmp_path}/missing/folder.db", f"sqlite:///{tmp_path}/text.db", f"sqlite:///{tmp_path}"):
        with pytest.raises(StoreUnavailable, match=str(tmp_path)):
            FoldpointSaver.from_conn_string(url)
