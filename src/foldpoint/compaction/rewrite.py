"""Leaving an epoch: history is dropped, a thread deleted, or a copy taken in, without holding up a writer.

What stays is written into a new epoch that nobody reads yet, which may take long. Then the old epoch is fenced: every
free number of its window is filled, so that a writer that has not noticed finds its number taken, reads the head, and
puts into the new epoch. What came since the decision is carried over, and the head is swapped. Only this last part is
done again when somebody else swapped the head first. Until the swap nothing has changed for anybody; after it the old
epoch is out of reach and is removed when the grace is over. Killed in between, it leaves records that the sweep takes.

What goes wrong without the fence: an event acknowledged between the copy and the swap would stay behind. And without
announcing the new epoch in the head before anything is written there: a sweep would take it for garbage.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from foldpoint.codecs.event import CHECKPOINT, encode_checkpoint, encode_writes, unpack_event
from foldpoint.codecs.head import DeadEpoch, Extent, Head
from foldpoint.codecs.model import Carried, Checkpoint, Write
from foldpoint.compaction.choice import Choice
from foldpoint.engine import keys
from foldpoint.engine.fold import Entry, Slice
from foldpoint.engine.history import History, channel_history
from foldpoint.engine.inventory import epoch_keys
from foldpoint.engine.layout import Layout
from foldpoint.engine.log import Log
from foldpoint.engine.reading import read_head
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, CorruptRecord

_ATTEMPTS = 64
_SEGMENT_EVENTS = 1024
_SEGMENT_BYTES = 256 * 1024
"""Of payloads. What is rewritten goes into larger segments than a writer's window makes."""


class Content(Protocol):
    """What a new epoch begins with."""

    def entries(self, held: History, since: str) -> Iterator[Entry]:
        """Checkpoints from the id `since` on, smallest first. held: the stream's own history."""
        ...

    def recover(self, error: CorruptRecord) -> None:
        """Returns where what could not be read elsewhere than in `held` may be read now. Raises `error` otherwise."""
        ...


def rewrite(log: Log, choice: Choice, content: Content) -> bool:
    """Let `content`, the choice's early writes and what came since the choice be the stream, in a new epoch.

    A checkpoint that was to go stays if an event came for it since the choice. False if somebody else rewrote the
    stream first; then nothing has changed. Raises Conflict if the head keeps changing.
    """
    rewriting = _Rewriting(log, choice)
    done = rewriting.announce() and rewriting.copy(content) and _leave(log, rewriting.head, rewriting.carry_over)
    if not done:
        rewriting.discard()
    return done


def delete(log: Log, *, unchanged: tuple[bytes, int] | None = None) -> bool:
    """Leave a tombstone in place of the stream. False if there is none.

    unchanged: (epoch, number). False too if the stream has another epoch, or an event after that number. Otherwise its
    events are not looked at: they may be damaged.
    """

    def tombstone(view: View) -> Head | None:
        if unchanged and (unchanged[0] != view.head.epoch or any(_since(log, view, unchanged[1]))):
            return None
        return replace(instead(log, view.head, new_head(log)), deleted=True)

    if unchanged:
        return _leave(log, tombstone)
    for _ in range(_ATTEMPTS):
        record = log.io.store.get_head(log.key)
        if record is None or log.reader.is_gone(head := read_head(record)):
            return False
        fence(log, head)
        after = replace(instead(log, head, new_head(log)), deleted=True)
        if log.swap(after, record.revision) or was_swapped(log, after.epoch):
            log.view = None
            return True
    raise Conflict(f"thread {log.thread_id!r}: its head kept changing while it was deleted; call again")


def fence(log: Log, head: Head) -> list[bytes]:
    """Fill the window of a head whose events may be damaged, so that its epoch is left; the keys of its events."""
    slots = [keys.event(head.epoch, seq) for seq in head.slots]
    log.take(head, head.slots)
    for key, record in zip(slots, log.io.store.get_many(slots), strict=True):
        if record is None:
            raise CorruptRecord(key, "gone right after it was filled")
    return slots


