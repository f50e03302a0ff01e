"""msgpack and zstd within bounds; numbers of any length."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from values import exact, examples, floats, texts

from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import (
    MAX_PAYLOAD,
    Malformed,
    compress,
    decompress,
    pack,
    pack_pieces,
    read_varint,
    unpack,
    varint,
)

objects = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | floats | texts | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.integers(-9, 9), inner, max_size=4),
)
GIGABYTES = 10**10


@given(objects)
def test_what_is_packed_unpacks_with_its_types_and_order(value: Any) -> None:
    assert exact(unpack(pack(value))) == exact(value)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_a_value_error(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        pack([number])


@given(st.binary(max_size=60))
def test_any_bytes_unpack_or_are_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x02",
        b"\x92\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x01\x01",
        b"\xa1\xff",
        b"\x91" * 100_000 + b"\x01",
        b"\x81\x90\x01",
        b"\x81\x80\x01",
    ],
    ids=[
        "nothing",
        "reserved",
        "two",
        "cut",
        "huge array",
        "huge map",
        "no utf-8",
        "deep",
        "list as key",
        "map as key",
    ],
)
def test_bytes_that_no_writer_makes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(data)


def ropes(data: bytes) -> Rope:
    return Rope(*(data[at : at + 40_000] for at in range(0, len(data), 40_000)))


large = st.sampled_from([bytes(65_535), bytes(65_536), bytes(200_000)])
nested = st.recursive(
    objects | large | large.map(ropes),
    lambda inner: st.lists(inner, max_size=17) | st.dictionaries(texts | st.integers(-9, 9), inner, max_size=4),
    max_leaves=20,
)


def in_one(value: Any) -> Any:
    """The same, with byte strings for ropes."""
    if isinstance(value, dict):
        return {key: in_one(one) for key, one in value.items()}
    return [*map(in_one, value)] if isinstance(value, list) else bytes(value) if isinstance(value, Rope) else value


@given(nested)
@examples(0.3)
def test_what_is_packed_in_pieces_is_the_same_bytes(value: Any) -> None:
    assert bytes(pack_pieces(value)) == pack(value) == pack(in_one(value))


def test_large_byte_strings_are_packed_without_copying_them() -> None:
    first, second = bytes(70_000), bytes(80_000)
    packed = pack_pieces([1, {"a": [first], "b": Rope(second, first)}, b"small"])
    held = [piece for piece in packed.pieces if len(piece) > 1000]
    assert all(one is other for one, other in zip(held, [first, second, first], strict=True))


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize("level", [3, 9, 19])
def test_a_frame_of_pieces_says_its_size_and_gives_them_back(size: int, level: int) -> None:
    data = random.Random(size).randbytes(size // 2) * 2
    frame = compress(ropes(data), level)
    assert decompress(frame) == data
    assert len(frame) < 1.01 * len(compress(data, level)) + 50


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(TypeError, match="cannot pack object"):
        pack([object()])


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


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_varint_is_read_back_with_the_place_after_it(number: int, before: bytes, after: bytes) -> None:
    packed = varint(number)
    assert read_varint(before + packed + after, len(before)) == (number, len(before) + len(packed))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 20])
def test_a_varint_without_an_end_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_varint(data, 0)
