"""The log of one stream: its view, appending to it, sealing it.

What can go wrong here is losing an acknowledged event. The rules that prevent it (docs/DESIGN.md, "Invariants"):
events are created under computed keys and never replaced; a writer appends only inside the window after `sealed`; a
sealer fills every hole below what it seals before it writes the segment, and writes the segment before it swaps the
head; a writer trusts its knowledge for a tenth of the grace, and checks its age again after the answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace
from threading import RLock

from foldpoint.codecs.envelope import (
    CHECK_BYTES,
    CONTEXT_BYTES,
    EVENT,
    HEAD,
    deflate,
    event_content,
    seal,
    stored_check,
)
from foldpoint.codecs.event import FILLER_PAYLOAD, Event, check_of, unpack_event
from foldpoint.codecs.head import Head, encode_head
from foldpoint.codecs.wire import MAX_EVENT
from foldpoint.engine import keys
from foldpoint.engine.clock import Clock
from foldpoint.engine.fold import Slice
from foldpoint.engine.group import Append, Group
from foldpoint.engine.io import RecordIO
from foldpoint.engine.metrics import Metrics
from foldpoint.engine.reading import Reader, read_head
from foldpoint.engine.records import UNCHANGED, HeadRecord
from foldpoint.engine.recovery import Recovery
from foldpoint.engine.sealing import Sealer
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, CorruptRecord, StrayRecord
from foldpoint.settings import Settings

_ATTEMPTS = 64
_NUMBERS = 1024
"""That others may take before a writer gives up. Each is one of their puts done: in a crowd, 64 in a row do happen."""
_AT_ONCE = 128
"""Events by one write: whoever made more of them together would keep the others waiting for long."""
_GIVE_WAY = 0.05  # seconds
_STRIDE = 1 << 16
_SUSPICIOUS = 1.0
"""Seconds; a put that took longer may have outlived a crash of the store."""
_SMALL = 128
"""Bytes. To compress an event below that would take a tenth of a put, and save some 40 bytes until it is sealed."""


class Log:
    """One stream. `view` is None where the stream is not known to exist; `lock` guards it and its slice."""

    def __init__(
        self, thread_id: str, namespace: str, io: RecordIO, settings: Settings, clock: Clock, metrics: Metrics
    ) -> None:
        self.thread_id = thread_id
        self.namespace = namespace
        self.key = keys.head(thread_id, namespace)
        self.io = io
        self.reader = Reader(io)
        self.sealer = Sealer(self.reader, settings, clock)
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        self.lock = RLock()
        self.group = Group()
        self.view: View | None = None
        self._recovery = Recovery(thread_id, self.reader)

    def swap(self, head: Head, revision: int | None, *, extends: bool = False) -> int | None:
        """Store `head` over the one of `revision` (None: over none). Durable. Its revision; None if another is stored.

        extends: it lives as it says. Else it lives as long as the one before, as the records that it names do.
        A crash may bring older heads back. So no two ever have one revision: an old swap still under way must fail.
        """
        known = self.view.revision if self.view is not None else 0
        following = max(revision or 0, known) + random.randint(1, _STRIDE)
        record = HeadRecord(self.key, keys.text(self.thread_id), following, self._value(head))
        ttl = head.expires_in(self.clock.now()) if extends or revision is None else UNCHANGED
        stored = self.io.store.swap(record, expected=revision, ttl=ttl)
        return record.revision if stored else None

    def _value(self, head: Head) -> bytes:
        return seal(self.key, HEAD, 0, encode_head(head))

    # -- the view ------------------------------------------------------------------------------------------------------

    def load(self) -> View | None:
        """Read the stream: the head, then what is not known of the slice it names, in one batch. Sets the view.

        Right after a crash of the store it puts again what is known here and gone there. For whoever answers a reader,
        or seals: nothing that was put before the call may be missing.
        """
        for _ in range(_ATTEMPTS):
            read_at, incarnation = self.clock.monotonic(), self.io.store.incarnation()
            record = self.io.store.get_head(self.key)
            if record is None:
                if self._bring_back(incarnation):
                    continue
                return None
            head = read_head(record)
            try:
                if self._outlived(head, record.revision, incarnation):
                    self._recovery.put_again(head)
                    self.view = None  # what others put may be gone too
                slice_ = self._slice(head)
            except CorruptRecord as error:
                # What is known may hold what the store has lost, and now a part of what came since: read all anew.
                known, self.view = self.view, None
                # The log may have been sealed, merged or rewritten between the two reads; then the head has moved on.
                if not self._has_moved(record.revision) and not self._recovery.put_again(head) and known is None:
                    self._recovery.restore(head, error)
                continue
            if self.clock.monotonic() - read_at > self.settings.grace / 2 > 0:
                continue  # held up: what it named may be removed by now, and a removed slot looks like a free one
            last = max((seq for seq in slice_.events if seq > head.sealed), default=head.sealed)
            self.view = View(head, record.revision, read_at, incarnation, slice_, last)
            return self.view
        raise Conflict(f"thread {self.thread_id!r}: its head kept changing while it was read; call again")

    def _outlived(self, head: Head, revision: int, incarnation: object) -> bool:
        """Whether there was a crash since the stream was read or written here: it may have taken the newest heads, and
        more.
        """
        view = self.view
        since = view is not None and (revision < view.revision or view.incarnation != incarnation)
        return self.io.outlived(head.epoch, incarnation) or since

    def _bring_back(self, incarnation: object) -> bool:
        """Where a crash has just taken the head, and all that is needed for the latest is there again: store it again.

        Whether there is a head now, this or another's. Otherwise the stream expired, never was, or is lost as a whole.
        """
        known = self.view
        if known is None or known.head.deleted or known.incarnation == incarnation or not self._is_young(known):
            self.view = None
            return False
        self._recovery.put_again(known.head)
        if whole := self._recovery.makes_whole(known.head):
            self.swap(known.head, None)
        self.view = None
        return whole

    def recover(self, error: CorruptRecord) -> None:
        """Return if trying again may succeed: the head moved on, a lost record was restored, or a stray one was removed
        or is to be found once more. Else raise CorruptRecord.
        """
        if self.view is None:
            raise error  # from a load, which has tried all there is
        if self._has_moved(self.view.revision):
            return
        if isinstance(error, StrayRecord):
            self._recovery.drop(self.view, error, self.swap)
            return
        self._recovery.restore(self.view.head, error)

    def _has_moved(self, revision: int) -> bool:
        record = self.io.store.get_head(self.key)
        return record is None or record.revision != revision

    def _slice(self, head: Head) -> Slice:
        view = self.view
        if view is None or head.deleted or not _continues(view, head):
            return self.reader.newest(head)
        self.reader.follow(view.slice, head)
        self.reader.add_slots(view.slice, head.slots)
        return view.slice

    def trusted(self) -> View | None:
        """The view, read anew if it is older than a tenth of the grace.

        It may be out of date: use it only where a later create or swap fails if it is.
        """
        view = self.view
        return view if view is not None and self._is_fresh(view) else self.load()

    def current(self) -> View | None:
        """The view, read anew if its head is not the one that is stored: for whoever looks at nothing but the head.

        The bytes are compared: a stream that expired and was made again may have the revision by chance.
        """
        view, record = self.view, self.io.store.get_head(self.key)
        if view is None or record is None or (record.revision, record.value) != (view.revision, self._value(view.head)):
            return self.load()
        return view

    def _is_fresh(self, view: View) -> bool:
        """Whether to act upon it; not after a crash, which may have taken the head that it tells of."""
        return self._is_young(view) and view.incarnation == self.io.store.incarnation()

    def _is_young(self, view: View) -> bool:
        young = self.clock.monotonic() - view.read_at < self.settings.grace / 10
        return young and view.head.outlasts(self.clock.now())

    def fork(self) -> Log:
        """A log that begins with what this one knows and goes its own way, so that long work blocks no writer."""
        twin = Log(self.thread_id, self.namespace, self.io, self.settings, self.clock, self.metrics)
        if self.view is not None:
            twin.view = replace(self.view, slice=self.view.slice.fork())
        return twin

    def join(self, view: View | None) -> None:
        """Go on from the view of a fork, if its head is newer, without losing what was learned since."""
        mine = self.view
        if mine is None or view is None or mine.head.epoch != view.head.epoch:
            # One of the two has left its epoch, and what fences that one may be removed by now.
            self.view = None
            return
        if mine.revision >= view.revision:
            return
        for seq in sorted(seq for seq in mine.slice.events if seq > view.head.sealed and seq not in view.slice.events):
            event = mine.slice.events[seq]
            if check_of(event, view.slice.check) != mine.slice.check(seq):
                # A crash took what it builds upon, and by now something else stands there.
                self.view = None
                return
            view.slice.add(event)
        latest = mine.slice.checkpoints.get(mine.slice.latest_id)
        if latest in view.slice.events and view.slice.check(latest) == mine.slice.check(latest):
            view.slice.put_state(latest, mine.slice.state(latest))
        view.slice.known = mine.slice.known
        self.view = replace(view, last=max(view.last, mine.last))

    # -- appending -----------------------------------------------------------------------------------------------------

    def append(self, one: Append) -> None:
        """Append an event, with those of other threads where one write can store them all; it is done then.

        One round trip where the view is fresh, two for a new stream.
        """
        if self.io.atomic and len(waiting := self.group.waiting()) > 1:
            self._append_together(waiting)
        if not one.done:
            self._append_alone(one)

    def _append_together(self, waiting: list[Append]) -> None:
        """As many as there is room for, in the window and in one write. The others are to be appended alone."""
        view = self.view
        if view is None or not self._is_fresh(view) or view.head.deleted or view.next not in view.head.slots:
            return
        self.view = None  # it holds from here on what may not come to be stored
        try:
            events, records = self._records(view, waiting[:_AT_ONCE])
        except Exception:  # noqa: BLE001 - each has its own error where it is appended alone
            return
        if not self.io.create_all(records, view.head.record_ttl):
            return
        self.metrics.add(bytes_logged=sum(len(record) for _, record in records))
        fresh = self._is_fresh(view)
        self.view = view if fresh else None
        for one, event in zip(waiting, events, strict=False):
            found = view if fresh else self._recheck(view, event.seq, event.payload)
            if found is not None:
                one.settle(found, event)

    def _records(self, view: View, waiting: list[Append]) -> tuple[list[Event], list[tuple[bytes, bytes]]]:
        """Events for those that the window has room for, and their records. The view holds them then."""
        events, records = [], []
        for one, seq in zip(waiting, range(view.next, view.head.slots.stop), strict=False):
            event, check = self._encoded(one, view, seq)
            view.slice.add(event, check)
            view.last = seq
            records.append(self._record(view, event, check))
            one.keep(view.slice, event)
            events.append(event)
        return events, records

    def _append_alone(self, one: Append) -> None:
        began = self.clock.monotonic()
        for _ in range(_NUMBERS):
            view = self._begin(one.existing, one.ttl)
            seq = view.next
            if seq not in view.head.slots:
                self._give_way(view)
                self.seal(until_room=True)
                continue
            try:
                event, check = self._encoded(one, view, seq)
            except CorruptRecord as error:
                # What it is based on may have been moved with its epoch.
                self.recover(error)
                self.view = None
                continue
            if not self._create(view, event, check):
                continue
            if not self._is_fresh(view):
                late = self._recheck(view, seq, event.payload)
                if late is None:
                    continue
                view = late
            if seq > view.last:
                view.slice.add(event, check)
                view.last = seq
            if self.clock.monotonic() - began > _SUSPICIOUS:
                self._recovery.put_again(view.head)
            if seq in view.slice.events:
                one.keep(view.slice, event)
            one.settle(view, event)
            return
        raise Conflict(f"thread {self.thread_id!r}: {_NUMBERS} sequence numbers were taken by others; call again")

    def _encoded(self, one: Append, view: View, seq: int) -> tuple[Event, bytes]:
        """The event, and its check."""
        payload = one.encode(seq, view.slice)
        if len(payload) > MAX_EVENT:
            raise ValueError(
                f"thread {self.thread_id!r}: {len(payload):,} bytes to be stored at once, at most "
                f"{MAX_EVENT:,} can be read again; keep what is that large outside the state"
            )
        event = unpack_event(seq, payload)
        return event, check_of(event, view.slice.check)

    def _begin(self, existing: bool, ttl: int | None) -> View:
        """A view of a live stream that may be acted upon; where there is no stream it is created."""
        view = self.view
        if view is None and not existing:
            view = self.create_stream(ttl)
        while view is None or not self._is_fresh(view) or view.head.deleted:
            view = self.trusted()
            if view is not None and not view.head.deleted:
                return view
            view = self.create_stream(ttl, view)
        return view

    def create_stream(self, ttl: int | None, tombstone: View | None = None) -> View | None:
        """Swap in the head of an empty stream; None if somebody else did."""
        read_at, incarnation, now = self.clock.monotonic(), self.io.store.incarnation(), int(self.clock.now())
        head = Head(self.thread_id, self.namespace, keys.new_epoch(), self.settings.window, ttl=ttl, extended_at=now)
        if tombstone is not None:
            # Its epoch was never used; what it has still to remove stays known.
            head = replace(head, epoch=tombstone.head.epoch, dead=tombstone.head.dead)
        revision = self.swap(head, tombstone.revision if tombstone else None, extends=True)
        if revision is None:
            self.view = None
            return None
        self.view = View(head, revision, read_at, incarnation, Slice(head.epoch), 0)
        return self.view

    def _create(self, view: View, event: Event, check: bytes) -> bool:
        """Whether the event stands at its number then."""
        key, record = self._record(view, event, check)
        if self.io.create(key, record, view.head.record_ttl):
            self.metrics.add(bytes_logged=len(record))
            return True
        own = self._is_own(view, event.seq, event.payload)
        if own:
            self.io.remember(key, view.head.record_ttl)
        return own

    def _record(self, view: View, event: Event, check: bytes) -> tuple[bytes, bytes]:
        """What is stored of an event: key and value."""
        key = keys.event(view.head.epoch, event.seq)
        return key, self.io.seal(key, EVENT, *self._packed(view, event, check))

    def _packed(self, view: View, event: Event, check: bytes) -> tuple[int, bytes]:
        """(codec, content). It names at least the event right before it: should the store lose that, it is missed."""
        small = len(event.payload) < _SMALL
        preceding = view.preceding(event.seq, 1) if small else view.preceding(event.seq)
        context = b"".join(reversed(preceding.values()))[-CONTEXT_BYTES:]
        level = self.settings.compression_level
        codec, body = (0, event.payload) if small else deflate(event.payload, level, context)
        return codec, event_content(len(preceding), stored_check(check, context), body)

    def _is_own(self, view: View, seq: int, payload: bytes) -> bool:
        """The number was taken: take in what stands there and around it. True if it is the very event to be put."""
        try:
            self.reader.add_slots(view.slice, view.head.slots)
        except CorruptRecord as error:
            # Sealed and emptied meanwhile, by another process.
            self.recover(error)
            return self._recheck(view, seq, payload) is not None
        view.last = max(view.last, max(view.slice.events, default=0))
        taken = view.slice.events.get(seq)
        if taken is None or taken.payload == FILLER_PAYLOAD:
            # Sealed without us, or fenced: what this view says is out of date.
            self.view = None
        return taken is not None and taken.payload == payload

    def _recheck(self, view: View, seq: int, payload: bytes) -> View | None:
        """A fresh view if the event is in the log under its number.

        None if that was sealed and emptied before the event arrived, if another event is there, or the epoch was left.
        """
        for _ in range(_ATTEMPTS):
            fresh = self.load()
            if fresh is None or fresh.head.epoch != view.head.epoch:
                return None
            if seq > fresh.head.sealed:
                taken = fresh.slice.events.get(seq)
                return fresh if taken is not None and taken.payload == payload else None
            try:
                return fresh if fresh.slice.payload(seq) == payload else None
            except CorruptRecord as error:
                self.recover(error)
        raise Conflict(f"thread {self.thread_id!r}: its head kept changing while it was read; call again")

    def _give_way(self, view: View) -> None:
        """If the window was fenced, wait a moment for whoever leaves the epoch to swap the head.

        Sealing at once is as safe, but writers that never rest would make every swap of a rewriter fail.
        """
        last, until = view.slice.events.get(view.head.slots[-1]), time.monotonic() + _GIVE_WAY
        fenced = last is not None and last.payload == FILLER_PAYLOAD
        while fenced and time.monotonic() < until and not self._has_moved(view.revision):
            time.sleep(random.uniform(_GIVE_WAY / 50, _GIVE_WAY / 10))

    # -- sealing -------------------------------------------------------------------------------------------------------

    def seal(self, *, until_room: bool = False, idle: bool = False) -> bool:
        """Seal every event of the tail into a segment, with a snapshot where one is due; True if this moved the head.

        Safe beside writers and other sealers. until_room: not if a number is free by now. Writers that find the window
        full at once would else seal what little came since, and lose to each other again. idle: as for `advance`.
        """
        for _ in range(_ATTEMPTS):
            view = self.load()
            if view is None or view.head.deleted or view.tail == 0 or (until_room and view.next in view.head.slots):
                return False
            try:
                self.fill(view, view.last)
                sealed = self.sealer.advance(view, idle=idle)
            except CorruptRecord as error:
                self.recover(error)
                continue
            if revision := self.swap(sealed.head, view.revision):
                self.view = replace(sealed, revision=revision)
                self._remove_passed_over(view.head, sealed.head)
                self.metrics.add(seals=1)
                self.empty_replaced(view.head, sealed.head)
                if until_room or self.view.tail == 0:
                    return True
                continue  # there was more than one segment may hold
            self._discard_snapshot(sealed.head, view.head)
        raise Conflict(f"thread {self.thread_id!r}: its head kept changing while it was sealed; call again")

    def _remove_passed_over(self, before: Head, after: Head) -> None:
        """Remove the kept snapshots that others have written for heads which cannot be stored any more.

        Passing ones go with what is superseded; of kept ones only the segments tell, and none names these.
        """
        for number in range(before.snapshots + 1, after.snapshots):
            part, batch = 0, []
            while self.io.store.get_many([key := keys.snapshot(after.epoch, number, part, True)])[0] is not None:
                batch.append(key)
                part += 1
            self.io.store.remove_many(batch[::-1])

    def _discard_snapshot(self, lost: Head, before: Head) -> None:
        """Remove the snapshot of a head that was not swapped in. Its first part goes last: it holds the number.

        Hazard: a swap whose answer was lost may say no although it was stored, and others may build upon it by now.
        So the snapshot stays if any head can have named it.
        """
        if lost.snapshot is None or lost.snapshot == before.snapshot:
            return
        record = self.io.store.get_head(self.key)
        head = read_head(record) if record else before
        if head.epoch == lost.epoch and head.snapshots < lost.snapshot.number:
            parts = keys.snapshot_parts(lost.epoch, lost.snapshot)
            self.io.store.remove_many(parts[1:])
            self.io.store.remove_many(parts[:1])

    def empty_replaced(self, before: Head, now: Head) -> None:
        """Where what is superseded stays for the grace, keep of the snapshot that another one replaced but its number.

        A head that a crash brings back may name it: then it is restored from the log, which stays. Its number must stay
        taken, or a sealer that was held up could put what that head would take for its own.
        """
        replaced = before.snapshot
        if replaced in (None, now.snapshot) or replaced.kept or self.io.store.capabilities.ordered:
            return
        self.io.empty_snapshot(before.epoch, replaced)

    def fill(self, view: View, last: int) -> None:
        """Take every free sequence number up to `last`, so that a writer that was held up moves on."""
        holes = [seq for seq in range(view.head.sealed + 1, last + 1) if seq not in view.slice.events]
        if not holes:
            return
        self.take(view.head, holes)
        self.reader.add_slots(view.slice, holes)
        view.last = max(view.last, last)
        missing = [seq for seq in holes if seq not in view.slice.events]
        if missing:
            raise CorruptRecord(keys.event(view.head.epoch, missing[0]), "gone right after it was filled")

    def take(self, head: Head, numbers: Iterable[int]) -> None:
        """Put fillers at these sequence numbers, where they are free."""
        event_keys = [keys.event(head.epoch, seq) for seq in numbers]
        content = event_content(0, bytes(CHECK_BYTES), FILLER_PAYLOAD)
        fillers = [(key, self.io.seal(key, EVENT, 0, content)) for key in event_keys]
        self.io.store.create(fillers, ttl=head.record_ttl)


def _continues(view: View, head: Head) -> bool:
    """Whether the view's slice begins where `head` says, and nothing was sealed since.

    What another sealed may be other events than the view's, of which a crash has taken some.
    """
    known = view.head
    return (known.epoch, known.snapshot, known.sealed) == (head.epoch, head.snapshot, head.sealed)
