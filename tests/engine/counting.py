"""A store that counts what is asked of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from foldpoint.engine.records import Capabilities, Finding, HeadRecord, RecordStore

ROUND_TRIPS = ("create", "create_all", "get_many", "get_head", "swap", "heads", "extend", "remove_many", "empty_many")


class CountingStore:
    """Delegates every verb to `inner`; `calls` counts them by name. Safe under the threads of CPython."""

    def __init__(self, inner: RecordStore) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()

    @property
    def round_trips(self) -> int:
        """Calls that go to a server, were there one: each counts once, whatever its length."""
        return sum(self.calls[verb] for verb in ROUND_TRIPS)

    def reset(self) -> None:
        self.calls.clear()

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def setup(self, *, ttl: bool = False) -> list[Finding]:
        self.calls["setup"] += 1
        return self.inner.setup(ttl=ttl)

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        self.calls["create"] += 1
        return self.inner.create(records, ttl=ttl)

    def create_all(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> bool:
        self.calls["create_all"] += 1
        return self.inner.create_all(records, ttl=ttl)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.calls["get_many"] += 1
        return self.inner.get_many(keys)

    def get_head(self, key: bytes) -> HeadRecord | None:
        self.calls["get_head"] += 1
        return self.inner.get_head(key)

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        self.calls["swap"] += 1
        return self.inner.swap(head, expected=expected, ttl=ttl)

    def heads(self, thread: bytes | None = None, *, partition: tuple[int, int] = (0, 1)) -> Iterator[HeadRecord]:
        self.calls["heads"] += 1
        return self.inner.heads(thread, partition=partition)

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        self.calls["extend"] += 1
        self.inner.extend(keys, heads=heads, ttl=ttl)

    def remove_many(self, keys: Iterable[bytes]) -> None:
        self.calls["remove_many"] += 1
        self.inner.remove_many(keys)

    def empty_many(self, keys: Iterable[bytes]) -> None:
        self.calls["empty_many"] += 1
        self.inner.empty_many(keys)

    def keys(self, *, partition: tuple[int, int] = (0, 1)) -> Iterator[bytes]:
        self.calls["keys"] += 1
        return self.inner.keys(partition=partition)

    def incarnation(self) -> object:
        return self.inner.incarnation()

    def settled(self) -> bytes:
        self.calls["settled"] += 1
        return self.inner.settled()

    def reclaim(self) -> int:
        self.calls["reclaim"] += 1
        return self.inner.reclaim()

    def close(self) -> None:
        self.calls["close"] += 1
        self.inner.close()


class NarrowStore(CountingStore):
    """A store that says to take no larger records than `max_record`, so that small values come in many parts."""

    def __init__(self, inner: RecordStore, max_record: int) -> None:
        super().__init__(inner)
        self._capabilities = replace(inner.capabilities, max_record=min(max_record, inner.capabilities.max_record))

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities
