"""What of a damaged epoch can be read exactly, whatever else of it is damaged or lost.

An event counts if all that it builds upon does, and if its check holds: that of its own record, or the footing of the
run that it was sealed in. A snapshot stands in for what goes before it, where that is not whole. The whole log is held
in memory, its states are not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress

from foldpoint.codecs.envelope import EVENT, Opened, context_of, is_intact
from foldpoint.codecs.event import CHECKPOINT, FILLER_PAYLOAD, Event, builds_on, check_of, check_of_all, unpack_event
from foldpoint.codecs.head import LEVELS, Head
from foldpoint.codecs.model import Write
from foldpoint.codecs.segment import Footing, Segment, SnapshotRef, Span
from foldpoint.codecs.wire import Malformed
from foldpoint.compaction.choice import Early
from foldpoint.compaction.rewrite import never_asked_for
from foldpoint.engine import keys
from foldpoint.engine.fold import Entry, Nothing, Slice
from foldpoint.engine.io import RecordIO
from foldpoint.engine.layout import Layout
from foldpoint.engine.reading import Reader
from foldpoint.errors import CorruptRecord, UnsupportedFormat

_FORGET = 512
"""Events are held packed, but for so many."""


class Salvage:
    """What can be vouched for of the epoch of `head`, of which `present` are the keys.

    unread: the sequence numbers, as ranges, of which that is nothing. held: the checkpoints that `entries` has told.
    Raises UnsupportedFormat for a record that is not damaged and cannot be opened.
    """

    def __init__(self, io: RecordIO, head: Head, present: Iterable[bytes]) -> None:
        self._reader = Reader(_Opening(io.store, io.cipher, io.allow_plain))
        self._head = head
        wanted = sorted(present)
        self._sealed = _Sealed(self._reader, head, wanted)
        self._newest = Slice(head.epoch, earlier=self._sealed)
        self._slices = [self._newest]
        self._vouched: set[int] = set()
        self._refused: dict[str, int] = {}
        """Checkpoints, and the greatest number of a put of them that cannot be vouched for."""
        self._lacking: set[str] = set()
        self._looked_at = 0
        self.unread: list[range] = []
        self._read({int.from_bytes(key[-6:], "big") for key in wanted if keys.kind_of(key) == b"e"})
        self._places = {id_: (seq, one) for one in self._slices for id_, seq in one.checkpoints.items()}
        self._touched = {id_ for span in self._lost_spans() for id_ in span.late}
        self.held: set[str] = set()

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """The checkpoints that can be vouched for, smallest id first."""
        for checkpoint_id in sorted(self._places):
            entry = self._entry(checkpoint_id)
            if entry is not None:
                self.held.add(checkpoint_id)
                yield entry
            if len(self.held) % _FORGET == 0:
                seq, slice_ = self._places[checkpoint_id]
                slice_.forget_states(seq)

    def early(self) -> Iterator[Early]:
        """Writes whose checkpoint has not come."""
        for checkpoint_id in sorted({id_ for one in self._slices for id_ in one.writes_ids} - self._known()):
            yield checkpoint_id, self._logged(checkpoint_id)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Checkpoints that are known of, and cannot be vouched for. More may have had the numbers that are unread."""
        return tuple(sorted(self._known() - self.held))

    @property
    def without_writes(self) -> tuple[str, ...]:
        """Checkpoints that are held, and lack pending writes that are known of."""
        return tuple(sorted(self._lacking & self.held))

    def _known(self) -> set[str]:
        before = {span.before for span in self._sealed.spans} - {""}
        return before | self._touched | self._places.keys() | self._refused.keys()

    def _entry(self, checkpoint_id: str) -> Entry | None:
        """None where it does not fold, where what cannot be read may put it again, or where its ancestors are needed
        and may be lost.
        """
        seq, slice_ = self._places[checkpoint_id]
        if checkpoint_id in self._touched or self._refused.get(checkpoint_id, 0) > seq:
            return None
        try:
            slice_.state(seq)
            entry = Entry(
                slice_.folded(seq),
                lambda: self._logged(checkpoint_id),
                lambda: slice_.values(seq),
                lambda name: slice_.value(seq, name),
                lambda: set(slice_.state(seq)),
            )
        except CorruptRecord:
            return None
        return entry if not _asks_ancestors(entry) or self._has_ancestors(entry) else None

    def _has_ancestors(self, entry: Entry) -> bool:
        """Whether all that was logged about the ancestors before the checkpoint is held, or was never there."""
        parent = entry.folded.header.parent or ""
        since = self._since(parent) if parent in self.held else 0
        return not any(max(one.start, since + 1) < min(one.stop, entry.folded.seq) for one in self.unread)

    def _since(self, checkpoint_id: str) -> int:
        """A number after which everything about a checkpoint was logged, but for what is held: its parent's, as writes
        may come before the checkpoint.
        """
        seq, slice_ = self._places[checkpoint_id]
        parent = slice_.folded(seq).header.parent or ""
        return slice_.covers if seq <= slice_.covers else self._places.get(parent, (0,))[0]

    def _logged(self, checkpoint_id: str) -> list[list[Write]]:
        places = {seq: one for one in self._slices for seq in one.writes_seqs(checkpoint_id)}
        logged = []
        for seq, slice_ in sorted(places.items(), key=lambda place: place[0]):
            try:
                logged.append(slice_.writes(seq))
            except CorruptRecord:
                self._lacking.add(checkpoint_id)
        return logged

    # -- events --------------------------------------------------------------------------------------------------------

    def _read(self, recorded: set[int]) -> None:
        cleaned, sealed = self._head.cleaned.sealed, self._head.sealed
        recorded = {seq for seq in recorded if cleaned < seq}
        numbers = {*recorded, *(seq for seq in self._sealed.payloads if seq <= sealed)}
        starts = sorted(self._starts(), key=lambda ref: -ref.covers)
        for seq in sorted(numbers):
            while starts and starts[-1].covers < seq:
                self._start(starts.pop())
            self._pass(min(seq - 1, sealed))
            self._take(seq, seq in recorded)
            self._looked_at = seq
            if seq % _FORGET == 0:
                self._newest.forget_states()
        while starts:
            self._start(starts.pop())
        self._pass(sealed)

    def _pass(self, last: int) -> None:
        """Nothing is there up to the number `last`."""
        if self._looked_at < last:
            self.unread.append(range(self._looked_at + 1, last + 1))
            self._looked_at = last

    def _starts(self) -> set[SnapshotRef]:
        named = {self._head.snapshot, self._head.kept, *(span.start for span in self._sealed.spans)}
        return {ref for ref in named if ref is not None and ref.covers <= self._head.sealed}

    def _start(self, ref: SnapshotRef) -> None:
        """Go on from a snapshot, where something before it is unread, unless it says something else than the log."""
        self._pass(ref.covers)
        if not self.unread:
            return
        with suppress(CorruptRecord):
            slice_ = self._reader.slice(Layout.of(self._head), ref, [], 0, last=ref.covers)
            if all(slice_.check(seq) == self._newest.check(seq) for seq in slice_.events if seq in self._vouched):
                slice_.earlier = self._newest
                self._newest = slice_
                self._slices.append(slice_)
                self._vouched.update(slice_.events)

    def _take(self, seq: int, recorded: bool) -> None:
        payload = self._sealed.payloads.get(seq)
        try:
            event = None if payload is None else unpack_event(seq, payload)
            if event is not None and self._stands(event):
                self._newest.add(event)
            elif recorded:
                self._newest.add(*self._opened(seq))
            else:
                raise Malformed("sealed upon something else")
            self._vouched.add(seq)
        except (CorruptRecord, Malformed):
            self.unread.append(range(seq, seq + 1))
            self._refuse(seq)

    def _stands(self, event: Event) -> bool:
        """Whether all that a sealed event builds upon is there, and is what it was sealed upon."""
        wanted = builds_on(event)
        first, footing = self._sealed.run(event.seq)
        if all(seq >= first for seq in wanted):
            return self._vouched.issuperset(wanted)
        if footing is None or not self._vouched.issuperset([*wanted, *footing.numbers]):
            return False
        return check_of_all(footing.numbers, self._newest.check) == footing.check

    def _opened(self, seq: int) -> tuple[Event, bytes]:
        """The event in a record of its own, and its check."""
        key = keys.event(self._head.epoch, seq)
        [record] = self._reader.io.read([key])
        opened = self._reader.io.open(key, record or b"", EVENT)
        depth, at = opened.depth()
        context = context_of(seq, depth, self._newest.payload)
        payload = opened.inflate(context, at)
        self._sealed.payloads.setdefault(seq, payload)
        event = unpack_event(seq, payload)
        check = check_of(event, self._newest.check)
        if not opened.holds(at, check, context):
            raise CorruptRecord(key, "builds upon other events")
        return event, check

    def _refuse(self, seq: int) -> None:
        """Note which checkpoint an event that cannot be vouched for is about, as far as that can be known."""
        with suppress(CorruptRecord, Malformed):
            event = unpack_event(seq, self._sealed.payload(seq))
            if event.kind == CHECKPOINT and event.checkpoint_id is not None:
                self._refused[event.checkpoint_id] = seq
            elif event.checkpoint_id is not None:
                self._lacking.add(event.checkpoint_id)
            elif event.base in self._vouched:
                self._lacking.add(self._newest.folded(event.base or 0).header.id)

    def _lost_spans(self) -> Iterator[Span]:
        """Of segments of which some events are lost without a trace but the ids that the span names."""
        lost = [one for one in self.unread if one.start not in self._sealed.payloads]
        for span in self._sealed.spans:
            if any(max(one.start, span.first) < min(one.stop, span.last + 1) for one in lost):
                yield span


