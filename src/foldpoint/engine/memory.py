"""The store in memory: the readable reference for what `RecordStore` means. Nothing survives the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock

from foldpoint.engine.clock import SystemClock
from foldpoint.engine.forks import forks
from foldpoint.engine.records import (
    MIB,
    UNCHANGED,
    Capabilities,
    Finding,
    HeadRecord,
    check_partition,
    check_records,
    check_swap,
    check_ttl,
    in_partition,
)
from foldpoint.errors import StoreUnavailable


class MemoryStore:
    """A `RecordStore` of two dicts behind one lock. `max_record` in bytes; `clock` gives seconds."""

    def __init__(self, max_record: int = 64 * MIB, clock: Callable[[], float] | None = None) -> None:
        self._capabilities = Capabilities(max_record=max_record, ordered=True, ttl=True)
        self._clock = clock or SystemClock().now
        self.after_fork_in_child()
        forks.renew_after(self)
        self._log: dict[bytes, tuple[bytes, float | None]] = {}  # value, expiry
        self._heads: dict[bytes, tuple[HeadRecord, float | None]] = {}
        self._closed = False

    def after_fork_in_child(self) -> None:
        """A thread that the child does not have may have held the lock."""
        self._lock = Lock()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def setup(self, *, ttl: bool = False) -> list[Finding]:
        self._require_open()
        return []

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        self._require_open()
        check_records(records, self._capabilities.max_record)
        expires = self._expiry(ttl)
        with self._lock:
            return [self._create_one(key, value, expires) for key, value in records]

    def create_all(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> bool:
        self._require_open()
        check_records(records, self._capabilities.max_record)
        expires = self._expiry(ttl)
        with self._lock:
            if any(key in self._log for key, _ in records):
                return False
            self._log.update((key, (value, expires)) for key, value in records)
            return True

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._require_open()
        with self._lock:
            found = [self._log.get(key) for key in keys]
            return [entry[0] if entry and self._is_live(entry[1]) else None for entry in found]

    def get_head(self, key: bytes) -> HeadRecord | None:
        self._require_open()
        with self._lock:
            return self._live_head(key)

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        self._require_open()
        check_swap(head, expected, ttl)
        with self._lock:
            stored = self._live_head(head.key)
            if (stored.revision if stored else None) != expected:
                return False
            self._heads[head.key] = (head, self._heads[head.key][1] if ttl == UNCHANGED else self._expiry(ttl))
            return True

    def heads(self, thread: bytes | None = None, *, partition: tuple[int, int] = (0, 1)) -> Iterator[HeadRecord]:
        self._require_open()
        check_partition(partition)
        with self._lock:
            live = [head for head, expires in self._heads.values() if self._is_live(expires)]
        return (head for head in live if thread in (None, head.thread) and in_partition(head.key, partition))

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        self._require_open()
        expires = self._expiry(ttl)
        log_keys, head_keys = list(keys), list(heads)
        with self._lock:
            for key in log_keys:
                if (entry := self._log.get(key)) and self._is_live(entry[1]):
                    self._log[key] = (entry[0], expires)
            for key in head_keys:
                if head := self._live_head(key):
                    self._heads[key] = (head, expires)

    def remove_many(self, keys: Iterable[bytes]) -> None:
        self._require_open()
        doomed = list(keys)
        with self._lock:
            for key in doomed:
                self._log.pop(key, None)

    def empty_many(self, keys: Iterable[bytes]) -> None:
        self._require_open()
        emptied = list(keys)
        with self._lock:
            for key in emptied:
                if (entry := self._log.get(key)) and self._is_live(entry[1]):
                    self._log[key] = (b"", entry[1])

    def keys(self, *, partition: tuple[int, int] = (0, 1)) -> Iterator[bytes]:
        self._require_open()
        check_partition(partition)
        with self._lock:
            live = [key for key, (_, expires) in self._log.items() if self._is_live(expires)]
        return (key for key in live if in_partition(key, partition))

    def incarnation(self) -> object:
        return None  # what survives is all there is

    def settled(self) -> bytes:
        self._require_open()
        return b""

    def reclaim(self) -> int:
        """Drop expired records; the bytes of their keys and values. Removed records hold nothing."""
        self._require_open()
        with self._lock:
            log = [(key, len(key) + len(value)) for key, (value, exp) in self._log.items() if not self._is_live(exp)]
            heads = [(key, len(key) + len(h.value)) for key, (h, exp) in self._heads.items() if not self._is_live(exp)]
            for key, _ in log:
                del self._log[key]
            for key, _ in heads:
                del self._heads[key]
        return sum(size for _, size in log + heads)

    def close(self) -> None:
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the memory store is closed; open a new one")

    def _expiry(self, ttl: int | None) -> float | None:
        check_ttl(ttl)
        return None if ttl is None else self._clock() + ttl

    def _is_live(self, expires: float | None) -> bool:
        return expires is None or expires > self._clock()

    def _create_one(self, key: bytes, value: bytes, expires: float | None) -> bool:
        entry = self._log.get(key)
        if entry and self._is_live(entry[1]):
            return False
        self._log[key] = (value, expires)
        return True

    def _live_head(self, key: bytes) -> HeadRecord | None:
        entry = self._heads.get(key)
        return entry[0] if entry and self._is_live(entry[1]) else None
