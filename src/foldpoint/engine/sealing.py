"""Turning a tail into a segment, and a segment's end into a snapshot where one is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from foldpoint.codecs.envelope import CONTEXT_BYTES, SEGMENT, SNAPSHOT, deflate, inflate
from foldpoint.codecs.event import CHECKPOINT, FILLER_PAYLOAD, builds_on, check_of_all
from foldpoint.codecs.head import Head
from foldpoint.codecs.segment import (
    Footing,
    Segment,
    Snapshot,
    SnapshotRef,
    Span,
    decode_snapshot,
    encode_segment,
    encode_snapshot,
)
from foldpoint.codecs.wire import MAX_PAYLOAD
from foldpoint.engine import keys
from foldpoint.engine.clock import Clock
from foldpoint.engine.fold import Slice
from foldpoint.engine.io import LOST_PARTS
from foldpoint.engine.layout import Layout
from foldpoint.engine.reading import Reader, add_segment
from foldpoint.engine.snapshot import events_of, snapshot_of
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, CorruptRecord, StrayRecord
from foldpoint.settings import Settings

MAX_SEGMENTS = 16
"""A snapshot is due after this many segments, whatever they weigh."""
KEPT_RATIO = 8
"""A snapshot is kept for reading history when the log since the last kept one outweighs it by this factor."""
MOST_SEALED = 64 << 20
"""Bytes of payloads that go into one segment, which is read and decompressed as a whole; of one event at least."""
_ATTEMPTS = 64


class Sealer:
    """Writes segments and snapshots. Swaps no head: what it writes counts only when its caller does."""

    def __init__(self, reader: Reader, settings: Settings, clock: Clock) -> None:
        self.reader = reader
        self.io = reader.io
        self.settings = settings
        self.clock = clock

    def advance(self, view: View, *, last: int | None = None, idle: bool = False) -> View:
        """Write the segment that follows `sealed`, and a snapshot if one is due: the view once its head is swapped.

        last: no number after this one. After a crash that brought an older head back more are known than its window
        has; segments of a window each are those that are there, or were, and so the next ones still fit.
        idle: no more may come, so the snapshot is made as small as what stays.
        """
        segment, size = self._write_segment(view, view.last if last is None else min(last, view.last))
        # One that another sealer wrote may hold events that this view has not seen, and the head will say they are
        # sealed: a snapshot without them would hide them.
        add_segment(view.slice, segment)
        head = replace(
            view.head,
            sealed=segment.span.last,
            segments=view.head.segments + 1,
            segment_bytes=view.head.segment_bytes + size,
            logged=view.head.logged + size,
            kept_logged=view.head.kept_logged + size,
        )
        slice_ = view.slice
        if self._snapshot_due(head):
            head, slice_ = self._snapshot(head, view, idle)
        if head.mark == head.cleaned:
            head = replace(head, mark=head.superseded, marked_at=int(self.clock.now()))
        return replace(view, head=head, slice=slice_, last=max(view.last, head.sealed))

    def _write_segment(self, view: View, last: int) -> tuple[Segment, int]:
        """The segment that follows `sealed`, ours or one that another sealer wrote first, and its stored size."""
        first = view.head.sealed + 1
        segment = segment_of(view.slice, first, _last_that_fits(view.slice, first, last), view.head.kept)
        key = keys.segment(view.head.epoch, view.head.segments)
        codec, body = deflate(encode_segment(segment), self.settings.segment_level)
        record = self.io.seal(key, SEGMENT, codec, body)
        if self.io.create(key, record, view.head.record_ttl):
            return segment, len(record)
        if view.head.record_ttl is not None:
            # Whoever wrote it may have done so long ago: no extension since has known of it.
            self.io.store.extend([key, *self.io.parts_of([key])], ttl=view.head.record_ttl)
        found = self.io.read([key], whole=False)[0]
        if found is None:
            raise StrayRecord(key, LOST_PARTS)
        adopted = self.reader.segment(key, found)
        self._vouch(view, key, adopted, segment.span.before)
        return adopted, len(found)

    def _vouch(self, view: View, key: bytes, segment: Segment, before: str) -> None:
        """Raise StrayRecord unless the log holds what the segment of another sealer does, and what it begins with.

        A crash may take the newest heads, segments, snapshots and events, and leave a segment that was made after them.
        """
        numbers = range(view.head.sealed + 1, segment.span.last + 1)
        self.reader.add_slots(view.slice, numbers)
        payloads, events = dict(segment.events), view.slice.events
        same = all(events[seq].payload == payloads.get(seq, FILLER_PAYLOAD) for seq in numbers if seq in events)
        if not same or (segment.span.first, segment.span.before) != (numbers.start, before):
            raise StrayRecord(key, "holds other events than the log: the store has lost what it was made of")
        if segment.span.start != view.head.kept:
            layout = Layout.of(view.head)
            try:
                self.reader.slice(layout, segment.span.start, [], len(layout), last=0)
            except CorruptRecord as error:
                raise StrayRecord(key, "begins with a snapshot that the store has lost") from error

    def _snapshot_due(self, head: Head) -> bool:
        """Whether the log since the last snapshot weighs enough; without one, more than what it would take to read."""
        since = head.segments - (head.snapshot.segments if head.snapshot else 0)
        weight = self.settings.snapshot_ratio + (0 if head.snapshot else 1)
        return since > MAX_SEGMENTS or head.logged >= weight * head.snapshot_bytes

    def _snapshot(self, head: Head, view: View, idle: bool) -> tuple[Head, Slice]:
        """With a snapshot of everything sealed, unless the first one would hardly be smaller than the log itself."""
        snapshot = snapshot_of(view.slice, head.sealed)
        content = encode_snapshot(snapshot)
        if len(content) > MAX_PAYLOAD:
            return head, view.slice  # nobody could read it
        codec, body = deflate(content, self.settings.segment_level if idle else self.settings.compression_level)
        if head.snapshot is None and not self._snapshot_due(replace(head, snapshot_bytes=len(body))):
            return replace(head, snapshot_bytes=len(body)), view.slice
        kept = head.kept_logged >= KEPT_RATIO * len(body)
        if kept and not idle:
            codec, body = deflate(content, self.settings.segment_level)
        head = self._write_snapshot(head, codec, body, kept)
        return head, self._restart(view, head, snapshot, partial(_opened, codec, body))

    def _write_snapshot(self, head: Head, codec: int, body: bytes, kept: bool) -> Head:
        """The head with the snapshot; a number that another sealer took is passed over."""
        for number in range(head.snapshots + 1, head.snapshots + _ATTEMPTS):
            record = self.io.seal(keys.snapshot(head.epoch, number, 0, kept), SNAPSHOT, codec, body)
            chunks = self.io.chunks(record)
            ref = SnapshotRef(number, head.sealed, head.segments, len(chunks), kept)
            part_keys = keys.snapshot_parts(head.epoch, ref)
            # The first part holds the number.
            if self.io.create_parts(part_keys[:1], chunks[:1], head.record_ttl) and self.io.create_parts(
                part_keys[1:], chunks[1:], head.record_ttl
            ):
                head = replace(head, snapshots=number, snapshot=ref, snapshot_bytes=len(record), logged=0)
                return replace(head, kept=ref, kept_logged=0) if kept else head
        raise Conflict(f"thread {head.thread_id!r}: {_ATTEMPTS} snapshot numbers were taken by others; call again")

    def _restart(self, view: View, head: Head, snapshot: Snapshot, again: Callable[[], Snapshot]) -> Slice:
        """The slice that begins with the snapshot just written, keeping what is known of its checkpoint.

        And what an event is compressed against that is put meanwhile.
        """
        old = view.slice
        preceding = view.preceding(head.sealed + 1)
        known = {at: payload for at, payload in preceding.items() if len(payload) <= CONTEXT_BYTES}
        slice_ = Slice(
            old.epoch,
            events_of(snapshot, again, old),
            covers=head.sealed,
            earlier=self.reader.earlier(head, known),
            beside=head.snapshot_bytes,
        )
        slice_.learn(old)
        for seq in slice_.checkpoints.values():
            slice_.put_state(seq, old.state(seq))
        for seq in sorted(seq for seq in old.events if seq > head.sealed):
            slice_.add(old.events[seq])
        return slice_


def _opened(codec: int, body: bytes) -> Snapshot:
    return decode_snapshot(inflate(codec, body))


def _last_that_fits(slice_: Slice, first: int, last: int) -> int:
    size = 0
    for seq in range(first, last + 1):
        size += len(slice_.events[seq].payload)
        if size > MOST_SEALED and seq > first:
            return seq - 1
    return last


def segment_of(slice_: Slice, first: int, last: int, start: SnapshotRef | None) -> Segment:
    """The segment of `first`..`last`, all of which the slice holds."""
    payloads = ((seq, slice_.events[seq].payload) for seq in range(first, last + 1))
    events = tuple((seq, payload) for seq, payload in payloads if payload != FILLER_PAYLOAD)
    return Segment(span_of(slice_, first, last, start), events, tuple(_footings(slice_, first, last)))


def _footings(slice_: Slice, first: int, last: int) -> Iterator[Footing]:
    numbers = {one for seq in range(first, last + 1) for one in builds_on(slice_.events[seq]) if one < first}
    if numbers:
        ascending = tuple(sorted(numbers))
        yield Footing(first, ascending, check_of_all(ascending, slice_.check))


def span_of(slice_: Slice, first: int, last: int, start: SnapshotRef | None) -> Span:
    """What a segment of `first`..`last` says of itself. The slice holds all of it, and what is latest before it."""
    before = max(
        (
            event.checkpoint_id
            for event in slice_.events.values()
            if event.kind == CHECKPOINT and event.seq < first and event.checkpoint_id is not None
        ),
        default="",
    )
    about = {slice_.about(seq) for seq in range(first, last + 1)} - {None}
    return Span(first, last, start, before, tuple(sorted(id_ for id_ in about if id_ is not None and id_ < before)))
