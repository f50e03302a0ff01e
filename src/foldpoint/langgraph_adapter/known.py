"""Objects whose serialized form is known without asking LangGraph's serializer: messages of langchain-core, and what
may hold many of them.

The serializer dumps a message through its pydantic model and builds it again through that model's validators, which
takes 4 and 15 microseconds. For a *plain* message neither changes anything: its fields are those of its class in their
order, each holds just the types that it is declared with, and there are no others. Such a message is packed from its
`__dict__`, and built by setting it.

Hazard: this repeats what other packages do. So each class is tried once with samples, and left to the serializer if
anything differs; and so is every message that is not plain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from ormsgpack import Ext, MsgpackEncodeError, packb, unpackb

from foldpoint.langgraph_adapter.frozen import FREEZER, PLAIN, Fields, Freezer, Usual, built, frozen_or_none

Pack = Callable[[Any], bytes]

EXT_ARGUMENTS, EXT_MESSAGE, EXT_SNAPSHOT = 1, 5, 7
_METHOD = "model_validate_json"
_USUAL: dict[str, tuple[type, ...]] = {
    "content": (str,),
    "additional_kwargs": (dict,),
    "response_metadata": (dict,),
    "id": (str, type(None)),
    "name": (str, type(None)),
}
"""What the fields hold that all messages have: less than may stand there, and plain in any case."""


class KnownMessage:
    """A message class of which it is known which messages are plain."""

    def __init__(self, cls: type[BaseMessage], own_is_plain: Callable[[Fields], bool] | None) -> None:
        self.cls = cls
        self.module, self.name = cls.__module__, cls.__name__
        # Equal strings that are one object compare faster: these are the ones that unpacked fields have.
        self.names = [*unpackb(packb(dict.fromkeys(cls.model_fields)))]
        self.type = cls.model_fields["type"].default
        self.given = set(self.names)
        self.start = packb([self.module, self.name, None, _METHOD])[: -len(END) - 1]
        self._own_is_plain = own_is_plain
        holds = tuple(self.type if name == "type" else _USUAL.get(name) for name in self.names)
        self.usual = Usual(self.start, cls, self.given, tuple(self.names), holds, own_is_plain, self.is_plain)

    def ext(self, message: BaseMessage, pack: Pack) -> Ext | None:
        """As the serializer packs it; None if the message is not plain."""
        body = self.body(message)
        return None if body is None else Ext(EXT_MESSAGE, body)

    def body(self, message: BaseMessage) -> bytes | None:
        """What the Ext holds: `start`, the packed fields, `END`. None if the message is not plain."""
        fields = message.__dict__
        try:
            body = packb([self.module, self.name, fields, _METHOD], option=PLAIN)
        except MsgpackEncodeError:
            return None
        return None if message.__pydantic_extra__ or not self.is_plain(fields) else body

    def frozen(self, message: BaseMessage, freezer: Freezer) -> Any:
        """What the message holds; None if it is not plain."""
        # Hazard: another thread may change it meanwhile. So what is frozen is looked at, not the message.
        frozen = None if message.__pydantic_extra__ else frozen_or_none(freezer, message.__dict__)
        return frozen if frozen is not None and self.is_plain(freezer.fields(frozen)) else None

    def body_of(self, packed: bytes) -> bytes:
        """As `body`, of a plain message's packed fields."""
        return self.start + packed + END

    def is_plain(self, fields: Fields) -> bool:
        """Whether neither dumping nor validating changes the fields, provided that what they hold packs as PLAIN.

        What they hold must be of builtin classes: others may compare as they like.
        """
        if [*fields] != self.names:
            return False
        name, id_ = fields["name"], fields["id"]
        return (
            (type(fields["content"]) is str or _is_blocks(fields["content"]))
            and type(fields["additional_kwargs"]) is dict
            and type(fields["response_metadata"]) is dict
            and fields["type"] == self.type
            and (id_ is None or type(id_) is str)
            and (name is None or type(name) is str)
            and (self._own_is_plain is None or self._own_is_plain(fields))
        )


