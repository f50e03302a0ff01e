"""zstd frames after a context, with the bounds that untrusted bytes need.

Hazard: a zstd frame may claim any size, so the claim is checked before memory is given to it.
"""

from __future__ import annotations

from functools import cache

import zstandard

from foldpoint.codecs import libzstd
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import LARGE, MAX_PAYLOAD, Malformed

_MOST_PER_BYTE = 1 << 15
"""No zstd frame holds more per byte: its blocks are of at most 128 KiB, and take four bytes at least."""
_FORMAT = zstandard.FORMAT_ZSTD1_MAGICLESS
_MAGIC = bytes.fromhex("28b52ffd")  # what the frames of `compress` begin with elsewhere
_SMALL = 16 * 1024
_QUICK, _NEAR, _QUICK_LEVEL = 64 * 1024, 256 * 1024, 5
"""So many bytes, after a context of so many, take two milliseconds at most up to this level, most a tenth of that. For
five a thread keeps the interpreter unless it gives it up."""
_AT_ONCE = 1 << 20
"""So many bytes are compressed at once, from a copy and into a buffer for all of them; more than that, in pieces."""
_LEAST_CONTEXT = 8
"""Shorter ones are refused by zstd; they could not pay anyway."""
_FRUGAL_LEVEL, _TABLE_LOG = 12, 17
"""Up to this level tables are of at most 2^17 entries: that costs half a percent of the size and saves time."""

_library = libzstd.library(_QUICK)


def compress(data: bytes | Rope, level: int, context: bytes = b"") -> bytes:
    """One frame that refers back into `context` as if it stood before `data`."""
    context = _usable(context)
    if _is_quick(len(data), context) and level <= _QUICK_LEVEL and _library is not None:
        return _library.compress(bytes(data), level, context)[len(_MAGIC) :]
    small = len(data) + len(context) <= _SMALL
    parameters = _small_parameters(level) if small else _frugal(level, len(data), len(context))
    if _library is not None and level <= _FRUGAL_LEVEL and len(data) <= _AT_ONCE:
        plain = data if isinstance(data, bytes) else b"".join(data.pieces)
        return _library.compress_large(plain, parameters, context)[len(_MAGIC) :]
    compressor = zstandard.ZstdCompressor(dict_data=_dictionary(context), compression_params=parameters)
    if isinstance(data, bytes) or len(data) < LARGE:
        return compressor.compress(bytes(data))
    writer = compressor.compressobj(size=len(data))
    return b"".join([*map(writer.compress, data.pieces), writer.flush()])


def decompress(frame: bytes, context: bytes = b"", limit: int = MAX_PAYLOAD) -> bytes:
    """The content of a frame of `compress`; Malformed if it is damaged or claims more than `limit` bytes."""
    context = _usable(context)
    try:
        claimed = zstandard.get_frame_parameters(frame, format=_FORMAT)
        size = claimed.content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN or size > min(limit, len(frame) * _MOST_PER_BYTE):
            raise Malformed(f"frame of {len(frame)} bytes claims {size}, at most {limit} are accepted")
        quick = _is_quick(max(size, len(frame)), context) and claimed.window_size <= MAX_PAYLOAD
        if quick and size > 0 and _library is not None:
            return _library.decompress(_MAGIC + frame, size, context)
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


def _is_quick(size: int, context: bytes) -> bool:
    return size <= _QUICK and len(context) <= _NEAR


def _usable(context: bytes) -> bytes:
    return context if len(context) >= _LEAST_CONTEXT else b""


def _dictionary(context: bytes) -> zstandard.ZstdCompressionDict | None:
    return zstandard.ZstdCompressionDict(context, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if context else None


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
    """For so few bytes zstandard would take tables of ten times their size, and clear them at each call."""
    return _parameters(level, _SMALL // 2, _SMALL // 2, hash_log=12, chain_log=12)
