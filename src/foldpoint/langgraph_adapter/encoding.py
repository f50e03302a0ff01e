"""Values to bytes: those that LangGraph's serializer makes, in less time where these are known.

A list of messages is compared with what was written or read there before, a block at a time and without pydantic:
whatever user code changed in them, however deep, shows. A block that holds what it held is the same piece of the value
as then, and finding the delta need not look at it either.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import ormsgpack
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from ormsgpack import Ext, Fragment, MsgpackEncodeError, packb

from foldpoint.codecs.model import Stored, Value
from foldpoint.codecs.rope import Rope
from foldpoint.langgraph_adapter.blocks import BLOCK, Block, Memory, Place, array_header
from foldpoint.langgraph_adapter.frozen import PLAIN
from foldpoint.langgraph_adapter.known import (
    EXT_MESSAGE,
    KnownMessage,
    KnownSend,
    is_known,
    known_messages,
    known_send,
)

_TYPE = "msgpack"
_CONTAINERS = PLAIN & ~ormsgpack.OPT_PASSTHROUGH_TUPLE


class Encoder:
    """Gives what `serde.dumps_typed` gives. Safe to share between threads.

    memory: of messages. fast: whether to do anything otherwise than `serde`, if that is LangGraph's own.
    """

    def __init__(self, serde: SerializerProtocol, memory: Memory, *, fast: bool = True) -> None:
        self._serde = serde
        self._messages = known_messages() if fast and is_known(serde) else {}
        self._known: dict[type, KnownMessage | KnownSend] = {**self._messages}
        if self._messages and (send := known_send()):
            self._known[send.cls] = send
        self._pack = partial(packb, default=self._object, option=_CONTAINERS)
        self._memory = memory

    def value(self, obj: Any) -> Value:
        """Raises the serializer's error for an object that it cannot serialize."""
        if self._known and (type(obj) in (list, dict) or type(obj) in self._known):
            try:
                return Value(_TYPE, self._pack(obj))
            except MsgpackEncodeError:
                pass  # the serializer may do more, or says what is wrong
        type_, data = self._serde.dumps_typed(obj)
        return Value(type_, bytes(data))

    def channel(self, place: Place, obj: Any) -> Stored:
        """As `value`; a list of messages in pieces, of which those are the last time's that did not change."""
        if type(obj) is list and obj and type(obj[0]) in self._messages and self._memory.limit:
            try:
                blocks = self._blocks(place, [*obj])
                return Stored(_TYPE, Rope(array_header(sum(map(len, blocks))), *(block.piece for block in blocks)))
            except MsgpackEncodeError:
                pass
        return Stored.of(self.value(obj))

    def _object(self, obj: Any) -> Ext | Fragment:
        """How an object is packed that msgpack does not know. MsgpackEncodeError: only as a whole value."""
        known = self._known.get(type(obj))
        if known is not None and (ext := known.ext(obj, self._pack)) is not None:
            return ext
        type_, data = self._serde.dumps_typed(obj)
        if type_ != _TYPE:
            raise MsgpackEncodeError(f"{type(obj).__name__} is serialized as {type_}")
        return Fragment(data)

    def _blocks(self, place: Place, messages: list[BaseMessage]) -> list[Block]:
        known = iter(self._memory.get(place))
        blocks: list[Block] = []
        for first in range(0, len(messages), BLOCK):
            last = next(known, None)
            if last is None or not self._memory.holds(last, messages, first):
                blocks.append(self._packed(messages[first : first + BLOCK]))
            else:
                more = messages[first + len(last.classes) : first + BLOCK]
                blocks.append(last.followed_by(self._packed(more)) if more else last)
        self._memory.put(place, blocks)
        return blocks

    def _packed(self, messages: list[BaseMessage]) -> Block:
        """MsgpackEncodeError where one is of no known class, or only the serializer knows how to pack it."""
        if not set(map(type, messages)) <= self._messages.keys():
            raise MsgpackEncodeError("not only messages of known classes")
        known = [self._messages[type(message)] for message in messages]
        # Hazard: another thread may change messages meanwhile. The piece is packed from what tells its validity.
        frozen = [one.frozen(message, self._memory.freezer) for one, message in zip(known, messages, strict=True)]
        bodies = [None if held is None else self._body(one, held) for one, held in zip(known, frozen, strict=True)]
        packable: list[Any] = [
            message if body is None else Ext(EXT_MESSAGE, body) for message, body in zip(messages, bodies, strict=True)
        ]
        piece = self._pack(packable)[len(array_header(len(packable))) :]
        return self._memory.block([one.cls for one in known], None if None in bodies else frozen, piece)

    def _body(self, known: KnownMessage, frozen: Any) -> bytes | None:
        """None for text and numbers that only the serializer knows what to do with."""
        try:
            return known.body_of(self._memory.freezer.packed(frozen))
        except MsgpackEncodeError:
            return None
