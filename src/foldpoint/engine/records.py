"""The storage seam: what Foldpoint asks of a store, in bytes.

No LangGraph type and no policy crosses this line. A store holds two kinds of record:

* **log records**: immutable bytes under a key of at most 64 bytes. They are created once and never changed.
* **heads**: one small mutable record per stream, changed by compare-and-swap on a revision counter.

Every method may be called from any thread, and raises `StoreUnavailable` (or a subclass) when the store cannot
serve it; nothing else leaves a backend. After an error the caller does not know whether a write was applied, and
every write may simply be sent again.

The functions at the end are for stores: what each of them refuses, and how one that hashes keys itself makes shares.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

MIB = 1024 * 1024
MAX_KEY = 64
UNCHANGED = -1
"""For the `ttl` of a swap: what is stored expires when the head in its place would have."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do.

    `max_record`: the largest value of a log record, in bytes; the engine splits what is larger.
    `ordered`: after any crash the store is as it was at some moment: nothing that was written or removed later is so
    without what came before. A store of several nodes is not.
    `ttl`: expiry is honoured; without it a `ttl` other than None is refused with ValueError.
    """

    max_record: int
    ordered: bool
    ttl: bool


@dataclass(frozen=True, slots=True)
class HeadRecord:
    """A stream's head as stored. `thread` groups the heads of one thread and is indexed."""

    key: bytes
    thread: bytes
    revision: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """A setting of a store's server that endangers data. `remedy` is the line for the server's configuration, or what
    else to do. `fatal`: what was asked for cannot work at all.
    """

    setting: str
    value: str
    danger: str
    remedy: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.setting} is {self.value}: {self.danger}. To change it: {self.remedy}"


class RecordStore(Protocol):
    """The verbs of a store. `ttl` is in seconds, None means never; every write states it."""

    @property
    def capabilities(self) -> Capabilities:
        """Fixed for the life of the store object."""
        ...

    def setup(self, *, ttl: bool = False) -> list[Finding]:
        """Make ready, and tell what in the server's configuration endangers data. Idempotent; no verb needs it.

        `ttl`: records are going to expire. Every finding is logged as a warning. StoreMismatch, before anything is
        written, where the configuration makes that, or storing at all, impossible.
        """
        ...

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        """Create each (key, value) that does not exist; True where created, False where the key was taken.

        Atomic per record, not across records. Durable when it returns. A False leaves the record as it was.
        A key given twice in one call is created once: True, then False.
        """
        ...

    def create_all(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> bool:
        """Create all of several records with different keys, or none; True if created. Durable when it returns.

        False where a key is taken, also by a record that has expired, and where the store cannot: one of several nodes.
        """
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order, None where there is none. Sees every create that returned before."""
        ...

    def get_head(self, key: bytes) -> HeadRecord | None:
        """The head, at least as new as the last swap that returned."""
        ...

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        """Store `head` if the stored revision equals `expected` (None: if there is no head); True if stored.

        Atomic and durable. `head.revision` must differ from `expected`. ttl: also UNCHANGED, where a head is expected.
        A False changes nothing, not even the expiry.
        """
        ...

    def heads(self, thread: bytes | None = None, *, partition: tuple[int, int] = (0, 1)) -> Iterator[HeadRecord]:
        """The heads of one thread, or all; `partition=(i, n)` gives the i-th of n disjoint shares that cover all.

        Lazy. Not a snapshot: a head swapped meanwhile is seen before or after the swap.
        """
        ...

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        """Let log records and heads live `ttl` seconds from now; missing ones are passed over."""
        ...

    def remove_many(self, keys: Iterable[bytes]) -> None:
        """Remove log records; missing ones are passed over."""
        ...

    def empty_many(self, keys: Iterable[bytes]) -> None:
        """Replace the values of log records by b"", which gives their space back while the keys stay taken.

        Missing ones are passed over; the expiry stays.
        """
        ...

    def keys(self, *, partition: tuple[int, int] = (0, 1)) -> Iterator[bytes]:
        """All keys of log records, lazily, in shares as for `heads`. For the sweep only; may be slow."""
        ...

    def incarnation(self) -> object:
        """A token for the servers that hold the records: once it is another, a crash may have taken what they held.

        Asked at each put: a look at a variable, but for now and then.
        """
        ...

    def settled(self) -> bytes:
        """A token for where the records lie: as long as it stays the same, `heads` and `keys` tell all there is.

        Raises StoreBusy while they may miss records, as when data moves between servers.
        """
        ...

    def reclaim(self) -> int:
        """Give space that removed (and expired) records held back to the operating system; bytes given back."""
        ...

    def close(self) -> None:
        """Release connections. Idempotent; any later call for records raises StoreUnavailable."""
        ...


def check_records(records: Sequence[tuple[bytes, bytes]], max_record: int) -> None:
    """ValueError for a key over 64 bytes or a value over `max_record`; checked before anything is written."""
    for key, value in records:
        _check_key(key)
        if len(value) > max_record:
            raise ValueError(f"record {key.hex()} has {len(value)} bytes, over the store's max_record of {max_record}")


def check_swap(head: HeadRecord, expected: int | None, ttl: int | None) -> None:
    """ValueError for a key over 64 bytes, a revision that does not move, or a TTL that is none."""
    _check_key(head.key)
    if ttl != UNCHANGED or expected is None:
        check_ttl(ttl)
    if head.revision == expected:
        raise ValueError(f"head {head.key.hex()}: the new revision {expected} equals the expected one")


def check_ttl(ttl: int | None) -> None:
    """ValueError unless `ttl` is None or at least one second."""
    if ttl is not None and ttl < 1:
        raise ValueError(f"ttl is {ttl}: give whole seconds from 1, or None for records that never expire")


def check_partition(partition: tuple[int, int]) -> None:
    """ValueError unless `partition` is (i, n) with 0 <= i < n."""
    index, count = partition
    if not 0 <= index < count:
        raise ValueError(f"partition is {partition}: give (i, n) with 0 <= i < n")


def in_partition(key: bytes, partition: tuple[int, int]) -> bool:
    """Whether `key` falls in share i of n: the same answer in every process and release."""
    index, count = partition
    return zlib.crc32(key) % count == index


def _check_key(key: bytes) -> None:
    if len(key) > MAX_KEY:
        raise ValueError(f"key {key.hex()} has {len(key)} bytes; a store takes at most {MAX_KEY}")
