"""What a log does where its store has lost records, or holds some that nothing leads to."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable

from foldpoint.codecs.head import Head
from foldpoint.engine import keys, repair
from foldpoint.engine.reading import Reader
from foldpoint.engine.view import View
from foldpoint.errors import CorruptRecord, LostRecord, MisfitRecord, StrayRecord

log = logging.getLogger("foldpoint")

_ATTEMPTS = 64
_TURNS, _PAUSE = 8, 0.02  # seconds
_ADVICE = (
    "thread {!r}: it could not be restored from what is left. Bring back servers that are down or cut off: they may "
    "hold it. `foldpoint verify --thread T --repair` tells what else is missing, and mends more; with --quarantine URL "
    "the thread goes on without what stays lost"
)


class Recovery:
    """Of one stream."""

    def __init__(self, thread_id: str, reader: Reader) -> None:
        self._thread_id = thread_id
        self._reader = reader
        self._io = reader.io
        self._restores: Counter[bytes] = Counter()
        self._refusals: Counter[bytes] = Counter()
        self._strays: dict[bytes, bytes] = {}

    def drop(self, view: View, error: StrayRecord, swap: Callable[[Head, int], int | None]) -> None:
        """Remove a record that no head names, if none can come to: the head moves, so a swap still under way fails.

        swap: stores a head over the one of a revision.
        Hazard: nodes that are cut off from the others answer with old heads, which do not name what the others' do. So
        it must be found twice while the store is settled. Raises StoreBusy while it is not.
        Hazard: another process may have removed it, and written what belongs there; then that is restored.
        """
        key, settled = error.key, self._io.store.settled()
        before = self._strays.pop(key, None)
        if before is None:
            self._strays[key] = settled
            return
        if before != settled:
            raise error
        if swap(view.head, view.revision):
            self._io.remove([key])
            log.warning("thread %r: removed %s: %s", self._thread_id, keys.words(key), key.hex())

    def put_again(self, head: Head) -> bool:
        """Put what this process has put lately and the store has lost; whether that was anything."""
        count = self._io.send_again(head.epoch, head.cleaned.sealed)
        if count:
            log.warning("thread %r: put %d records again, which the store had lost", self._thread_id, count)
        return count > 0

    def restore(self, head: Head, error: CorruptRecord) -> None:
        """Restore the record that was found missing; raises CorruptRecord for what cannot be.

        Returns also where that may be told at the next try: while another restores what it is told from, what is read
        of that may be of two moments.
        """
        try:
            self._restore(head, error, ())
        except LostRecord:
            self._refusals[error.key] += 1
            if self._refusals[error.key] > _TURNS:
                raise
            time.sleep(random.uniform(0, _PAUSE))

    def _restore(self, head: Head, error: CorruptRecord, waiting: tuple[bytes, ...]) -> None:
        """waiting: the keys of those that are told from it."""
        if not isinstance(error, LostRecord):
            raise error
        try:
            may = error.key not in waiting and self._restores[error.key] < _ATTEMPTS
            replace = isinstance(error, MisfitRecord)
            restored = may and repair.restore(self._reader, head, error.key, replace=replace)
        except LostRecord as deeper:
            self._restore(head, deeper, (*waiting, error.key))
            return  # to be read again: then this one's turn comes
        self._restores[error.key] += restored
        if not restored:
            advice = _ADVICE.format(self._thread_id)
            raise LostRecord(error.key, f"{keys.words(error.key)}, {error.reason}; {advice}") from error

    def makes_whole(self, head: Head) -> bool:
        """Whether all that the latest of a head needs is there, or is restored."""
        try:
            while (error := self._damage(head)) is not None:
                self.restore(head, error)
        except CorruptRecord:
            return False
        return True

    def _damage(self, head: Head) -> CorruptRecord | None:
        try:
            self._reader.newest(head)
        except CorruptRecord as error:
            return error
        return None
