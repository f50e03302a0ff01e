"""The log of one stream: reading its head and window, appending to it, sealing it.

What can go wrong here is losing an acknowledged event. The rules that prevent it (docs/DESIGN.md, invariants 1-6):
events are created under computed keys and never replaced; a writer appends only inside the window after `sealed`; a
sealer fills every hole below what it seals before it writes the segment, and writes the segment before it swaps the
head; a writer trusts its knowledge for a tenth of the grace, and checks its age again after the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import RLock

from foldpoint.codecs.delta import Stored
from foldpoint.codecs.envelope import (
    CONTEXT_BYTES,
    EVENT,
    HEAD,
    SEGMENT,
    SNAPSHOT,
    Unsupported,
    context_of,
    deflate,
    event_content,
    open_record,
    seal,
)
from foldpoint.codecs.event import FILLER_PAYLOAD, Event, Folded, unpack_event
from foldpoint.codecs.head import Extent, Head, decode_head, encode_head
from foldpoint.codecs.model import Write
from foldpoint.codecs.segment import Segment, SnapshotRef, decode_segment, encode_segment
from foldpoint.codecs.wire import Malformed
from foldpoint.engine import keys
from foldpoint.engine.clock import Clock
from foldpoint.engine.fold import Slice
from foldpoint.engine.io import RecordIO
from foldpoint.engine.records import HeadRecord
from foldpoint.engine.snapshot import SnapshotEvents, snapshot_events
from foldpoint.errors import Conflict, CorruptRecord, UnsupportedFormat
from foldpoint.settings import Settings

MAX_SEGMENTS = 16
"""A snapshot is due after this many segments, whatever they weigh."""
KEPT_RATIO = 8
"""A snapshot is kept for reading history when the log since the last kept one outweighs it by this factor."""
_ATTEMPTS = 64


@dataclass
class View:
    """What a process knows of a stream: the head as read at `read_at` (monotonic seconds), and the events since."""

    head: Head
    revision: int
    read_at: float
    slice: Slice
    last: int

    @property
    def next(self) -> int:
        return max(self.last, self.head.sealed) + 1


class Log:
    """One stream. Every method that touches the view holds the lock; `view` is None where the stream does not exist."""

    def __init__(self, thread_id: str, namespace: str, io: RecordIO, settings: Settings, clock: Clock) -> None:
        self.thread_id = thread_id
        self.namespace = namespace
        self.key = keys.head(thread_id, namespace)
        self.io = io
        self.settings = settings
        self.clock = clock
        self.lock = RLock()
        self.view: View | None = None

    # -- the head ------------------------------------------------------------------------------------------------------

    def swap(self, head: Head, revision: int | None) -> bool:
        """Store `head` over the one of `revision`; True if that was still the stored one. Durable."""
        value = seal(self.key, HEAD, 0, encode_head(head))
        record = HeadRecord(self.key, keys.text(self.thread_id), (revision or 0) + 1, value)
        return self.io.store.swap(record, expected=revision, ttl=head.ttl)

    def record_ttl(self, head: Head) -> int | None:
        """All other records outlive the head."""
        return None if head.ttl is None else 2 * head.ttl

    # -- reading -------------------------------------------------------------------------------------------------------

    def load(self) -> View | None:
        """Read the stream: the head, then everything after its snapshot in one batch. Sets and returns the view."""
        for _ in range(_ATTEMPTS):
            read_at = self.clock.monotonic()
            record = self.io.store.get_head(self.key)
            if record is None:
                self.view = None
                return None
            head = read_head(record)
            try:
                slice_ = self._read(head)
            except CorruptRecord:
                # The log may have been rewritten between the two reads; then the head has moved on.
                again = self.io.store.get_head(self.key)
                if again is not None and again.revision == record.revision:
                    raise
                continue
            last = max((seq for seq in slice_.events if seq > head.sealed), default=head.sealed)
            self.view = View(head, record.revision, read_at, slice_, last)
            return self.view
        raise Conflict(f"thread {self.thread_id!r}: its head kept changing while it was read; call again")

    def _read(self, head: Head) -> Slice:
        if head.deleted:
            return Slice()
        known = self._known(head)
        slots = range(head.sealed + 1, head.sealed + self.settings.window + 1)
        if known is not None:
            self._add_events(known, head, [seq for seq in slots if seq not in known.events])
            return known
        slot_keys = [keys.event(head.epoch, seq) for seq in slots]
        snapshot_keys = keys.snapshot_parts(head.epoch, head.snapshot) if head.snapshot else []
        first = head.snapshot.segments if head.snapshot else 0
        segment_keys = [keys.segment(head.epoch, index) for index in range(first, head.segments)]
        found = self.io.read(snapshot_keys + segment_keys + slot_keys)
        slice_ = self._start(head.epoch, head.snapshot, found[: len(snapshot_keys)])
        after = len(snapshot_keys) + len(segment_keys)
        self._add_segments(slice_, segment_keys, found[len(snapshot_keys) : after])
        self._open_events(slice_, dict(zip(slots, found[after:], strict=True)), head.epoch)
        return slice_

    def _known(self, head: Head) -> Slice | None:
        """The slice of the present view, if it still begins where the head says and nothing sealed is missing."""
        view = self.view
        if view is None or view.head.epoch != head.epoch or view.head.snapshot != head.snapshot or head.deleted:
            return None
        if any(seq not in view.slice.events for seq in range(view.head.sealed + 1, head.sealed + 1)):
            return None
        return view.slice

    def _start(self, epoch: bytes, ref: SnapshotRef | None, parts: list[bytes | None]) -> Slice:
        if ref is None:
            return Slice()
        events = [unpack_event(seq, payload) for seq, payload in self._open_snapshot(epoch, ref, parts).events]
        return Slice(events, covers=ref.covers, earlier=_Earlier(self, epoch, ref.segments))

    def _open_snapshot(self, epoch: bytes, ref: SnapshotRef, parts: list[bytes | None]) -> Segment:
        part_keys = keys.snapshot_parts(epoch, ref)
        record = b""
        for key, part in zip(part_keys, parts, strict=True):
            record += self.io.part(key, part)
        return self._segment(part_keys[0], self.io.inflate(part_keys[0], record, SNAPSHOT))

    def _segment(self, key: bytes, payload: bytes) -> Segment:
        try:
            return decode_segment(payload)
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error

    def _add_segments(self, slice_: Slice, segment_keys: list[bytes], records: list[bytes | None]) -> None:
        for key, record in zip(segment_keys, records, strict=True):
            segment = self._segment(key, self.io.inflate(key, record, SEGMENT))
            add_segment(slice_, segment)

    def _add_events(self, slice_: Slice, head: Head, slots: Iterable[int]) -> None:
        wanted = list(slots)
        if wanted:
            found = self.io.read([keys.event(head.epoch, seq) for seq in wanted])
            self._open_events(slice_, dict(zip(wanted, found, strict=True)), head.epoch)

    def _open_events(self, slice_: Slice, records: dict[int, bytes | None], epoch: bytes) -> None:
        """Take the events of `records` into the slice, ascending: each is compressed against those before it."""
        for seq, record in sorted(records.items()):
            if record is not None:
                slice_.add(self._open_event(slice_, epoch, seq, record))

    def _open_event(self, slice_: Slice, epoch: bytes, seq: int, record: bytes) -> Event:
        key = keys.event(epoch, seq)
        opened = self.io.open(key, record, EVENT)
        try:
            depth, at = opened.depth()
            context = context_of(seq, depth, slice_.payload)
            return unpack_event(seq, opened.inflate(context, at))
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error

    # -- appending -----------------------------------------------------------------------------------------------------

    @property
    def trust(self) -> float:
        """Seconds for which a view may be acted upon without reading again."""
        return self.settings.grace / 10

    def trusted(self) -> View | None:
        """The view, read anew if it is too old."""
        view = self.view
        if view is not None and self._age(view) <= self.trust:
            return view
        return self.load()

    def _age(self, view: View) -> float:
        return self.clock.monotonic() - view.read_at

    def append(self, encode: Callable[[int, Slice], bytes], *, existing: bool, ttl: int | None) -> tuple[View, Event]:
        """Append the event that `encode(seq, slice)` gives; returns when it is durable and in the log.

        `existing`: the stream is expected to exist. One round trip where the view is fresh, two for a new stream.
        """
        for _ in range(_ATTEMPTS):
            view = self._begin(existing, ttl)
            seq = view.next
            if seq > view.head.sealed + self.settings.window:
                self.seal()
                continue
            payload = encode(seq, view.slice)
            key = keys.event(view.head.epoch, seq)
            record = self._seal_event(view, seq, payload)
            if not self.io.create(key, record, self.record_ttl(view.head)) and not self._own(view, seq, payload):
                continue
            if self._age(view) > self.trust:
                late = self._recheck(view, seq, payload)
                if late is None:
                    continue
                view = late
            event = unpack_event(seq, payload)
            if seq > view.last:
                view.slice.add(event)
                view.last = seq
            return view, event
        raise Conflict(f"thread {self.thread_id!r}: {_ATTEMPTS} sequence numbers were taken by others; call again")

    def _begin(self, existing: bool, ttl: int | None) -> View:
        """A trusted view of a live stream, which is created where there is none."""
        view = self.view
        if view is None and not existing:
            view = self.create_stream(ttl)
        while view is None or self._age(view) > self.trust or view.head.deleted:
            fresh = self.trusted()
            if fresh is not None and not fresh.head.deleted:
                return fresh
            view = self.create_stream(ttl, fresh)
        return view

    def create_stream(self, ttl: int | None, tombstone: View | None = None) -> View | None:
        """Swap in the head of an empty stream; None if somebody else did."""
        read_at, now = self.clock.monotonic(), int(self.clock.now())
        head = Head(self.thread_id, self.namespace, keys.new_epoch(), ttl=ttl, extended_at=now)
        if tombstone is not None:
            # The tombstone's epoch was never used; what it still has to remove stays known.
            head = replace(head, epoch=tombstone.head.epoch, dead=tombstone.head.dead)
        revision = tombstone.revision if tombstone else None
        if not self.swap(head, revision):
            return None
        self.view = View(head, (revision or 0) + 1, read_at, Slice(), 0)
        return self.view

    def _seal_event(self, view: View, seq: int, payload: bytes) -> bytes:
        depth, context = recent_context(view.slice, seq)
        codec, body = deflate(payload, self.settings.compression_level, context)
        return self.io.seal(keys.event(view.head.epoch, seq), EVENT, codec, event_content(depth, body))

    def _own(self, view: View, seq: int, payload: bytes) -> bool:
        """The number was taken: take in what stands there. True if it is the very event that was to be put."""
        slots = range(seq, view.head.sealed + self.settings.window + 1)
        self._add_events(view.slice, view.head, [at for at in slots if at not in view.slice.events])
        view.last = max(view.last, max(view.slice.events, default=0))
        taken = view.slice.events.get(seq)
        if taken is None:
            # Taken a moment ago and gone now: sealed and removed. What this view says is out of date.
            self.view = None
            return False
        if taken.payload == FILLER_PAYLOAD:
            self.view = None
        return taken.payload == payload

    def _recheck(self, view: View, seq: int, payload: bytes) -> View | None:
        """The answer came late: a fresh view if the event is in the log.

        None if its slot was sealed, and emptied, before the event arrived in it, or if the epoch was left.
        """
        self.view = None
        fresh = self.load()
        if fresh is None or fresh.head.epoch != view.head.epoch:
            return None
        if seq > fresh.head.sealed:
            return fresh
        try:
            return fresh if fresh.slice.payload(seq) == payload else None
        except (CorruptRecord, Malformed):
            return None

    # -- sealing -------------------------------------------------------------------------------------------------------

    def seal(self) -> bool:
        """Seal every event of the tail into a segment; True if the head moved. Safe beside anybody.

        Takes a snapshot where one is due.
        """
        for _ in range(_ATTEMPTS):
            view = self.load()
            if view is None or view.head.deleted or view.last <= view.head.sealed:
                return False
            self.fill(view, view.last)
            sealed = self.advance(view)
            if self.swap(sealed.head, view.revision):
                self.view = replace(sealed, revision=view.revision + 1)
                return True
        raise Conflict(f"thread {self.thread_id!r}: its head kept changing while it was sealed; call again")

    def fill(self, view: View, last: int) -> None:
        """Take every free sequence number up to `last`, so that a writer that was held up moves on."""
        holes = [seq for seq in range(view.head.sealed + 1, last + 1) if seq not in view.slice.events]
        if not holes:
            return
        records = []
        for seq in holes:
            key = keys.event(view.head.epoch, seq)
            records.append((key, self.io.seal(key, EVENT, 0, event_content(0, FILLER_PAYLOAD))))
        self.io.store.create(records, ttl=self.record_ttl(view.head))
        self._add_events(view.slice, view.head, holes)
        missing = [seq for seq in holes if seq not in view.slice.events]
        if missing:
            raise CorruptRecord(keys.event(view.head.epoch, missing[0]), "gone right after it was filled")

    def _write_segment(self, view: View) -> tuple[Segment, int]:
        """The segment that follows `sealed`, ours or one that another sealer wrote first, and its stored size."""
        first = view.head.sealed + 1
        own = [view.slice.events[seq] for seq in range(first, view.last + 1)]
        events = tuple((event.seq, event.payload) for event in own if event.payload != FILLER_PAYLOAD)
        segment = Segment(first, view.last, events, view.head.kept)
        key = keys.segment(view.head.epoch, view.head.segments)
        codec, body = deflate(encode_segment(segment), self.settings.segment_level)
        record = self.io.seal(key, SEGMENT, codec, body)
        if self.io.create(key, record, self.record_ttl(view.head)):
            return segment, len(record)
        found = self.io.read([key])[0]
        return self._segment(key, self.io.inflate(key, found, SEGMENT)), len(found or b"")

    def advance(self, view: View) -> View:
        """Write the segment that follows `sealed`, and a snapshot if one is due: the view once its head is swapped."""
        segment, size = self._write_segment(view)
        head = replace(
            view.head,
            sealed=segment.last,
            segments=view.head.segments + 1,
            logged=view.head.logged + size,
            kept_logged=view.head.kept_logged + size,
        )
        slice_ = view.slice
        if self._snapshot_due(head):
            snapshot = snapshot_events(slice_, head.sealed)
            head = self._write_snapshot(head, snapshot)
            slice_ = self._restart(slice_, head, snapshot)
        if head.mark == head.cleaned:
            head = replace(head, mark=superseded(head), marked_at=int(self.clock.now()))
        return replace(view, head=head, slice=slice_, last=max(view.last, head.sealed))

    def _snapshot_due(self, head: Head) -> bool:
        since = head.segments - (head.snapshot.segments if head.snapshot else 0)
        return since > MAX_SEGMENTS or head.logged >= self.settings.snapshot_ratio * head.snapshot_bytes

    def _write_snapshot(self, head: Head, events: SnapshotEvents) -> Head:
        """The head with a snapshot of everything sealed; a number that another sealer took is passed over."""
        last = max((seq for seq, _ in events), default=1)
        codec, body = deflate(encode_segment(Segment(1, last, tuple(events))), self.settings.segment_level)
        kept = head.kept_logged >= KEPT_RATIO * len(body)
        for number in range(head.snapshots + 1, head.snapshots + _ATTEMPTS):
            record = self.io.seal(keys.snapshot(head.epoch, number, 0, kept), SNAPSHOT, codec, body)
            chunks = [record[at : at + self.io.part_size] for at in range(0, len(record), self.io.part_size)]
            ref = SnapshotRef(number, head.sealed, head.segments, len(chunks), kept)
            part_keys = keys.snapshot_parts(head.epoch, ref)
            if all(
                self.io.create_part(key, chunk, self.record_ttl(head))
                for key, chunk in zip(part_keys, chunks, strict=True)
            ):
                head = replace(head, snapshots=number, snapshot=ref, snapshot_bytes=len(record), logged=0)
                return replace(head, kept=ref, kept_logged=0) if kept else head
        raise Conflict(f"thread {self.thread_id!r}: {_ATTEMPTS} snapshot numbers were taken by others; call again")

    def _restart(self, old: Slice, head: Head, snapshot: SnapshotEvents) -> Slice:
        """The slice that begins with the snapshot just written, keeping the states that are known."""
        assert head.snapshot is not None
        start = [unpack_event(seq, payload) for seq, payload in snapshot]
        slice_ = Slice(start, covers=head.sealed, earlier=_Earlier(self, head.epoch, head.snapshot.segments))
        for seq in slice_.checkpoints.values():
            slice_.put_state(seq, old.state(seq))
        for seq in sorted(seq for seq in old.events if seq > head.sealed):
            slice_.add(old.events[seq])
        return slice_

    def fork(self) -> Log:
        """A log that begins with what this one knows and goes its own way, so that long work blocks no writer."""
        twin = Log(self.thread_id, self.namespace, self.io, self.settings, self.clock)
        if self.view is not None:
            twin.view = replace(self.view, slice=self.view.slice.copy())
        return twin

    def join(self, view: View | None) -> None:
        """Go on from the view of a fork, if its head is newer, without losing what was learned since."""
        mine = self.view
        if mine is None or view is None or mine.head.epoch != view.head.epoch or mine.revision >= view.revision:
            return
        for seq in sorted(seq for seq in mine.slice.events if seq > view.head.sealed and seq not in view.slice.events):
            view.slice.add(mine.slice.events[seq])
        if (latest := mine.slice.checkpoints.get(mine.slice.latest_id)) in view.slice.events and latest is not None:
            view.slice.put_state(latest, mine.slice.state(latest))
        self.view = replace(view, last=max(view.last, mine.last))

    # -- history -------------------------------------------------------------------------------------------------------

    def region(self, epoch: bytes, end: int) -> tuple[Slice, int] | None:
        """The slice that holds segment `end` - 1 and those before it back to a kept snapshot, with its first index.

        None where `end` is 0. Two round trips.
        """
        if end == 0:
            return None
        last_key = keys.segment(epoch, end - 1)
        last = self._segment(last_key, self.io.inflate(last_key, self.io.read([last_key])[0], SEGMENT))
        first = last.start.segments if last.start else 0
        snapshot_keys = keys.snapshot_parts(epoch, last.start) if last.start else []
        segment_keys = [keys.segment(epoch, index) for index in range(first, end - 1)]
        found = self.io.read(snapshot_keys + segment_keys) if snapshot_keys or segment_keys else []
        slice_ = self._start(epoch, last.start, found[: len(snapshot_keys)])
        self._add_segments(slice_, segment_keys, found[len(snapshot_keys) :])
        add_segment(slice_, last)
        return slice_, first


def read_head(record: HeadRecord) -> Head:
    """Raises CorruptRecord or UnsupportedFormat."""
    try:
        return decode_head(open_record(record.key, record.value, kinds=(HEAD,)).content)
    except Unsupported as error:
        raise UnsupportedFormat(record.key, str(error)) from error
    except Malformed as error:
        raise CorruptRecord(record.key, f"head: {error}") from error


class _Earlier:
    """What lies before a slice, read when it is asked for."""

    def __init__(self, log: Log, epoch: bytes, end: int) -> None:
        self._log = log
        self._epoch = epoch
        self._end = end
        self._slice: Slice | None = None

    def _region(self, seq: int) -> Slice:
        if self._slice is None:
            region = self._log.region(self._epoch, self._end)
            if region is None:
                raise Malformed(f"event {seq} is referred to and is not in the log")
            self._slice = region[0]
        return self._slice

    def payload(self, seq: int) -> bytes:
        return self._region(seq).payload(seq)

    def folded(self, seq: int) -> Folded:
        return self._region(seq).folded(seq)

    def state(self, seq: int) -> dict[str, Stored]:
        return self._region(seq).state(seq)

    def writes(self, seq: int) -> list[Write]:
        return self._region(seq).writes(seq)


def add_segment(slice_: Slice, segment: Segment) -> None:
    """Take a segment's events, and its fillers, into a slice."""
    payloads = dict(segment.events)
    for seq in range(segment.first, segment.last + 1):
        slice_.add(unpack_event(seq, payloads.get(seq, FILLER_PAYLOAD)))


def superseded(head: Head) -> Extent:
    """What nobody who reads this head needs any more: sealed events, and snapshots before the present one."""
    return Extent(head.sealed, head.segments, head.snapshot.number - 1 if head.snapshot else 0)


def recent_context(slice_: Slice, seq: int) -> tuple[int, bytes]:
    """(depth, bytes) of the events right before `seq` that a new event is compressed against."""
    depth, size = 0, 0
    at = seq - 1
    while at > slice_.covers and size < CONTEXT_BYTES and at in slice_.events:
        size += len(slice_.events[at].payload)
        depth += 1
        at -= 1
    return depth, context_of(seq, depth, slice_.payload)
