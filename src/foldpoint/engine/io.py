"""Sealed records in and out of a store: envelopes, and parts for what is larger than a record may be."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from threading import Lock

from foldpoint.codecs import envelope
from foldpoint.codecs.envelope import PART, PARTS, Cipher, Opened
from foldpoint.codecs.wire import Malformed, pack, unpack
from foldpoint.engine import keys
from foldpoint.engine.records import RecordStore
from foldpoint.errors import CorruptRecord, LostRecord, UnsupportedFormat

_REMEMBERED = 10.0
"""Seconds; longer than a server keeps what it has acknowledged from its device."""
_REMEMBERED_BYTES = 64 << 20
_PART_OVERHEAD = 64
_MAX_PARTS = 1 << 16
LOST_PARTS = "the store has lost parts of it before any head came to name it"


class RecordIO:
    """Writes and reads the log records of one store, sealed with one cipher (or none)."""

    def __init__(self, store: RecordStore, cipher: Cipher | None, allow_plain: bool = False) -> None:
        self.store = store
        self.cipher = cipher
        self.allow_plain = allow_plain
        self._sent: deque[tuple[float, bytes, bytes, int | None]] = deque()
        self._sent_bytes = 0
        self._lock = Lock()

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
        created = self.store.create([(key, record)], ttl=ttl)[0]
        if created:
            self.remember(key, record, ttl)
        return created

    def remember(self, key: bytes, record: bytes, ttl: int | None) -> None:
        """So that it can be sent again, if a crash of the store takes it."""
        if self.store.capabilities.ordered or keys.kind_of(key) not in (b"e", b"b"):
            return  # segments and snapshots follow from events, and may not fit what is written next
        now = time.monotonic()
        with self._lock:
            self._sent.append((now, key, record, ttl))
            self._sent_bytes += len(record)
            while self._sent and (self._sent_bytes > _REMEMBERED_BYTES or now - self._sent[0][0] > _REMEMBERED):
                self._sent_bytes -= len(self._sent.popleft()[2])

    def send_again(self, epoch: bytes, cleaned: int) -> int:
        """Create the events that were created here lately in an epoch and the store has lost; how many records.

        None where another event stands in the place of one: others have gone on without it. cleaned: the number up to
        which events may be removed.
        """
        with self._lock:
            sent = {key: (record, ttl) for _, key, record, ttl in self._sent if keys.epoch_of(key) == epoch}
        wanted = [key for key in sent if keys.kind_of(key) == b"b" or key > keys.event(epoch, cleaned)]
        found = dict(zip(wanted, self.store.get_many(wanted), strict=True))
        if any(found[key] not in (None, sent[key][0]) for key in wanted if keys.kind_of(key) == b"e"):
            return 0
        lost = [key for key in wanted if found[key] is None]
        if lost:
            self.store.create([(key, sent[key][0]) for key in lost], ttl=sent[lost[-1]][1])
        return len(lost)

    def _create_parts(self, key: bytes, record: bytes, ttl: int | None) -> bytes:
        token = keys.new_token()
        epoch = keys.epoch_of(key)
        chunks = self.chunks(record)
        count = len(chunks)
        if count > _MAX_PARTS:
            raise ValueError(f"{len(record)} bytes do not fit {_MAX_PARTS} records of {self.part_size} bytes")
        self.create_parts([keys.part(epoch, token, index) for index in range(count)], chunks, ttl)
        return envelope.seal(key, PARTS, 0, pack([token, count, len(record)]))

    def chunks(self, record: bytes) -> list[bytes]:
        """A sealed record in pieces that fit one record each."""
        return [record[at : at + self.part_size] for at in range(0, len(record), self.part_size)]

    def seal_part(self, key: bytes, chunk: bytes) -> bytes:
        return envelope.seal(key, PART, 0, chunk)

    def create_parts(self, part_keys: Sequence[bytes], chunks: Sequence[bytes], ttl: int | None) -> bool:
        """Create-only, as a batch. Whether all were created."""
        records = [(key, self.seal_part(key, chunk)) for key, chunk in zip(part_keys, chunks, strict=True)]
        created = self.store.create(records, ttl=ttl)
        for (key, record), done in zip(records, created, strict=True):
            if done:
                self.remember(key, record, ttl)
        return all(created)

    def read(self, wanted: Sequence[bytes], *, whole: bool = True) -> list[bytes | None]:
        """The records under `wanted`, None where there is none; large ones put together (one more round trip).

        Raises LostRecord for one that has lost a part; where records need not be `whole` that is none.
        """
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
                records[at] = self._joined(wanted[at], [(part, found[part]) for part in parts], whole)
        return records

    def _joined(self, key: bytes, parts: list[tuple[bytes, bytes | None]], whole: bool) -> bytes | None:
        lost = [part for part, record in parts if record is None]
        if lost and whole:
            raise LostRecord(key, f"{len(lost)} of its {len(parts)} parts are missing, although the log needs them")
        return None if lost else b"".join(self.part(part, record) for part, record in parts)

    def remove_incomplete(self, wanted: Sequence[bytes]) -> None:
        """Remove those of the records under `wanted` that have lost a part, with the parts that are left."""
        for key in wanted:
            parts = self.parts_of([key])
            if None in self.store.get_many(parts):
                self.store.remove_many([key])
                self.store.remove_many(parts)

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
