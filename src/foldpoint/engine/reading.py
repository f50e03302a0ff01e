"""Reading stretches of a log from the store: heads, the slice that latest is read from, and older ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from foldpoint.codecs.delta import Stored
from foldpoint.codecs.envelope import EVENT, HEAD, SEGMENT, SNAPSHOT, Unsupported, context_of, open_record
from foldpoint.codecs.event import FILLER_PAYLOAD, Event, Folded, unpack_event
from foldpoint.codecs.head import Head, decode_head
from foldpoint.codecs.model import Write
from foldpoint.codecs.segment import Segment, SnapshotRef, decode_segment
from foldpoint.codecs.wire import Malformed
from foldpoint.engine import keys
from foldpoint.engine.fold import Slice
from foldpoint.engine.io import RecordIO
from foldpoint.engine.records import HeadRecord
from foldpoint.errors import CorruptRecord, UnsupportedFormat


def read_head(record: HeadRecord) -> Head:
    """Raises CorruptRecord or UnsupportedFormat."""
    try:
        return decode_head(open_record(record.key, record.value, kinds=(HEAD,)).content)
    except Unsupported as error:
        raise UnsupportedFormat(record.key, str(error)) from error
    except Malformed as error:
        raise CorruptRecord(record.key, f"head: {error}") from error


class Reader:
    """Reads what heads point at. Raises CorruptRecord for what is missing or damaged; keeps nothing."""

    def __init__(self, io: RecordIO) -> None:
        self.io = io

    def newest(self, head: Head) -> Slice:
        """Everything from the head's snapshot on, in one batch."""
        if head.deleted:
            return Slice(head.epoch)
        snapshot_keys = keys.snapshot_parts(head.epoch, head.snapshot) if head.snapshot else []
        first = head.snapshot.segments if head.snapshot else 0
        # The segment before the snapshot too: an event that was put while that was sealed is compressed against it.
        before = [keys.segment(head.epoch, first - 1)] if first else []
        segment_keys = [keys.segment(head.epoch, index) for index in range(first, head.segments)]
        slots = head.slots
        event_keys = [keys.event(head.epoch, seq) for seq in slots]
        found = iter(self.io.read([*snapshot_keys, *before, *segment_keys, *event_keys]))
        parts = [*islice(found, len(snapshot_keys))]
        last = dict(zip(before, islice(found, len(before)), strict=True))
        slice_ = self._start(head.epoch, head.snapshot, parts, last)
        self._add_segments(slice_, segment_keys, [*islice(found, len(segment_keys))])
        self._open_slots(slice_, dict(zip(slots, found, strict=True)))
        return slice_

    def add_slots(self, slice_: Slice, slots: Iterable[int]) -> None:
        """Read those of the slots that the slice does not hold, and take in the events that are there."""
        wanted = [seq for seq in slots if seq not in slice_.events]
        if wanted:
            found = self.io.read([keys.event(slice_.epoch, seq) for seq in wanted])
            self._open_slots(slice_, dict(zip(wanted, found, strict=True)))

    def region(self, epoch: bytes, end: int) -> tuple[Slice, int] | None:
        """The slice that holds segment `end` - 1 and those before it back to a kept snapshot, with its first index.

        None where `end` is 0. Two round trips.
        """
        if end == 0:
            return None
        last_key = keys.segment(epoch, end - 1)
        last = self.segment(last_key, self.io.inflate(last_key, self.io.read([last_key])[0], SEGMENT))
        first = last.start.segments if last.start else 0
        snapshot_keys = keys.snapshot_parts(epoch, last.start) if last.start else []
        segment_keys = [keys.segment(epoch, index) for index in range(first, end - 1)]
        found = self.io.read(snapshot_keys + segment_keys) if snapshot_keys or segment_keys else []
        slice_ = self._start(epoch, last.start, found[: len(snapshot_keys)])
        self._add_segments(slice_, segment_keys, found[len(snapshot_keys) :])
        add_segment(slice_, last)
        return slice_, first

    def _start(
        self,
        epoch: bytes,
        ref: SnapshotRef | None,
        parts: list[bytes | None],
        last: dict[bytes, bytes | None] | None = None,
    ) -> Slice:
        if ref is None:
            return Slice(epoch)
        events = [unpack_event(seq, payload) for seq, payload in self._open_snapshot(epoch, ref, parts).events]
        return Slice(epoch, events, covers=ref.covers, earlier=Earlier(self, epoch, ref.segments, last))

    def _open_snapshot(self, epoch: bytes, ref: SnapshotRef, parts: list[bytes | None]) -> Segment:
        part_keys = keys.snapshot_parts(epoch, ref)
        record = b""
        for key, part in zip(part_keys, parts, strict=True):
            record += self.io.part(key, part)
        return self.segment(part_keys[0], self.io.inflate(part_keys[0], record, SNAPSHOT))

    def payloads(self, key: bytes, record: bytes | None) -> dict[int, bytes]:
        """The payloads of a segment by sequence number, fillers included; none if the record is not there."""
        if record is None:
            return {}
        segment = self.segment(key, self.io.inflate(key, record, SEGMENT))
        return {**dict.fromkeys(range(segment.first, segment.last + 1), FILLER_PAYLOAD), **dict(segment.events)}

    def segment(self, key: bytes, payload: bytes) -> Segment:
        try:
            return decode_segment(payload)
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error

    def _add_segments(self, slice_: Slice, segment_keys: list[bytes], records: list[bytes | None]) -> None:
        for key, record in zip(segment_keys, records, strict=True):
            segment = self.segment(key, self.io.inflate(key, record, SEGMENT))
            add_segment(slice_, segment)

    def _open_slots(self, slice_: Slice, records: dict[int, bytes | None]) -> None:
        """Take in what was read of a window.

        A batch is no snapshot: it may hold an event and not the one before it, which was there first and which it
        builds upon. So what is empty below the last event is read once more; what is empty then is a hole.
        """
        last = max((seq for seq, record in records.items() if record is not None), default=0)
        holes = [seq for seq, record in records.items() if record is None and seq < last]
        if holes:
            again = self.io.read([keys.event(slice_.epoch, seq) for seq in holes])
            records = {**records, **dict(zip(holes, again, strict=True))}
        self._open_events(slice_, records)

    def _open_events(self, slice_: Slice, records: dict[int, bytes | None]) -> None:
        """Take the events of `records` into the slice, ascending: each is compressed against those before it."""
        for seq, record in sorted(records.items()):
            if record is not None:
                slice_.add(self._open_event(slice_, seq, record))

    def _open_event(self, slice_: Slice, seq: int, record: bytes) -> Event:
        key = keys.event(slice_.epoch, seq)
        opened = self.io.open(key, record, EVENT)
        try:
            depth, at = opened.depth()
            context = context_of(seq, depth, slice_.payload)
            return unpack_event(seq, opened.inflate(context, at))
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error


