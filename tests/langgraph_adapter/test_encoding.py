"""The encoder gives the bytes that LangGraph's serializer gives, whatever was done to the objects since last time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from drawing import OwnMessage, Shade, Word, change, messages, odd, values
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send
from values import examples

from foldpoint import FoldpointSaver
from foldpoint.codecs.model import Stored
from foldpoint.langgraph_adapter.blocks import BLOCK, Memory
from foldpoint.langgraph_adapter.encoding import Encoder
from foldpoint.langgraph_adapter.frozen import FREEZER, IN_C, IN_PYTHON, Freezer
from foldpoint.langgraph_adapter.known import known_messages, known_send, known_snapshot

SERDE = JsonPlusSerializer()
PLACE = ("thread", "", "messages")
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


FREEZERS = [
    pytest.param(IN_PYTHON, id="python"),
    pytest.param(IN_C, id="c", marks=pytest.mark.skipif(IN_C is None, reason="not compiled here")),
]


def encoder(
    serde: SerializerProtocol = SERDE, memory: int = 1 << 20, fast: bool = True, freezer: Freezer = FREEZER
) -> Encoder:
    return Encoder(serde, Memory(memory, freezer), fast=fast)


def outcome(call: Callable[[], tuple[str, Any]]) -> tuple[str, bytes] | str:
    """The type and the bytes, or the error as text."""
    try:
        type_, data = call()
        return type_, bytes(data)
    except Exception as error:  # noqa: BLE001
        return repr(error)


def serialized(value: Any) -> tuple[str, bytes] | str:
    return outcome(lambda: SERDE.dumps_typed(value))


def same(encoder: Encoder, value: Any, serde: SerializerProtocol = SERDE) -> tuple[str, bytes] | str:
    """Asserts that the encoder gives what the serializer gives, or fails as it fails. Returns it."""
    expected = outcome(lambda: serde.dumps_typed(value))
    assert outcome(lambda: encoder.value(value)) == expected
    assert outcome(lambda: encoder.channel(PLACE, value)) == expected
    return expected


def talk(count: int) -> list[BaseMessage]:
    """A conversation that uses every field."""
    return [
        [
            SystemMessage("be brief", id=f"s{n}", additional_kwargs={"cache": {"ttl": 5}}),
            HumanMessage(["look", {"type": "image", "data": {"url": "u"}}], id=f"h{n}", name="mia"),
            AIMessage(
                "",
                id=f"a{n}",
                tool_calls=[{"name": "f", "args": {"x": {"y": [1, n]}}, "id": "c"}],
                invalid_tool_calls=[{"name": "g", "args": "{", "id": "d", "error": "e", "type": "invalid_tool_call"}],
                usage_metadata={
                    "input_tokens": 1,
                    "output_tokens": 2,
                    "total_tokens": 3,
                    "input_token_details": {"cache_read": 1},
                    "output_token_details": {"reasoning": 1},
                },
                response_metadata={"usage": {"total": 3}, "logprobs": None},
            ),
            ToolMessage([{"type": "text", "text": "t"}], id=f"t{n}", tool_call_id="c", artifact={"rows": [[1, 2.5]]}),
        ][n % 4]
        for n in range(count)
    ]


# -- any value ---------------------------------------------------------------------------------------------------------


def test_everything_that_is_known_here_is_known_with_the_installed_packages() -> None:
    names = [
        "AIMessage",
        "ChatMessage",
        "FunctionMessage",
        "HumanMessage",
        "RemoveMessage",
        "SystemMessage",
        "ToolMessage",
    ]
    assert sorted(cls.__name__ for cls in known_messages()) == names
    assert known_send() is not None
    assert known_snapshot() is not None


@given(values)
@examples(3)
def test_any_value_is_serialized_as_by_langgraph(value: Any) -> None:
    same(encoder(), value)


@given(messages | odd, st.lists(messages, max_size=3))
def test_any_message_changed_to_anything_is_serialized_as_by_langgraph(message: Any, others: list[BaseMessage]) -> None:
    same(encoder(), message)
    same(encoder(), [message, *others])
    same(encoder(), Send("n", {"messages": [*others, message], "n": 1}))


@given(st.data(), messages)
@examples(3)
def test_any_message_that_was_changed_is_serialized_as_by_langgraph(data: st.DataObject, message: BaseMessage) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        change(data.draw, message)
    same(encoder(), message)


# -- a list that grows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freezer", FREEZERS)
@given(data=st.data(), length=st.integers(0, 70), drawn=st.lists(messages, max_size=3))
@examples(2)
def test_a_list_that_is_edited_anyhow_is_always_serialized_as_it_is(
    freezer: Freezer, data: st.DataObject, length: int, drawn: list[BaseMessage]
) -> None:
    listed, used = talk(length), encoder(freezer=freezer)
    for message in drawn:
        listed.insert(data.draw(st.integers(0, len(listed))), message)
    same(used, listed)
    for _ in range(data.draw(st.integers(1, 4))):
        what = data.draw(st.sampled_from(["append", "change", "change", "drop first", "replace", "class", "nothing"]))
        if what == "append" or not listed:
            listed = [*listed, *data.draw(st.lists(messages, min_size=1, max_size=3))]
        elif what == "change":
            change(data.draw, data.draw(st.sampled_from(listed)))
        elif what == "drop first":
            listed = listed[data.draw(st.integers(1, 3)) :]
        elif what == "replace":
            listed[data.draw(st.integers(0, len(listed) - 1))] = data.draw(messages)
        elif what == "class":
            data.draw(st.sampled_from(listed)).__class__ = data.draw(st.sampled_from([HumanMessage, OwnMessage]))
        same(used, listed)


CHANGES: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "content": (0, lambda m: setattr(m, "content", "be long")),
    "content, by an equal str that is none": (0, lambda m: setattr(m, "content", Shade.AI)),
    "a block of the content": (1, lambda m: m.content.append("more")),
    "text in the content": (1, lambda m: m.content.__setitem__(0, "see")),
    "deep in the content": (1, lambda m: m.content[1]["data"].update(url="v")),
    "a key in the content": (1, lambda m: m.content[1].__setitem__("what", m.content[1].pop("data"))),
    "the name": (1, lambda m: setattr(m, "name", "leo")),
    "the id": (1, lambda m: setattr(m, "id", "other")),
    "the type": (1, lambda m: setattr(m, "type", "person")),
    "additional_kwargs": (0, lambda m: m.additional_kwargs.update(more=1)),
    "deep in additional_kwargs": (0, lambda m: m.additional_kwargs["cache"].update(ttl=6)),
    "an int to the equal bool": (0, lambda m: m.additional_kwargs.update(cache=True)),
    "response_metadata": (2, lambda m: m.response_metadata.update(model="m")),
    "deep in response_metadata": (2, lambda m: m.response_metadata["usage"].update(total=3.0)),
    "None to False": (2, lambda m: m.response_metadata.update(logprobs=False)),
    "arguments of a tool call": (2, lambda m: m.tool_calls[0]["args"]["x"]["y"].append(2)),
    "1 to True in arguments": (2, lambda m: m.tool_calls[0]["args"]["x"]["y"].__setitem__(0, True)),
    "1 to 1.0 in arguments": (2, lambda m: m.tool_calls[0]["args"]["x"]["y"].__setitem__(0, 1.0)),
    "a list to a tuple in arguments": (2, lambda m: m.tool_calls[0]["args"].update(x=(1, 2))),
    "the name of an argument": (2, lambda m: m.tool_calls[0]["args"].update(z=m.tool_calls[0]["args"].pop("x"))),
    "the name of a tool": (2, lambda m: m.tool_calls[0].update(name="g")),
    "a tool call's own key": (2, lambda m: m.tool_calls[0].update(index=1)),
    "a further tool call": (2, lambda m: m.tool_calls.append({"name": "h", "args": {}, "id": None})),
    "an invalid tool call": (2, lambda m: m.invalid_tool_calls[0].update(error=None)),
    "usage": (2, lambda m: m.usage_metadata.update(total_tokens=4)),
    "details of usage": (2, lambda m: m.usage_metadata["input_token_details"].update(cache_read=2)),
    "a provider's own count": (2, lambda m: m.usage_metadata["output_token_details"].update(own=2)),
    "no usage": (2, lambda m: setattr(m, "usage_metadata", None)),
    "deep in an artifact": (3, lambda m: m.artifact["rows"][0].append(3)),
    "0.0 to -0.0": (3, lambda m: m.artifact["rows"][0].__setitem__(1, -0.0)),
    "an artifact of another class": (3, lambda m: setattr(m, "artifact", {1, 2})),
    "a status": (3, lambda m: setattr(m, "status", "error")),
    "a status, by a str that is none": (3, lambda m: setattr(m, "status", Shade.SUCCESS)),
    "a tool_call_id": (3, lambda m: setattr(m, "tool_call_id", "d")),
    "an extra field": (1, lambda m: setattr(m, "mood", "good")),
    "a field that is gone": (1, lambda m: m.__dict__.pop("name")),
    "the order of fields": (4, lambda m: m.__dict__.__setitem__("name", m.__dict__.pop("name"))),
    "the class": (1, lambda m: setattr(m, "__class__", OwnMessage)),
    "all fields at once": (1, lambda m: setattr(m, "__dict__", {**m.__dict__, "id": "swapped"}) or m.__init__("new")),
}
"""What is changed, in which message of `talk`, and how."""


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_change_in_place_is_seen_however_deep(what: str, block: int, freezer: Freezer) -> None:
    at, edit = CHANGES[what]
    listed, used = talk(70), encoder(freezer=freezer)
    listed[32 * block + 4] = HumanMessage("without an id")
    before = same(used, listed)
    assert same(used, listed) == before
    edit(listed[32 * block + at])
    assert same(used, listed) != before


def test_a_change_deep_in_an_extra_field_is_seen() -> None:
    listed, used = talk(70), encoder()
    listed[5] = HumanMessage("with more", extra={"deep": [0]})
    before = same(used, listed)
    listed[5].extra["deep"].append(1)  # type: ignore[attr-defined]
    assert same(used, listed) != before


def test_a_message_that_is_changed_back_is_as_it_was() -> None:
    listed, used = talk(64), encoder()
    before = same(used, listed)
    listed[3].content = "for a moment"
    assert same(used, listed) != before
    listed[3].content = [{"type": "text", "text": "t"}]
    assert same(used, listed) == before


def test_what_did_not_change_is_the_same_piece_even_in_other_objects() -> None:
    used, before, after = encoder(), talk(3 * BLOCK + 4), talk(3 * BLOCK + 7)
    first = pieces(used.channel(PLACE, before))
    grown = pieces(used.channel(PLACE, after))
    fresh = pieces(encoder().channel(PLACE, after))
    assert b"".join(grown) == b"".join(fresh) == SERDE.dumps_typed(after)[1]
    assert [old is new for old, new in zip(first, grown, strict=True)] == [False, True, True, True, False]
    assert [old is new for old, new in zip(fresh, grown, strict=True)] == [False] * 5


def test_only_the_block_of_a_changed_message_is_another_piece() -> None:
    used, listed = encoder(), talk(4 * BLOCK)
    before = pieces(used.channel(PLACE, listed))
    listed[BLOCK + 8].content = "changed"
    after = pieces(used.channel(PLACE, listed))
    assert [old is new for old, new in zip(before[1:5], after[1:5], strict=True)] == [True, False, True, True]


def test_messages_that_come_are_packed_and_those_before_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    used, packed, real = encoder(), [], Encoder._packed
    monkeypatch.setattr(Encoder, "_packed", lambda self, messages: packed.append(len(messages)) or real(self, messages))
    for count in (5, 5, 6, BLOCK - 1, BLOCK, BLOCK + 2, 2 * BLOCK + 1, 3):
        same(used, talk(count))
    assert packed == [5, 1, BLOCK - 7, 1, 2, BLOCK - 2, 1, 3]


def pieces(stored: Stored) -> tuple[Any, ...]:
    return stored.data._pieces


def test_places_are_remembered_apart_and_the_oldest_forgotten_first() -> None:
    one, measured = talk(64), Memory(1 << 20)
    Encoder(SERDE, measured).channel(PLACE, one)
    used = encoder(memory=4 * measured.held)
    first = pieces(used.channel(("t", "", "a"), one))
    for name in "bb":
        assert pieces(used.channel(("t", "", name), one))[1] is not first[1]
    assert pieces(used.channel(("t", "", "a"), one))[1] is first[1]
    for name in "cdef":
        used.channel(("t", "", name), one)
    assert pieces(used.channel(("t", "", "a"), one))[1] is not first[1]


@pytest.mark.parametrize("memory", [0, 100])
def test_without_memory_the_bytes_are_the_same(memory: int) -> None:
    used = encoder(memory=memory)
    for count in (31, 32, 33, 100, 64, 0):
        same(used, talk(count))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 64, 65, 65_535, 65_536, 65_537])
def test_lists_of_every_header_are_serialized_as_by_langgraph(count: int) -> None:
    few = talk(8)
    same(encoder(), [few[n % 8] for n in range(count)])


def test_threads_that_share_an_encoder_get_what_is_theirs() -> None:
    used = encoder()

    def work(number: int) -> None:
        listed = talk(40 + number)
        for step in range(30):
            listed.append(HumanMessage(f"{number} {step}"))
            listed[step].content = f"changed by {number} at {step}"
            same(used, listed)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [None] * 8


# -- left to the serializer --------------------------------------------------------------------------------------------


class Upper(JsonPlusSerializer):
    """A user's own serializer."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "upper", repr(obj).upper().encode()