def _leave(log: Log, head_of: Callable[[View], Head | None], prepare: Callable[[View], bool] | None = None) -> bool:
    """Fence the epoch and swap in the head that `head_of` makes of the fenced view; False if it makes none.

    prepare: does as much of it as can be done before the fence; whether that was anything.
    """
    for _ in range(_ATTEMPTS):
        view = log.load()
        try:
            if view is not None and prepare is not None and prepare(view):
                view = log.load()
            if view is None or view.head.deleted:
                return False
            log.fill(view, view.head.slots[-1])
            head = head_of(view)
        except CorruptRecord as error:
            log.recover(error)
            continue
        if head is None:
            return False
        if log.swap_read(view, head) or was_swapped(log, head.epoch):
            log.view = None
            return True
    raise Conflict(f"thread {log.thread_id!r}: its head kept changing while its history was rewritten; call again")


def was_swapped(log: Log, epoch: bytes) -> bool:
    """Whether a head of this epoch was stored although the swap said no: the answer was lost and others went on."""
    record = log.io.store.get_head(log.key)
    if record is None:
        return False
    head = read_head(record)
    return epoch in (head.epoch, *(dead.epoch for dead in head.dead if dead.extent != Extent()))


def new_head(log: Log) -> Head:
    """The head of a new epoch, without events."""
    return Head(log.thread_id, log.namespace, keys.new_epoch(), log.settings.window)


def with_draft(log: Log, head: Head, epoch: bytes) -> Head:
    """The head that names a new epoch, as one without records, before anything is written there."""
    draft = DeadEpoch(epoch, Extent(), Extent(), int(log.clock.now()))
    return replace(head, dead=(*_without(head, epoch), draft))


def instead(log: Log, fenced: Head, head: Head) -> Head:
    """A new epoch's head in place of one whose epoch is fenced."""
    extent = replace(fenced.extent, sealed=fenced.slots[-1])
    left = DeadEpoch(fenced.epoch, fenced.cleaned, extent, int(log.clock.now()))
    dead = (*_without(fenced, head.epoch), left)
    return replace(head, dead=dead, ttl=fenced.ttl, extended_at=fenced.extended_at)


def _without(head: Head, epoch: bytes) -> tuple[DeadEpoch, ...]:
    return tuple(dead for dead in head.dead if dead.epoch != epoch)


