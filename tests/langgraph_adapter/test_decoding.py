"""The decoder gives the objects that LangGraph's serializer gives, and refuses what that refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ormsgpack
import pytest
from drawing import Model, OwnMessage, Record, containers, messages, odd, plain, state, values
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from ormsgpack import Ext
from test_encoding import talk
from values import examples

from foldpoint.codecs.model import Value
from foldpoint.langgraph_adapter.blocks import Memory
from foldpoint.langgraph_adapter.decoding import Decoder
from foldpoint.langgraph_adapter.frozen import FREEZER, IN_PYTHON, Freezer

SERDE = JsonPlusSerializer()
STRICT = JsonPlusSerializer(allowed_msgpack_modules=None)
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


def decoder_of(serde: JsonPlusSerializer, freezer: Freezer = FREEZER) -> Decoder:
    return Decoder(serde, Memory(1 << 20, freezer))


def outcome(load: Callable[[], Any]) -> Any:
    """All that there is of the result, or the error as text."""
    try:
        return state(load())
    except Exception as error:  # noqa: BLE001
        return repr(error)


def same(value: Value, serde: JsonPlusSerializer = SERDE) -> Any:
    """Asserts that the decoder gives what the serializer gives, or fails as it fails. Returns it."""
    expected = outcome(lambda: serde.loads_typed(value))
    for freezer in {FREEZER, IN_PYTHON}:
        decoder = decoder_of(serde, freezer)
        assert outcome(lambda decoder=decoder: decoder.value(value)) == expected  # type: ignore[misc]
    return expected


def stored(value: Any, serde: JsonPlusSerializer = SERDE) -> Value:
    return Value(*serde.dumps_typed(value))


def serializable(value: Any) -> bool:
    try:
        stored(value)
    except TypeError:
        return False
    return True


# -- any value ---------------------------------------------------------------------------------------------------------


@given(values.filter(serializable), st.sampled_from([SERDE, STRICT]))
@examples(3)
def test_any_value_is_what_langgraph_makes_of_it(value: Any, serde: JsonPlusSerializer) -> None:
    same(stored(value), serde)


@given(st.lists(messages.filter(serializable), max_size=4))
@examples(3)
def test_messages_are_equal_in_every_respect_and_serialized_again_to_the_same_bytes(listed: list[BaseMessage]) -> None:
    packed = stored(listed)
    same(packed)
    assert stored(decoder_of(SERDE).value(packed)) == stored(SERDE.loads_typed(packed))


@given(st.data(), messages.filter(serializable))
@examples(5)
def test_whatever_stands_in_a_message_is_read_as_langgraph_reads_it(data: st.DataObject, message: BaseMessage) -> None:
    """Bytes that no serializer wrote: fields of other types, in another order, too few, too many."""
    fields = message.model_dump()
    fields.update({"artifact": data.draw(plain)} if "artifact" in fields else {})
    for _ in range(data.draw(st.integers(1, 3))):
        edit(data.draw, fields)
    cls = data.draw(st.sampled_from([type(message), HumanMessage, AIMessage, ToolMessage]))
    same(raw(cls.__module__, cls.__name__, fields))


def edit(draw: Callable[[st.SearchStrategy[Any]], Any], fields: dict[str, Any]) -> None:
    where = draw(st.sampled_from([fields, *containers_in(fields)]))
    new = draw(plain | st.sampled_from([(), {1: 2}, "5", 5, 1.0, True, Ext(3, b"x")]))
    if isinstance(where, list):
        where.append(new)
    elif where and draw(st.booleans()):
        key = draw(st.sampled_from([*where]))
        kept = where.pop(key)
        if draw(st.booleans()):
            where[key] = draw(st.sampled_from([kept, new]))
    else:
        where[draw(st.sampled_from([*KEYS]) | st.text(max_size=2))] = new


KEYS = (
    "content",
    "id",
    "name",
    "tool_calls",
    "example",
    "content_blocks",
    "index",
    "extras",
    "type",
    "args",
    "cache_read",
)


def containers_in(fields: dict[str, Any]) -> list[Any]:
    found: list[Any] = [fields]
    for one in found:
        inner = one.values() if isinstance(one, dict) else one
        found.extend(value for value in inner if type(value) in (list, dict))
    return found[1:]


def raw(module: str, name: str, fields: Any, code: int = 5, *rest: Any) -> Value:
    """A list of one object as the serializer packs it, of anything."""
    body = ormsgpack.packb(
        [module, name, fields, *(rest or ("model_validate_json",))], option=ormsgpack.OPT_NON_STR_KEYS
    )
    return Value("msgpack", ormsgpack.packb([Ext(code, body)]))


AI, SEND = ("langchain_core.messages.ai", "AIMessage"), ("langgraph.types", "Send")
FIELDS = AIMessage("a").model_dump()
swapped = {"id": "name", "name": "id"}


@pytest.mark.parametrize(
    "value",
    [
        raw(*AI, FIELDS),
        raw(*AI, [*FIELDS]),
        raw(*AI, 5),
        raw(*AI, {}),
        raw(*AI, {**FIELDS, "tool_calls": 5}),
        raw(*AI, {**FIELDS, "additional_kwargs": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}),
        raw(*AI, {**FIELDS, "tool_calls": [{"args": {}, "name": "f", "id": "c", "type": "tool_call"}]}),
        raw(*AI, {**FIELDS, "tool_calls": [{"name": "f", "args": {1: 2}, "id": "c", "type": "tool_call"}]}),
        raw(*AI, {**FIELDS, "usage_metadata": {"total_tokens": 1, "input_tokens": 1, "output_tokens": 1}}),
        raw(*AI, {**FIELDS, "usage_metadata": {"input_tokens": "1", "output_tokens": 1.0, "total_tokens": True}}),
        raw(*AI, {**FIELDS, "id": 5}),
        raw(*AI, {swapped.get(name, name): value for name, value in FIELDS.items()}),
        raw(*AI, {"unknown" if name == "id" else name: value for name, value in FIELDS.items()}),
        raw(*AI, {**FIELDS, "content": ["a", 5]}),
        raw(*AI, {**FIELDS, "content_blocks": [{"type": "text", "text": "b"}]}),
        raw(*AI, {**FIELDS, "self": 1}),
        raw(*AI, FIELDS, 4),
        raw(*AI, FIELDS, 2),
        raw(*AI, FIELDS, 0),
        raw(*AI, FIELDS, 9),
        raw(*AI, FIELDS, 5, "construct", "more"),
        raw(AI[0], "AIMessageChunk", FIELDS),
        raw(AI[0], "json", FIELDS),
        raw("os", "system", FIELDS),
        Value("msgpack", ormsgpack.packb([Ext(1, ormsgpack.packb([*SEND, ["n", 1]]))])),
        Value("msgpack", ormsgpack.packb([Ext(1, ormsgpack.packb([*SEND, ["n"]]))])),
        Value("msgpack", ormsgpack.packb([Ext(1, ormsgpack.packb([*SEND, ["n", 1, None]]))])),
        Value("msgpack", ormsgpack.packb([Ext(1, ormsgpack.packb([*SEND, ["n", Ext(9, b"")]]))])),
        Value("msgpack", ormsgpack.packb([Ext(1, ormsgpack.packb([*SEND, ["n", 1]])[:-1])])),
        Value("msgpack", ormsgpack.packb([Ext(5, ormsgpack.packb([*AI, FIELDS, "m"])[:-1])])),
        Value("msgpack", ormsgpack.packb([Ext(7, ormsgpack.packb([1, Ext(7, b"\xc0")]))])),
        Value("msgpack", ormsgpack.packb([Ext(7, ormsgpack.packb([Ext(9, b"")]))])),
        Value("msgpack", ormsgpack.packb([Ext(7, ormsgpack.packb([1])[:-1])])),
        Value("msgpack", b"\x91"),
        Value("msgpack", b"\x91\xc7\x01\xff\x00"),
        Value("msgpack", b""),
        Value("json", b'{"a": 1}'),
        Value("null", b""),
        Value("bytes", b"a"),
        Value("unknown", b"a"),
    ],
)
@pytest.mark.parametrize("serde", [SERDE, STRICT], ids=["permissive", "strict"])
def test_odd_bytes_are_read_or_refused_as_by_langgraph(value: Value, serde: JsonPlusSerializer) -> None:
    same(value, serde)


# -- built without pydantic, and never shared --------------------------------------------------------------------------


def test_plain_messages_are_built_without_their_constructors(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = stored({"messages": talk(8), "packet": Send("n", [*talk(4)]), "snapshot": _DeltaSnapshot(talk(4))})
    expected = state(SERDE.loads_typed(packed))

    def refuse(self: BaseMessage, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("built by its constructor")

    for cls in {type(message) for message in talk(8)}:
        monkeypatch.setattr(cls, "__init__", refuse)
    assert state(decoder_of(SERDE).value(packed)) == expected


def test_what_is_read_twice_shares_nothing() -> None:
    packed, decoder = stored(talk(8)), decoder_of(SERDE)
    first, second = decoder.value(packed), decoder.value(packed)
    parts = [one for message in first for one in parts_of(message)]
    assert len({*map(id, parts)}) == len(parts)
    assert not {*map(id, parts)} & {id(one) for message in second for one in parts_of(message)}


def parts_of(message: BaseMessage) -> list[Any]:
    return [message, *containers(message), message.__pydantic_fields_set__, message.__pydantic_extra__]


def test_a_message_that_was_read_takes_part_in_everything_that_messages_do() -> None:
    packed = stored(AIMessage("a", id="1"))
    read, expected = decoder_of(SERDE).value(packed), SERDE.loads_typed(packed)
    for message in (read, expected):
        message.mood = "good"
        message.content = "b"
        message.tool_calls.append({"name": "f", "args": {}, "id": "c"})
    assert read == expected
    assert state(read) == state(expected)
    assert state(read.model_copy(deep=True)) == state(expected.model_copy(deep=True))
    assert read.model_dump_json() == expected.model_dump_json()
    assert repr(read) == repr(expected)


# -- what the allowlist refuses ----------------------------------------------------------------------------------------

OWN = [
    OwnMessage("a"),
    Model(text="a"),
    Record("a", HumanMessage("b")),
    Send("n", [Model(), AIMessage("c")]),
    _DeltaSnapshot([Model(), AIMessage("c")]),
    *talk(4),
]
WIDER = STRICT.with_msgpack_allowlist([(Model.__module__, "Model")])


@pytest.mark.parametrize("serde", [SERDE, STRICT, WIDER], ids=["permissive", "strict", "wider"])
def test_the_allowlist_is_asked_as_by_langgraph(serde: JsonPlusSerializer, caplog: pytest.LogCaptureFixture) -> None:
    packed = stored([*OWN, *OWN])
    told = []
    for load in (serde.loads_typed, decoder_of(serde).value):
        events: list[SerdeEvent] = []
        forget_warnings()
        caplog.clear()
        stop = register_serde_event_listener(events.append)
        with caplog.at_level(logging.WARNING):
            found = state(load(packed))
        stop()
        told.append((found, events, [record.getMessage() for record in caplog.records]))
    assert told[0] == told[1]
    assert told[0][1]


def forget_warnings() -> None:
    """LangGraph warns of each class once in a process."""
    from langgraph.checkpoint.serde import jsonplus

    for seen in ("_warned_unregistered_types", "_warned_blocked_types", "_warned_unreconstructable_types"):
        getattr(jsonplus, seen).clear()


def test_a_serializer_of_the_users_own_reads_everything() -> None:
    def hook(code: int, data: bytes) -> Any:
        return "hooked"

    class Own(JsonPlusSerializer):
        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            return "own"

    for serde in (JsonPlusSerializer(__unpack_ext_hook__=hook), Own()):
        assert decoder_of(serde).value(stored([AIMessage("a")])) == serde.loads_typed(stored([AIMessage("a")]))


@given(odd.filter(serializable))
def test_without_the_fast_path_everything_is_read_by_the_serializer(value: Any) -> None:
    assert state(Decoder(SERDE, Memory(0), fast=False).value(stored(value))) == state(SERDE.loads_typed(stored(value)))