@pytest.mark.parametrize(
    "serde",
    [
        Upper(),
        JsonPlusSerializer(pickle_fallback=True),
        JsonPlusSerializer(allowed_msgpack_modules=None),
        EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16, nonce=b"n" * 16),
    ],
    ids=lambda serde: type(serde).__name__,
)
@pytest.mark.parametrize(
    "value", [talk(70), [talk(3)[2], object], [len, *talk(40)], {"a": talk(2), 1: 2}, Word("a"), b"a", None]
)
def test_any_serializer_may_be_given(serde: SerializerProtocol, value: Any) -> None:
    same(encoder(serde), value, serde)


def test_what_cannot_be_serialized_fails_as_with_langgraph_and_breaks_nothing() -> None:
    used, listed = encoder(), talk(64)
    same(used, listed)
    listed[3].artifact = object()  # type: ignore[attr-defined]
    assert "not msgpack serializable" in str(same(used, listed))
    listed[3].artifact = None  # type: ignore[attr-defined]
    assert isinstance(same(used, listed), tuple)


def test_the_switch_leaves_everything_to_the_serializer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = encoder(fast=False).channel(PLACE, talk(70))
    assert len(pieces(whole)) == 1
    with FoldpointSaver.from_conn_string("memory:", fast_encoding=False, fast_decoding=False) as saver:
        assert not saver._encoder._messages
        assert not saver._decoder._messages
    with FoldpointSaver.from_conn_string("memory:") as saver:
        assert saver._encoder._messages
        assert saver._decoder._messages
