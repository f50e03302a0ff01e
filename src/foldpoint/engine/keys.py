"""Keys that can be computed: no manifest lists records, so none can be lost or grow.

    head      20 bytes  BLAKE2b of the thread id's length, the thread id and the namespace
    event     epoch 'e' sequence number (6 bytes)
    segment   epoch 's' level (1 byte) index (5 bytes)
    span      epoch 'i' level (1 byte) index (5 bytes): what the segment at that place, of level 2 or up, says of itself
    snapshot  epoch 'p' or, where it is kept, 'k', number (4 bytes) part (2 bytes)
    part      epoch 'b' token (8 bytes) part (2 bytes)
    look      LOOKS 'l' token (8 bytes): what a sweep found

Numbers are big-endian; an epoch is 16 random bytes.
"""

from __future__ import annotations

import os
from hashlib import blake2b

from foldpoint.codecs.segment import SnapshotRef

EPOCH_BYTES = 16
LOOKS = b"foldpoint sweeps"
"""Stands where other keys have their epoch."""


def new_epoch() -> bytes:
    return os.urandom(EPOCH_BYTES)


def new_token() -> bytes:
    """Names the parts of one large record, so that two writers never mix theirs."""
    return os.urandom(8)


def text(value: str) -> bytes:
    """UTF-8 of any Python string, lone surrogates included."""
    return value.encode("utf-8", "surrogatepass")


def untext(stored: bytes) -> str:
    """The string that `text` was given; something readable for bytes that it never gave."""
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored.decode("utf-8", "backslashreplace")


def head(thread_id: str, namespace: str) -> bytes:
    thread = text(thread_id)
    return blake2b(len(thread).to_bytes(8, "big") + thread + text(namespace), digest_size=20).digest()


def event(epoch: bytes, seq: int) -> bytes:
    return epoch + b"e" + seq.to_bytes(6, "big")


def segment(epoch: bytes, index: int, level: int = 1) -> bytes:
    return epoch + b"s" + bytes([level]) + index.to_bytes(5, "big")


def span(epoch: bytes, index: int, level: int) -> bytes:
    return epoch + b"i" + bytes([level]) + index.to_bytes(5, "big")


def snapshot(epoch: bytes, number: int, part: int, kept: bool) -> bytes:
    return epoch + (b"k" if kept else b"p") + number.to_bytes(4, "big") + part.to_bytes(2, "big")


def snapshot_parts(epoch: bytes, ref: SnapshotRef) -> list[bytes]:
    return [snapshot(epoch, ref.number, part, ref.kept) for part in range(ref.parts)]


def part(epoch: bytes, token: bytes, index: int) -> bytes:
    return epoch + b"b" + token + index.to_bytes(2, "big")


def look(token: bytes) -> bytes:
    return LOOKS + b"l" + token


def epoch_of(key: bytes) -> bytes:
    """The epoch of any log record's key."""
    return key[:EPOCH_BYTES]


def kind_of(key: bytes) -> bytes:
    """The letter after the epoch of any log record's key."""
    return key[EPOCH_BYTES : EPOCH_BYTES + 1]


def is_snapshot(key: bytes) -> bool:
    """Whether it is of a part of a snapshot, kept or not."""
    return kind_of(key) in (b"p", b"k")


def words(key: bytes) -> str:
    """What a log record is, for people."""
    kind, place = kind_of(key), key[EPOCH_BYTES + 1 :]
    if kind == b"e":
        return f"event {int.from_bytes(place, 'big')}"
    if kind in (b"s", b"i"):
        name = "segment" if kind == b"s" else "span"
        return f"{name} {int.from_bytes(place[1:], 'big')} of level {place[0]}"
    if is_snapshot(key):
        return f"snapshot {int.from_bytes(place[:4], 'big')}, part {int.from_bytes(place[4:], 'big')}"
    return f"part {int.from_bytes(place[8:], 'big')} of a large record"
