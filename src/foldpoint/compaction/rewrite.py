"""Rewriting a stream's history: dropping checkpoints, deleting, copying.

The kept checkpoints are written into a new epoch, the old one is fenced, and the head is swapped. Until the swap
nothing has changed for anybody; after it the old epoch is out of reach and is removed when the grace is over. A writer
that has not noticed finds its number fenced, reads the head and puts into the new epoch.

What goes wrong without the fence: an event acknowledged between the copy and the swap would stay behind. And without
announcing the new epoch in the head before anything is written there: a sweep would take it for garbage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from foldpoint.codecs.event import Folded, encode_checkpoint, encode_writes, unpack_event
from foldpoint.codecs.head import DeadEpoch, Extent, Head
from foldpoint.codecs.model import Carried, Checkpoint, Write
from foldpoint.compaction.policy import DropAll, Policy
from foldpoint.engine import keys
from foldpoint.engine.engine import Engine
from foldpoint.engine.fold import Entry, Slice
from foldpoint.engine.history import History, channel_history
from foldpoint.engine.inventory import epoch_keys
from foldpoint.engine.log import Log
from foldpoint.engine.reading import read_head
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, CorruptRecord

_ATTEMPTS = 64
_NEVER_CARRIED = frozenset({"__pregel_tasks", "__start__"})
"""LangGraph's own channels, which are no DeltaChannels: nothing ever asks for their history."""


def rewrite_thread(engine: Engine, thread_id: str, policy: Policy) -> int:
    """Apply `policy` to each namespace of a thread; how many checkpoints were dropped.

    Safe beside writers and other rewrites. Raises Conflict if the thread is written to without pause.
    """
    return sum(_rewrite(engine, head.thread_id, head.namespace, policy) for head in list(engine.heads(thread_id)))


def copy_thread(engine: Engine, source_id: str, target_id: str, *, ttl: int | None = None) -> int:
    """Copy every checkpoint and write of a thread, in all namespaces; how many checkpoints were copied.

    Checkpoints that the target has stay; one that both have becomes the source's. This is a use of the target, which
    lives `ttl` seconds from now (None: as it did).
    """
    copied = 0
    for namespace in engine.namespaces(source_id):
        source = list(engine.history(source_id, namespace))
        with engine.log(target_id, namespace) as log:
            _replace(log, lambda held, source=source: _merged(held, source), allow_new=True)  # type: ignore[misc]
        copied += len(source)
    engine.refresh(target_id, ttl)
    return copied


def _merged(held: list[Entry], source: list[Entry]) -> list[Entry]:
    ids = {entry.folded.header.id for entry in source}
    kept = [entry for entry in held if entry.folded.header.id not in ids]
    return kept + sorted(source, key=lambda entry: entry.folded.seq)


def _rewrite(engine: Engine, thread_id: str, namespace: str, policy: Policy) -> int:
    before: list[int] = []

    def select(held: list[Entry]) -> list[Entry] | None:
        kept = policy.keep(sorted((entry.folded for entry in held), key=lambda folded: folded.header.id, reverse=True))
        before.append(len(held) - len(kept))
        if before[-1] == 0 and not isinstance(policy, DropAll):
            return None
        return [entry for entry in held if entry.folded.header.id in kept]

    with engine.log(thread_id, namespace) as log:
        _replace(log, select)
    return before[-1] if before else 0


Select = Callable[[list[Entry]], "list[Entry] | None"]
"""From the checkpoints a stream holds, in log order, to those it shall hold; None: leave it as it is."""


def _replace(log: Log, select: Select, *, allow_new: bool = False) -> None:
    epoch = None
    for _ in range(_ATTEMPTS):
        view = log.load()
        if view is None or (view.head.deleted and not allow_new):
            if not allow_new:
                return
            log.create_stream(None)
            continue
        try:
            if select(_in_log_order(History(log.reader, view))) is None:
                return
            left, epoch = epoch, keys.new_epoch()
            view = log.view = _announced(log, view, epoch, left)
            if view is None:
                continue
            log.fill(view, view.head.slots[-1])
            history = History(log.reader, view)
            chosen = select(_in_log_order(history))
            if chosen is None:
                return
            head = _new_epoch(log, view, history, chosen, epoch)
        except CorruptRecord:
            if not log.moved():
                raise
            continue
        if log.swap(head, view.revision) or _was_swapped(log, epoch):
            log.view = None
            return
        for batch in epoch_keys(log.io, head.epoch, Extent(), head.extent):
            log.io.store.remove_many(batch)
    raise Conflict(f"thread {log.thread_id!r}: written to all the time while its history was rewritten; call again")


