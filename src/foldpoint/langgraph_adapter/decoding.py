"""Bytes to values: those that LangGraph's serializer makes, in less time where these are known."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from ormsgpack import Ext, MsgpackDecodeError, packb, unpackb

from foldpoint.codecs.model import Value
from foldpoint.langgraph_adapter.blocks import BLOCK, Block, Memory, Place, array_header
from foldpoint.langgraph_adapter.frozen import built, frozen_or_none
from foldpoint.langgraph_adapter.known import (
    EXT_ARGUMENTS,
    EXT_MESSAGE,
    EXT_SNAPSHOT,
    is_known,
    known_messages,
    known_send,
    known_snapshot,
)

_TYPE = "msgpack"


class _Read(NamedTuple):
    """A plain message that was unpacked: of which class, what it holds, and how many bytes it was."""

    cls: type
    frozen: Any
    size: int


class Decoder:
    """Gives what `serde.loads_typed` gives: never an object that it gave before. Safe to share between threads.

    memory: of messages. fast: whether to do anything otherwise than `serde`, if that is LangGraph's own. Only objects
    are built without it that its strictest allowlist allows.
    """

    def __init__(self, serde: SerializerProtocol, memory: Memory, *, fast: bool = True) -> None:
        self._serde = serde
        known = known_messages().values() if fast and is_known(serde) else ()
        self._messages = {one.name: one for one in known}
        self._names = {one.cls: one.given for one in known}
        self._starts = tuple(one.start for one in known)
        self._send = known_send() if known else None
        self._snapshot = known_snapshot() if known else None
        self._memory = memory
        otherwise = partial(self._object, None)
        self._open = memory.freezer.opener(otherwise, tuple(one.usual for one in known)) if known else otherwise

    def value(self, value: Value) -> Any:
        """Raises the serializer's error for bytes that it cannot deserialize."""
        if self._messages and value.type == _TYPE:
            try:
                return self._unpack(value.data, None)
            except MsgpackDecodeError:
                pass  # the serializer says what is wrong
        return self._serde.loads_typed((value.type, value.data))

    def channel(self, place: Place, value: Value) -> Any:
        """As `value`; the messages that a list begins with as it did the last time are not unpacked again.

        What is read once may never be read or written again, and remembering it takes half as long as reading: so the
        first time it is only noted that it was read.
        """
        count = _entries(value.data) if self._messages and value.type == _TYPE and self._memory.limit else 0
        if not count or self._memory.first_seen(place):
            return self.value(value)
        blocks, at = self._known(place, value.data, count)
        left, packed = count - sum(map(len, blocks)), value.data[at:]
        read: list[_Read] = []
        try:
            rest = self._unpack(array_header(left) + packed, read)
        except MsgpackDecodeError:
            return self.value(value)
        if read and len(read) == left:
            self._remember(place, blocks, read, packed)
        # At once: so many objects in several steps take twice the time.
        classes = [cls for block in blocks for cls in block.classes]
        frozen = [one for block in blocks for one in block.frozen or ()]
        return self._memory.freezer.build(classes, self._names, frozen) + rest

    def _known(self, place: Place, data: bytes, count: int) -> tuple[list[Block], int]:
        """The blocks that the list begins with, and where they end."""
        blocks: list[Block] = []
        at = len(array_header(count))
        for block in self._memory.get(place):
            count -= len(block)
            if count < 0 or block.frozen is None or not data.startswith(block.piece, at):
                break
            blocks.append(block)
            at += len(block.piece)
        return blocks, at

    def _remember(self, place: Place, blocks: list[Block], read: list[_Read], packed: bytes) -> None:
        """Unless more is remembered of the place, which begins as this."""
        known = self._memory.get(place)
        ends = [*accumulate((one.size for one in read), initial=0)]
        if len(blocks) not in (0, len(known)) or ends[-1] != len(packed):
            return
        if not blocks and known and known[0].piece.startswith(packed):
            return
        blocks = [*blocks]
        at = 0
        while at < len(read):
            room = BLOCK - len(blocks[-1]) if blocks else 0
            some = read[at : at + (room or BLOCK)]
            piece = packed[ends[at] : ends[at + len(some)]]
            block = self._memory.block([one.cls for one in some], [one.frozen for one in some], piece)
            blocks.append(blocks.pop().followed_by(block) if room else block)
            at += len(some)
        self._memory.put(place, blocks)

    def _unpack(self, data: bytes, read: list[_Read] | None) -> Any:
        """read: where plain messages are noted."""
        hook = self._open if read is None else partial(self._object, read)
        return unpackb(data, ext_hook=hook, option=ormsgpack.OPT_NON_STR_KEYS)

    def _object(self, read: list[_Read] | None, code: int, data: bytes) -> Any:
        if code == EXT_MESSAGE and data.startswith(self._starts):
            message = self._message(data, read)
            if message is not None:
                return message
        elif code == EXT_ARGUMENTS and self._send is not None and data.startswith(self._send.start):
            _, _, arguments = self._unpack(data, None)
            return self._send.cls(*arguments)
        elif code == EXT_SNAPSHOT and self._snapshot is not None:
            return self._snapshot(self._unpack(data, None))
        return self._serde.loads_typed((_TYPE, packb(Ext(code, data))))

    def _message(self, data: bytes, read: list[_Read] | None) -> Any:
        """None for a message that is not plain."""
        try:
            _, name, fields, _ = unpackb(data)  # refuses other objects, and keys that are no text
        except MsgpackDecodeError:
            return None
        known = self._messages[name]
        if type(fields) is not dict or not known.is_plain(fields):
            return None
        freezer = self._memory.freezer
        frozen = None if read is None else frozen_or_none(freezer, fields)
        # Others may have packed it otherwise, or more beside it: only the serializer's bytes may be written again.
        if read is not None and frozen is not None and known.body_of(freezer.packed(frozen)) == data:
            read.append(_Read(known.cls, frozen, _ext_size(len(data))))
        return built(known.cls, known.given, fields)


def _entries(data: bytes) -> int:
    """How many entries the array has that `data` begins with; 0 for anything else, or a header that is too long."""
    first, count = data[0] if data else 0, 0
    if 0x90 <= first <= 0x9F:
        count = first & 0x0F
    elif first in (0xDC, 0xDD):
        count = int.from_bytes(data[1 : 3 if first == 0xDC else 5], "big")
    return count if data.startswith(array_header(count)) else 0


def _ext_size(length: int) -> int:
    """Of an Ext that holds so many bytes, more than 16, in its shortest form."""
    return length + (3 if length < 1 << 8 else 4 if length < 1 << 16 else 6)
