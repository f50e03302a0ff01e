"""The example in FORMAT.md is what the code reads and writes."""

from __future__ import annotations

import re
from pathlib import Path
from zlib import crc32

from foldpoint.codecs.envelope import EVENT, HEAD, event_content, open_record, seal
from foldpoint.codecs.event import Fold, encode_checkpoint, fold_state, unpack_event
from foldpoint.codecs.head import Head, decode_head, encode_head
from foldpoint.codecs.model import Checkpoint, Header, Value
from foldpoint.engine import keys

PAGE = (Path(__file__).parents[2] / "docs" / "FORMAT.md").read_text()
EPOCH = bytes(16)
CHECKPOINT = Checkpoint(
    Header(
        "1ef00000-0000-6000-8000-000000000001", None, 2, "2026-01-01T00:00:00+00:00", {"n": 1}, updated_channels=["n"]
    ),
    {"n": Value("msgpack", b"\x07")},
    {"source": "input", "step": -1},
)
CHECK = crc32(encode_checkpoint(1, CHECKPOINT, None)).to_bytes(4, "big")


def examples() -> list[tuple[bytes, bytes]]:
    """The (key, record) pairs of the page, in order."""
    found = re.findall(r"```\nkey +([0-9a-f]+)\nrecord ([0-9a-f\s]+)```", PAGE)
    return [(bytes.fromhex(key), bytes.fromhex(re.sub(r"\s", "", record))) for key, record in found]


def test_the_event_reads_as_the_page_says() -> None:
    key, record = examples()[0]
    assert key == keys.event(EPOCH, 1)
    opened = open_record(key, record, kinds=(EVENT,))
    depth, at = opened.depth()
    event = unpack_event(1, opened.inflate(skip=at))
    assert opened.holds(at, CHECK, b"")
    fold = Fold(None)
    fold.add(event)
    folded = fold.folded()
    assert depth == 0
    assert (folded.header, folded.labels) == (CHECKPOINT.header, CHECKPOINT.labels)
    state = fold_state(event, [*folded.header.channel_versions], None, lambda seq: [])
    assert {name: (value.type, bytes(value.data)) for name, value in state.items()} == {"n": ("msgpack", b"\x07")}


def test_the_event_is_written_as_the_page_says() -> None:
    key, record = examples()[0]
    assert seal(key, EVENT, 0, event_content(0, CHECK, encode_checkpoint(1, CHECKPOINT, None))) == record


def test_the_head_is_as_the_page_says() -> None:
    key, record = examples()[1]
    head = Head("t", "", EPOCH, 64)
    assert key == keys.head("t", "")
    assert decode_head(open_record(key, record, kinds=(HEAD,)).content) == head
    assert seal(key, HEAD, 0, encode_head(head)) == record
