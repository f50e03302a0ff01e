"""Bytes to values: those that LangGraph's serializer makes, in less time where these are known."""

from __future__ import annotations

from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from ormsgpack import Ext, MsgpackDecodeError, packb, unpackb

from foldpoint.codecs.model import Value
from foldpoint.langgraph_adapter.known import EXT_ARGUMENTS, EXT_MESSAGE, is_known, known_messages, known_send

_TYPE = "msgpack"


class Decoder:
    """Gives what `serde.loads_typed` gives: never an object that it gave before. Safe to share between threads.

    fast: whether to do anything otherwise than `serde`, if that is LangGraph's own. Only objects are built without it
    that its strictest allowlist allows.
    """

    def __init__(self, serde: SerializerProtocol, *, fast: bool = True) -> None:
        self._serde = serde
        known = known_messages().values() if fast and is_known(serde) else ()
        self._messages = {one.name: one for one in known}
        self._starts = tuple(one.start for one in known)
        self._send = known_send() if known else None

    def value(self, value: Value) -> Any:
        """Raises the serializer's error for bytes that it cannot deserialize."""
        if self._messages and value.type == _TYPE:
            try:
                return unpackb(value.data, ext_hook=self._object, option=ormsgpack.OPT_NON_STR_KEYS)
            except MsgpackDecodeError:
                pass  # the serializer says what is wrong
        return self._serde.loads_typed((value.type, value.data))

    def _object(self, code: int, data: bytes) -> Any:
        if code == EXT_MESSAGE and data.startswith(self._starts):
            message = self._message(data)
            if message is not None:
                return message
        elif code == EXT_ARGUMENTS and self._send is not None and data.startswith(self._send.start):
            _, _, arguments = unpackb(data, ext_hook=self._object, option=ormsgpack.OPT_NON_STR_KEYS)
            return self._send.cls(*arguments)
        return self._serde.loads_typed((_TYPE, packb(Ext(code, data))))

    def _message(self, data: bytes) -> Any:
        """None for a message that is not plain."""
        try:
            _, name, fields, _ = unpackb(data)  # refuses other objects, and keys that are no text
        except MsgpackDecodeError:
            return None
        return self._messages[name].build(fields)
