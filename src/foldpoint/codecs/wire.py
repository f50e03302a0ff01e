"""msgpack and zstd with the bounds that untrusted bytes need.

Hazard: a zstd frame may claim any size, so the claim is checked before memory is given to it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgpack
import zstandard

from foldpoint.codecs.rope import Piece, Rope

MAX_PAYLOAD = 1 << 31
"""No payload decompresses to more than this many bytes. So none may be compressed that has more."""
MAX_EVENT = MAX_PAYLOAD - (1 << 20)
"""Bytes of an event, so that a segment of one is no larger."""
_MOST_PER_BYTE = 1 << 15
"""No zstd frame holds more per byte: its blocks are of at most 128 KiB, and take four bytes at least."""

_FORMAT = zstandard.FORMAT_ZSTD1_MAGICLESS
_MAGIC = bytes.fromhex("28b52ffd")  # what the frames of `compress` begin with elsewhere
_LONGEST_HEADER = 14
_LAST, _REPEATED_BYTE = 1, 1  # of a block's header: a flag, and a kind
_SMALL = 16 * 1024
ARRAY, MAP = 0xDC, 0xDE
"""The first byte of the 16-bit form: tells one kind of container from the other."""
_LARGE = 1 << 16
"""Bytes. From here on msgpack knows one header for them, and to copy them takes time and memory."""
_LEAST_CONTEXT = 8
"""Shorter dictionaries are refused by zstd; they could not pay anyway."""
_FRUGAL_LEVEL, _TABLE_LOG = 12, 17
"""Up to this level tables are of at most 2^17 entries: that costs half a percent of the size and saves time."""


_spare_decoders: list[zstandard.ZstdDecompressor] = []
"""Each is used by one thread at a time."""


class Malformed(ValueError):
    """Bytes that no version of the writer produces."""


def pack(obj: Any) -> bytes:
    """msgpack, with any Unicode string (lone surrogates too); a Rope is a byte string.

    Raises ValueError for ints beyond 64 bits.
    """
    try:
        return msgpack.packb(obj, default=_joined, use_bin_type=True, unicode_errors="surrogatepass")  # type: ignore[no-any-return]
    except OverflowError as error:
        raise ValueError(f"integer out of range (64 bits): {error}") from error


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
        return len(obj) >= _LARGE
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


def _dictionary(context: bytes) -> zstandard.ZstdCompressionDict | None:
    if len(context) < _LEAST_CONTEXT:
        return None
    return zstandard.ZstdCompressionDict(context, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _parameters(level: int, size: int, context_size: int, **tables: int) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=size,
        dict_size=context_size,
        format=_FORMAT,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
        **tables,
    )


def _frugal(level: int, size: int, context_size: int) -> zstandard.ZstdCompressionParameters:
    """In a service memory counts too: a snapshot of half a megabyte would take 17 MB of tables at level 9."""
    wanted = _parameters(level, size, context_size)
    if level > _FRUGAL_LEVEL or max(wanted.hash_log, wanted.chain_log) <= _TABLE_LOG:
        return wanted
    tables = {name: min(_TABLE_LOG, getattr(wanted, name)) for name in ("hash_log", "chain_log")}
    return _parameters(level, size, context_size, **tables)


@cache
def _small_parameters(level: int) -> zstandard.ZstdCompressionParameters:
    """For so few bytes zstd would take tables of ten times their size, and clear them at each call."""
    return _parameters(level, _SMALL // 2, _SMALL // 2, hash_log=12, chain_log=12)


def compress(data: bytes | Rope, level: int, context: bytes = b"") -> bytes:
    """One zstd frame that refers back into `context` as if it stood before `data`."""
    small = len(data) + len(context) <= _SMALL
    parameters = _small_parameters(level) if small else _frugal(level, len(data), len(context))
    compressor = zstandard.ZstdCompressor(dict_data=_dictionary(context), compression_params=parameters)
    if isinstance(data, bytes) or len(data) < _LARGE:
        return compressor.compress(bytes(data))
    writer = compressor.compressobj(size=len(data))
    return b"".join([*map(writer.compress, data.pieces), writer.flush()])


def decompress(frame: bytes, context: bytes = b"", limit: int = MAX_PAYLOAD) -> bytes:
    """The content of a frame of `compress`; Malformed if it is damaged or claims more than `limit` bytes."""
    try:
        claimed = zstandard.get_frame_parameters(frame, format=_FORMAT)
        size = claimed.content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN or size > min(limit, len(frame) * _MOST_PER_BYTE):
            raise Malformed(f"frame of {len(frame)} bytes claims {size}, at most {limit} are accepted")
        small = 0 < size <= _SMALL - len(context)
        if small and len(context) >= _LEAST_CONTEXT and _is_whole(frame):
            content = _decompress_after(frame, context)
        else:
            decoder = zstandard.ZstdDecompressor(
                dict_data=_dictionary(context), format=_FORMAT, max_window_size=max(1 << 10, claimed.window_size)
            )
            # A frame that holds less than it claims must not read as success.
            content = decoder.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed(f"not a zstd frame: {error}") from error
    if len(content) != size:
        raise Malformed(f"frame holds {len(content)} bytes and claims {size}")
    return content


def _decompress_after(frame: bytes, context: bytes) -> bytes:
    """As with a dictionary, which is one decompressor's for good, and to make one takes ten times as long as to use it.

    Of a chain of frames each is read after the content of the one before, so the context is made a frame.
    """
    try:
        decoder = _spare_decoders.pop()
    except IndexError:
        decoder = zstandard.ZstdDecompressor()
    size = len(context)
    stored = _MAGIC + b"\xa0" + size.to_bytes(4, "little") + (size << 3 | _LAST).to_bytes(3, "little") + context
    content: bytes = decoder.decompress_content_dict_chain([stored, _MAGIC + frame])
    _spare_decoders.append(decoder)
    return content


def _is_whole(frame: bytes) -> bool:
    """Whether the last block of a frame without a checksum ends where its bytes do: in a chain nobody looks."""
    at = zstandard.frame_header_size(_MAGIC + frame[:_LONGEST_HEADER]) - len(_MAGIC)
    block = 0
    while not block & _LAST:
        block = int.from_bytes(frame[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == _REPEATED_BYTE else block >> 3)
        if at > len(frame):
            return False
    return at == len(frame)


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
