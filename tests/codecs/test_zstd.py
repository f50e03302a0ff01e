"""zstd within bounds, through the library's own functions and through zstandard."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from turns import lets_others_run, sometimes_lets_others_run

from foldpoint.codecs import libzstd, zstd
from foldpoint.codecs.libzstd import Library
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import MAX_PAYLOAD, Malformed
from foldpoint.codecs.zstd import compress, decompress

GIGABYTES = 10**10
DIRECT = zstd._library
WAYS = [
    pytest.param(DIRECT, id="direct", marks=pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")),
    pytest.param(None, id="zstandard"),
]


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Library | None:
    """Every claim of this file is one of both ways to call zstd."""
    monkeypatch.setattr(zstd, "_library", request.param)
    way: Library | None = request.param
    return way


def ropes(data: bytes) -> Rope:
    return Rope(*(data[at : at + 40_000] for at in range(0, len(data), 40_000)))


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize("level", [3, 9, 19])
def test_a_frame_of_pieces_says_its_size_and_gives_them_back(size: int, level: int) -> None:
    data = random.Random(size).randbytes(size // 2) * 2
    frame = compress(ropes(data), level)
    assert decompress(frame) == data
    assert len(frame) < 1.01 * len(compress(data, level)) + 50


@given(st.binary(max_size=2000), st.binary(max_size=2000), st.integers(1, 19))
def test_a_frame_gives_back_what_was_compressed_against_the_same_context(data: bytes, extra: bytes, level: int) -> None:
    context = extra + data[: len(data) // 2]
    assert decompress(compress(data, level, context), context) == data


def test_a_context_makes_what_it_repeats_cost_next_to_nothing() -> None:
    text = bytes(n * n % 251 for n in range(300_000))
    assert len(compress(text[-200_000:], 3, text)) < 200


@pytest.mark.parametrize("claim", [MAX_PAYLOAD + 1, GIGABYTES, 2**64 - 3])
def test_a_frame_that_claims_too_much_is_refused_before_memory_is_given_to_it(claim: int) -> None:
    # Frame header: 8-byte content size, a window of 1 KB; then one empty last raw block.
    frame = bytes([0b11_0_00000, 0]) + claim.to_bytes(8, "little") + b"\x01\x00\x00"
    assert zstandard.get_frame_parameters(frame, format=zstandard.FORMAT_ZSTD1_MAGICLESS).content_size == claim
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="claims"):
            decompress(frame)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_frame_that_does_not_say_its_size_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(b"some bytes " * 9)
    with pytest.raises(Malformed, match="claims"):
        decompress(frame)


def test_a_limit_is_kept_exactly() -> None:
    frame = compress(bytes(1000), 3)
    assert decompress(frame, limit=1000) == bytes(1000)
    with pytest.raises(Malformed):
        decompress(frame, limit=999)


def test_every_truncation_of_a_frame_is_malformed() -> None:
    frame = compress(b"".join(b"%d " % (n * n) for n in range(100)), 3)
    for size in range(len(frame)):
        with pytest.raises(Malformed):
            decompress(frame[:size])


def with_a_dictionary(frame: bytes, context: bytes) -> bytes | None:
    """What zstandard makes of a frame by a decompressor of its own; None if it is damaged."""
    dictionary = zstandard.ZstdCompressionDict(context, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decoder = zstandard.ZstdDecompressor(dict_data=dictionary, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    try:
        claimed = zstandard.get_frame_parameters(frame, format=zstandard.FORMAT_ZSTD1_MAGICLESS).content_size
        if claimed > len(frame) << 15:
            return None
        content = decoder.decompress(frame, max_output_size=claimed, allow_extra_data=False)
    except zstandard.ZstdError:
        return None
    return content if len(content) == claimed else None


@pytest.mark.parametrize("seed", range(8))
def test_a_frame_reads_after_its_context_as_with_a_dictionary_whatever_was_done_to_it(seed: int) -> None:
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(1, 40)) for _ in range(60)]
    read = 0
    for _ in range(1500):
        context = b"".join(rng.choices(words, k=rng.randint(8, 900)))
        data = b"".join(rng.choices(words, k=rng.randint(0, 120))) if rng.random() < 0.9 else bytes(rng.randrange(9000))
        frame = bytearray(compress(data, rng.choice([1, 3, 9]), context))
        change = rng.choice(["none", "flip", "flip the header", "cut", "add"])
        if change.startswith("flip"):
            frame[rng.randrange(12 if change != "flip" else len(frame)) % len(frame)] ^= 1 << rng.randrange(8)
        elif change == "cut":
            del frame[rng.randrange(len(frame)) :]
        elif change == "add":
            frame += rng.randbytes(rng.randint(1, 6))
        expected = with_a_dictionary(bytes(frame), context)
        if expected is None:
            with pytest.raises(Malformed):
                decompress(bytes(frame), context)
        else:
            assert decompress(bytes(frame), context) == expected
            read += 1
    assert read > 300


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_any_bytes_decompress_or_are_malformed(frame: bytes, context: bytes) -> None:
    with contextlib.suppress(Malformed):
        decompress(frame, context, limit=1 << 20)


@pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")
def test_what_one_way_compressed_the_other_gives_back(way: Library | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    words = [rng.randbytes(rng.randint(1, 40)) for _ in range(60)]
    text = b"".join(rng.choices(words, k=20_000))
    sizes = [0, 1, 7, 8, 300, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537]
    cases = [(size, after, rng.randint(1, 9)) for size in sizes for after in (0, 7, 8, 900, 16_000, 262_144, 262_145)]
    frames = [compress(text[at : at + size], level, text[-after:]) for at, (size, after, level) in enumerate(cases)]
    monkeypatch.setattr(zstd, "_library", DIRECT if way is None else None)
    for at, ((size, after, _), frame) in enumerate(zip(cases, frames, strict=True)):
        assert decompress(frame, text[-after:]) == text[at : at + size]


@pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")
def test_an_event_is_compressed_and_read_without_letting_other_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "_library", DIRECT)
    context, data = random.Random(1).randbytes(8192), b"what is said in an event " * 30
    frame = compress(data, 3, context)
    assert not lets_others_run(lambda: compress(data, 3, context))
    assert not lets_others_run(lambda: decompress(frame, context))
    assert sometimes_lets_others_run(lambda: compress(context * 100, 3))
    assert sometimes_lets_others_run(lambda: compress(data * 20, 19))


def test_threads_that_compress_at_once_do_not_disturb_each_other() -> None:
    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            context = rng.randbytes(rng.randrange(4000))
            data = context[rng.randrange(len(context) + 1) :] + rng.randbytes(rng.randrange(900))
            assert decompress(compress(data, rng.choice([1, 3]), context), context) == data

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert [*pool.map(work, range(8))] == [None] * 8
    finally:
        sys.setswitchinterval(before)


@pytest.mark.skipif("CI" not in os.environ, reason="a person's zstandard may be built otherwise")
def test_zstandard_brings_a_library() -> None:
    assert DIRECT is not None


def test_without_a_library_zstandard_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (None, SimpleNamespace(origin=None), SimpleNamespace(origin="/nowhere.so"), find_spec("_ctypes")):
        monkeypatch.setattr(libzstd, "find_spec", lambda _, found=found: found)
        assert libzstd.library(100) is None
    for error in (ImportError, ValueError):

        def fails(_: str, error: type[Exception] = error) -> None:
            raise error

        monkeypatch.setattr(libzstd, "find_spec", fails)
        assert libzstd.library(100) is None


@pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")
def test_where_the_process_has_another_zstd_the_two_are_not_mixed() -> None:
    script = """
