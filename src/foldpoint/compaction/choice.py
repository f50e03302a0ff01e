"""What stays of a stream: its log is read newest first, as far as the selection needs it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from foldpoint.codecs.event import Folded
from foldpoint.codecs.model import Write
from foldpoint.compaction.selection import MAY_COME, Selection, Summary
from foldpoint.engine.fold import Entry
from foldpoint.engine.history import History
from foldpoint.engine.log import Log
from foldpoint.errors import CorruptRecord

Early = tuple[str, list[list[Write]]]
"""A checkpoint id, and writes for it as they were logged, where the checkpoint is not there."""

_NO_CHANNELS = frozenset(
    {"__no_writes__", "__return__", "__error_source_node__", "__input__", "__start__", "__pregel_tasks"}
)
"""What LangGraph's own writes name: no DeltaChannel is called so."""


@dataclass(slots=True)
class Choice:
    """What stays of a stream, as decided from its log up to number `seq` of an epoch.

    ids: the checkpoints that stay, of which `oldest` is the smallest; None: all. dropped: how many were seen to go; if
    the log was not read `whole` there are more. settled: no checkpoint up to this id can come any more. early: the
    writes without a checkpoint that stay. taken_in: for checkpoints that lose superseded writes, the channels on which
    they do; needless: how many writes those are.
    """

    epoch: bytes
    seq: int
    ids: set[str] | None
    oldest: str = ""
    dropped: int = 0
    whole: bool = True
    settled: str = ""
    early: list[Early] = field(default_factory=list)
    taken_in: dict[str, frozenset[str]] = field(default_factory=dict)
    needless: int = 0

    @property
    def changes_nothing(self) -> bool:
        return self.dropped == 0 and self.needless == 0

    def keeps(self, checkpoint_id: str) -> bool:
        return self.ids is None or checkpoint_id in self.ids

    def writes(self, entry: Entry) -> list[list[Write]]:
        """What stays of the writes of a checkpoint that stays, as they were logged."""
        channels = self.taken_in.get(entry.folded.header.id)
        if channels is None:
            return entry.logged_writes()
        kept = [
            [write for write in writes if not _is_needless(write, channels)]
            for writes in _counting(entry.logged_writes())
        ]
        return [writes for writes in kept if writes]


def choose(log: Log, selection: Selection, now: float, *, superseded_go: bool = False) -> Choice | None:
    """Show the stream's checkpoints to `selection`. Reads down to where nothing older stays and no early write counts.

    now: seconds since 1970. superseded_go: whether kept checkpoints lose the writes that a child took in. None if there
    is no stream, or if it was rewritten meanwhile.
    """
    view = log.load()
    if view is None or view.head.deleted:
        return None
    choosing = _Choosing(Choice(view.head.epoch, view.last, ids=set()), selection, now, superseded_go)
    while view is not None and view.head.epoch == choosing.choice.epoch:
        try:
            return choosing.read(History(log.reader, view))
        except CorruptRecord as error:
            # Segments may have been merged, and removed, meanwhile: what is left is read where it lies now.
            log.recover(error)
        view = log.load()
    return None


class _Choosing:
    """A choice in the making, which goes on where it was broken off."""

    def __init__(self, choice: Choice, selection: Selection, now: float, superseded_go: bool) -> None:
        self.choice = choice
        self._selection = selection
        self._now = now
        self._children = _Children() if superseded_go else None
        self._last: str | None = None

    def read(self, history: History) -> Choice:
        choice = self.choice
        for entry in history.entries(self._last) if choice.whole else ():
            self._show(entry)
            self._last = entry.folded.header.id
            if choice.dropped and choice.settled and self._selection.done:
                choice.whole = False
                break
        choice.early = [found for found in history.early(choice.settled) if found[0] > choice.settled]
        return choice

    def _show(self, entry: Entry) -> None:
        choice = self.choice
        shown = Summary.of(entry.folded, lambda: any(entry.logged_writes()))
        superseded = self._children.show(entry) if self._children else None
        if self._selection.keeps(shown):
            assert choice.ids is not None
            choice.ids.add(shown.id)
            choice.oldest = shown.id
            if superseded is not None:
                choice.taken_in[shown.id] = superseded.channels
                choice.needless += superseded.count
        else:
            choice.dropped += 1
        if not choice.settled and shown.made_at is not None and shown.made_at < self._now - MAY_COME:
            choice.settled = shown.id


@dataclass(frozen=True, slots=True)
class _Superseded:
    """Writes that nobody needs: those on these channels, and LangGraph's own. count: how many there are."""

    channels: frozenset[str]
    count: int


class _Children:
    """What the children of checkpoints store; they are shown before their parents.

    A child that the loop made took in its parent's pending writes. They are needed all the same on a channel that some
    child does not store: it may be a DeltaChannel, and its history are the writes.
    """

    def __init__(self) -> None:
        self._stored: dict[str, frozenset[str]] = {}
        self._looped: set[str] = set()

    def show(self, entry: Entry) -> _Superseded | None:
        """The superseded writes of a checkpoint, if it has any."""
        names, logged = frozenset(entry.names()), entry.logged_writes()
        channels = self._taken_in(entry.folded, names)
        if channels is None:
            return None
        count = sum(_is_needless(write, channels) for writes in logged for write in writes)
        return _Superseded(channels, count) if count else None

    def _taken_in(self, folded: Folded, names: frozenset[str]) -> frozenset[str] | None:
        """The channels that all children of a checkpoint store, None if none of them took in its writes."""
        header = folded.header
        stored, looped = self._stored.pop(header.id, None), header.id in self._looped
        self._looped.discard(header.id)
        if header.parent is not None:
            self._stored[header.parent] = self._stored.get(header.parent, names) & names
            if folded.labels.get("source") == "loop":
                self._looped.add(header.parent)
        return stored if looped else None


def _counting(logged: Iterable[list[Write]]) -> Iterator[list[Write]]:
    """Without those that have no effect, as their task and index had a write before: that one may go."""
    taken: set[tuple[str, int]] = set()
    for writes in logged:
        counting = []
        for write in writes:
            if write.idx < 0 or (write.task_id, write.idx) not in taken:
                counting.append(write)
            taken.add((write.task_id, write.idx))
        yield counting


def _is_needless(write: Write, channels: Container[str]) -> bool:
    return write.idx < 0 or write.channel in _NO_CHANNELS or write.channel in channels
