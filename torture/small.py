"""A small store in which records of every kind occur, what its streams hold, and a way to put other bytes there."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgpack

from foldpoint import Engine, Settings
from foldpoint.codecs import event
from foldpoint.codecs.envelope import Cipher
from foldpoint.codecs.model import Checkpoint, Header, Value, Write
from foldpoint.compaction import DropAll, merge, rewrite_thread, sweep, upkeep
from foldpoint.engine import keys, snapshot
from foldpoint.engine.fold import Entry
from foldpoint.engine.records import HeadRecord, RecordStore

THREAD = "t"
MAX_RECORD = 500
_CHECKPOINTS = 34
_MERGED = 27  # so many are sealed and merged before the others come
_KINDS = {b"e": "event", b"b": "part", b"l": "look", b"p": "snapshot", b"k": "kept snapshot"}

Read = tuple[object, ...]
"""A checkpoint as it was read: its header, labels, metadata, channels and writes."""


@contextmanager
def small_limits() -> Iterator[None]:
    """So that short histories reach every level of segments, and small values are treated as large ones."""
    before = merge.FANOUT, merge.WORTHWHILE, merge.MAX_EVENTS, snapshot.LARGE, event.REFERENCE_BODY
    merge.FANOUT, merge.WORTHWHILE, merge.MAX_EVENTS, snapshot.LARGE, event.REFERENCE_BODY = 2, 0, 12, 0, 80
    try:
        yield
    finally:
        merge.FANOUT, merge.WORTHWHILE, merge.MAX_EVENTS, snapshot.LARGE, event.REFERENCE_BODY = before


@dataclass
class Small:
    """A store, the cipher that seals it, and what it holds: `read` by checkpoint id."""

    store: RecordStore
    cipher: Cipher | None
    read: dict[str, Read]

    def engine(self, store: RecordStore | None = None) -> Engine:
        """One that knows nothing yet."""
        return Engine(store or self.store, _SETTINGS, cipher=self.cipher)

    def places(self) -> dict[str, list[bytes]]:
        """The keys of records by kind; heads of living and of deleted threads too."""
        found: dict[str, list[bytes]] = {}
        for key in sorted(self.store.keys()):
            letter = key[keys.EPOCH_BYTES : keys.EPOCH_BYTES + 1]
            if letter in b"si":
                kind = f"{'segment' if letter == b's' else 'span'} of level {key[keys.EPOCH_BYTES + 1]}"
            else:
                kind = _KINDS[letter]
            if not self.store.get_many([key])[0]:
                kind = f"emptied {kind}"
            found.setdefault(kind, []).append(key)
        for head in self.engine().all_heads():
            kind = "tombstone" if head.deleted else "head"
            found.setdefault(kind, []).append(keys.head(head.thread_id, head.namespace))
        return found


_SETTINGS = Settings(window=4, segment_level=1, snapshot_ratio=1.0, grace=600)


def small(store: RecordStore, cipher: Cipher | None = None) -> Small:
    """Fill an empty store that takes records of at most MAX_RECORD bytes."""
    made = Small(store, cipher, {})
    engine = made.engine()
    with small_limits():
        for n in range(_CHECKPOINTS):
            engine.put(THREAD, "", checkpoint(n))
            if n % 4 == 0:
                engine.put_writes(THREAD, "", id_of(n), [Write("task", 0, "list", packed([n]), "path")])
            if n == _MERGED:
                upkeep(engine, THREAD, "", idle=True)
    engine.put_writes(THREAD, "", id_of(2), [Write("late", 0, "list", packed("late"))])
    _leave_a_hole(engine)
    engine.put("gone", "", checkpoint(0))
    rewrite_thread(engine, "gone", DropAll())
    stray = keys.event(keys.new_epoch(), 1)
    engine.store.create([(stray, b"nobody's")], ttl=None)
    sweep(engine)
    engine.store.remove_many([stray])
    made.read = {entry.folded.header.id: read(entry) for entry in made.engine().history(THREAD, "")}
    assert len(made.read) == _CHECKPOINTS
    return made


def _leave_a_hole(engine: Engine) -> None:
    """A filler, and an event after it."""
    log = engine.reader(THREAD, "")
    view = log.load()
    assert view is not None
    log.fill(view, view.next)
    engine.put(THREAD, "", checkpoint(_CHECKPOINTS - 1))


def checkpoint(n: int) -> Checkpoint:
    noise = random.Random(n // 9).randbytes(700 if n % 9 == 0 else 10)
    return Checkpoint(
        Header(
            id_of(n),
            id_of(n - 1) if n else None,
            2,
            "2026-01-01T00:00:00.000001+00:00",
            {"list": n + 1, "noise": n // 9 + 1},
            {"node": {"list": n}},
            ["list"],
            packed({"extra": 1}),
        ),
        {"list": packed([f"item {m}" for m in range(n % 7)]), "noise": Value("bytes", noise)},
        {"step": n, "source": "loop"},
        packed({"writes": n % 3}),
    )


def packed(value: object) -> Value:
    return Value("msgpack", msgpack.packb(value))


def id_of(n: int) -> str:
    return str(uuid.UUID(int=(0x1EF << 116) + (n << 32)))


def read(entry: Entry) -> Read:
    folded = entry.folded
    return folded.header, folded.labels, folded.metadata, entry.state(), entry.writes()


def overwrite(store: RecordStore, key: bytes, value: bytes) -> None:
    """Put other bytes under a key, behind everybody's back."""
    head = store.get_head(key)
    if head is None:
        store.remove_many([key])
        store.create([(key, value)], ttl=None)
    else:
        assert store.swap(HeadRecord(key, head.thread, head.revision + 1, value), expected=head.revision, ttl=None)


def record(store: RecordStore, key: bytes) -> bytes:
    head = store.get_head(key)
    found = head.value if head else store.get_many([key])[0]
    assert found is not None, f"no record {key.hex()}"
    return found


def with_same_records(store: RecordStore, other: RecordStore) -> None:
    """Copy all of `store` into `other`, which is empty."""
    stored = list(store.keys())
    values = store.get_many(stored)
    other.create([(key, value) for key, value in zip(stored, values, strict=True) if value is not None], ttl=None)
    for head in store.heads():
        other.swap(replace(head, revision=1), expected=None, ttl=None)
