"""An envelope opens where it was sealed, whole, with its own cipher; else it says what is wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint.codecs import envelope
from foldpoint.codecs.envelope import (
    CONTEXT_BYTES,
    EVENT,
    HEAD,
    PART,
    PARTS,
    SEGMENT,
    SNAPSHOT,
    Cipher,
    Unsupported,
    context_of,
    deflate,
    event_content,
    open_record,
    seal,
    stored_check,
)
from foldpoint.codecs.wire import Malformed

KINDS = (HEAD, EVENT, SEGMENT, SNAPSHOT, PARTS, PART)
KEY = b"sixteen  bytes e\x00\x00\x00\x00\x00\x07"
OTHER = b"sixteen  bytes e\x00\x00\x00\x00\x00\x08"
PAYLOAD = b"a payload that compresses, a payload that compresses; " * 2


def aes(key: bytes = b"0123456789abcdef") -> Cipher:
    """langgraph's own cipher: AES in EAX mode."""
    return EncryptedSerializer.from_pycryptodome_aes(key=key).cipher


def record_of(kind: int, cipher: Cipher | None) -> bytes:
    if kind == EVENT:
        codec, body = deflate(PAYLOAD, 3)
        return seal(KEY, EVENT, codec, event_content(0, b"chck", body), cipher)
    if kind in (SEGMENT, SNAPSHOT):
        codec, body = deflate(PAYLOAD, 9)
        return seal(KEY, kind, codec, body, cipher)
    return seal(KEY, kind, 0, PAYLOAD)


def payload_of(record: bytes, kind: int, cipher: Cipher | None) -> bytes:
    opened = open_record(KEY, record, cipher, kinds=(kind,), allow_plain=kind in (HEAD, PARTS, PART))
    if kind == EVENT:
        depth, at = opened.depth()
        assert depth == 0
        return opened.inflate(b"", at)
    return opened.inflate()


every_record = pytest.mark.parametrize("kind", KINDS)
with_and_without_cipher = pytest.mark.parametrize("cipher", [None, aes()], ids=["plain", "encrypted"])


@given(st.binary(max_size=64), st.sampled_from(KINDS), st.binary(max_size=300), st.booleans())
def test_what_is_sealed_opens_under_its_key(key: bytes, kind: int, payload: bytes, encrypted: bool) -> None:
    cipher = aes() if encrypted else None
    codec, body = deflate(payload, 3)
    opened = open_record(key, seal(key, kind, codec, body, cipher), cipher, kinds=(kind,))
    assert (opened.kind, opened.inflate()) == (kind, payload)


@given(st.integers(0, 1 << 40), st.binary(max_size=300), st.binary(max_size=300))
def test_an_event_opens_with_the_context_that_it_was_compressed_against(
    depth: int, payload: bytes, context: bytes
) -> None:
    codec, body = deflate(payload, 3, context)
    check = stored_check(b"chck", context)
    opened = open_record(KEY, seal(KEY, EVENT, codec, event_content(depth, check, body)), kinds=(EVENT,))
    found, at = opened.depth()
    assert found == depth
    assert opened.holds(at, b"chck", context)
    assert not opened.holds(at, b"else", context)
    assert opened.inflate(context, at) == payload


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_an_event_does_not_hold_after_another_context(payload: bytes, context: bytes, other: bytes) -> None:
    codec, body = deflate(payload, 3, context)
    content = event_content(1, stored_check(b"chck", context), body)
    opened = open_record(KEY, seal(KEY, EVENT, codec, content), kinds=(EVENT,))
    _, at = opened.depth()
    assert opened.holds(at, b"chck", context)
    assert opened.holds(at, b"chck", other) == (other == context)


@every_record
@with_and_without_cipher
def test_every_flipped_bit_is_noticed(kind: int, cipher: Cipher | None) -> None:
    record = record_of(kind, cipher)
    assert payload_of(record, kind, cipher) == PAYLOAD
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, Unsupported)):
            payload_of(bytes(damaged), kind, cipher)


@every_record
@with_and_without_cipher
def test_every_truncation_and_any_growth_is_noticed(kind: int, cipher: Cipher | None) -> None:
    record = record_of(kind, cipher)
    for size in range(len(record)):
        with pytest.raises((Malformed, Unsupported)):
            payload_of(record[:size], kind, cipher)
    with pytest.raises(Malformed):
        payload_of(record + b"\0", kind, cipher)


@every_record
@with_and_without_cipher
def test_a_record_does_not_open_under_another_key(kind: int, cipher: Cipher | None) -> None:
    with pytest.raises(Malformed):
        open_record(OTHER, record_of(kind, cipher), cipher, kinds=(kind,), allow_plain=True)


@given(st.binary(max_size=80))
def test_any_bytes_are_refused(record: bytes) -> None:
    with pytest.raises((Malformed, Unsupported)):
        open_record(KEY, record, kinds=KINDS)