class Earlier:
    """What lies before a slice, read when it is asked for. `last`: its last segment's record, where it is known."""

    def __init__(self, reader: Reader, epoch: bytes, end: int, last: dict[bytes, bytes | None] | None = None) -> None:
        self._reader = reader
        self._last = last or {}
        self._payloads: dict[int, bytes] = {}
        self._epoch = epoch
        self._end = end
        self._slice: Slice | None = None

    def _region(self, seq: int) -> Slice:
        if self._slice is None:
            region = self._reader.region(self._epoch, self._end)
            if region is None:
                raise CorruptRecord(keys.event(self._epoch, seq), "referred to, and not in the log")
            self._slice = region[0]
        return self._slice

    def payload(self, seq: int) -> bytes:
        while self._last:
            self._payloads = self._reader.payloads(*self._last.popitem())
        if seq in self._payloads:
            return self._payloads[seq]
        return self._region(seq).payload(seq)

    def folded(self, seq: int) -> Folded:
        return self._region(seq).folded(seq)

    def state(self, seq: int) -> dict[str, Stored]:
        return self._region(seq).state(seq)

    def writes(self, seq: int) -> list[Write]:
        return self._region(seq).writes(seq)


def add_segment(slice_: Slice, segment: Segment) -> None:
    """Take those of a segment's events, and of its fillers, into a slice that it does not hold."""
    payloads = dict(segment.events)
    for seq in (seq for seq in range(segment.first, segment.last + 1) if seq not in slice_.events):
        slice_.add(unpack_event(seq, payloads.get(seq, FILLER_PAYLOAD)))
