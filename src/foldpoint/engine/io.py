"""Sealed records in and out of a store: envelopes, and parts for what is larger than a record may be."""

from __future__ import annotations

from collections.abc import Sequence

from foldpoint.codecs import envelope
from foldpoint.codecs.envelope import PART, PARTS, Cipher, Opened
from foldpoint.codecs.wire import Malformed, pack, unpack
from foldpoint.engine import keys
from foldpoint.engine.records import RecordStore
from foldpoint.errors import CorruptRecord, LostRecord, UnsupportedFormat

_PART_OVERHEAD = 64
_MAX_PARTS = 1 << 16


class RecordIO:
    """Writes and reads the log records of one store, sealed with one cipher (or none)."""

    def __init__(self, store: RecordStore, cipher: Cipher | None, allow_plain: bool = False) -> None:
        self.store = store
        self.cipher = cipher
        self.allow_plain = allow_plain

    @property
    def part_size(self) -> int:
        return self.store.capabilities.max_record - _PART_OVERHEAD

    def seal(self, key: bytes, kind: int, codec: int, content: bytes) -> bytes:
        return envelope.seal(key, kind, codec, content, self.cipher)

    def open(self, key: bytes, record: bytes, *kinds: int) -> Opened:
        """Raises CorruptRecord or UnsupportedFormat with the key."""
        try:
            return envelope.open_record(key, record, self.cipher, kinds=kinds, allow_plain=self.allow_plain)
        except envelope.Unsupported as error:
            raise UnsupportedFormat(key, str(error)) from error
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error

    def create(self, key: bytes, record: bytes, ttl: int | None) -> bool:
        """Create-only. What does not fit one record is stored in parts first; the stub under `key` commits it."""
        if len(record) > self.part_size:
            record = self._create_parts(key, record, ttl)
        return self.store.create([(key, record)], ttl=ttl)[0]

    def _create_parts(self, key: bytes, record: bytes, ttl: int | None) -> bytes:
        token = keys.new_token()
        epoch = keys.epoch_of(key)
        chunks = self.chunks(record)
        count = len(chunks)
        if count > _MAX_PARTS:
            raise ValueError(f"{len(record)} bytes do not fit {_MAX_PARTS} records of {self.part_size} bytes")
        for index, chunk in enumerate(chunks):
            self.create_part(keys.part(epoch, token, index), chunk, ttl)
        return envelope.seal(key, PARTS, 0, pack([token, count, len(record)]))

    def chunks(self, record: bytes) -> list[bytes]:
        """A sealed record in pieces that fit one record each."""
        return [record[at : at + self.part_size] for at in range(0, len(record), self.part_size)]

    def seal_part(self, key: bytes, chunk: bytes) -> bytes:
        return envelope.seal(key, PART, 0, chunk)

    def create_part(self, key: bytes, chunk: bytes, ttl: int | None) -> bool:
        return self.store.create([(key, self.seal_part(key, chunk))], ttl=ttl)[0]

    def read(self, wanted: Sequence[bytes]) -> list[bytes | None]:
        """The records under `wanted`, None where there is none; large ones put together (one more round trip)."""
        records = self.store.get_many(wanted)
        stubs = {
            at: self._stub_parts(key, record) for at, (key, record) in enumerate(zip(wanted, records, strict=True))
        }
        part_keys = [part for parts in stubs.values() for part in parts]
        if not part_keys:
            return records
        found = dict(zip(part_keys, self.store.get_many(part_keys), strict=True))
        for at, parts in stubs.items():
            if parts:
                records[at] = b"".join(self.part(part, found[part]) for part in parts)
        return records

    def parts_of(self, wanted: Sequence[bytes]) -> list[bytes]:
        """The keys of the parts of those records under `wanted` that are stored in parts."""
        records = self.store.get_many(wanted)
        return [part for key, record in zip(wanted, records, strict=True) for part in self._stub_parts(key, record)]

    def _stub_parts(self, key: bytes, record: bytes | None) -> list[bytes]:
        if record is None or len(record) < 2 or record[1] >> 4 != PARTS:
            return []
        try:
            stub = envelope.open_record(key, record, kinds=(PARTS,))
            token, count, _ = unpack(stub.content)
            return [keys.part(keys.epoch_of(key), token, index) for index in range(count)]
        except envelope.Unsupported as error:
            raise UnsupportedFormat(key, str(error)) from error
        except (Malformed, TypeError, ValueError, OverflowError) as error:
            raise CorruptRecord(key, str(error)) from error

    def part(self, key: bytes, record: bytes | None) -> bytes:
        """A piece of a sealed record. Pieces are not sealed again."""
        if record is None:
            raise LostRecord(key, "missing, although it is a part of a record that the log needs")
        try:
            return envelope.open_record(key, record, kinds=(PART,)).content
        except envelope.Unsupported as error:
            raise UnsupportedFormat(key, str(error)) from error
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error

    def inflate(self, key: bytes, record: bytes | None, kind: int) -> bytes:
        """The payload of a segment or snapshot record."""
        if record is None:
            raise LostRecord(key, "missing, although the log needs it")
        try:
            return self.open(key, record, kind).inflate()
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error