@every_record
def test_a_record_of_another_kind_is_refused(kind: int) -> None:
    others = tuple(other for other in KINDS if other != kind)
    with pytest.raises(Malformed, match="kind"):
        open_record(KEY, record_of(kind, None), kinds=others)


def of_format(version: int) -> bytes:
    """A record that another version wrote, with its checksum in order."""
    start = bytes([version, EVENT << 4])
    return start + envelope._checksum(KEY, start, b"content") + b"content"


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_format_version_is_named(version: int) -> None:
    with pytest.raises(Unsupported, match=f"format {version}"):
        open_record(KEY, of_format(version), kinds=KINDS)
    with pytest.raises(Malformed, match="checksum"):
        open_record(KEY, of_format(version) + b"damage", kinds=KINDS)


@pytest.mark.parametrize("codec", [4, 8, 12])
def test_an_unknown_codec_is_refused(codec: int) -> None:
    with pytest.raises(Malformed, match="codec"):
        open_record(KEY, seal(KEY, EVENT, codec, b"content"), kinds=(EVENT,))


# -- encryption --------------------------------------------------------------------------------------------------------


def test_an_encrypted_record_shows_nothing_of_its_content() -> None:
    assert PAYLOAD[:10] in seal(KEY, EVENT, 0, PAYLOAD)
    assert PAYLOAD[:10] not in seal(KEY, EVENT, 0, PAYLOAD, aes())


def test_a_wrong_key_opens_nothing() -> None:
    with pytest.raises(Malformed, match="decrypt"):
        open_record(KEY, seal(KEY, EVENT, 0, PAYLOAD, aes()), aes(b"another 16 bytes"), kinds=(EVENT,))


def test_an_encrypted_record_needs_a_cipher() -> None:
    with pytest.raises(Malformed, match="there is no key"):
        open_record(KEY, seal(KEY, EVENT, 0, PAYLOAD, aes()), kinds=(EVENT,))


def moved(record: bytes) -> bytes:
    """The record with the checksum that it needs under the other key: what an attacker would write."""
    return record[:2] + envelope._checksum(OTHER, record[:2], record[6:]) + record[6:]


def test_an_encrypted_record_that_was_moved_does_not_open_even_with_its_checksum_made_anew() -> None:
    record = moved(seal(KEY, EVENT, 0, PAYLOAD, aes()))
    with pytest.raises(Malformed, match="another key"):
        open_record(OTHER, record, aes(), kinds=(EVENT,))


def test_an_encrypted_record_that_was_altered_does_not_open_even_with_its_checksum_made_anew() -> None:
    record = seal(KEY, EVENT, 0, PAYLOAD, aes())
    for bit in range(6 * 8, 8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        damaged[2:6] = envelope._checksum(KEY, bytes(damaged[:2]), bytes(damaged[6:]))
        with pytest.raises(Malformed):
            open_record(KEY, bytes(damaged), aes(), kinds=(EVENT,))


def test_a_plain_record_in_an_encrypted_store_is_refused_unless_allowed() -> None:
    plain = seal(KEY, EVENT, 0, PAYLOAD)
    with pytest.raises(Malformed, match="not encrypted"):
        open_record(KEY, plain, aes(), kinds=(EVENT,))
    assert open_record(KEY, plain, aes(), kinds=(EVENT,), allow_plain=True).content == PAYLOAD


def test_a_record_tells_whether_it_is_encrypted() -> None:
    assert envelope.is_encrypted(seal(KEY, EVENT, 0, PAYLOAD, aes()))
    assert not envelope.is_encrypted(seal(KEY, EVENT, 0, PAYLOAD))
    assert not envelope.is_encrypted(b"")


# -- context -----------------------------------------------------------------------------------------------------------


def test_the_context_is_the_end_of_the_payloads_right_before() -> None:
    payloads = {7: b"seven", 8: b"", 9: b"nine" * CONTEXT_BYTES}
    assert context_of(9, 2, payloads.__getitem__) == b"seven"
    assert context_of(10, 2, payloads.__getitem__) == payloads[9][-CONTEXT_BYTES:]
    assert context_of(1, 0, payloads.__getitem__) == b""


def test_a_large_payload_is_not_copied_for_its_end() -> None:
    payloads = {1: b"small", 2: bytes(8 << 20)}
    tracemalloc.start()
    try:
        assert context_of(3, 2, payloads.__getitem__) == bytes(CONTEXT_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("seq", "depth"), [(1, 1), (3, 4), (1, 1 << 60)])
def test_a_context_before_the_first_event_is_malformed(seq: int, depth: int) -> None:
    def payloads() -> Iterator[bytes]:
        raise AssertionError("nothing is read for it")

    with pytest.raises(Malformed):
        context_of(seq, depth, lambda at: next(payloads()))