class _Rewriting:
    """A new epoch in the making, and up to which event of the old one it is complete."""

    def __init__(self, log: Log, choice: Choice) -> None:
        self._log = log
        self._choice = choice
        self._seen = choice.seq
        self._read: list[tuple[str, int]] = []
        """What was copied, ascending: from which id on it was read as of which number."""
        self._added: dict[str, int] = {}
        """The same of checkpoints that were added since the choice."""
        self._copied: set[str] | None = set() if choice.ids is None else None
        """Where all stay: those that were there to be copied."""
        self._writer = EpochWriter(log, new_head(log))
        self._announced: float | None = None
        self._safe_until = float("inf")
        """Monotonic seconds: then records of the new epoch may expire, unless they are extended before."""

    def announce(self) -> bool:
        """Let the head name the new epoch, as one without records; now and again, as it is dropped after the grace.

        False if the stream is in another epoch, or the new one was dropped: then it may be swept, and has no future.
        """
        for _ in range(_ATTEMPTS):
            view, now = self._log.load(), self._log.clock.now()
            if view is None or not self._goes_on(view):
                return False
            head = with_draft(self._log, view.head, self._writer.head.epoch)
            if revision := self._log.swap_read(view, head):
                self._log.view = replace(view, head=head, revision=revision)
                self._writer.live_as(head)
                self._announced = now
                return self._extend(head)
        raise Conflict(f"thread {self._log.thread_id!r}: its head kept changing; call again")

    def copy(self, content: Content) -> bool:
        """What the choice keeps; False as `announce`."""
        since, view, written = "", self._log.view, dict[str, set[tuple[str, int]]]()
        early = {checkpoint_id for checkpoint_id, _ in self._choice.early}
        while view is not None and self._goes_on(view):
            history = History(self._log.reader, view)
            self._read.append((since, view.last))
            try:
                for entry in content.entries(history, since):
                    if not self._is_announced():
                        return False
                    logged = self._choice.writes(entry)
                    self._add(entry, history, logged)
                    if entry.folded.header.id in early:
                        written[entry.folded.header.id] = {
                            (one.task_id, one.idx) for writes in logged for one in writes
                        }
                    if self._copied is not None:
                        self._copied.add(entry.folded.header.id)
                    since = entry.folded.header.id + "\0"  # the next id there can be
            except CorruptRecord as error:
                before, view = view, self._log.load()
                if view is not None and view.revision == before.revision:
                    content.recover(error)
                continue
            for checkpoint_id, logged in self._choice.early:
                # Its checkpoint may have come since, with what replaces them.
                taken = written.get(checkpoint_id, set())
                left = ([one for one in writes if (one.task_id, one.idx) not in taken] for writes in logged)
                self._writer.add_writes(checkpoint_id, filter(None, left))
            return True
        return False

    def carry_over(self, view: View) -> bool:
        """Take in what came since the last time; whether anything did."""
        if not self._goes_on(view):
            return False
        before, history = self._seen, History(self._log.reader, view)
        for seq, slice_ in _since(self._log, view, self._seen):
            self._carry(seq, slice_, history, view.last)
        self._seen = max(self._seen, view.last)
        return self._seen > before

    def head(self, view: View) -> Head | None:
        """The head that makes the new epoch, with all that a fenced view holds, the stream's; None as `announce`."""
        if not self._goes_on(view):
            return None
        self.carry_over(view)
        head = instead(self._log, view.head, self._writer.finish())
        there = self._extend(head) and not self._writer.outlived()
        return replace(head, deleted=head.sealed == 0) if there else None

    def _extend(self, head: Head) -> bool:
        """Let what was written live as that head says; False if it may have expired before."""
        began = self._log.clock.monotonic()
        if head.record_ttl is not None:
            for batch in self._keys():
                self._log.io.store.extend(batch, ttl=head.record_ttl)
        if self._log.clock.monotonic() >= self._safe_until:
            return False
        if head.record_ttl is not None:
            self._safe_until = began + head.record_ttl
        return True

    def discard(self) -> None:
        for batch in self._keys():
            self._log.io.store.remove_many(batch)

    def _keys(self) -> Iterator[list[bytes]]:
        head = self._writer.head
        return epoch_keys(self._log.io, head.epoch, Extent(), head.extent)

    def _goes_on(self, view: View) -> bool:
        """Whether the stream is in the epoch that is being left, and its head names the new one if it once did."""
        named = self._writer.head.epoch in (dead.epoch for dead in view.head.dead)
        return view.head.epoch == self._choice.epoch and (named or self._announced is None)

    def _is_announced(self) -> bool:
        if self._announced is None:
            return self.announce()
        late = self._log.clock.now() - self._announced > self._log.settings.grace / 4
        soon = self._log.clock.monotonic() > self._safe_until - (self._writer.head.ttl or 0)
        return self.announce() if late or soon else True

    def _carry(self, seq: int, slice_: Slice, history: History, last: int) -> None:
        checkpoint_id = slice_.about(seq)
        assert checkpoint_id is not None
        held = self._held(checkpoint_id)
        if self._copied is not None and checkpoint_id not in self._copied:
            held = self._added.get(checkpoint_id)  # writes for it were not copied either, but those before the choice
        if held is not None and seq <= held:
            return
        put_again = slice_.events[seq].kind == CHECKPOINT
        entry = history.find(checkpoint_id) if held is None or put_again else None
        if entry is None:
            self._writer.add_writes(checkpoint_id, [slice_.writes(seq)])
        elif held is None:
            self._add(entry, history, entry.logged_writes())
            self._added[checkpoint_id] = last
        else:
            self._add(entry, history, [])

    def _held(self, checkpoint_id: str) -> int | None:
        """The number up to which the new epoch has every event about a checkpoint; None if it does not have it."""
        if not self._choice.keeps(checkpoint_id):
            return self._added.get(checkpoint_id)
        at = bisect_right(self._read, checkpoint_id, key=lambda read: read[0])
        return self._read[at - 1][1]

    def _add(self, entry: Entry, history: History, logged: list[list[Write]]) -> None:
        parent, carried = entry.folded.header.parent, entry.folded.carried
        if parent is not None and self._held(parent) is None:
            carried = _carried(history, entry)
        self._writer.add_checkpoint(entry, carried)
        self._writer.add_writes(entry.folded.header.id, logged)