def _asks_ancestors(entry: Entry) -> bool:
    """Whether its ancestors may hold what a DeltaChannel of the checkpoint is read from."""
    folded = entry.folded
    versions = folded.header.channel_versions.keys()
    apart = versions - entry.names() - never_asked_for(entry) - folded.carried.keys()
    return folded.header.parent is not None and (not versions or bool(apart))


class _Sealed(Nothing):
    """What the segments of an epoch hold, as far as they can be read.

    payloads: of events by number, fillers included. spans: of the segments that the head names, where they lie apart
    also of those that cannot be read.
    """

    def __init__(self, reader: Reader, head: Head, present: Iterable[bytes]) -> None:
        super().__init__(head.epoch)
        self.payloads: dict[int, bytes] = {}
        self.spans: set[Span] = set()
        self._reader = reader
        self._firsts: dict[int, int] = {}
        self._footings: dict[int, Footing] = {}
        layout, superseded = Layout.of(head), head.superseded.segments
        named: list[bytes] = []
        merged: list[bytes] = []
        for key in present:
            level, index = key[keys.EPOCH_BYTES + 1], int.from_bytes(key[-5:], "big")
            position = layout.position(level, index)
            if keys.kind_of(key) == b"s":
                named += [key] if position is not None else []
                merged += [key] if level < LEVELS and index < superseded[level - 1] else []
            elif keys.kind_of(key) == b"i" and position is not None:
                with suppress(CorruptRecord):
                    self.spans.add(reader.span(layout, position))
        self.spans |= {segment.span for segment in self._take_in(named)}
        for _ in self._take_in(merged):
            pass  # they fill in for what was lost of those made of them
        self._runs = sorted(self._footings)

    def payload(self, seq: int) -> bytes:
        """Also where it cannot be vouched for: what is compressed against it has a check of its own."""
        if seq not in self.payloads:
            raise self._missing(seq)
        return self.payloads[seq]

    def run(self, seq: int) -> tuple[int, Footing | None]:
        """From which number on the event builds upon what was sealed with it, and what tells of the rest."""
        at = bisect_right(self._runs, seq)
        first = max(self._firsts[seq], self._runs[at - 1] if at else 0)
        return first, self._footings.get(first)

    def _take_in(self, wanted: Iterable[bytes]) -> Iterator[Segment]:
        for key in wanted:
            with suppress(CorruptRecord):
                segment = self._reader.segment(key, self._reader.io.read([key])[0])
                payloads = dict(segment.events)
                for seq in range(segment.span.first, segment.span.last + 1):
                    if seq not in self.payloads:
                        self._firsts[seq] = segment.span.first
                        self.payloads[seq] = payloads.get(seq, FILLER_PAYLOAD)
                for footing in segment.footings:
                    self._footings.setdefault(footing.first, footing)
                yield segment


class _Opening(RecordIO):
    """Tells what is damaged from what is not and cannot be opened, as with another key."""

    def open(self, key: bytes, record: bytes, *kinds: int) -> Opened:
        try:
            return super().open(key, record, *kinds)
        except CorruptRecord as error:
            if is_intact(key, record):
                raise UnsupportedFormat(key, f"not damaged, and cannot be opened: {error.reason}") from error
            raise
