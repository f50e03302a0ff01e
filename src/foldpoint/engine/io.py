"""Sealed records in and out of a store: envelopes, and parts for what is larger than a record may be."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock
from typing import NamedTuple

from foldpoint.codecs import envelope
from foldpoint.codecs.envelope import PART, PARTS, Cipher, Opened
from foldpoint.codecs.segment import SnapshotRef
from foldpoint.codecs.wire import Malformed, pack, unpack
from foldpoint.engine import keys
from foldpoint.engine.records import RecordStore
from foldpoint.errors import CorruptRecord, LostRecord, MisfitRecord, SealedRecord, UnsupportedFormat

_REMEMBERED = 10.0
"""Seconds; longer than a server keeps what it has acknowledged from its device."""
_REMEMBERED_BYTES = 64 << 20
_PART_OVERHEAD = 64
_MAX_PARTS = 1 << 16
LOST_PARTS = "the store has lost parts of it, or torn it, before any head came to name it"


class _Sent(NamedTuple):
    """An event that was created here: itself, and its parts, in all of so many bytes."""

    at: float
    key: bytes
    record: bytes
    parts: Sequence[tuple[bytes, bytes]]
    ttl: int | None
    size: int


class RecordIO:
    """Writes and reads the log records of one store, sealed with one cipher (or none)."""

    def __init__(self, store: RecordStore, cipher: Cipher | None, allow_plain: bool = False) -> None:
        self.store = store
        self.cipher = cipher
        self.allow_plain = allow_plain
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = 0
        self._incarnation: object = None
        self._doubtful: set[bytes] = set()
        """Epochs of which events were sent to servers that are others by now."""
        self._lock = Lock()

    # Looked at when first asked for: this is also made where the store cannot be used, as after a fork.

    @cached_property
    def part_size(self) -> int:
        return self.store.capabilities.max_record - _PART_OVERHEAD

    @cached_property
    def atomic(self) -> bool:
        """Whether several records can be stored at once or not at all: in one place, where crashes keep the order."""
        return self.store.capabilities.ordered

    def seal(self, key: bytes, kind: int, codec: int, content: bytes) -> bytes:
        return envelope.seal(key, kind, codec, content, self.cipher)

    def open(self, key: bytes, record: bytes, *kinds: int) -> Opened:
        """Raises CorruptRecord or UnsupportedFormat with the key."""
        try:
            return envelope.open_record(key, record, self.cipher, kinds=kinds, allow_plain=self.allow_plain)
        except envelope.Unsupported as error:
            raise UnsupportedFormat(key, str(error)) from error
        except envelope.OtherKey as error:
            raise SealedRecord(key, str(error)) from error
        except Malformed as error:
            raise self._damage(key, error) from error

    def _damage(self, key: bytes, error: Exception) -> CorruptRecord:
        """As what to report a record that does not open: where crashes may tear it, what it held may be told."""
        torn = isinstance(error, envelope.Torn) and not self.atomic
        return (MisfitRecord if torn else CorruptRecord)(key, str(error))

    def create(self, key: bytes, record: bytes, ttl: int | None) -> bool:
        """Create-only. What does not fit one record is stored in parts first; the stub under `key` commits it."""
        parts: Sequence[tuple[bytes, bytes]] = ()
        if len(record) > self.part_size:
            parts, record = self._in_parts(key, record)
            self.store.create(parts, ttl=ttl)
        created = self.store.create([(key, record)], ttl=ttl)[0]
        if created:
            self._remember(key, record, parts, ttl)
        elif parts and self.store.get_many([key])[0] not in (None, record):
            self.store.remove_many([part for part, _ in parts])  # another's stub stands there, for good
        return created

    def create_all(self, records: Sequence[tuple[bytes, bytes]], ttl: int | None) -> bool:
        """Create-only, all or none; none where one is too large."""
        fits = all(len(record) <= self.part_size for _, record in records)
        return fits and self.store.create_all(records, ttl=ttl)

    def remember(self, key: bytes, ttl: int | None) -> None:
        """As what was created here; nothing if it, or a part of it, is not there."""
        part_keys = self.parts_of([key])
        record, *parts = self.store.get_many([key, *part_keys])
        whole = [(part_key, part) for part_key, part in zip(part_keys, parts, strict=True) if part is not None]
        if record is not None and len(whole) == len(parts):
            self._remember(key, record, whole, ttl)

    def _remember(self, key: bytes, record: bytes, parts: Sequence[tuple[bytes, bytes]], ttl: int | None) -> None:
        """An event, wholly or not at all, so that it can be sent again if a crash of the store takes it."""
        if self.atomic or keys.kind_of(key) != b"e":
            return  # segments and snapshots follow from events, and may not fit what is written next
        size = len(record) + sum(len(part) for _, part in parts) if parts else len(record)
        sent = _Sent(time.monotonic(), key, record, parts, ttl, size)
        if not self._sent:
            self._incarnation = self.store.incarnation()
        with self._lock:
            self._sent.append(sent)
            self._sent_bytes += sent.size
            while self._sent and (self._sent_bytes > _REMEMBERED_BYTES or sent.at - self._sent[0].at > _REMEMBERED):
                self._sent_bytes -= self._sent.popleft().size

    def outlived(self, epoch: bytes, incarnation: object) -> bool:
        """Whether events of an epoch were created here lately, and not sent again since the servers are others."""
        if incarnation != self._incarnation:
            with self._lock:
                self._incarnation = incarnation
                self._doubtful |= {keys.epoch_of(sent.key) for sent in self._sent}
        return epoch in self._doubtful

    def send_again(self, epoch: bytes, cleaned: int) -> int:
        """Create the events that were created here lately in an epoch and the store has lost; how many records.

        And those that it has torn. None of them where another event stands in the place of one: others have gone on
        without it. cleaned: the number up to which events may be removed.
        """
        first = keys.event(epoch, cleaned)
        with self._lock:
            events = [one for one in self._sent if keys.epoch_of(one.key) == epoch and one.key > first]
        sent = {key: record for event in events for key, record in (*event.parts, (event.key, event.record))}
        found = dict(zip(sent, self.store.get_many([*sent]), strict=True))
        torn = {key for key, record in found.items() if record and not envelope.is_intact(key, record)}
        lost = [(key, record) for key, record in sent.items() if found[key] is None or key in torn]
        if any(found[event.key] not in (None, sent[event.key]) and event.key not in torn for event in events):
            lost = []
        if lost:
            self.store.remove_many(torn)
            self.store.create(lost, ttl=events[-1].ttl)
        self._doubtful.discard(epoch)
        return len(lost)

    def _in_parts(self, key: bytes, record: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The parts of a large record, and the stub that names them."""
        token = keys.new_token()
        epoch = keys.epoch_of(key)
        chunks = self.chunks(record)
        count = len(chunks)
        if count > _MAX_PARTS:
            raise ValueError(f"{len(record)} bytes do not fit {_MAX_PARTS} records of {self.part_size} bytes")
        part_keys = [keys.part(epoch, token, index) for index in range(count)]
        return self._seal_parts(part_keys, chunks), envelope.seal(key, PARTS, 0, pack([token, count, len(record)]))

    def chunks(self, record: bytes) -> list[bytes]:
        """A sealed record in pieces that fit one record each."""
        return [record[at : at + self.part_size] for at in range(0, len(record), self.part_size)]

    def seal_part(self, key: bytes, chunk: bytes) -> bytes:
        return envelope.seal(key, PART, 0, chunk)

    def create_parts(self, part_keys: Sequence[bytes], chunks: Sequence[bytes], ttl: int | None) -> bool:
        """Create-only, as a batch. Whether all were created."""
        return all(self.store.create(self._seal_parts(part_keys, chunks), ttl=ttl))

    def _seal_parts(self, part_keys: Sequence[bytes], chunks: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        return [(key, self.seal_part(key, chunk)) for key, chunk in zip(part_keys, chunks, strict=True)]

    def read(self, wanted: Sequence[bytes], *, whole: bool = True) -> list[bytes | None]:
        """The records under `wanted`, None where there is none; large ones put together (one more round trip).

        Raises LostRecord for one that has lost a part; where records need not be `whole` that is none, and so is a torn
        one.
        """
        records = self.store.get_many(wanted)
        if not whole:
            records = self._without_torn(wanted, records)
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
        try:
            return None if lost else b"".join(self.part(part, record) for part, record in parts)
        except MisfitRecord as error:
            if not whole:
                return None
            raise MisfitRecord(key, f"its part {error.key.hex()}: {error.reason}") from error

    def _without_torn(self, wanted: Sequence[bytes], records: list[bytes | None]) -> list[bytes | None]:
        """What a crash can have torn is as good as lost: None in its place."""
        if self.atomic:
            return records
        there = (not record or envelope.is_intact(key, record) for key, record in zip(wanted, records, strict=True))
        return [record if intact else None for record, intact in zip(records, there, strict=True)]

    def empty_snapshot(self, epoch: bytes, ref: SnapshotRef) -> None:
        """Keep nothing of it but its number, which stays taken."""
        first, *others = keys.snapshot_parts(epoch, ref)
        self.store.empty_many([first])
        # From the last to the first, so that a removal that is broken off is found and finished.
        self.store.remove_many(others[::-1])

    def remove(self, wanted: Iterable[bytes]) -> None:
        """Remove records, with their parts; a damaged stub tells of none."""
        for key in wanted:
            parts: list[bytes] = []
            with suppress(CorruptRecord):
                parts = self.parts_of([key])
            self.store.remove_many([key])
            self.store.remove_many(parts)

    def remove_incomplete(self, wanted: Iterable[bytes]) -> None:
        """Remove those of the records under `wanted` that have lost a part, with the parts that are left."""
        for key in wanted:
            if None in self.store.get_many(self.parts_of([key])):
                self.remove([key])

    def parts_of(self, wanted: Sequence[bytes]) -> list[bytes]:
        """The keys of the parts of those records under `wanted` that are stored in parts. A torn stub tells of none."""
        records = self._without_torn(wanted, self.store.get_many(wanted))
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
            raise self._damage(key, error) from error

    def part(self, key: bytes, record: bytes | None) -> bytes:
        """A piece of a sealed record. Pieces are not sealed again."""
        if not record:
            state = "missing" if record is None else "empty"
            raise LostRecord(key, f"{state}, although it is a part of a record that the log needs")
        try:
            return envelope.open_record(key, record, kinds=(PART,)).content
        except envelope.Unsupported as error:
            raise UnsupportedFormat(key, str(error)) from error
        except Malformed as error:
            raise self._damage(key, error) from error

    def inflate(self, key: bytes, record: bytes | None, kind: int) -> bytes:
        """The payload of a segment or snapshot record."""
        if record is None:
            raise LostRecord(key, "missing, although the log needs it")
        try:
            return self.open(key, record, kind).inflate()
        except Malformed as error:
            raise self._damage(key, error) from error
