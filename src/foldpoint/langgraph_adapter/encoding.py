"""Values to bytes: those that LangGraph's serializer makes, in less time where these are known.

A list of messages is compared with what was serialized before by packing what its messages hold, a block at a time and
without pydantic: whatever user code changed in them, however deep, shows in these bytes. A block whose bytes are those
of the last time is the same piece of the value as then, and finding the delta need not look at it either.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import msgpack
import ormsgpack
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from ormsgpack import Ext, Fragment, MsgpackEncodeError, packb

from foldpoint.codecs.model import Stored, Value
from foldpoint.codecs.rope import Rope
from foldpoint.langgraph_adapter.known import (
    END,
    EXT_MESSAGE,
    PLAIN,
    KnownMessage,
    KnownSend,
    is_known,
    known_messages,
    known_send,
)

Place = tuple[str, str, str]
"""Thread, namespace, channel: what is put there next is likely to be much like what was last."""

_TYPE = "msgpack"
_BLOCK = 32
"""Messages. Fewer: more calls for a long list. More: more to pack again at each append."""
_CONTAINERS = PLAIN & ~ormsgpack.OPT_PASSTHROUGH_TUPLE
_fields_of = attrgetter("__dict__")
_extra_of = attrgetter("__pydantic_extra__")
_array_header = msgpack.Packer(autoreset=True).pack_array_header


class Encoder:
    """Gives what `serde.dumps_typed` gives. Safe to share between threads.

    memory: bytes for remembering messages, the least recently used places first out. fast: whether to do anything
    otherwise than `serde`, if that is LangGraph's own.
    """

    def __init__(self, serde: SerializerProtocol, *, memory: int, fast: bool = True) -> None:
        self._serde = serde
        self._messages = known_messages() if fast and is_known(serde) else {}
        self._known: dict[type, KnownMessage | KnownSend] = {**self._messages}
        if self._messages and (send := known_send()):
            self._known[send.cls] = send
        self._pack = partial(packb, default=self._object, option=_CONTAINERS)
        self._memory = _Memory(memory)

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
        """As `value`; a long list of messages in pieces, of which those are the last time's that did not change."""
        if type(obj) is list and len(obj) >= _BLOCK and set(map(type, obj)) <= self._messages.keys():
            try:
                return Stored(_TYPE, Rope(_array_header(len(obj)), *self._pieces(place, obj)))
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

    def _pieces(self, place: Place, messages: list[BaseMessage]) -> list[bytes]:
        """The packed messages, a piece for each whole block and one for the rest."""
        known = self._memory.get(place)
        blocks: list[_Block] = []
        rest = len(messages) - len(messages) % _BLOCK
        for at in range(0, rest, _BLOCK):
            some = messages[at : at + _BLOCK]
            last = known[len(blocks)] if len(blocks) < len(known) else None
            blocks.append(last if last is not None and last.holds(some) else self._block(some))
        self._memory.put(place, blocks)
        return [*(block.piece for block in blocks), self._entries(messages[rest:])]

    def _block(self, messages: list[BaseMessage]) -> _Block:
        known = [self._messages[type(message)] for message in messages]
        # Hazard: another thread may change messages meanwhile. The piece and what tells its validity are one packing.
        bodies = [one.body(message) for one, message in zip(known, messages, strict=True)]
        fields = None
        if None not in bodies:
            parts = (body[len(one.start) : -len(END)] for one, body in zip(known, bodies, strict=True) if body)
            fields = b"".join((_array_header(len(messages)), *parts))
        packable = [
            message if body is None else Ext(EXT_MESSAGE, body) for message, body in zip(messages, bodies, strict=True)
        ]
        return _Block([one.cls for one in known], fields, self._entries(packable))

    def _entries(self, items: list[Any]) -> bytes:
        """The packed list without its header."""
        return self._pack(items)[len(_array_header(len(items))) :]


class _Block(NamedTuple):
    """Messages as they were serialized. fields: what they held, packed; None where that does not tell everything."""

    classes: list[type]
    fields: bytes | None
    piece: bytes

    def holds(self, messages: list[BaseMessage]) -> bool:
        """Whether these are the messages, and hold what they held."""
        if self.fields is None or self.classes != [*map(type, messages)] or any(map(_extra_of, messages)):
            return False
        try:
            return self.fields == packb([*map(_fields_of, messages)], option=PLAIN)
        except MsgpackEncodeError:
            return False


class _Memory:
    """The blocks of the places used last, at most `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._blocks: OrderedDict[Place, tuple[list[_Block], int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, place: Place) -> list[_Block]:
        with self._lock:
            return self._blocks.get(place, ([], 0))[0]

    def put(self, place: Place, blocks: list[_Block]) -> None:
        size = sum(len(block.piece) + len(block.fields or b"") for block in blocks)
        with self._lock:
            _, before = self._blocks.pop(place, ([], 0))
            self._blocks[place] = blocks, size
            self._held += size - before
            while self._held > self._limit:
                _, (_, dropped) = self._blocks.popitem(last=False)
                self._held -= dropped
