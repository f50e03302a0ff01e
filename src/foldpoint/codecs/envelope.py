"""What stands around every record: format version, kind, codec, checksum; then the compressed, perhaps sealed, content.

    byte 0      format version (1)
    byte 1      kind << 4 | codec
    bytes 2-5   CRC-32 (big-endian) of the record's key, bytes 0-1 and all that follows
    content

The checksum covers the key: bytes that stand under another key than the one they were written for do not open.
codec bit 0: zstd; bit 1: encrypted. Encrypted content is a cipher name (varint length, UTF-8) and the ciphertext of
16 bytes of BLAKE2b of the key and the plain content, so a cipher that authenticates also authenticates the place.

An event's content begins with a varint, `depth`: it is compressed against the payloads of the `depth` sequence numbers
right before it (their last CONTEXT_BYTES bytes). CHECK_BYTES follow that tell what it builds on (see `event.check_of`)
and what it is compressed against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import Malformed, crc32, read_varint, varint
from foldpoint.codecs.zstd import compress, decompress

FORMAT = 1
HEAD, EVENT, SEGMENT, SNAPSHOT, PARTS, PART, SPAN, LOOK = range(8)
CHECK_BYTES = 4
CONTEXT_BYTES = 8 * 1024

NOT_DECRYPTED = (ValueError, KeyError, AssertionError)
"""What ciphers raise for bytes that they did not seal."""
_ZSTD, _ENCRYPTED = 1, 2
_PREFIX = 6
_PLACE = 16


class Unsupported(ValueError):
    """A record of a format that this version does not know."""


class Torn(Malformed):
    """Not the bytes that were sealed under this key, so that nobody can read it."""


class OtherKey(Malformed):
    """A whole record that the cipher at hand does not open."""


class Cipher(Protocol):
    """What langgraph's CipherProtocol asks: authenticated encryption of whole payloads."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]: ...

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A record whose checksum (and seal) held. `codec` is what `inflate` needs to know."""

    kind: int
    codec: int
    content: bytes

    def inflate(self, context: bytes = b"", skip: int = 0) -> bytes:
        """The payload. Raises Malformed."""
        return inflate(self.codec, self.content[skip:], context)

    def depth(self) -> tuple[int, int]:
        """(depth, where the compressed payload starts) of an event's content."""
        depth, at = read_varint(self.content, 0)
        return depth, at + CHECK_BYTES

    def holds(self, at: int, check: bytes, context: bytes) -> bool:
        """Whether the event whose payload starts at `at` was stored with this check, after this context."""
        return self.content[at - CHECK_BYTES : at] == stored_check(check, context)


def deflate(payload: bytes | Rope, level: int, context: bytes = b"") -> tuple[int, bytes]:
    """(codec, bytes): compressed where that is shorter."""
    frame = compress(payload, level, context)
    return (_ZSTD, frame) if len(frame) < len(payload) else (0, bytes(payload))


def inflate(codec: int, body: bytes, context: bytes = b"") -> bytes:
    """What `deflate` was given. Raises Malformed."""
    return decompress(body, context) if codec & _ZSTD else body


def event_content(depth: int, check: bytes, body: bytes) -> bytes:
    """check: as `stored_check` gives it."""
    return varint(depth) + check + body


def stored_check(check: bytes, context: bytes) -> bytes:
    """What stands in a record for an event's check: a frame that takes nothing of its context opens after any other."""
    return crc32(context, int.from_bytes(check, "big")).to_bytes(CHECK_BYTES, "big")


def seal(key: bytes, kind: int, codec: int, content: bytes, cipher: Cipher | None = None) -> bytes:
    """The record to store under `key`."""
    if cipher is not None:
        codec |= _ENCRYPTED
        name, ciphertext = cipher.encrypt(_place(key) + content)
        packed_name = name.encode()
        content = varint(len(packed_name)) + packed_name + ciphertext
    start = bytes([FORMAT, kind << 4 | codec])
    return start + _checksum(key, start, content) + content


def open_record(
    key: bytes, record: bytes, cipher: Cipher | None = None, *, kinds: tuple[int, ...], allow_plain: bool = False
) -> Opened:
    """Raises Malformed, of which Torn where the checksum does not hold, or Unsupported for another format version.

    With a cipher, a record that is not encrypted is refused unless `allow_plain`.
    """
    if len(record) < _PREFIX:
        raise Torn(f"truncated to {len(record)} bytes")
    start, content = record[:2], record[_PREFIX:]
    if record[2:_PREFIX] != _checksum(key, start, content):
        raise Torn("checksum does not match: the record is damaged or stands under a key it was not written for")
    if record[0] != FORMAT:
        raise Unsupported(f"format {record[0]}, this version reads {FORMAT}; upgrade foldpoint to read it")
    kind, codec = record[1] >> 4, record[1] & 0x0F
    if kind not in kinds or codec & ~(_ZSTD | _ENCRYPTED):
        raise Malformed(f"kind {kind}, codec {codec} where kind {' or '.join(map(str, kinds))} was expected")
    if codec & _ENCRYPTED:
        content = _decrypt(key, content, cipher)
    elif cipher is not None and not allow_plain:
        raise OtherKey("not encrypted, and read with a key (FOLDPOINT_ALLOW_PLAIN reads such records too)")
    return Opened(kind, codec, content)


def is_intact(key: bytes, record: bytes) -> bool:
    """Whether the checksum holds, whatever the record says."""
    return len(record) >= _PREFIX and record[2:_PREFIX] == _checksum(key, record[:2], record[_PREFIX:])


def is_encrypted(record: bytes) -> bool:
    return len(record) >= _PREFIX and bool(record[1] & _ENCRYPTED)


def _decrypt(key: bytes, content: bytes, cipher: Cipher | None) -> bytes:
    if cipher is None:
        raise OtherKey("encrypted, and there is no key (serde=EncryptedSerializer, or LANGGRAPH_AES_KEY for commands)")
    size, at = read_varint(content, 0)
    try:
        plain = cipher.decrypt(content[at : at + size].decode(), content[at + size :])
    except NOT_DECRYPTED as error:
        raise OtherKey(
            f"does not decrypt ({error}): a wrong or missing earlier key, or the record was altered"
        ) from error
    if plain[:_PLACE] != _place(key):
        raise Malformed("decrypts, but was sealed for another key")
    return plain[_PLACE:]


def _place(key: bytes) -> bytes:
    return blake2b(key, digest_size=_PLACE).digest()


def _checksum(key: bytes, start: bytes, content: bytes) -> bytes:
    return crc32(content, crc32(key + start)).to_bytes(4, "big")


def context_of(seq: int, depth: int, payload_at: Callable[[int], bytes]) -> bytes:
    """The bytes that an event at `seq` is compressed against."""
    if depth >= seq:
        raise Malformed(f"context of {depth} events before number {seq}")
    return context_from(map(payload_at, range(seq - depth, seq)))


def context_from(payloads: Iterable[bytes]) -> bytes:
    """Of payloads in a row, as much of their end as an event after them is compressed against."""
    return b"".join([payload[-CONTEXT_BYTES:] for payload in payloads])[-CONTEXT_BYTES:]
