"""Reading stretches of a log from the store: heads, the slice that latest is read from, and older ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from foldpoint.codecs.envelope import EVENT, HEAD, SEGMENT, SNAPSHOT, SPAN, Unsupported, context_of, open_record
from foldpoint.codecs.event import FILLER_PAYLOAD, Event, Folded, check_of, check_of_all, unpack_event
from foldpoint.codecs.head import Head, decode_head
from foldpoint.codecs.model import Stored, Write
from foldpoint.codecs.segment import Segment, Snapshot, SnapshotRef, Span, decode_segment, decode_snapshot, decode_span
from foldpoint.codecs.wire import Malformed
from foldpoint.engine import keys
from foldpoint.engine.fold import Earlier, Nothing, Slice
from foldpoint.engine.io import RecordIO
from foldpoint.engine.layout import Layout
from foldpoint.engine.records import HeadRecord
from foldpoint.engine.snapshot import events_of
from foldpoint.errors import CorruptRecord, MisfitRecord, UnsupportedFormat

_READ_AHEAD = 8
"""At most so many segments are read at once on the way back through a log."""
_UNMERGED_AT_ONCE = 64
_SPANS_AT_ONCE = 4096
"""At most so many segments of level 1, and spans, are read at once to find an id."""
_ELSEWHERE = "builds upon events that the store has lost, and holds others in their place"
_HELD_UP = "the store has lost what was there, and a sealer that was held up has put this in its place"
_MOST_SINCE_SNAPSHOT = 1 << 16
"""Far more segments than any head names without a snapshot: all of them are read at once."""


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
        """Everything from the head's snapshot on, in one batch. Of a tombstone what was put under a later head, which a
        crash has taken.
        """
        if self.is_gone(head):
            return Slice(head.epoch)
        snapshot_keys = keys.snapshot_parts(head.epoch, head.snapshot) if head.snapshot else []
        first = head.snapshot.segments if head.snapshot else 0
        if head.segments - first > _MOST_SINCE_SNAPSHOT:
            raise CorruptRecord(keys.head(head.thread_id, head.namespace), f"head: {head.segments} segments to read")
        # The segment before the snapshot too: an event that was put while that was sealed is compressed against it.
        before = [keys.segment(head.epoch, first - 1)] if first else []
        segment_keys = [keys.segment(head.epoch, index) for index in range(first, head.segments)]
        tail = self._tail(head)
        event_keys = [keys.event(head.epoch, seq) for seq in tail]
        found = iter(self.io.read([*snapshot_keys, *before, *segment_keys, *event_keys]))
        parts = [*islice(found, len(snapshot_keys))]
        last = dict(zip(before, islice(found, len(before)), strict=True))
        layout = Layout.of(head)
        slice_ = self._start(layout, head.snapshot, parts, layout.after(first), last)
        for segment in self._consecutive(segment_keys, islice(found, len(segment_keys)), head.sealed + 1):
            add_segment(slice_, segment)
        self._open_slots(slice_, dict(zip(tail, found, strict=True)))
        self._add_beyond(slice_, head)
        return slice_

    def is_gone(self, head: Head) -> bool:
        """Whether it is a tombstone under which nobody has put anything."""
        return head.deleted and (self.io.atomic or self.io.store.get_many([keys.event(head.epoch, 1)]) == [None])

    def earlier(self, head: Head, known: dict[int, bytes] | None = None) -> Earlier:
        """What lies before the slice that latest is read from. known: payloads by number."""
        if head.snapshot is None:
            return Nothing(head.epoch)
        layout = Layout.of(head)
        return Before(self, layout, layout.after(head.snapshot.segments), head.snapshot.covers, known=known)

    def moved(self, layout: Layout) -> Layout | None:
        """Where the same log lies by now; None if nothing has moved, its epoch was left, or a crash took its end."""
        record = self.io.store.get_head(layout.stream)
        now = Layout.of(read_head(record)) if record else layout
        goes_on = now.epoch == layout.epoch and now.segments >= layout.segments
        return now if goes_on and now != layout else None

    def follow(self, slice_: Slice, head: Head) -> None:
        """Let a slice ask for what lies before it where the head says: it may have been merged since."""
        earlier = slice_.earlier
        if isinstance(earlier, Before) and earlier.layout != Layout.of(head):
            slice_.earlier = self.earlier(head, earlier.known)

    def add_tail(self, slice_: Slice, head: Head) -> None:
        """Take in the events after `sealed` that the slice does not hold."""
        self.add_slots(slice_, self._tail(head))
        self._add_beyond(slice_, head)

    def _tail(self, head: Head) -> range:
        """Where events after `sealed` may be: in the window, and beyond it if a crash has brought an older head back.

        Of what lies beyond the first number tells.
        """
        return head.slots if self.io.atomic else range(head.slots.start, head.slots.stop + 1)

    def _add_beyond(self, slice_: Slice, head: Head) -> None:
        """Take in what lies beyond the window, if its first is there: sealed, as heads said that a crash has taken."""
        read = range(head.slots.stop, head.slots.stop + 1)
        while slice_.newest >= read.start:
            read = range(read.stop, read.stop + head.window)
            self.add_slots(slice_, read)

    def add_slots(self, slice_: Slice, slots: Iterable[int]) -> None:
        """Read those of the slots that the slice does not hold, and take in the events that are there."""
        wanted = [seq for seq in slots if seq not in slice_.events]
        if wanted:
            found = self.io.read([keys.event(slice_.epoch, seq) for seq in wanted])
            self._open_slots(slice_, dict(zip(wanted, found, strict=True)))

    def before(self, layout: Layout, end: int, last: int) -> Iterator[Slice]:
        """The slices that make up the log up to number `last`, newest first; the last one begins with the stream.

        `end` is a position beyond the segment that holds `last`. Each slice begins at a kept snapshot.
        """
        held: list[Segment] = []
        while last > 0:
            held, end = self._segments_back(layout, held, end, last, last)
            if held[-1].span.last < last:
                problem = f"ends at {held[-1].span.last}, and {last} is sealed"
                raise MisfitRecord(layout.key(end + len(held) - 1), f"{problem}; {_HELD_UP}")
            start = held[-1].span.start
            first = held[-1].span.folds_from
            held, end = self._segments_back(layout, held, end, first, last)
            inner = [segment for segment in held if segment.span.last >= first]
            position = end + len(held) - len(inner) + 1
            yield self.slice(layout, start, inner, position, last=last)
            last = first - 1

    def _segments_back(
        self, layout: Layout, held: list[Segment], end: int, first: int, last: int
    ) -> tuple[list[Segment], int]:
        """`held`, the segments from position `end` on, without those after `last` and back to the one with `first`."""
        count = 1
        while True:
            held = [segment for segment in held if segment.span.first <= last]
            if held and held[0].span.first <= first:
                return held, end
            if end == 0:
                raise CorruptRecord(keys.event(layout.epoch, first), "in no segment, and below the sealed number")
            count = min(count * 2, _READ_AHEAD, end) if held else 1
            following = held[0].span.first if held else None
            held = [*self.segments(layout, range(end - count, end), following), *held]
            end -= count

    def stretch(self, layout: Layout, positions: range, span: Span) -> Slice:
        """The slice that ends with `span`, from what lies at `positions`: its own segment and those it folds through.

        One round trip.
        """
        snapshot_keys = keys.snapshot_parts(layout.epoch, span.start) if span.start else []
        segment_keys = [layout.key(position) for position in positions]
        found = self.io.read([*snapshot_keys, *segment_keys])
        parts, records = found[: len(snapshot_keys)], found[len(snapshot_keys) :]
        segments = self._consecutive(segment_keys, records, None)
        return self.slice(layout, span.start, segments, positions[0] + 1, last=span.last, parts=parts)

    def spans(self, layout: Layout, end: int, *, present: bool = False) -> Iterator[Span]:
        """What the segments below position `end` say of themselves, newest first. `present`: only those that are whole.

        One round trip for the first of level 1 and, if those are few, for many of the merged ones.
        """
        while end > 0:
            positions: list[int] = []
            unmerged = 0
            while end > 0 and len(positions) < _SPANS_AT_ONCE and unmerged < _UNMERGED_AT_ONCE:
                end -= 1
                positions.append(end)
                unmerged += layout.place(end).level == 1
            span_keys = [layout.span_key(position) for position in positions]
            found = self.io.read(span_keys, whole=not present)
            for position, key, record in zip(positions, span_keys, found, strict=True):
                if record is not None or not present:
                    yield self._span(layout, position, key, record)

    def span(self, layout: Layout, position: int) -> Span:
        """What the span record at a position says."""
        key = layout.span_key(position)
        return self._span(layout, position, key, self.io.read([key])[0])

    def _span(self, layout: Layout, position: int, key: bytes, record: bytes | None) -> Span:
        if key == layout.key(position):
            return self.segment(key, record).span
        try:
            return decode_span(self.io.inflate(key, record, SPAN))
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error

    def segments(self, layout: Layout, positions: Iterable[int], following: int | None = None) -> list[Segment]:
        """Consecutive ones, in one round trip. following: the number after the last, where that is known."""
        segment_keys = [layout.key(position) for position in positions]
        return self._consecutive(segment_keys, self.io.read(segment_keys), following)

    def _consecutive(
        self, segment_keys: Sequence[bytes], records: Iterable[bytes | None], following: int | None
    ) -> list[Segment]:
        """What is in the records. Raises MisfitRecord for one that does not end where the next begins."""
        segments = [self.segment(key, record) for key, record in zip(segment_keys, records, strict=True)]
        starts = [*(segment.span.first for segment in segments[1:]), following]
        for key, segment, start in zip(segment_keys, segments, starts, strict=False):
            if start is not None and segment.span.last + 1 != start:
                problem = f"ends at {segment.span.last}, and what follows begins at {start}"
                raise MisfitRecord(key, f"{problem}; {_HELD_UP}")
        return segments

    def slice(
        self,
        layout: Layout,
        start: SnapshotRef | None,
        segments: list[Segment],
        end: int,
        *,
        last: int,
        parts: list[bytes | None] | None = None,
    ) -> Slice:
        """The slice that begins at the kept snapshot `start` and ends with number `last`.

        `end`: the position after the oldest of `segments`. parts: the snapshot's, where they were read already.
        """
        if parts is None:
            parts = self.io.read(keys.snapshot_parts(layout.epoch, start)) if start else []
        slice_ = self._start(layout, start, parts, end)
        for segment in segments:
            add_segment(slice_, segment, last)
        return slice_

    def _start(
        self,
        layout: Layout,
        ref: SnapshotRef | None,
        parts: list[bytes | None],
        end: int,
        last: dict[bytes, bytes | None] | None = None,
    ) -> Slice:
        if ref is None:
            return Slice(layout.epoch)
        part_keys = keys.snapshot_parts(layout.epoch, ref)
        again = partial(self.snapshot, part_keys, parts)
        snapshot = again()
        if snapshot.covers != ref.covers:
            problem = f"stands for the log up to {snapshot.covers}, not {ref.covers}"
            raise MisfitRecord(part_keys[0], f"{problem}; {_HELD_UP}")
        try:
            return Slice(
                layout.epoch,
                events_of(snapshot, again),
                covers=ref.covers,
                earlier=Before(self, layout, end, ref.covers, last),
                beside=sum(len(part or b"") for part in parts),
            )
        except Malformed as error:
            raise CorruptRecord(part_keys[0], str(error)) from error

    def snapshot(self, part_keys: list[bytes], parts: list[bytes | None]) -> Snapshot:
        """What the parts of a snapshot hold."""
        record = b"".join(self.io.part(key, part) for key, part in zip(part_keys, parts, strict=True))
        try:
            return decode_snapshot(self.io.inflate(part_keys[0], record, SNAPSHOT))
        except Malformed as error:
            raise CorruptRecord(part_keys[0], str(error)) from error

    def payloads(self, key: bytes, record: bytes | None) -> dict[int, bytes]:
        """The payloads of a segment by sequence number, fillers included; none if the record is not there."""
        if record is None:
            return {}
        segment = self.segment(key, record)
        numbers = range(segment.span.first, segment.span.last + 1)
        return {**dict.fromkeys(numbers, FILLER_PAYLOAD), **dict(segment.events)}

    def segment(self, key: bytes, record: bytes | None) -> Segment:
        try:
            return decode_segment(self.io.inflate(key, record, SEGMENT))
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error

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
        self.open_events(slice_, records)

    def open_events(self, slice_: Slice, records: dict[int, bytes | None]) -> None:
        """Take the events of `records` into the slice, ascending: each is compressed against those before it."""
        payloads = _Payloads(slice_)
        for seq, record in sorted(records.items()):
            if record is not None:
                event, check = self._open_event(slice_, payloads, seq, record)
                slice_.add(event, check)
                payloads[seq] = event.payload

    def _open_event(self, slice_: Slice, payloads: _Payloads, seq: int, record: bytes) -> tuple[Event, bytes]:
        """The event in a record, and its check. The slice holds what it builds upon."""
        key = keys.event(slice_.epoch, seq)
        if not record:
            raise CorruptRecord(key, "empty, although it is in no segment")
        opened = self.io.open(key, record, EVENT)
        try:
            depth, at = opened.depth()
            context = context_of(seq, depth, payloads.__getitem__)
            event = unpack_event(seq, opened.inflate(context, at))
            check = check_of(event, slice_.check)
        except Malformed as error:
            raise CorruptRecord(key, str(error)) from error
        if not opened.holds(at, check, context):
            raise CorruptRecord(key, _ELSEWHERE)
        return event, check


class _Payloads(dict[int, bytes]):
    """Those of a window that were opened, by number, and what its slice has of others: each is asked for many times."""

    def __init__(self, slice_: Slice) -> None:
        self._slice = slice_

    def __missing__(self, seq: int) -> bytes:
        return self._slice.payload(seq)


class Before:
    """What lies before a slice, up to number `covers`, read when it is asked for.

    end: a position beyond the segment that holds `covers`. recent: the record of the slice's last segment, where it is
    known. known: payloads by number.
    """

    def __init__(
        self,
        reader: Reader,
        layout: Layout,
        end: int,
        covers: int,
        recent: dict[bytes, bytes | None] | None = None,
        known: dict[int, bytes] | None = None,
    ) -> None:
        self._reader = reader
        self._recent = recent or {}
        self.known = known or {}
        self._payloads: dict[int, bytes] = {}
        self.layout = layout
        self._end = end
        self._covers = covers
        self._slice: Slice | None = None

    def _before(self, seq: int) -> Slice:
        if self._slice is not None:
            return self._slice
        try:
            self._slice = next(self._reader.before(self.layout, self._end, self._covers), None)
        except CorruptRecord:
            # Segments may have been merged, and removed, since the head was read.
            now = self._reader.moved(self.layout)
            if now is None:
                raise
            self.layout, self._end = now, len(now)
            return self._before(seq)
        if self._slice is None:
            raise CorruptRecord(keys.event(self.layout.epoch, seq), "referred to, and not in the log")
        return self._slice

    def fork(self) -> Before:
        """The same, to be used by another thread: what either reads of it is its own."""
        return Before(self._reader, self.layout, self._end, self._covers, dict(self._recent), self.known)

    def payload(self, seq: int) -> bytes:
        if seq in self.known:
            return self.known[seq]
        while self._recent:
            self._payloads = self._reader.payloads(*self._recent.popitem())
        if seq in self._payloads:
            return self._payloads[seq]
        return self._before(seq).payload(seq)

    def folded(self, seq: int) -> Folded:
        return self._before(seq).folded(seq)

    def state(self, seq: int) -> dict[str, Stored]:
        return self._before(seq).state(seq)

    def writes(self, seq: int) -> list[Write]:
        return self._before(seq).writes(seq)

    def check(self, seq: int) -> bytes:
        return self._before(seq).check(seq)


def add_segment(slice_: Slice, segment: Segment, last: int | None = None) -> None:
    """Take those of a segment's events, and of its fillers, into a slice that it does not hold and that it follows.

    `last`: none after this number. Raises CorruptRecord where it was sealed on other events than the slice's.
    """
    payloads = dict(segment.events)
    first = max(segment.span.first, slice_.covers + 1)
    end = segment.span.last if last is None else min(last, segment.span.last)
    for seq in (seq for seq in range(first, end + 1) if seq not in slice_.events):
        slice_.add_payload(seq, payloads.get(seq, FILLER_PAYLOAD))
    for footing in segment.footings:
        if first <= footing.first <= end and check_of_all(footing.numbers, slice_.check) != footing.check:
            raise CorruptRecord(keys.event(slice_.epoch, footing.first), _ELSEWHERE)