def _since(log: Log, view: View, seq: int) -> Iterator[tuple[int, Slice]]:
    """The number of each event after `seq`, ascending, with the slice that holds it. No fillers."""
    slices, snapshot = [view.slice], view.head.snapshot
    if snapshot is not None and snapshot.covers > seq:
        layout = Layout.of(view.head)
        for slice_ in log.reader.before(layout, layout.after(snapshot.segments), snapshot.covers):
            slices.append(slice_)
            if slice_.covers <= seq:
                break
    for slice_ in reversed(slices):
        for at in sorted(at for at in slice_.events if at > max(seq, slice_.covers)):
            if slice_.about(at) is not None:
                yield at, slice_


def _carried(history: History, entry: Entry) -> dict[str, Carried]:
    """What a checkpoint whose parent goes takes along: per DeltaChannel the nearest stored value and the writes since.

    Which channels those are, the log does not say. So it is every channel that has a version, as LangGraph asks for no
    other, and that the checkpoint does not store; but for those that are known to trigger nodes. A checkpoint without
    any version, made by hand, takes along whatever an ancestor names.
    """
    wanted = set(entry.folded.header.channel_versions) or _named_by_ancestors(history, entry)
    found = channel_history(history, entry, sorted(wanted - entry.names() - never_asked_for(entry)))
    return {channel: kept for channel, kept in found.items() if kept.seed is not None or kept.writes}


def never_asked_for(entry: Entry) -> set[str]:
    """Channels of LangGraph's own, and those that trigger nodes: no DeltaChannel is called so."""
    return {"__start__", "__pregel_tasks", *(f"branch:to:{node}" for node in entry.folded.header.versions_seen)}


def _named_by_ancestors(history: History, entry: Entry) -> set[str]:
    named = set(entry.folded.carried)
    for ancestor in history.ancestors(entry):
        named |= ancestor.names() | set(ancestor.folded.carried)
        named |= {write.channel for writes in ancestor.logged_writes() for write in writes if write.idx >= 0}
    return named


class EpochWriter:
    """Writes events into an epoch that nobody sees yet: straight into segments and snapshots. Holds the last ones."""

    def __init__(self, log: Log, head: Head) -> None:
        self._log = log
        self._view = View(head, 0, log.clock.monotonic(), log.io.store.incarnation(), Slice(head.epoch), 0)
        self._unsealed = 0

    @property
    def head(self) -> Head:
        """Of what is sealed."""
        return self._view.head

    def outlived(self) -> bool:
        """Whether the store's servers are others by now: a crash may have taken what was written to the first ones."""
        return self._view.incarnation != self._log.io.store.incarnation()

    def live_as(self, other: Head) -> None:
        """Let records written from now on live as those of another epoch."""
        self._view.head = replace(self._view.head, ttl=other.ttl, extended_at=other.extended_at)

    def add_checkpoint(self, entry: Entry, carried: dict[str, Carried]) -> None:
        folded, slice_ = entry.folded, self._view.slice
        checkpoint = Checkpoint(folded.header, entry.state(), folded.labels, folded.metadata, carried)
        self._append(lambda seq: encode_checkpoint(seq, checkpoint, slice_.base_for(folded.header.parent)))

    def add_writes(self, checkpoint_id: str, logged: Iterable[list[Write]]) -> None:
        for writes in logged:
            base = self._view.slice.base_of(checkpoint_id)
            self._append(lambda seq, writes=writes, base=base: encode_writes(seq, checkpoint_id, writes, base))  # type: ignore[misc]

    def finish(self) -> Head:
        """Seal what is left."""
        while self._view.last > self._view.head.sealed:
            before = self._view.head
            self._view = self._log.sealer.advance(self._view, idle=True)
            self._log.empty_replaced(before, self._view.head)
            self._view.slice.forget_states()
            self._unsealed = 0
        return self._view.head

    def _append(self, encode: Callable[[int], bytes]) -> None:
        seq = self._view.last + 1
        event = unpack_event(seq, encode(seq))
        self._view.slice.add(event)
        self._view.last = seq
        self._unsealed += len(event.payload)
        if self._unsealed >= _SEGMENT_BYTES or seq - self._view.head.sealed >= _SEGMENT_EVENTS:
            self.finish()
