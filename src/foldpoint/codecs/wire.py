"""msgpack with the bounds that untrusted bytes need, and numbers of any length."""

from __future__ import annotations

import zlib
from typing import Any

import msgpack

from foldpoint.codecs.rope import Piece, Rope

MAX_PAYLOAD = 1 << 31
"""No payload decompresses to more than this many bytes. So none may be compressed that has more."""
MAX_EVENT = MAX_PAYLOAD - (1 << 20)
"""Bytes of an event, so that a segment of one is no larger."""

ARRAY, MAP = 0xDC, 0xDE
"""The first byte of the 16-bit form: tells one kind of container from the other."""
_PIECE = 4096
LARGE = 1 << 16
"""Bytes. From here on msgpack knows one header for them, and to copy them takes time and memory."""


_spare_packers: list[msgpack.Packer] = []
"""Each is used by one thread at a time. A new one takes memory, an old one as much as the most it packed."""


class Malformed(ValueError):
    """Bytes that no version of the writer produces."""


def pack(obj: Any) -> bytes:
    """msgpack, with any Unicode string (lone surrogates too); a Rope is a byte string.

    Raises ValueError for ints beyond 64 bits.
    """
    try:
        packer = _spare_packers.pop()
    except IndexError:
        packer = msgpack.Packer(default=_joined, use_bin_type=True, unicode_errors="surrogatepass")
    try:
        packed: bytes = packer.pack(obj)
    except OverflowError as error:
        raise ValueError(f"integer out of range (64 bits): {error}") from error
    if len(packed) <= LARGE:
        _spare_packers.append(packer)
    return packed


def _joined(obj: Any) -> bytes:
    """What stands for an object that msgpack does not know, or cannot hold."""
    if isinstance(obj, int):
        raise OverflowError(obj)
    if type(obj) is not Rope:
        raise TypeError(f"cannot pack {type(obj).__name__}")
    return bytes(obj)


def pack_pieces(obj: Any) -> Rope:
    """As `pack`, but large byte strings in lists and dicts are not copied: their pieces are those of the result."""
    pieces: list[Piece] = []
    _pack_into(pieces, obj)
    return Rope(*pieces)


def _pack_into(pieces: list[Piece], obj: Any) -> None:
    if not _holds_large(obj):
        pieces.append(pack(obj))
    elif type(obj) is list:
        pieces.append(container_header(ARRAY, len(obj)))
        for one in obj:
            _pack_into(pieces, one)
    elif type(obj) is dict:
        pieces.append(container_header(MAP, len(obj)))
        for key, value in obj.items():
            pieces.append(pack(key))
            _pack_into(pieces, value)
    else:
        pieces.append(b"\xc6" + len(obj).to_bytes(4, "big"))
        pieces += obj.pieces if type(obj) is Rope else (obj,)


def _holds_large(obj: Any) -> bool:
    if type(obj) in (bytes, Rope):
        return len(obj) >= LARGE
    inner = obj.values() if type(obj) is dict else obj if type(obj) is list else ()
    return any(map(_holds_large, inner))


def container_header(kind: int, count: int) -> bytes:
    """What an ARRAY or a MAP of `count` entries begins with, in its shortest form."""
    if count < 16:
        return bytes([(0x80 if kind == MAP else 0x90) | count])
    if count < 1 << 16:
        return bytes([kind]) + count.to_bytes(2, "big")
    return bytes([kind + 1]) + count.to_bytes(4, "big")


def unpack(data: bytes) -> Any:
    """The one object in `data`; Malformed if there is not exactly one."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=True, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:  # TypeError: an unhashable key
        raise Malformed(f"not msgpack: {error}") from error


def crc32(data: bytes, start: int = 0) -> int:
    """As zlib's, which lets other threads run where there are more than 5 KB, and then waits to have its turn again."""
    if not _PIECE < len(data) <= LARGE:
        return zlib.crc32(data, start)
    for at in range(0, len(data), _PIECE):
        start = zlib.crc32(data[at : at + _PIECE], start)
    return start


def whole(value: Any, most: int) -> int:
    """`value`, if it is a whole number from 0 to `most`; else Malformed."""
    if type(value) is not int or not 0 <= value <= most:
        raise Malformed(f"{value!r:.40} where a number from 0 to {most} was expected")
    return value


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, position after it)."""
    number = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise Malformed("truncated number")
