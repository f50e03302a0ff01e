"""Each bit of a record flipped, and each end of it cut off: what is read is right, or refused with a typed error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint.codecs.envelope import Cipher
from foldpoint.compaction import upkeep
from foldpoint.compaction.verify import verify
from foldpoint.engine.history import History
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import FoldpointError
from torture.small import MAX_RECORD, THREAD, Small, overwrite, read, record, small, with_same_records

HEADER = 6
"""Bytes of the envelope before the content."""


@dataclass(frozen=True)
class Damage:
    """bit: the one that is flipped, None: none is. size: of what is left, in bytes."""

    bit: int | None
    size: int

    def of(self, stored: bytes) -> bytes:
        damaged = bytearray(stored)
        if self.bit is not None:
            damaged[self.bit // 8] ^= 1 << self.bit % 8
        return bytes(damaged[: self.size])


def damages(stored: bytes, stride: int = 1) -> Iterator[Damage]:
    """Each bit and each truncation; of the content only every so manieth."""
    size = len(stored)
    for bit in range(size * 8):
        if bit < HEADER * 8 or bit % stride == 0:
            yield Damage(bit, size)
    for cut in range(size):
        if cut <= HEADER or cut % stride == 0:
            yield Damage(None, cut)


def encrypted() -> Cipher:
    return EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef").cipher


def copied(made: Small, store: RecordStore) -> RecordStore:
    with_same_records(made.store, store)
    return store


def in_memory() -> MemoryStore:
    return MemoryStore(max_record=MAX_RECORD)


def check(made: Small, store: RecordStore, key: bytes, damage: Damage, *, compact: bool = True) -> int:
    """Damage one record of a copy of a small store, and read it; AssertionError for a wrong value.

    How many ways to read it were refused. `store`: with the same records; it is as it was afterwards, unless compacted.
    """
    stored = record(store, key)
    overwrite(store, key, damage.of(stored))
    refused = 0
    for path in PATHS:
        try:
            path(made, store)
        except FoldpointError:
            refused += 1
        except AssertionError as error:
            raise AssertionError(f"{path.__name__} of record {key.hex()} with {damage}: a wrong value") from error
    if compact:
        with suppress(FoldpointError):
            upkeep(made.engine(store), THREAD, "", idle=True)
        for path in PATHS:
            with suppress(FoldpointError):
                path(made, store)
    else:
        overwrite(store, key, stored)
    return refused


# -- the ways to read --------------------------------------------------------------------------------------------------


def latest(made: Small, store: RecordStore) -> None:
    entry = made.engine(store).latest(THREAD, "")
    assert entry is not None
    assert read(entry) == made.read[max(made.read)]


def by_id(made: Small, store: RecordStore) -> None:
    engine, errors = made.engine(store), []
    for id_ in sorted(made.read)[::6]:
        try:
            entry = engine.find(THREAD, "", id_)
            assert entry is not None
            assert read(entry) == made.read[id_]
        except FoldpointError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def newest_first(made: Small, store: RecordStore) -> None:
    wanted = sorted(made.read, reverse=True)
    for entry in made.engine(store).history(THREAD, ""):
        id_ = entry.folded.header.id
        assert id_ == wanted.pop(0)
        assert read(entry) == made.read[id_]
    assert wanted == []


def oldest_first(made: Small, store: RecordStore) -> None:
    log = made.engine(store).reader(THREAD, "")
    view = log.load()
    assert view is not None
    wanted = sorted(made.read)
    for entry in History(log.reader, view).oldest_first():
        id_ = entry.folded.header.id
        assert id_ == wanted.pop(0)
        assert read(entry) == made.read[id_]
    assert wanted == []


def deleted_stays_deleted(made: Small, store: RecordStore) -> None:
    assert made.engine(store).latest("gone", "") is None
    assert [one.thread_id for one in made.engine(store).threads()] == [THREAD]


def verified(made: Small, store: RecordStore) -> None:
    list(verify(made.engine(store)))


PATHS: list[Callable[[Small, RecordStore], None]] = [
    latest,
    by_id,
    newest_first,
    oldest_first,
    deleted_stays_deleted,
    verified,
]


# -- many of them ------------------------------------------------------------------------------------------------------


def flip(kind: str, seed: int) -> int:
    """Every damage to one record of a kind: "event", or "event, encrypted, in a file"; the seed says to which one."""
    logging.getLogger("foldpoint").setLevel(logging.ERROR)  # it warns of each record that it restores
    name, *how = kind.split(", ")
    made = small(in_memory(), encrypted() if "encrypted" in how else None)
    places = made.places()[name]
    key = places[seed % len(places)]
    count = 0
    with TemporaryDirectory() as folder:
        for number, damage in enumerate(damages(record(made.store, key))):
            in_file = "in a file" in how
            store = SqliteStore(Path(folder) / f"{number}.db", synchronous="OFF") if in_file else in_memory()
            try:
                check(made, copied(made, store), key, damage, compact=number % 8 == 0)
            finally:
                store.close()
            count += 1
    return count


def kinds() -> list[str]:
    names = small(in_memory()).places()
    return [kind + how for how in ("", ", encrypted") for kind in names if not kind.startswith("emptied")]