def _announced(log: Log, view: View, epoch: bytes, left: bytes | None) -> View | None:
    """The view once the head names an epoch, as one without records, in place of one that was `left` unused.

    None if somebody else changed the head. Whoever drops the epoch from there changes the head too, and so keeps it
    from becoming the stream's.
    """
    draft = DeadEpoch(epoch, Extent(), Extent(), int(log.clock.now()))
    head = replace(view.head, dead=(*_without(view.head, left), draft))
    return replace(view, head=head, revision=view.revision + 1) if log.swap(head, view.revision) else None


def _without(head: Head, epoch: bytes | None) -> tuple[DeadEpoch, ...]:
    return tuple(dead for dead in head.dead if dead.epoch != epoch)


def _was_swapped(log: Log, epoch: bytes) -> bool:
    """Whether a head of this epoch was stored although the swap said no: the answer was lost and others went on."""
    record = log.io.store.get_head(log.key)
    if record is None:
        return False
    head = read_head(record)
    return epoch in (head.epoch, *(dead.epoch for dead in head.dead if dead.extent != Extent()))


def _in_log_order(history: History) -> list[Entry]:
    return sorted(history.entries(), key=lambda entry: entry.folded.seq)


def _new_epoch(log: Log, view: View, history: History, chosen: list[Entry], epoch: bytes) -> Head:
    """Write `chosen` into a new epoch: the head that makes it the stream's. A tombstone if there is nothing."""
    now = int(log.clock.now())
    extent = replace(view.head.extent, sealed=view.head.slots[-1])
    left = DeadEpoch(view.head.epoch, view.head.cleaned, extent, now)
    empty = Head(
        log.thread_id,
        log.namespace,
        epoch,
        log.settings.window,
        deleted=not chosen,
        dead=(*_without(view.head, epoch), left),
        ttl=view.head.ttl,
        extended_at=view.head.extended_at,
    )
    if not chosen:
        return empty
    writer = _EpochWriter(log, empty)
    ids = {entry.folded.header.id for entry in chosen}
    for entry in chosen:
        parent = entry.folded.header.parent
        carried = entry.folded.carried
        if parent is not None and parent not in ids:
            carried = _carried(history, entry)
        writer.add(entry, carried)
    for checkpoint_id in view.slice.orphans():
        for _, writes in view.slice.writes_events(checkpoint_id):
            writer.append(lambda seq, id_=checkpoint_id, w=writes: encode_writes(seq, id_, w, None))  # type: ignore[misc]
    return writer.finish()


def _carried(history: History, entry: Entry) -> dict[str, Carried]:
    """What the ancestry says of each channel that the checkpoint does not store: DeltaChannels hang on it."""
    named = set(entry.folded.carried)
    for ancestor in history.ancestors(entry):
        named |= ancestor.names() | set(ancestor.folded.carried)
        named |= {write.channel for writes in ancestor.logged_writes() for write in writes if write.idx >= 0}
    wanted = sorted(named - entry.names() - _NEVER_CARRIED)
    return channel_history(history, entry, wanted)


class _EpochWriter:
    """Writes events into an epoch that nobody sees yet: straight into segments and snapshots."""

    def __init__(self, log: Log, head: Head) -> None:
        self._log = log
        self._view = View(head, 0, log.clock.monotonic(), Slice(head.epoch), 0)

    def add(self, entry: Entry, carried: dict[str, Carried]) -> None:
        folded = entry.folded
        checkpoint = Checkpoint(folded.header, entry.state(), folded.labels, folded.metadata, carried)
        slice_ = self._view.slice
        self.append(lambda seq: encode_checkpoint(seq, checkpoint, slice_.base_for(folded.header.parent)))
        for writes in entry.logged_writes():
            self.append(lambda seq, writes=writes: self._encode_writes(seq, folded, writes))  # type: ignore[misc]

    def _encode_writes(self, seq: int, folded: Folded, writes: list[Write]) -> bytes:
        return encode_writes(seq, folded.header.id, writes, self._view.slice.base_of(folded.header.id))

    def append(self, encode: Callable[[int], bytes]) -> None:
        seq = self._view.last + 1
        self._view.slice.add(unpack_event(seq, encode(seq)))
        self._view.last = seq
        if seq - self._view.head.sealed == self._view.head.window:
            self._seal()

    def _seal(self) -> None:
        self._view = self._log.sealer.advance(self._view)
        self._view.slice.forget_states()

    def finish(self) -> Head:
        if self._view.last > self._view.head.sealed:
            self._seal()
        return self._view.head
