"""Heads come back, are small for ever, and nothing else passes for one."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import exact, texts

from foldpoint.codecs.head import DeadEpoch, Extent, Head, Level, decode_head, encode_head
from foldpoint.codecs.segment import SnapshotRef
from foldpoint.codecs.wire import Malformed, pack, unpack

numbers = st.integers(0, (1 << 32) - 1)
refs = st.none() | st.builds(SnapshotRef, numbers, numbers, numbers, st.integers(1, 65536), st.booleans())
extents = st.builds(Extent, numbers, numbers, st.tuples(numbers, numbers, numbers))
levels = st.builds(Level, numbers, numbers, numbers, numbers)
epochs = st.binary(min_size=16, max_size=16)
heads = st.builds(
    Head,
    texts,
    texts,
    epochs,
    st.integers(2, 1024),
    st.booleans(),
    numbers,
    numbers,
    numbers,
    st.tuples(levels, levels),
    numbers,
    refs,
    numbers,
    numbers,
    refs,
    numbers,
    extents,
    extents,
    numbers,
    numbers,
    st.lists(st.builds(DeadEpoch, epochs, extents, extents, numbers), max_size=3).map(tuple),
    st.none() | st.integers(1, 1 << 40),
    numbers,
)

EXAMPLE = Head(
    "thread", "ns", bytes(16), 64, snapshot=SnapshotRef(1, 2, 3, 4), dead=(DeadEpoch(b"e" * 16, Extent(), Extent(), 9),)
)


@given(heads)
def test_a_head_comes_back(head: Head) -> None:
    assert exact(decode_head(encode_head(head))) == exact(head)


def test_a_head_is_small_however_long_its_stream() -> None:
    most = (1 << 48) - 1
    ref = SnapshotRef(most, most, most, 65535, True)
    extent = Extent(most, most, (most, most, most))
    level = Level(most, most, most, most)
    head = replace(EXAMPLE, sealed=most, segments=most, snapshots=most, snapshot=ref, snapshot_bytes=most, logged=most)
    head = replace(head, kept=ref, kept_logged=most, cleaned=extent, mark=extent, marked_at=most, emptied=most)
    head = replace(head, segment_bytes=most, merged=(level, level))
    assert len(encode_head(head)) < 400


def test_the_window_is_what_follows_the_sealed() -> None:
    assert list(replace(EXAMPLE, sealed=10, window=3).slots) == [11, 12, 13]


def test_other_records_live_twice_as_long_as_the_head() -> None:
    assert replace(EXAMPLE, ttl=60).record_ttl == 120
    assert EXAMPLE.record_ttl is None


def test_every_truncation_is_malformed() -> None:
    encoded = encode_head(EXAMPLE)
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            decode_head(encoded[:size])


@pytest.mark.parametrize("at", range(22))
def test_a_head_that_lacks_a_field_is_malformed(at: int) -> None:
    fields = unpack(encode_head(EXAMPLE))
    del fields[at]
    with pytest.raises(Malformed):
        decode_head(pack(fields))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_head_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode_head(data)
