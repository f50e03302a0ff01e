"""msgpack within bounds; numbers of any length."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turns import lets_others_run, sometimes_lets_others_run
from values import exact, examples, floats, texts

from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import (
    Malformed,
    crc32,
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


def test_what_cannot_be_packed_is_named_and_nothing_of_it_stays() -> None:
    with pytest.raises(TypeError, match="cannot pack object"):
        pack(["before it", object()])
    assert pack([1]) == b"\x91\x01"


def test_what_packed_something_large_does_not_keep_its_memory() -> None:
    pack([])
    tracemalloc.start()
    try:
        pack([bytes(20_000_000)])
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_a_checksum_is_zlibs_whatever_the_size(data: bytes, times: int, start: int) -> None:
    assert crc32(data * times, start) == zlib.crc32(data * times, start)


def test_a_checksum_of_an_events_context_lets_no_other_thread_run() -> None:
    context = bytes(16 * 1024)
    assert not lets_others_run(lambda: crc32(context))
    assert sometimes_lets_others_run(lambda: zlib.crc32(context * 100))


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_varint_is_read_back_with_the_place_after_it(number: int, before: bytes, after: bytes) -> None:
    packed = varint(number)
    assert read_varint(before + packed + after, len(before)) == (number, len(before) + len(packed))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 20])
def test_a_varint_without_an_end_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_varint(data, 0)