END = packb(_METHOD)


class KnownSend:
    """langgraph's Send, which may hold anything: a packet for a node, often with messages."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.start = packb([cls.__module__, cls.__name__, [None, None]])[:-2]

    def ext(self, send: Any, pack: Pack) -> Ext | None:
        """As the serializer packs it; None if there is a timeout. `pack` packs what it holds."""
        if send.timeout is not None:
            return None
        return Ext(EXT_ARGUMENTS, pack([self.cls.__module__, self.cls.__name__, [send.node, send.arg]]))


def is_known(serde: SerializerProtocol) -> bool:
    """Whether it is LangGraph's own serializer: a subclass may do anything, and so may a hook of the user's."""
    return type(serde) is JsonPlusSerializer and getattr(serde, "_custom_unpack_ext_hook", True) is False


@cache
def known_messages() -> dict[type, KnownMessage]:
    """The classes that the installed packages were seen to treat as this module does."""
    found = (KnownMessage(cls, own_is_plain) for cls, own_is_plain in _OWN.items())
    return {known.cls: known for known in found if all(_agrees(known, sample) for sample in _samples(known))}


@cache
def known_send() -> KnownSend | None:
    """None without langgraph, or if the serializer does otherwise."""
    try:
        from langgraph.types import Send
    except ImportError:
        return None
    known, sample = KnownSend(Send), Send("n", {"a": [1]})
    packed = JsonPlusSerializer(allowed_msgpack_modules=None).dumps_typed(sample)
    return known if packed == ("msgpack", packb(known.ext(sample, packb))) else None


@cache
def known_snapshot() -> type | None:
    """What a DeltaChannel's value is stored as now and then; None if the serializer does otherwise, or knows none."""
    try:
        from langgraph.checkpoint.serde.types import _DeltaSnapshot
    except ImportError:
        return None
    packed = JsonPlusSerializer(allowed_msgpack_modules=None).dumps_typed(_DeltaSnapshot([1]))
    return _DeltaSnapshot if packed == ("msgpack", packb(Ext(EXT_SNAPSHOT, packb([1])))) else None


# -- what the fields hold ----------------------------------------------------------------------------------------------


def _is_blocks(content: Any) -> bool:
    return type(content) is list and all(type(block) in (str, dict) for block in content)


def _ai(fields: Fields) -> bool:
    calls, invalid, usage = fields["tool_calls"], fields["invalid_tool_calls"], fields["usage_metadata"]
    if type(calls) is not list or type(invalid) is not list or not (usage is None or _is_usage(usage)):
        return False
    if calls or invalid:
        return all(map(_is_tool_call, calls)) and all(map(_is_invalid_tool_call, invalid))
    # Where there are none the constructor makes calls of what the provider sent.
    return not fields["additional_kwargs"].get("tool_calls")


def _is_tool_call(call: Any) -> bool:
    return (
        type(call) is dict
        and [*call] == _CALL
        and type(call["name"]) is str
        and type(call["args"]) is dict
        and _is_text_or_none(call["id"])
        and call["type"] == "tool_call"
    )


def _is_invalid_tool_call(call: Any) -> bool:
    return (
        type(call) is dict
        and [*call] == _INVALID_CALL
        and all(map(_is_text_or_none, call.values()))
        and call["type"] == "invalid_tool_call"
    )


def _is_text_or_none(value: Any) -> bool:
    return value is None or type(value) is str


_CALL = ["name", "args", "id", "type"]
_INVALID_CALL = ["type", "id", "name", "args", "error"]
_COUNTS = ("input_tokens", "output_tokens", "total_tokens")
_DETAILS = {
    "input_token_details": ("audio", "cache_creation", "cache_read"),
    "output_token_details": ("audio", "reasoning"),
}


