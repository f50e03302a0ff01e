"""Segments hold their events, where holes are and what they stand on; snapshots whose events stand for which."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldpoint.codecs.segment import (
    Footing,
    Segment,
    Snapshot,
    SnapshotRef,
    Span,
    Told,
    decode_segment,
    decode_snapshot,
    decode_span,
    encode_segment,
    encode_snapshot,
    encode_span,
    pack_ref,
    unpack_ref,
)
from foldpoint.codecs.wire import Malformed, pack, unpack

numbers = st.integers(0, (1 << 32) - 1)
refs = st.builds(SnapshotRef, numbers, numbers, numbers, st.integers(1, 65536), st.booleans())


ids = st.uuids().map(str) | st.text(max_size=4)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    first = draw(st.integers(1, 1 << 40))
    last = first + draw(st.integers(0, 12))
    late = tuple(draw(st.lists(ids, max_size=3)))
    start = draw(st.none() | refs)
    start = replace(start, covers=start.covers % first) if start else None
    return Span(first, last, start, draw(ids), late, draw(st.integers(0, 16)))


checks = st.binary(min_size=4, max_size=4)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    span = draw(spans())
    first, last = span.first, span.last
    held = draw(st.sets(st.integers(first, last)))
    events = tuple((seq, draw(st.binary(min_size=1, max_size=5))) for seq in sorted(held))
    firsts = draw(st.lists(st.integers(first, last), max_size=3, unique=True)) if first > 1 else []
    footings = [Footing(at, tuple(draw(st.lists(st.integers(1, at - 1)))), draw(checks)) for at in firsts]
    return Segment(span, events, tuple(footings))


@given(segments())
def test_a_segment_comes_back(segment: Segment) -> None:
    assert decode_segment(bytes(encode_segment(segment))) == segment


@given(spans())
def test_a_span_comes_back(span: Span) -> None:
    assert decode_span(encode_span(span)) == span


def test_a_span_that_says_nothing_of_ids_takes_three_bytes() -> None:
    assert len(encode_span(Span(1, 64))) == 3


@given(st.none() | refs)
def test_a_reference_to_a_snapshot_comes_back(ref: SnapshotRef | None) -> None:
    back = unpack_ref(unpack(pack(pack_ref(ref))))
    assert back == ref
    assert back is None or type(back.kept) is bool


@pytest.mark.parametrize("held", [(), (5,), (9,), (5, 9), (6, 7, 8), (5, 6, 7, 8, 9)])
def test_holes_may_be_anywhere(held: tuple[int, ...]) -> None:
    segment = Segment(Span(5, 9), tuple((seq, b"%d" % seq) for seq in held))
    assert decode_segment(bytes(encode_segment(segment))) == segment


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        [[1, 2], None],
        [[1, 1], None, [b"a", b"b"]],
        [[0, 1], None, [b"a"]],
        [[2, 1], None, [b"a"]],
        [[1, 2], None, ["a"]],
        [[1, 2], [1], [b"a", b"b"]],
        [[1, 3], [0, 3], [b"a", b"b"]],
        [[1, 3], ["x", 0], [b"a", b"b"]],
        [[1, 2, [1, 2]], None, [b"a"]],
        [[1, 2, 3], None, [b"a"]],
        [[1, 2, None, 7], None, [b"a"]],
        [[1, 2, None, "", 7], None, [b"a"]],
        [[1, 2, None, "", [], "1"], None, [b"a"]],
        [[1, 2, None, "", [], 1, 1], None, [b"a"]],
        [[1], None, [b"a"]],
        [[1, 2], None, 5],
        [["1", 2], None, [b"a"]],
    ],
)
def test_what_is_no_segment_is_malformed(fields: Any) -> None:
    with pytest.raises(Malformed):
        decode_segment(pack([*fields, []] if fields else fields))


@pytest.mark.parametrize(
    "footing",
    [
        None,
        [],
        [0, [1]],
        [0, [1], b"abc"],
        [0, [1], "abcd"],
        [0, 1, b"abcd"],
        [0, [0], b"abcd"],
        [0, [-1], b"abcd"],
        [0, [5], b"abcd"],
        [5, [1], b"abcd"],
        [-1, [1], b"abcd"],
        [0, [1], b"abcd", 1],
    ],
)
def test_what_stands_on_nothing_that_can_be_is_malformed(footing: Any) -> None:
    sound = [[5, 9], None, [b"a"], [[0, [1, 4], b"abcd"]]]
    assert decode_segment(pack(sound)).footings == (Footing(5, (4, 1), b"abcd"),)
    with pytest.raises(Malformed):
        decode_segment(pack([*sound[:3], [footing]]))


told = st.lists(st.tuples(st.integers(1, 1 << 40), st.binary(max_size=5), checks), unique_by=lambda event: event[0])


@given(told)
def test_a_snapshot_comes_back(events: list[tuple[int, bytes, bytes]]) -> None:
    snapshot = Snapshot(1 << 41, tuple(Told(*event) for event in sorted(events)))
    encoded = bytes(encode_snapshot(snapshot))
    assert decode_snapshot(encoded) == snapshot
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            decode_snapshot(encoded[:size])


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        [9, [1], [b"a"], b""],
        [9, [1], [b"a"], b"12345"],
        [9, [1], [b"a"], "1234"],
        [9, [1], ["a"], b"1234"],
        [9, [0], [b"a"], b"1234"],
        [9, [1, 0], [b"a", b"b"], b"12345678"],
        [9, [1, -1], [b"a", b"b"], b"12345678"],
        [9, ["1"], [b"a"], b"1234"],
        [9, [10], [b"a"], b"1234"],
        [9, [4, 6], [b"a", b"b"], b"12345678"],
        [9, [1, 1], [b"a"], b"1234"],
        [9, [1], [b"a"], b"1234", 0],
        [1 << 48, [1], [b"a"], b"1234"],
        [-1, [], [], b""],
        ["9", [1], [b"a"], b"1234"],
        [[1], [b"a"], b"1234"],
    ],
)
def test_what_is_no_snapshot_is_malformed(fields: Any) -> None:
    with pytest.raises(Malformed):
        decode_snapshot(pack(fields))


@pytest.mark.parametrize("gaps", [[2, -1], [-1, 1], [0, -1]])
def test_events_that_do_not_ascend_within_the_range_are_malformed(gaps: list[int]) -> None:
    with pytest.raises(Malformed):
        decode_segment(pack([[1, 4], gaps, [b"a", b"b"], []]))


def test_every_truncation_is_malformed() -> None:
    encoded = bytes(encode_segment(Segment(Span(1, 5, SnapshotRef(1, 2, 3, 4, True)), ((1, b"abc"), (4, b"def")))))
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            decode_segment(encoded[:size])


@given(st.binary(max_size=40))
def test_any_bytes_are_a_segment_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode_segment(data)
