"""The log of one stream: what is known of it, and sealing it. `appending` appends to it.

What can go wrong here is losing an acknowledged event. The rules that prevent it (docs/DESIGN.md, "Invariants"):
events are created under computed keys and never replaced; a sealer fills every hole below what it seals before it
writes the segment, and writes the segment before it swaps the head.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from threading import RLock

from foldpoint.codecs.envelope import CHECK_BYTES, EVENT, HEAD, event_content, seal
from foldpoint.codecs.event import FILLER_PAYLOAD, check_of
from foldpoint.codecs.head import Head, encode_head
from foldpoint.engine import keys
from foldpoint.engine.clock import Clock
from foldpoint.engine.fold import Slice
from foldpoint.engine.group import Group
from foldpoint.engine.io import RecordIO
from foldpoint.engine.metrics import Metrics
from foldpoint.engine.reading import Reader, read_head
from foldpoint.engine.records import UNCHANGED, HeadRecord
from foldpoint.engine.recovery import Recovery
from foldpoint.engine.sealing import Sealer
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, CorruptRecord, StrayRecord
from foldpoint.settings import Settings

ATTEMPTS = 64
_STRIDE = 1 << 16


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
        self.recovery = Recovery(thread_id, self.reader)
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        self.lock = RLock()
        self.group = Group()
        self.view: View | None = None

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

    def swap_read(self, view: View, head: Head, *, extends: bool = False) -> int | None:
        """The same over the view's head, for a head that names what was written, or found, since the view was read.

        Not if the store's servers are others by now: a crash may have taken some of that, and no later head.
        """
        if view.incarnation != self.io.store.incarnation():
            return None
        return self.swap(head, view.revision, extends=extends)

    def _value(self, head: Head) -> bytes:
        return seal(self.key, HEAD, 0, encode_head(head))

    # -- the view ------------------------------------------------------------------------------------------------------

    def load(self) -> View | None:
        """Read the stream: the head, then what is not known of the slice it names, in one batch. Sets the view.

        Right after a crash of the store it puts again what is known here and gone there. For whoever answers a reader,
        or seals: nothing that was put before the call may be missing.
        """
        attempts = ATTEMPTS
        while attempts:
            attempts -= 1
            read_at, incarnation = self.clock.monotonic(), self.io.store.incarnation()
            record = self.io.store.get_head(self.key)
            if record is None:
                if self._bring_back(incarnation):
                    continue
                return None
            try:
                head = read_head(record)
            except CorruptRecord:
                if self._bring_back(incarnation, record.revision):
                    continue
                raise
            try:
                if self._outlived(head, record.revision, incarnation):
                    self.recovery.put_again(head)
                    self.view = None  # what others put may be gone too
                slice_ = self._slice(head)
            except CorruptRecord as error:
                # What is known may hold what the store has lost, and now a part of what came since: read all anew.
                known, self.view = self.view, None
                # The log may have been sealed, merged or rewritten between the two reads; then the head has moved on.
                if not self.has_moved(record.revision) and not self.recovery.put_again(head) and known is None:
                    self.recovery.restore(head, error)
                    attempts = ATTEMPTS  # more may be lost
                continue
            if head.deleted and slice_.events:
                self.swap(replace(head, deleted=False), record.revision)  # as a crash took the head that said so
                self.view = None
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

    def _bring_back(self, incarnation: object, torn: int | None = None) -> bool:
        """Where a crash has just taken the head, and all that is needed for the latest is there again: store it again.

        Whether there is a head now, this or another's. Otherwise the stream expired, never was, or is lost as a whole.
        torn: the revision of what stands in its place and cannot be read.
        """
        known = self.view
        if known is None or known.head.deleted or known.incarnation == incarnation or not self._is_young(known):
            self.view = None
            return False
        self.recovery.put_again(known.head)
        if whole := self.recovery.makes_whole(known.head):
            self.swap(known.head, torn)
        self.view = None
        return whole

    def recover(self, error: CorruptRecord) -> None:
        """Return if trying again may succeed: the head moved on, a lost record was restored, or a stray one was removed
        or is to be found once more; or there was a crash, which may have taken what no head names yet. Else raise
        CorruptRecord.
        """
        if self.view is None:
            raise error  # from a load, which has tried all there is
        if self.has_moved(self.view.revision) or self.view.incarnation != self.io.store.incarnation():
            return
        if isinstance(error, StrayRecord):
            self.recovery.drop(self.view, error, self.swap)
            return
        self.recovery.restore(self.view.head, error)

    def has_moved(self, revision: int) -> bool:
        record = self.io.store.get_head(self.key)
        return record is None or record.revision != revision

    def _slice(self, head: Head) -> Slice:
        view = self.view
        if view is None or head.deleted or not _continues(view, head):
            return self.reader.newest(head)
        self.reader.follow(view.slice, head)
        self.reader.add_tail(view.slice, head)
        return view.slice

    def trusted(self) -> View | None:
        """The view, read anew if it is older than a tenth of the grace.

        It may be out of date: use it only where a later create or swap fails if it is.
        """
        view = self.view
        return view if view is not None and self.is_fresh(view) else self.load()

    def current(self) -> View | None:
        """The view, read anew if its head is not the one that is stored: for whoever looks at nothing but the head.

        The bytes are compared: a stream that expired and was made again may have the revision by chance.
        """
        view, record = self.view, self.io.store.get_head(self.key)
        if view is None or record is None or view.incarnation != self.io.store.incarnation():
            return self.load()
        return view if (record.revision, record.value) == (view.revision, self._value(view.head)) else self.load()

    def is_fresh(self, view: View) -> bool:
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
        view.slice.remember(mine.slice)
        self.view = replace(view, last=max(view.last, mine.last))

    # -- sealing -------------------------------------------------------------------------------------------------------

    def seal(self, *, until_room: bool = False, idle: bool = False) -> bool:
        """Seal every event of the tail into a segment, with a snapshot where one is due; True if this moved the head.

        Safe beside writers and other sealers. until_room: not if a number is free by now. Writers that find the window
        full at once would else seal what little came since, and lose to each other again. idle: as for `advance`.
        """
        attempts = ATTEMPTS
        while attempts:
            attempts -= 1
            view = self.load()
            if view is None or view.head.deleted or view.tail == 0 or (until_room and view.next in view.head.slots):
                return False
            try:
                self.fill(view, view.last)
                sealed = self.sealer.advance(view, last=view.head.slots[-1], idle=idle)
            except CorruptRecord as error:
                self.recover(error)
                continue
            if revision := self.swap_read(view, sealed.head):
                self.view = replace(sealed, revision=revision)
                self._remove_passed_over(view.head, sealed.head)
                self.metrics.add(seals=1)
                self.empty_replaced(view.head, sealed.head)
                if until_room or self.view.tail == 0:
                    return True
                attempts = ATTEMPTS  # there was more than one segment may hold
                continue
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
