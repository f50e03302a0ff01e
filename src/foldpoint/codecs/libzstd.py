"""zstd's own functions, called with compressors that are used again.

zstandard makes a compressor for each call, and lets other threads run while it works. For an event the one takes longer
than to compress it, and in a busy process so does the other: a thread waits until it has its turn again. For a snapshot
the first is megabytes, which the C library then keeps for each thread that ever made one.

Hazard: the functions call each other by names that any library in the process may have, of another version. What a call
takes it may lose to an exception of another thread's, or of a signal's.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from ctypes import c_char, c_char_p, c_int, c_size_t, c_void_p
from functools import partial
from importlib.util import find_spec

from foldpoint.codecs.wire import Malformed

_PARAMETERS = {  # ZSTD_cParameter, of these zstandard tells by the same names
    "window_log": 101,
    "hash_log": 102,
    "chain_log": 103,
    "search_log": 104,
    "min_match": 105,
    "target_length": 106,
    "strategy": 107,
}
_LEVEL = 100  # ZSTD_c_compressionLevel
_MOST_SPARE = 2
"""Compressors for large data that are kept, each of so many bytes as the most that was asked of it took."""
_FUNCTIONS: dict[str, tuple[type, list[type]]] = {
    "ZSTD_compressBound": (c_size_t, [c_size_t]),
    "ZSTD_createCCtx": (c_void_p, []),
    "ZSTD_CCtx_setParameter": (c_size_t, [c_void_p, c_int, c_int]),
    "ZSTD_CCtx_refPrefix": (c_size_t, [c_void_p, c_char_p, c_size_t]),
    "ZSTD_freeCCtx": (c_size_t, [c_void_p]),
    "ZSTD_compress2": (c_size_t, [c_void_p, c_void_p, c_size_t, c_char_p, c_size_t]),
    "ZSTD_createDCtx": (c_void_p, []),
    "ZSTD_freeDCtx": (c_size_t, [c_void_p]),
    "ZSTD_DCtx_refPrefix": (c_size_t, [c_void_p, c_char_p, c_size_t]),
    "ZSTD_decompressDCtx": (c_size_t, [c_void_p, c_void_p, c_size_t, c_char_p, c_size_t]),
    "ZSTD_findFrameCompressedSize": (c_size_t, [c_char_p, c_size_t]),
}


class _Worker:
    """A compressor or decompressor of zstd's, and what it writes to. For one call at a time."""

    def __init__(self, handle: int | None, free: Callable[[int], int], size: int) -> None:
        if handle is None:
            raise MemoryError("zstd has no memory for its tables")
        # Not at exit: then a thread may be amid a call.
        weakref.finalize(self, free, handle).atexit = False
        self.handle = handle
        self.buffer = ctypes.create_string_buffer(size)
        self.content = memoryview(self.buffer).cast("B")


class Library:
    """Compresses, and gives back, at most `most` bytes, or compresses any number. Safe to share between threads.

    OSError, AttributeError: there is no library at `path`, or it lacks a function.
    """

    def __init__(self, path: str, most: int) -> None:
        self._zstd = ctypes.PyDLL(path)
        for name in _FUNCTIONS:
            _typed(self._zstd, name)
        self._most = most
        self._bound: int = self._zstd.ZSTD_compressBound(most)
        self._compress_meanwhile = _typed(ctypes.CDLL(path), "ZSTD_compress2")
        self._compressors: dict[int, list[_Worker]] = {}
        self._decompressors: list[_Worker] = []
        self._large: list[_Worker] = []

    def compress(self, data: bytes, level: int, context: bytes) -> bytes:
        """One frame, with its magic number and content size, without checksum. At most `most` bytes."""
        spare = self._compressors.setdefault(level, [])
        worker = _taken(spare, partial(self._compressor, level))
        frame = self._frame(self._zstd.ZSTD_compress2, worker, worker.buffer, data, context)
        spare.append(worker)
        return frame

    def compress_large(self, data: bytes, parameters: object, context: bytes) -> bytes:
        """As `compress`, any number of bytes, by zstandard's `parameters`; other threads run meanwhile."""
        worker = _taken(self._large, self._large_compressor)
        for name, number in _PARAMETERS.items():
            self._zstd.ZSTD_CCtx_setParameter(worker.handle, number, getattr(parameters, name))
        buffer = ctypes.create_string_buffer(self._zstd.ZSTD_compressBound(len(data)))
        frame = self._frame(self._compress_meanwhile, worker, buffer, data, context)
        if len(self._large) < _MOST_SPARE:
            self._large.append(worker)
        return frame

    def _frame(
        self, compress: Callable[..., int], worker: _Worker, buffer: ctypes.Array[c_char], data: bytes, context: bytes
    ) -> bytes:
        _require(self._zstd.ZSTD_CCtx_refPrefix(worker.handle, context, len(context)))
        size = compress(worker.handle, buffer, len(buffer), data, len(data))
        if size > len(buffer):  # the number of an error
            raise MemoryError(f"zstd could not compress {len(data)} bytes")
        return memoryview(buffer).cast("B")[:size].tobytes()

    def decompress(self, frame: bytes, size: int, context: bytes) -> bytes:
        """The `size` bytes that a frame says it holds. Malformed: it is damaged, or ends before `frame` does."""
        if size > self._most:
            raise ValueError(f"{size} bytes, at most {self._most} are decompressed here")
        worker = _taken(self._decompressors, self._decompressor)
        _require(self._zstd.ZSTD_DCtx_refPrefix(worker.handle, context, len(context)))
        held = self._zstd.ZSTD_decompressDCtx(worker.handle, worker.buffer, size, frame, len(frame))
        content = worker.content[:size].tobytes()
        self._decompressors.append(worker)
        if held != size or self._zstd.ZSTD_findFrameCompressedSize(frame, len(frame)) != len(frame):
            raise Malformed(f"not one zstd frame of {size} bytes")
        return content

    def _compressor(self, level: int) -> _Worker:
        worker = _Worker(self._zstd.ZSTD_createCCtx(), self._zstd.ZSTD_freeCCtx, self._bound)
        self._zstd.ZSTD_CCtx_setParameter(worker.handle, _LEVEL, level)
        return worker

    def _large_compressor(self) -> _Worker:
        return _Worker(self._zstd.ZSTD_createCCtx(), self._zstd.ZSTD_freeCCtx, 0)

    def _decompressor(self) -> _Worker:
        return _Worker(self._zstd.ZSTD_createDCtx(), self._zstd.ZSTD_freeDCtx, self._most)


def _typed(library: ctypes.CDLL, name: str) -> Callable[..., int]:
    function = getattr(library, name)
    function.restype, function.argtypes = _FUNCTIONS[name]
    return function  # type: ignore[no-any-return]


def _taken(spare: list[_Worker], new: Callable[[], _Worker]) -> _Worker:
    try:
        return spare.pop()
    except IndexError:
        return new()


def _require(result: int) -> None:
    if result:
        raise MemoryError("zstd has no memory for a context")


def library(most: int) -> Library | None:
    """The zstd that zstandard brings along; None where that does not let itself be called, or is not the only one."""
    try:
        found = find_spec("zstandard._cffi")
        if found is None or found.origin is None or hasattr(ctypes.CDLL(None), "ZSTD_versionNumber"):
            return None
        return Library(found.origin, most)
    except (ImportError, ValueError, TypeError, OSError, AttributeError):  # TypeError: Windows knows no CDLL(None)
        return None
