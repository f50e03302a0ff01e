"""Writing a record again that a head names and the store has lost, from what it was made of.

A store of several nodes may keep a head through a crash and lose what was written right before it. Sealed events,
segments that were merged and the log that a snapshot stands for are still there for the grace, and tell exactly what it
held (`lost`).
"""

from __future__ import annotations

import logging
import random
import time

from foldpoint.codecs.head import Head
from foldpoint.codecs.segment import Snapshot
from foldpoint.engine import keys
from foldpoint.engine.lost import Lost, Records
from foldpoint.engine.reading import Reader
from foldpoint.errors import CorruptRecord

_TURNS, _PAUSE = 64, 0.01  # seconds

log = logging.getLogger("foldpoint")


def restore(reader: Reader, head: Head, key: bytes, *, replace: bool = False) -> bool:
    """Write the record under `key` again, with those that are lost beside it; False where it cannot be told.

    It is lost, or (replace) damaged. Restore what `head` names, and only while it is the stored one. Safe beside others
    who restore the same: the second adopts what the first wrote. Not so with `replace`.
    Raises CorruptRecord for another record that it would be told from, and that may have to be restored first.
    """
    records = Lost(reader, head, replace).records(key)
    if key not in dict(records):
        return False  # two name it, and not as the same
    if keys.is_snapshot(key):
        restored = [key] if _write_in_one_piece(reader, records, head.record_ttl) else []
    else:
        written = [one for one, _ in records]
        if replace:
            reader.io.remove(written)
        else:
            reader.io.remove_incomplete(written)
        restored = _create(reader, head, records)
    for one in restored:
        log.warning("thread %r: restored %s, record %s", head.thread_id, keys.words(one), one.hex())
    return True


def _create(reader: Reader, head: Head, records: Records) -> list[bytes]:
    """The keys of those that were not there yet. Another's segment, told a moment earlier or later, may begin with
    another snapshot: then the span is told from that.
    """
    created, adopted = list[bytes](), False
    for key, record in records:
        if adopted and keys.kind_of(key) == b"i":
            restore(reader, head, key)
        elif not (adopted := not reader.io.create(key, record, head.record_ttl)):
            created.append(key)
    return created


def _write_in_one_piece(reader: Reader, records: Records, ttl: int | None) -> bool:
    """Put the parts of a snapshot in the place of what is there; whether these ones stayed.

    Hazard: sealed twice they differ. Of two that do this at once one must find its own, and nothing of the other's.
    """
    store, part_keys, parts = reader.io.store, [key for key, _ in records], [part for _, part in records]
    for attempt in range(_TURNS):
        time.sleep(random.uniform(0, _PAUSE) * min(attempt, 10))
        if attempt and _hold_the_same(reader, part_keys, store.get_many(part_keys), parts):
            return False  # another's
        store.remove_many(part_keys)
        store.create(records, ttl=ttl)
        if store.get_many(part_keys) == parts:
            return True
    return False


def _hold_the_same(reader: Reader, part_keys: list[bytes], found: list[bytes | None], parts: list[bytes]) -> bool:
    """Whether what was found is the same snapshot: a sealer that was held up may have put one under this number."""
    try:
        there, wanted = reader.snapshot(part_keys, found), reader.snapshot(part_keys, [*parts])
    except CorruptRecord:
        return False
    return there.covers == wanted.covers and _told(there) == _told(wanted)


def _told(snapshot: Snapshot) -> list[tuple[int, bytes]]:
    return [(told.seq, told.check) for told in snapshot.events]