import ctypes
from importlib.util import find_spec
ctypes.CDLL(find_spec("zstandard._cffi").origin, mode=ctypes.RTLD_GLOBAL)
from foldpoint.codecs import zstd
print(zstd._library, zstd.decompress(zstd.compress(b"some text", 3, b"some text"), b"some text"))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "None b'some text'\n"


@pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")
def test_threads_that_compress_much_at_once_leave_two_compressors_behind() -> None:
    library, given_back = libzstd.library(1000), []
    assert library is not None
    library._zstd.ZSTD_freeCCtx = lambda handle: given_back.append(handle)
    data = random.Random(1).randbytes(300_000)
    together = threading.Barrier(6)

    def work(seed: int) -> bytes:
        together.wait()
        return b"".join(library.compress_large(data[seed:], zstd._frugal(9, len(data), 0), b"") for _ in range(20))

    with ThreadPoolExecutor(6) as pool:
        frames = [*pool.map(work, range(6))]
    assert len(library._large) == 2
    assert given_back
    assert len(set(frames)) == 6
    assert [len(frame) // 20 > len(data) - 100 for frame in frames] == [True] * 6


def interrupt(*args: object) -> int:
    raise KeyboardInterrupt


@pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")
@pytest.mark.parametrize(("call", "free"), [("compress2", "freeCCtx"), ("decompressDCtx", "freeDCtx")])
def test_what_a_call_had_taken_that_was_interrupted_is_given_back(call: str, free: str) -> None:
    library, given_back = libzstd.library(1000), []
    assert library is not None
    setattr(library._zstd, f"ZSTD_{free}", lambda handle: given_back.append(handle))
    frame, real = library.compress(b"text", 3, b""), getattr(library._zstd, f"ZSTD_{call}")
    assert library.decompress(frame, 4, b"") == b"text"
    setattr(library._zstd, f"ZSTD_{call}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        library.decompress(library.compress(b"text", 3, b""), 4, b"")
    assert len(given_back) == 1
    setattr(library._zstd, f"ZSTD_{call}", real)
    assert library.decompress(library.compress(b"text", 3, b""), 4, b"") == b"text"


@pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")
def test_a_large_compressor_that_was_interrupted_is_given_back(way: Library | None) -> None:
    library, given_back, parameters = libzstd.library(1000), [], zstd._frugal(9, 70_000, 0)
    assert library is not None
    library._zstd.ZSTD_freeCCtx = lambda handle: given_back.append(handle)
    real, library._compress_meanwhile = library._compress_meanwhile, interrupt
    with pytest.raises(KeyboardInterrupt):
        library.compress_large(b"text" * 20_000, parameters, b"")
    assert len(given_back) == 1
    library._compress_meanwhile = real
    frame = library.compress_large(b"text" * 20_000, parameters, b"")
    assert decompress(frame[len(zstd._MAGIC) :]) == b"text" * 20_000
    assert len(given_back) == 1


@pytest.mark.skipif(DIRECT is None, reason="zstandard brings no library")
@pytest.mark.parametrize("which", ["CCtx", "DCtx"])
def test_too_little_memory_is_not_taken_for_damage(which: str) -> None:
    library = libzstd.library(1000)
    assert library is not None
    setattr(library._zstd, f"ZSTD_{which}_refPrefix", lambda *_: 2**64 - 64)
    with pytest.raises(MemoryError):
        library.decompress(library.compress(b"text", 3, b""), 4, b"")


@pytest.mark.parametrize(
    "frame",
    [
        compress(b"one", 3) + zstd._MAGIC + compress(b"", 3),
        compress(b"one", 3) + bytes.fromhex("502a4d1800000000"),
        bytes.fromhex("80aa0100000009000022"),
    ],
    ids=["an empty one after it", "one to be skipped after it", "a window of more than 2 GiB"],
)
def test_what_is_not_one_frame_of_ours_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        decompress(frame)
