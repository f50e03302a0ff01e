"""Bytes that nobody wrote: only typed errors, and no memory for what is only claimed.

`python -m torture fuzz` feeds the same targets with more, guided by coverage.
"""

from __future__ import annotations

import logging
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import examples

from foldpoint.codecs import wire, zstd
from foldpoint.codecs.head import decode_head
from foldpoint.codecs.segment import decode_segment
from foldpoint.codecs.wire import Malformed
from torture.targets import mutate, seeds, targets

NAMES = [*targets()]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "foldpoint")  # it warns of what it restores


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_taken(name: str) -> None:
    for data in seeds(name):
        targets()[name](data)


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(0, 2**64 - 1), st.integers(0, 100))
@examples(0.2)
def test_what_nobody_wrote_raises_typed_errors_only(name: str, seed: int, at: int) -> None:
    given = seeds(name)
    targets()[name](mutate(given[at % len(given)], random.Random(seed)))


@pytest.mark.parametrize("name", NAMES)
@given(st.binary(max_size=60))
@examples(0.2)
def test_any_bytes_raise_typed_errors_only(name: str, data: bytes) -> None:
    targets()[name](data)


CLAIMS = {
    "a frame of 10 GB": lambda: zstd.decompress(bytes([0b11100000]) + (10 << 30).to_bytes(8, "little") + b"\1\0\0"),
    "a frame of 2 GB that holds nothing": lambda: zstd.decompress(
        bytes([0b11100000]) + (2 << 30).to_bytes(8, "little") + b"\1\0\0"
    ),
    "an array of four billion": lambda: wire.unpack(b"\xdd\xff\xff\xff\xff"),
    "a map of four billion": lambda: wire.unpack(b"\xdf\xff\xff\xff\xff"),
    "text of four billion bytes": lambda: wire.unpack(b"\xdb\xff\xff\xff\xff"),
    "arrays in arrays": lambda: wire.unpack(b"\x91" * 100_000),
    "a head of four billion": lambda: decode_head(b"\xdd\xff\xff\xff\xff"),
    "a segment of 2^40 fillers": lambda: decode_segment(wire.pack([[1, 1 << 40], None, []])),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_takes_no_memory(claim: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            CLAIMS[claim]()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
