"""Messages and other values as hypothesis draws them, and a comparison that sees every difference."""

from __future__ import annotations

import copy
import enum
import math
import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from pydantic import BaseModel


class Word(str):
    """Equal to a str, and not one."""


class Shade(str, enum.Enum):
    AI = "ai"
    SUCCESS = "success"


class Model(BaseModel):
    text: str = ""
    inner: Any = None


@dataclass
class Record:
    text: str = ""
    inner: Any = None


class OwnMessage(HumanMessage):
    """A subclass: its module is not langchain-core's."""


texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["", "ai", "success", "x" * 40, "é", "\0"])
numbers = st.sampled_from([0, 1, -1, True, False, 0.0, -0.0, 1.0, math.nan, math.inf, 2**40, -(2**63), 2**64 - 1])
plain = st.recursive(
    st.none() | texts | numbers | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        (),
        (1, "a"),
        Word("ai"),
        Shade.AI,
        Shade.SUCCESS,
        bytearray(b"b"),
        Decimal("1.50"),
        datetime(2026, 1, 2, tzinfo=UTC),
        UUID(int=7),
        PurePosixPath("/a"),
        frozenset({1}),
        deque([1]),
        OrderedDict(a=1),
        {1: "a"},
        {None: 1, True: 2},
        {Word("k"): 1},
        "\ud800",
        2**70,
        Model(text="a", inner=[HumanMessage("inner")]),
        Record("a", Model()),
        HumanMessage("inner", id="i"),
        ValueError("told"),
    ]
).map(copy.deepcopy)
anything = st.recursive(
    plain | odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
maps = st.dictionaries(texts, plain, max_size=3)


def _mostly(usual: st.SearchStrategy[Any], unusual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 15).flatmap(lambda number: unusual if number == 15 else usual)


_calls = st.lists(
    st.fixed_dictionaries(
        {"name": texts, "args": maps, "id": st.none() | texts}, optional={"type": st.just("tool_call")}
    ),
    max_size=2,
)
_invalid = st.lists(
    st.fixed_dictionaries(
        {"name": st.none() | texts, "args": st.none() | texts, "id": st.none() | texts, "error": st.none() | texts}
    ),
    max_size=2,
)
_counts = st.integers(0, 9)
_usage = st.fixed_dictionaries(
    {"input_tokens": _counts, "output_tokens": _counts, "total_tokens": _counts},
    optional={
        "input_token_details": st.dictionaries(st.sampled_from(["cache_read", "audio", "other"]), _counts, max_size=3),
        "output_token_details": st.dictionaries(st.sampled_from(["reasoning", "audio", "other"]), _counts, max_size=3),
        "other": texts,
    },
)
_provider_calls = st.lists(
    st.fixed_dictionaries(
        {"id": texts, "function": st.fixed_dictionaries({"name": texts, "arguments": st.just("{}")})}
    ),
    max_size=2,
)
_content = texts | st.lists(texts | maps, max_size=3)
_base: dict[str, st.SearchStrategy[Any]] = {
    "additional_kwargs": maps | st.fixed_dictionaries({"tool_calls": _provider_calls}),
    "response_metadata": maps,
    "name": st.none() | texts,
    "id": st.none() | texts | st.integers(0, 9),
    "lc_extra": plain,
}


def _made(cls: type[BaseMessage], needed: dict[str, Any], **own: Any) -> st.SearchStrategy[BaseMessage]:
    optional = {name: drawn for name, drawn in {**_base, **own}.items() if name not in needed}
    return st.fixed_dictionaries(needed, optional=optional).map(lambda fields: cls(**fields))


messages: st.SearchStrategy[BaseMessage] = st.one_of(
    _made(HumanMessage, {"content": _content}),
    _made(SystemMessage, {"content": _content}),
    _made(AIMessage, {"content": _content}, tool_calls=_calls, invalid_tool_calls=_invalid, usage_metadata=_usage),
    _made(
        ToolMessage,
        {"content": _content, "tool_call_id": texts},
        artifact=_mostly(plain, anything),
        status=st.sampled_from(["success", "error"]),
    ),
    _made(FunctionMessage, {"content": _content, "name": texts}),
    _made(ChatMessage, {"content": _content, "role": texts}),
    texts.map(lambda text: RemoveMessage(id=text)),
    _made(OwnMessage, {"content": _content}),
    _made(HumanMessageChunk, {"content": _content}),
    _made(AIMessageChunk, {"content": _content}),
)

values: st.SearchStrategy[Any] = st.recursive(
    _mostly(plain | messages, anything),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts, inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Send, texts, inner),
        st.builds(lambda arg: Send("n", arg, timeout=3), inner),
        st.builds(_DeltaSnapshot, inner),
        st.builds(Record, texts, inner),
    ),
    max_leaves=6,
)


# -- changing in place -------------------------------------------------------------------------------------------------


def containers(message: BaseMessage) -> list[Any]:
    """Every list and dict within a message, its own dicts first."""
    found: list[Any] = [vars(message)]
    for one in found:
        inner = one.values() if isinstance(one, dict) else one
        found.extend(value for value in inner if type(value) in (list, dict))
    return found


def change(draw: Callable[[st.SearchStrategy[Any]], Any], message: BaseMessage) -> None:
    """Change something in a message, however deep, to anything."""
    where = draw(st.sampled_from(containers(message)))
    new = draw(plain | odd)
    if isinstance(where, list):
        if where and draw(st.booleans()):
            where[draw(st.integers(0, len(where) - 1))] = new
        else:
            where.append(new)
    elif where and draw(st.integers(0, 3)):
        key = draw(st.sampled_from([*where]))
        kept = where[key]
        if draw(st.booleans()):
            del where[key]  # and to the end
        where[key] = draw(st.sampled_from([new, kept, *_twins(kept)]))
    elif where is not vars(message):
        where[draw(texts | st.integers(0, 3))] = new
    else:
        message.__pydantic_extra__ = draw(maps)


def _twins(value: Any) -> list[Any]:
    """What is equal to a value and not the same."""
    if type(value) is str:
        return [Word(value)]
    if type(value) in (int, float, bool):
        return [float(value), value == value and bool(value)]
    if type(value) is list:
        return [tuple(value), [*value]]
    return [{**value}, OrderedDict(value)] if type(value) is dict else []


# -- comparing ---------------------------------------------------------------------------------------------------------


def state(value: Any) -> Any:
    """All that there is of a value: equal only for the same types with the same bits in the same order."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseModel):
        parts: list[Any] = [vars(value), sorted(value.__pydantic_fields_set__)]
        return kind, [state(part) for part in (*parts, value.__pydantic_extra__, value.__pydantic_private__)]
    if isinstance(value, dict):
        return kind, [(state(key), state(inner)) for key, inner in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return kind, [state(inner) for inner in value]
    if isinstance(value, Send):
        return kind, [state(value.node), state(value.arg), repr(value.timeout)]
    if isinstance(value, Record):
        return kind, state(vars(value))
    return kind, struct.pack(">d", value) if isinstance(value, float) else repr(value)
