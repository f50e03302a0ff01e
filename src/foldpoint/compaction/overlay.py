"""Stores that stand before another: one counts bytes, one keeps every change to itself, for dry runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from foldpoint.engine.records import Capabilities, Finding, HeadRecord, RecordStore, in_partition

_AT_ONCE = 512


class Meter:
    """Passes everything on, and counts bytes of log records, keys and values.

    written: of those created. removed: of those removed, and of values emptied; what goes is read first, for its size.
    """

    def __init__(self, inner: RecordStore) -> None:
        self._inner = inner
        self.written = 0
        self.removed = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def setup(self, *, ttl: bool = False) -> list[Finding]:
        return self._inner.setup(ttl=ttl)

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        created = self._inner.create(records, ttl=ttl)
        self.written += sum(len(key) + len(value) for (key, value), new in zip(records, created, strict=True) if new)
        return created

    def create_all(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> bool:
        created = self._inner.create_all(records, ttl=ttl)
        self.written += sum(len(key) + len(value) for key, value in records) if created else 0
        return created

    def remove_many(self, keys: Iterable[bytes]) -> None:
        for some in _pieces(keys):
            found = self._inner.get_many(some)
            self._inner.remove_many(some)
            self.removed += sum(len(k) + len(v) for k, v in zip(some, found, strict=True) if v is not None)

    def empty_many(self, keys: Iterable[bytes]) -> None:
        for some in _pieces(keys):
            found = self._inner.get_many(some)
            self._inner.empty_many(some)
            self.removed += sum(len(value) for value in found if value is not None)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._inner.get_many(keys)

    def get_head(self, key: bytes) -> HeadRecord | None:
        return self._inner.get_head(key)

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        return self._inner.swap(head, expected=expected, ttl=ttl)

    def heads(self, thread: bytes | None = None, *, partition: tuple[int, int] = (0, 1)) -> Iterator[HeadRecord]:
        return self._inner.heads(thread, partition=partition)

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        self._inner.extend(keys, heads=heads, ttl=ttl)

    def keys(self, *, partition: tuple[int, int] = (0, 1)) -> Iterator[bytes]:
        return self._inner.keys(partition=partition)

    def incarnation(self) -> object:
        return self._inner.incarnation()

    def settled(self) -> bytes:
        return self._inner.settled()

    def reclaim(self) -> int:
        return self._inner.reclaim()

    def close(self) -> None:
        """Nothing: the store below stays open."""


class Overlay:
    """Reads through to a store that never sees a change. For one thread of one process."""

    def __init__(self, below: RecordStore) -> None:
        self._below = below
        self._log: dict[bytes, bytes | None] = {}
        """What was created, emptied, or (None) removed here."""
        self._heads: dict[bytes, HeadRecord] = {}
        self._read: dict[bytes, int] = {}
        """The revision of each head of the store below, when it was last read before it was changed here."""

    @property
    def capabilities(self) -> Capabilities:
        return self._below.capabilities

    def setup(self, *, ttl: bool = False) -> list[Finding]:
        """Nothing: the store below is not to be changed."""
        return []

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        created = []
        for key, value in records:
            created.append(self.get_many([key]) == [None])
            if created[-1]:
                self._log[key] = value
        return created

    def create_all(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> bool:
        if any(found is not None for found in self.get_many([key for key, _ in records])):
            return False
        self._log.update(records)
        return True

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        below = [key for key in keys if key not in self._log]
        found = dict(zip(below, self._below.get_many(below), strict=True)) if below else {}
        return [self._log[key] if key in self._log else found[key] for key in keys]

    def get_head(self, key: bytes) -> HeadRecord | None:
        if key in self._heads:
            return self._heads[key]
        head = self._below.get_head(key)
        if head is not None:
            self._read[key] = head.revision
        return head

    def is_overtaken(self) -> bool:
        """Whether a head has moved since it was changed here: what it named may be removed from the store below."""
        now = {key: self._below.get_head(key) for key in self._heads}
        return any(head is None or head.revision != self._read.get(key) for key, head in now.items())

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        stored = self.get_head(head.key)
        if (stored.revision if stored else None) != expected:
            return False
        self._heads[head.key] = head
        return True

    def heads(self, thread: bytes | None = None, *, partition: tuple[int, int] = (0, 1)) -> Iterator[HeadRecord]:
        below = (head for head in self._below.heads(thread, partition=partition) if head.key not in self._heads)
        here = (h for h in self._heads.values() if thread in (None, h.thread) and in_partition(h.key, partition))
        return chain(below, here)

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        """Nothing: nothing expires here."""

    def remove_many(self, keys: Iterable[bytes]) -> None:
        self._log.update(dict.fromkeys(keys))

    def empty_many(self, keys: Iterable[bytes]) -> None:
        listed = list(keys)
        self._log.update({k: b"" for k, v in zip(listed, self.get_many(listed), strict=True) if v is not None})

    def keys(self, *, partition: tuple[int, int] = (0, 1)) -> Iterator[bytes]:
        below = (key for key in self._below.keys(partition=partition) if key not in self._log)
        here = (key for key, value in self._log.items() if value is not None and in_partition(key, partition))
        return chain(below, here)

    def incarnation(self) -> object:
        return self._below.incarnation()

    def settled(self) -> bytes:
        return self._below.settled()

    def reclaim(self) -> int:
        """Nothing to do, always 0."""
        return 0

    def close(self) -> None:
        """Nothing: the store below stays open."""


def _pieces(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    iterator = iter(keys)
    while piece := list(islice(iterator, _AT_ONCE)):
        yield piece
