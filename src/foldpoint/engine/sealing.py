"""Turning a tail into a segment, and a segment's end into a snapshot where one is due."""

from __future__ import annotations

from dataclasses import replace

from foldpoint.codecs.envelope import SEGMENT, SNAPSHOT, deflate
from foldpoint.codecs.event import FILLER_PAYLOAD, unpack_event
from foldpoint.codecs.head import Extent, Head
from foldpoint.codecs.segment import Segment, SnapshotRef, encode_segment
from foldpoint.engine import keys
from foldpoint.engine.clock import Clock
from foldpoint.engine.fold import Slice
from foldpoint.engine.reading import Earlier, Reader, add_segment
from foldpoint.engine.snapshot import SnapshotEvents, snapshot_events
from foldpoint.engine.view import View
from foldpoint.errors import Conflict
from foldpoint.settings import Settings

MAX_SEGMENTS = 16
"""A snapshot is due after this many segments, whatever they weigh."""
KEPT_RATIO = 8
"""A snapshot is kept for reading history when the log since the last kept one outweighs it by this factor."""
_ATTEMPTS = 64


def superseded(head: Head) -> Extent:
    """What nobody who reads this head needs any more: sealed events, and snapshots before the present one."""
    return Extent(head.sealed, head.segments, head.snapshot.number - 1 if head.snapshot else 0)


class Sealer:
    """Writes segments and snapshots. Swaps no head: what it writes counts only when its caller does."""

    def __init__(self, reader: Reader, settings: Settings, clock: Clock) -> None:
        self.reader = reader
        self.io = reader.io
        self.settings = settings
        self.clock = clock

    def advance(self, view: View) -> View:
        """Write the segment that follows `sealed`, and a snapshot if one is due: the view once its head is swapped."""
        segment, size = self._write_segment(view)
        # One that another sealer wrote may hold events that this view has not seen, and the head will say they are
        # sealed: a snapshot without them would hide them.
        add_segment(view.slice, segment)
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

    def _write_segment(self, view: View) -> tuple[Segment, int]:
        """The segment that follows `sealed`, ours or one that another sealer wrote first, and its stored size."""
        first = view.head.sealed + 1
        own = [view.slice.events[seq] for seq in range(first, view.last + 1)]
        events = tuple((event.seq, event.payload) for event in own if event.payload != FILLER_PAYLOAD)
        segment = Segment(first, view.last, events, view.head.kept)
        key = keys.segment(view.head.epoch, view.head.segments)
        codec, body = deflate(encode_segment(segment), self.settings.segment_level)
        record = self.io.seal(key, SEGMENT, codec, body)
        if self.io.create(key, record, view.head.record_ttl):
            return segment, len(record)
        if view.head.record_ttl is not None:
            # Whoever wrote it may have done so long ago: no extension since has known of it.
            self.io.store.extend([key, *self.io.parts_of([key])], ttl=view.head.record_ttl)
        found = self.io.read([key])[0]
        return self.reader.segment(key, self.io.inflate(key, found, SEGMENT)), len(found or b"")

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
                self.io.create_part(key, chunk, head.record_ttl) for key, chunk in zip(part_keys, chunks, strict=True)
            ):
                head = replace(head, snapshots=number, snapshot=ref, snapshot_bytes=len(record), logged=0)
                return replace(head, kept=ref, kept_logged=0) if kept else head
        raise Conflict(f"thread {head.thread_id!r}: {_ATTEMPTS} snapshot numbers were taken by others; call again")

    def _restart(self, old: Slice, head: Head, snapshot: SnapshotEvents) -> Slice:
        """The slice that begins with the snapshot just written, keeping the states that are known."""
        assert head.snapshot is not None
        start = [unpack_event(seq, payload) for seq, payload in snapshot]
        slice_ = Slice(
            old.epoch, start, covers=head.sealed, earlier=Earlier(self.reader, head.epoch, head.snapshot.segments)
        )
        for seq in slice_.checkpoints.values():
            slice_.put_state(seq, old.state(seq))
        for seq in sorted(seq for seq in old.events if seq > head.sealed):
            slice_.add(old.events[seq])
        return slice_
