"""The engine: checkpoints and pending writes of many streams, in bytes.

It knows nothing of LangGraph's objects and deserializes nothing; the saver in `langgraph_adapter` does that.
"""

from __future__ import annotations

import shlex
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from foldpoint.codecs.envelope import Cipher
from foldpoint.codecs.event import Event, check_names, copied, encode_checkpoint, encode_writes, folded_of
from foldpoint.codecs.head import Head
from foldpoint.codecs.model import Carried, Checkpoint, Stored, Write
from foldpoint.engine import keys
from foldpoint.engine.appending import append
from foldpoint.engine.clock import Clock, SystemClock
from foldpoint.engine.fold import Entry, Known, Slice
from foldpoint.engine.forks import forks
from foldpoint.engine.group import Append
from foldpoint.engine.history import History, channel_history
from foldpoint.engine.inventory import epoch_keys
from foldpoint.engine.io import RecordIO
from foldpoint.engine.layout import Layout
from foldpoint.engine.log import Log
from foldpoint.engine.metrics import Metrics
from foldpoint.engine.reading import read_head
from foldpoint.engine.records import RecordStore
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, CorruptRecord, FoldpointError, RecordError
from foldpoint.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
_ATTEMPTS = 64

Unread = Callable[[str, RecordError], None]
"""Hears of a thread, and why the head of one of its streams cannot be read."""


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread as its heads tell, in all namespaces.

    sealed: how many sequence numbers lie in segments; segments: how many there are now, of `log_bytes` bytes.
    snapshot_bytes: of those that latest is read from.
    """

    thread_id: str
    namespaces: tuple[str, ...]
    sealed: int
    segments: int
    log_bytes: int
    snapshot_bytes: int


class Engine:
    """Streams of checkpoints in one store. Safe to share between threads; closes nothing it was given.

    cipher: seals every record but heads.
    """

    def __init__(
        self,
        store: RecordStore,
        settings: Settings | None = None,
        *,
        cipher: Cipher | None = None,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        if isinstance(store, str):
            raise ValueError("store: got a text; give Engine(foldpoint.open_store(url))")
        self.store = store
        self.settings = settings or Settings()
        self.clock = clock or SystemClock()
        self.metrics = metrics or Metrics()
        self.io = RecordIO(store, cipher, self.settings.allow_plain)
        self._forget()
        forks.renew_after(self)

    def _forget(self) -> None:
        self._logs: OrderedDict[tuple[str, str], Log] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._held = 0
        self._to_leave: set[tuple[str, str]] = set()
        """Streams whose TTL was changed, and whose windows other writers may still fill by the old one."""
        self._guard = threading.Lock()

    def after_fork_in_child(self) -> None:
        """Begin with nothing known: threads that the child does not have may have held the locks of what was."""
        self.io = RecordIO(self.store, self.io.cipher, self.settings.allow_plain)
        self._forget()

    def with_cipher(self, cipher: Cipher | None) -> Engine:
        """An engine on the same store that seals with `cipher`, and counts in the same metrics.

        What this one remembers is not shared with it.
        """
        if cipher is self.io.cipher:
            return self
        return Engine(self.store, self.settings, cipher=cipher, clock=self.clock, metrics=self.metrics)

    def on(self, store: RecordStore, metrics: Metrics | None = None) -> Engine:
        """An engine that works as this one does on another store, and counts in `metrics`, by default in the same."""
        return Engine(
            store,
            self.settings,
            cipher=self.io.cipher,
            clock=self.clock,
            metrics=metrics or self.metrics,
        )

    # -- writing -------------------------------------------------------------------------------------------------------

    def put(self, thread_id: str, namespace: str, checkpoint: Checkpoint, *, ttl: int | None = None) -> int:
        """Log a checkpoint; durable when it returns. Returns how many events the tail holds.

        Of two checkpoints with one id the later put wins; nothing that is based on the first changes. Raises ValueError
        for a name that is no string.
        """
        # What is remembered must be what was stored, even if the caller goes on changing it.
        own = copied(checkpoint, self._last_known(thread_id, namespace).header)
        if own is None:
            check_names(checkpoint)
        put = own or checkpoint
        parent = put.header.parent

        def encode(seq: int, slice_: Slice) -> bytes:
            return encode_checkpoint(seq, put, slice_.base_for(parent))

        def keep(slice_: Slice, event: Event) -> None:
            self._remember(slice_, event.seq, event.base, put)
            if own is not None:
                slice_.put_folded(folded_of(event.seq, own))
            slice_.know(event.seq)

        one = Append(encode, keep, existing=parent is not None, ttl=ttl)
        view, event = self._append(thread_id, namespace, one)
        self.metrics.add(puts=1, bytes_of_state=sum(len(value.data) for value in checkpoint.channels.values()))
        self._keep_alive(view.head, ttl, begun=event.seq == 1)
        return view.tail

    def put_writes(
        self, thread_id: str, namespace: str, checkpoint_id: str, writes: Sequence[Write], *, ttl: int | None = None
    ) -> int:
        """Log one task's pending writes for a checkpoint, which need not have arrived; durable when it returns.

        A write whose task and index are there already has no effect, unless its index is negative: then it replaces.
        Returns how many events the tail holds. Raises ValueError unless there are writes, all of one task.
        """
        listed = list(writes)
        if len({(write.task_id, write.task_path) for write in listed}) != 1:
            raise ValueError(f"checkpoint {checkpoint_id}: expected writes of one task, got {len(listed)} writes")

        def encode(seq: int, slice_: Slice) -> bytes:
            return encode_writes(seq, checkpoint_id, listed, slice_.base_of(checkpoint_id))

        def keep(slice_: Slice, event: Event) -> None:
            slice_.put_writes(event.seq, listed)

        one = Append(encode, keep, existing=True, ttl=ttl, patient=True)
        view, event = self._append(thread_id, namespace, one)
        self.metrics.add(puts=1, bytes_of_state=sum(len(write.value.data) for write in listed))
        self._keep_alive(view.head, ttl, begun=event.seq == 1)
        return view.tail

    def _append(self, thread_id: str, namespace: str, one: Append) -> tuple[View, Event]:
        """Returns when it is durable."""
        log = self._log_of(thread_id, namespace)
        try:
            log.group.enter(one)
            if self.io.atomic:
                log.group.wait(one)
            if not one.done:
                with log.lock, self._using(log):
                    if not one.done:
                        append(log, one)
        finally:
            # Before any call, which an exception from outside may break off: nobody may store it later.
            one.left = True
            log.group.leave(one)
        return one.found()

    def _remember(self, slice_: Slice, seq: int, base: int | None, checkpoint: Checkpoint) -> None:
        """Keep the state that was just put, sharing with its base what did not change."""
        before = slice_.state(base) if base is not None else {}
        state = {name: Stored.of(value).shared(before.get(name)) for name, value in checkpoint.channels.items()}
        latest = slice_.checkpoints[slice_.latest_id]
        slice_.forget_states(latest)
        slice_.forget_headers(latest)
        slice_.put_state(seq, state)  # after that: it need not be the latest

    def known(self, thread_id: str, namespace: str, parent: str | None) -> Known:
        """A checkpoint that another one is about to be put upon; nothing of one that is not there.

        What is put next holds many of its values again: whoever hands over the same objects holds them once.
        """
        if not parent:
            return Known()
        # It is the one that was put or read last, unless the stream was forgotten.
        if (known := self._last_known(thread_id, namespace)).header.id == parent:
            return known
        log = self._log_of(thread_id, namespace)
        with log.lock, self._using(log):
            while (view := log.trusted()) is not None and parent in view.slice.checkpoints:
                try:
                    return view.slice.know(view.slice.checkpoints[parent])
                except CorruptRecord as error:
                    log.recover(error)
        # A fork from far back, or of what another process has put.
        entry = self.find(thread_id, namespace, parent)
        if entry is None:
            return Known()
        try:
            state = {name: Stored.of(value) for name, value in entry.state().items()}
        except CorruptRecord:
            return Known()  # what is put need not build upon it
        return Known(entry.folded.header, state)

    def _last_known(self, thread_id: str, namespace: str) -> Known:
        """Without the log's lock, which a put waits for."""
        log = self._logs.get((thread_id, namespace))
        view = log.view if log else None
        return view.slice.known if view else Known()

    # -- lifetime ------------------------------------------------------------------------------------------------------

    def refresh(self, thread_id: str, ttl: int | None) -> None:
        """Let all streams of a thread live `ttl` seconds from now, if the last time was long enough ago for one.

        All at once, so that they expire at one time. None: by their own TTL; one that has none by another's.
        """
        heads = sorted(self.heads(thread_id), key=lambda head: head.namespace)
        usual = next((head.ttl for head in heads if head.ttl is not None), None)
        if usual is not None or ttl is not None:
            wanted = [(head, ttl or head.ttl or usual) for head in heads]
            if any(self._due(head, its) for head, its in wanted):
                for head, its in wanted:
                    self._extend(head, its)

    def _keep_alive(self, head: Head, ttl: int | None, *, begun: bool) -> None:
        """A stream was used: its thread lives on. The root, which may have been extended earlier, is looked at too; all
        the others if this one was begun, which then lives as the root does.
        """
        root = self._root_of(head)
        lasting = head.ttl is None and (root is None or root.ttl is None)
        if (begun and not lasting) or self._due(head, ttl) or (root and self._due(root, ttl)):
            self.refresh(head.thread_id, ttl)
            root = self._root_of(head)
        if begun and root and root.ttl is not None:
            self._extend(head, root.ttl, root.extended_at)

    def _root_of(self, head: Head) -> Head | None:
        """The head of the thread's root, if this is another stream's: as it is known, or read if that may expire."""
        if not head.namespace:
            return None
        if head.ttl is not None and ((known := self._logs.get((head.thread_id, ""))) is None or known.view is None):
            log = self._log_of(head.thread_id, "")
            with log.lock, self._using(log):
                log.trusted()
        root = self._logs.get((head.thread_id, ""))
        view = _live(root.view) if root else None
        return view.head if view else None

    def _due(self, head: Head, ttl: int | None) -> bool:
        if (ttl is not None and head.ttl != ttl) or (head.thread_id, head.namespace) in self._to_leave:
            return True
        # Extended in time to come: by a clock that was wrong, or is right where this one is not.
        return head.ttl is not None and not 0 <= self.clock.now() - head.extended_at <= head.ttl / 4

    def _extend(self, head: Head, ttl: int | None, since: int | None = None) -> None:
        """Extend one stream, as of `since` (by default now). The other records first: they must outlive the head."""
        if ttl is None:
            return
        name = (head.thread_id, head.namespace)
        log = self._log_of(*name)
        with log.lock, self._using(log):
            for _ in range(_ATTEMPTS):
                view = log.load()
                if view is None or view.head.deleted:
                    return
                seen = view.head.extended_at
                done = seen == since if since is not None else seen != head.extended_at  # then somebody else did
                if view.head.ttl == ttl and done and name not in self._to_leave:
                    return
                if view.head.ttl != ttl:
                    self._to_leave.add(name)  # now: what follows may fail, and is done by the next call then
                extent = replace(view.head.extent, sealed=view.last)
                for batch in epoch_keys(self.io, view.head.epoch, view.head.cleaned, extent):
                    self.store.extend(batch, ttl=2 * ttl)
                extended = replace(view.head, ttl=ttl, extended_at=int(self.clock.now()) if since is None else since)
                if revision := log.swap_read(view, extended, extends=True):
                    view.head, view.revision = extended, revision
                    if name in self._to_leave:
                        self._leave_window(log, view)
                        self._to_leave.discard(name)
                    return
        raise Conflict(f"thread {head.thread_id!r}: its head kept changing while it was extended; call again")

    def _leave_window(self, log: Log, view: View) -> None:
        """Writers that have not noticed the new TTL would store what expires earlier: they find their number taken."""
        known: View | None = view
        for _ in range(_ATTEMPTS):
            if known is None or known.head.deleted:
                return
            try:
                log.fill(known, known.head.slots[-1])
                slots = [keys.event(known.head.epoch, seq) for seq in known.head.slots]
                self.store.extend([*slots, *self.io.parts_of(slots)], ttl=known.head.record_ttl)
                log.seal()
                return
            except CorruptRecord as error:
                log.recover(error)  # sealed and emptied meanwhile, by another process
            known = log.load()
        raise Conflict(f"thread {log.thread_id!r}: its head kept changing while its window was left; call again")

    # -- reading -------------------------------------------------------------------------------------------------------

    def latest(self, thread_id: str, namespace: str) -> Entry | None:
        """The checkpoint with the greatest id. At most two round trips, whatever the length of the stream."""
        log = self._log_of(thread_id, namespace)
        with log.lock, self._using(log):
            view = _live(log.load())
            return self._locked(log, view.slice.latest()) if view else None

    def find(self, thread_id: str, namespace: str, checkpoint_id: str) -> Entry | None:
        log = self._log_of(thread_id, namespace)
        with log.lock, self._using(log):
            while (view := _live(log.load())) is not None:
                try:
                    return self._locked(log, History(log.reader, view).find(checkpoint_id))
                except CorruptRecord as error:
                    log.recover(error)
            return None

    def history(self, thread_id: str, namespace: str, before: str | None = None) -> Iterator[Entry]:
        """Checkpoints with an id below `before`, greatest first, read as they are asked for."""
        # A log of its own: writers go on changing the slice of the shared one.
        log = self.reader(thread_id, namespace)
        with named(thread_id, namespace):
            while (view := _live(log.load())) is not None:
                try:
                    for entry in History(log.reader, view).entries(before):
                        yield entry
                        before = entry.folded.header.id
                    return
                except CorruptRecord as error:
                    # The history may have been rewritten, and what it was before removed.
                    log.recover(error)

    def channel_history(
        self, thread_id: str, namespace: str, checkpoint_id: str | None, channels: Sequence[str]
    ) -> dict[str, Carried] | None:
        """What ancestors of a checkpoint (None: the latest) stored in `channels`, in one pass over the log.

        None if there is no such checkpoint.
        """
        log = self.reader(thread_id, namespace)
        with named(thread_id, namespace):
            while (view := _live(log.load())) is not None:
                history = History(log.reader, view)
                try:
                    target = view.slice.latest() if checkpoint_id is None else history.find(checkpoint_id)
                    return channel_history(history, target, channels) if target else None
                except CorruptRecord as error:
                    log.recover(error)
            return None

    def reader(self, thread_id: str, namespace: str) -> Log:
        """A log with a view of its own, for long reads and for work beside the writers of this process."""
        return Log(thread_id, namespace, self.io, self.settings, self.clock, self.metrics)

    def _locked(self, log: Log, entry: Entry | None) -> Entry | None:
        """The same entry, safe to fold while other threads use the stream."""
        if entry is None:
            return None
        return Entry(
            entry.folded,
            self._guarded(log, entry.logged_writes),
            self._guarded(log, entry.state),
            self._guarded(log, entry.value),
            self._guarded(log, entry.names),
        )

    def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces in which a thread has a live stream, sorted."""
        return sorted(head.namespace for head in self.heads(thread_id))

    def heads(
        self, thread_id: str | None = None, *, partition: tuple[int, int] = (0, 1), unread: Unread | None = None
    ) -> Iterator[Head]:
        """The heads of the live streams of one thread, or of all.

        unread: hears of each that cannot be read, and whose it is; without it that is the error.
        """
        return (head for head in self.all_heads(thread_id, partition=partition, unread=unread) if not head.deleted)

    def all_heads(
        self, thread_id: str | None = None, *, partition: tuple[int, int] = (0, 1), unread: Unread | None = None
    ) -> Iterator[Head]:
        """As `heads`, with the tombstones of deleted streams."""
        thread = None if thread_id is None else keys.text(thread_id)
        for record in self.store.heads(thread, partition=partition):
            try:
                with named(keys.untext(record.thread), ""):
                    head = read_head(record)
            except RecordError as error:
                if unread is None:
                    raise
                unread(keys.untext(record.thread), error)
                continue
            if thread_id in (None, head.thread_id):
                yield head

    def threads(
        self, prefix: str = "", *, thread_id: str | None = None, unread: Unread | None = None
    ) -> Iterator[ThreadInfo]:
        """The threads whose id begins with `prefix`, sorted by id; or one of them. unread: as for `heads`."""
        by_thread: dict[str, list[Head]] = {}
        for head in self.heads(thread_id, unread=unread):
            if head.thread_id.startswith(prefix):
                by_thread.setdefault(head.thread_id, []).append(head)
        for thread_id, heads in sorted(by_thread.items()):
            yield ThreadInfo(
                thread_id,
                tuple(sorted(head.namespace for head in heads)),
                sum(head.sealed for head in heads),
                sum(len(Layout.of(head)) for head in heads),
                sum(head.log_bytes for head in heads),
                sum(head.snapshot_bytes for head in heads if head.snapshot),
            )

    # -- streams -------------------------------------------------------------------------------------------------------

    @contextmanager
    def log(self, thread_id: str, namespace: str) -> Iterator[Log]:
        """The stream's log, locked. On leaving, the least recently used views beyond the cache's bytes are dropped."""
        log = self._log_of(thread_id, namespace)
        with log.lock, self._using(log):
            yield log

    def _log_of(self, thread_id: str, namespace: str) -> Log:
        name = (thread_id, namespace)
        with self._guard:
            log = self._logs.pop(name, None) or self.reader(thread_id, namespace)
            self._logs[name] = log
        return log

    @contextmanager
    def _using(self, log: Log) -> Iterator[None]:
        """Account for the log afterwards. REQUIRES its lock, taken right before by the same statement.

        Hazard: an exception from outside may come between any two calls, and meets whoever waits for the lock the
        moment it is taken. Here that would be before anybody is to give it back.
        An error that is not our own may break off anywhere, amid taking something in: then the view goes.
        """
        try:
            yield
        except RecordError as error:
            _note_whose(error, log.thread_id, log.namespace)
            raise
        except FoldpointError:
            raise
        except BaseException:
            log.view = None
            raise
        finally:
            self._account(log)

    def _guarded(self, log: Log, read: Callable[P, T]) -> Callable[P, T]:
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with log.lock, self._using(log):
                return read(*args, **kwargs)

        return call

    def _account(self, log: Log) -> None:
        name = (log.thread_id, log.namespace)
        with self._guard:
            if self._logs.get(name) is not log:
                return  # dropped while it was in use
            self._held -= self._sizes.pop(name, 0)
            if log.view is None:
                self._logs.pop(name, None)
                return
            self._sizes[name] = log.view.slice.memory
            self._held += self._sizes[name]
            while self._held > self.settings.cache_bytes and len(self._logs) > 1:
                oldest = next(iter(self._logs))
                del self._logs[oldest]
                self._held -= self._sizes.pop(oldest, 0)


@contextmanager
def named(thread_id: str, namespace: str) -> Iterator[None]:
    """What a record's error does not know is noted: whose it is, and what to do."""
    try:
        yield
    except RecordError as error:
        _note_whose(error, thread_id, namespace)
        raise


def _note_whose(error: RecordError, thread_id: str, namespace: str) -> None:
    where = f"thread {thread_id!r}" + (f", namespace {namespace!r}" if namespace else "")
    command = f"foldpoint verify --thread {shlex.quote(thread_id)}"
    note = f"{where}: `{command}` tells what is wrong, and mends what can be mended"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def _live(view: View | None) -> View | None:
    return view if view is not None and not view.head.deleted else None
