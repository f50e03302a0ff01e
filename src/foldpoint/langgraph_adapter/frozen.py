"""What messages held, frozen: to see whether they hold it still, and to build messages that hold the same.

Compiled where there was a compiler when Foldpoint was installed. Otherwise in Python: slower, and the same in every
respect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import ormsgpack
from langchain_core.messages import BaseMessage
from ormsgpack import MsgpackDecodeError, MsgpackEncodeError, packb, unpackb
from pydantic import BaseModel

try:
    from foldpoint.langgraph_adapter._frozen import build, freeze, hold, opener
except ImportError:  # also of what was compiled from an earlier version
    IS_COMPILED = False
else:
    IS_COMPILED = True

Fields = dict[str, Any]
Names = dict[type, set[str]]
"""Of the fields of each class."""
Hook = Callable[[int, bytes], Any]
"""Gives the object that an Ext stands for: of its code, and what it holds."""


class Usual(NamedTuple):
    """How messages of a class are told to be plain, most of them at a glance.

    start: what the Ext of such a message begins with. given, names: of all fields; in the order they have.
    holds: by field, the types that it has, its one text, or None where anything may be; own: what more must be true.
    is_plain: what tells of all others.
    """

    start: bytes
    cls: type
    given: set[str]
    names: tuple[str, ...]
    holds: tuple[tuple[type, ...] | str | None, ...]
    own: Callable[[Fields], bool] | None
    is_plain: Callable[[Fields], bool]


PLAIN = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
"""Packs None, bool, int, float, str, bytes-likes, and lists of these and dicts from str to these; no subclasses.

Anything else is refused. So equal bytes are equal values, of equal types and in equal order.
"""


class Freezer(NamedTuple):
    """One way to freeze; what it makes is for itself alone.

    freeze: fields, TypeError where they hold what is not plain.
    fields: that were frozen; not to be changed.
    size: bytes that this takes, about.
    packed: the fields as PLAIN packs them; TypeError for text and numbers that it does not know.
    hold: whether those messages of a list that begin at a position are of these classes, without extras, and their
    fields in type, order and bits those that were frozen.
    build: messages of these classes from these fields, which share nothing that can be changed.
    opener: a hook that builds plain messages if it can, and leaves all else to the one that is given.
    """

    freeze: Callable[[Fields], Any]
    fields: Callable[[Any], Fields]
    size: Callable[[Any], int]
    packed: Callable[[Any], bytes]
    hold: Callable[[list[BaseMessage], int, list[type], list[Any]], bool]
    build: Callable[[list[type], Names, list[Any]], list[Any]]
    opener: Callable[[Hook, tuple[Usual, ...]], Hook]


def frozen_or_none(freezer: Freezer, fields: Fields) -> Any:
    """None for fields that are not plain."""
    try:
        return freezer.freeze(fields)
    except TypeError:
        return None


_fields_of = attrgetter("__dict__")
_extra_of = attrgetter("__pydantic_extra__")
_set_fields, _set_names, _set_extra, _set_private = (
    vars(BaseModel)[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def _pack(fields: Fields) -> bytes:
    return packb(fields, option=PLAIN)


def _freeze(fields: Fields) -> bytes:
    packed = _pack(fields)
    try:
        unpackb(packed)
    except MsgpackDecodeError as error:  # an Ext or a Fragment
        raise TypeError("not plain") from error
    return packed


def _hold(messages: list[BaseMessage], first: int, classes: list[type], frozen: list[bytes]) -> bool:
    messages = messages[first : first + len(frozen)]
    if classes != [*map(type, messages)] or any(map(_extra_of, messages)):
        return False
    try:
        return [*map(_pack, map(_fields_of, messages))] == frozen
    except MsgpackEncodeError:
        return False


def _build(classes: list[type], names: Names, frozen: list[bytes]) -> list[Any]:
    return [built(cls, names[cls], unpackb(one)) for cls, one in zip(classes, frozen, strict=True)]


def built(cls: type, names: set[str], fields: Fields) -> Any:
    """A message of these fields, which become its own."""
    message: Any = object.__new__(cls)
    _set_fields(message, fields)
    _set_names(message, names.copy())
    _set_extra(message, {})
    _set_private(message, None)
    return message


IN_PYTHON = Freezer(_freeze, unpackb, len, lambda frozen: frozen, _hold, _build, lambda hook, _: hook)
IN_C = (
    Freezer(
        freeze,
        itemgetter(0),
        itemgetter(1),
        lambda frozen: _pack(frozen[0]),
        hold,
        build,
        partial(opener, unpackb),
    )
    if IS_COMPILED
    else None
)
FREEZER = IN_C or IN_PYTHON