def _is_usage(usage: Any) -> bool:
    return (
        type(usage) is dict
        and _come_first((*_COUNTS, *_DETAILS), usage)
        and all(type(usage.get(name)) is int for name in _COUNTS)
        and all(_is_details(usage[name], counts) for name, counts in _DETAILS.items() if name in usage)
    )


def _is_details(details: Any, counts: tuple[str, ...]) -> bool:
    return (
        type(details) is dict
        and _come_first(counts, details)
        and all(type(details[name]) is int for name in counts if name in details)
    )


def _come_first(names: tuple[str, ...], found: Fields) -> bool:
    """Whether those of `names` that there are come before all others, in their order: validation puts them there."""
    present = [name for name in names if name in found]
    return [*found][: len(present)] == present


def _tool(fields: Fields) -> bool:
    return type(fields["tool_call_id"]) is str and fields["status"] in ("success", "error")


_OWN: dict[type[BaseMessage], Callable[[Fields], bool] | None] = {
    HumanMessage: None,
    SystemMessage: None,
    AIMessage: _ai,
    ToolMessage: _tool,
    FunctionMessage: lambda fields: type(fields["name"]) is str,
    ChatMessage: lambda fields: type(fields["role"]) is str,
    RemoveMessage: lambda fields: fields["content"] == "",
}
"""Whether the fields are plain that not all classes have, or that one class wants otherwise."""


# -- whether the installed packages agree ------------------------------------------------------------------------------

_LITTLE: Fields = {
    "content": "",
    "name": "n",
    "id": "i",
    "role": "r",
    "tool_call_id": "c",
}
_MUCH: Fields = {
    **_LITTLE,
    "content": ["a", {"type": "text", "text": "b", "more": [1, 2.5, None]}],
    "additional_kwargs": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}], "k": {}},
    "response_metadata": {"token_usage": {"total": 1}, "logprobs": None},
    "tool_calls": [{"name": "f", "args": {"a": [True, {"b": b"c"}]}, "id": None, "type": "tool_call"}],
    "invalid_tool_calls": [{"type": "invalid_tool_call", "id": "c", "name": None, "args": "{", "error": "e"}],
    "usage_metadata": {
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "input_token_details": {"audio": 1, "cache_creation": 2, "cache_read": 3, "other": 4},
        "output_token_details": {"audio": 1, "reasoning": 2, "other": "3"},
        "other": None,
    },
    "artifact": [{"a": -0.0}, b"b"],
    "status": "error",
}


def _samples(known: KnownMessage) -> list[BaseMessage]:
    given = [_LITTLE] if known.cls is RemoveMessage else [_LITTLE, _MUCH]
    return [known.cls(**{name: some[name] for name in known.names if name in some}) for some in given]


def _agrees(known: KnownMessage, sample: BaseMessage) -> bool:
    """Whether the serializer, at its strictest, packs and builds the sample as `known` does."""
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    packed = serde.dumps_typed(sample)
    body = known.body(sample)
    if body is None or packed != ("msgpack", packb(Ext(EXT_MESSAGE, body))):
        return False
    loaded, fields = serde.loads_typed(packed), unpackb(body)[2]
    open_ext = FREEZER.opener(lambda *_: built(known.cls, known.given, unpackb(body)[2]), (known.usual,))
    try:
        made = FREEZER.build([known.cls], {known.cls: known.given}, [FREEZER.freeze(fields)])
        made.append(open_ext(EXT_MESSAGE, body))
    except (AttributeError, TypeError):
        return False
    return known.is_plain(fields) and all(
        type(one) is type(loaded) and all(repr(of(one)) == repr(of(loaded)) for of in (vars, _given))
        for one in (*made, built(known.cls, known.given, fields))
    )


def _given(message: BaseMessage) -> list[str]:
    return sorted(message.__pydantic_fields_set__)
