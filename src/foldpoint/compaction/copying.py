"""Copying a thread, into the same store or another: also how one is exported to a file, and taken in again."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import suppress

from foldpoint.compaction.choice import Choice, Early
from foldpoint.compaction.rewrite import delete, rewrite
from foldpoint.engine.engine import Engine, named
from foldpoint.engine.fold import Entry
from foldpoint.engine.history import History
from foldpoint.engine.log import Log
from foldpoint.errors import Conflict, CorruptRecord, FoldpointError

_ATTEMPTS = 64


def copy_thread(
    engine: Engine, source_id: str, target_id: str, *, ttl: int | None = None, into: Engine | None = None
) -> int:
    """Copy every checkpoint and write of a thread, in all namespaces; how many checkpoints were copied.

    Checkpoints that the target has stay; one that both have becomes the source's. into: the target's engine, if it lies
    in another store. This is a use of the target, which lives `ttl` seconds from now (None: as it did).

    Raises Conflict if the target keeps being rewritten.
    """
    target = into or engine
    if target is engine and source_id == target_id:
        return 0
    copied = 0
    for namespace in engine.namespaces(source_id):
        source = _Source(engine.reader(source_id, namespace))
        with named(source_id, namespace):
            _take_in(source, target, target_id, namespace)
        copied += source.count
    target.refresh(target_id, ttl)
    return copied


def _take_in(source: _Source, engine: Engine, thread_id: str, namespace: str) -> None:
    for _ in range(_ATTEMPTS):
        log = engine.reader(thread_id, namespace)
        view = log.load()
        if view is None or view.head.deleted:
            view = log.create_stream(None, view)
        if view is None:
            continue  # somebody else began it
        made = view.last == 0
        try:
            held = [*History(log.reader, view).early()]
        except CorruptRecord as error:
            log.recover(error)  # rewritten since, and cleaned
            continue
        try:
            early = [*held, *source.early()]
            taken_in = rewrite(log, Choice(view.head.epoch, view.last, ids=None, early=early), source)
        except FoldpointError:
            if made:  # for this copy: an empty thread would look like one
                with suppress(FoldpointError):
                    delete(log, unchanged=(view.head.epoch, 0))
            raise
        if taken_in:
            with engine.log(thread_id, namespace) as shared:
                shared.join(None)  # writers of this process need not run into the fence
            return
    raise Conflict(f"thread {thread_id!r}: rewritten all the time while a copy was taken in; call again")


class _Source:
    """The stream that is copied, as it is when it is read. count: how many of its checkpoints were."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last = ""
        self.count = 0

    def early(self) -> list[Early]:
        while True:
            try:
                return [*self._history().early()]
            except CorruptRecord as error:
                self.recover(error)

    def entries(self, held: History, since: str) -> Iterator[Entry]:
        return _merged(self._counted(since), held.oldest_first(since))

    def recover(self, error: CorruptRecord) -> None:
        self._log.recover(error)

    def _history(self) -> History:
        view = self._log.load()
        if view is None or view.head.deleted:
            raise Conflict(f"thread {self._log.thread_id!r}: deleted while it was copied")
        return History(self._log.reader, view)

    def _counted(self, since: str) -> Iterator[Entry]:
        for entry in self._history().oldest_first(since):
            self.count += _id(entry) > self._last
            self._last = max(self._last, _id(entry))
            yield entry


def _merged(source: Iterable[Entry], held: Iterable[Entry]) -> Iterator[Entry]:
    """Both by id; of what both have, the source's."""
    last = None
    for entry in heapq.merge(source, held, key=_id):  # of equal ones, what is named first comes first
        if _id(entry) != last:
            yield entry
        last = _id(entry)


def _id(entry: Entry) -> str:
    return entry.folded.header.id
