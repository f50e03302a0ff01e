"""Records with valid checksums that no writer makes: a typed error, in little time and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from foldpoint.codecs import envelope
from foldpoint.codecs.head import encode_head
from foldpoint.codecs.segment import (
    Segment,
    SnapshotRef,
    Span,
    decode_segment,
    decode_span,
    encode_segment,
    encode_span,
)
from foldpoint.codecs.wire import pack
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import FoldpointError
from torture.small import THREAD, Small, id_of, overwrite, read, record, small


@pytest.fixture
def made() -> Small:
    return small(MemoryStore())


def forge(made: Small, kind: str, change: Callable[[bytes], bytes], at: int = -1) -> None:
    key = made.places()[kind][at]
    opened = envelope.open_record(key, record(made.store, key), kinds=tuple(range(8)))
    overwrite(made.store, key, envelope.seal(key, opened.kind, 0, change(opened.inflate())))


def read_all(made: Small) -> None:
    engine = made.engine()
    for n in range(34):
        entry = engine.find(THREAD, "", id_of(n))
        if entry is not None:
            read(entry)
    for entry in engine.history(THREAD, ""):
        read(entry)


def refused(made: Small) -> None:
    with pytest.raises(FoldpointError):
        read_all(made)


@pytest.mark.parametrize(
    "claim",
    [
        {"segments": 1 << 39},
        {"window": 1 << 30},
        {"snapshot": SnapshotRef(1, 1, 1 << 39, 1)},
        {"thread_id": 5},
        {"epoch": b"short"},
    ],
    ids=str,
)
def test_a_head_that_claims_too_much(made: Small, claim: dict[str, object]) -> None:
    head = next(made.engine().heads(THREAD))
    forge(made, "head", lambda _: encode_head(replace(head, **claim)))  # type: ignore[arg-type]
    refused(made)


def test_a_head_that_claims_too_many_merged_segments(made: Small) -> None:
    head = next(made.engine().heads(THREAD))
    second, *others = head.merged
    many = replace(second, count=second.count + (1 << 30))
    forge(made, "head", lambda _: encode_head(replace(head, merged=(many, *others))))
    refused(made)


@pytest.mark.parametrize(
    "claim",
    [
        {"last": 1 << 40},
        {"start": SnapshotRef(1, 1 << 40, 1, 1, True)},
        {"start": SnapshotRef(3, 16, 4, 1000, True)},
        {"start": SnapshotRef(99, 16, 4, 1, True)},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["span of level 3", "segment of level 3"])
@pytest.mark.parametrize("at", [0, -1])
def test_a_segment_or_span_that_claims_too_much(made: Small, kind: str, at: int, claim: dict[str, object]) -> None:
    def change(payload: bytes) -> bytes:
        if kind.startswith("span"):
            return encode_span(replace(decode_span(payload), **claim))  # type: ignore[arg-type]
        segment = decode_segment(payload)
        return bytes(encode_segment(Segment(replace(segment.span, **claim), segment.events)))  # type: ignore[arg-type]

    forge(made, kind, change, at)
    refused(made)


def test_spans_that_reach_down_to_nothing(made: Small) -> None:
    forge(made, "span of level 3", lambda payload: encode_span(replace(decode_span(payload), before="zzz")), 0)
    refused(made)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        pack([0]),
        pack([7, 0, "id"]),
        pack([1, 0, id_of(2), "task", "", [["list", b"", "no number"]]]),
    ],
)
def test_an_event_that_is_none(made: Small, payload: bytes) -> None:
    def change(stored: bytes) -> bytes:
        segment = decode_segment(stored)
        (first, _), *rest = segment.events
        return bytes(encode_segment(Segment(segment.span, ((first, payload), *rest))))

    forge(made, "segment of level 1", change)
    refused(made)


def test_writes_that_lead_to_one_another_for_ever_take_no_stack(made: Small) -> None:
    chain = [(seq, pack([1, 1, None, "task", "", [["list", b""]]])) for seq in range(2, 3000)]
    key = made.places()["segment of level 3"][0]
    opened = envelope.seal(key, envelope.SEGMENT, 0, bytes(encode_segment(Segment(Span(1, 3000), tuple(chain)))))
    overwrite(made.store, key, opened)
    refused(made)
