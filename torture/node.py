"""A model of an Aerospike Community node in memory: what a crash does to records that its devices have not taken yet.

A write is acknowledged when it is in memory. Records hash to devices, and each device takes writes in order. Removing a
record leaves it on its device (there are no tombstones), and a cold start brings it back.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from foldpoint.engine.keys import kind_of
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import Capabilities, HeadRecord

DEVICES = 3
_RETURNING = 0.5
"""Of the records that were removed, so many come back."""
_TORN = 0.5
"""Of the writes that devices were about to take, if they were derived from others."""
DERIVED = (b"s", b"i", b"p", b"k")
"""The kinds of records that tell what others do: segments, spans and snapshots."""

Entry = tuple[bytes, float | None]
HeadEntry = tuple[HeadRecord, float | None]


def tear(value: bytes) -> bytes:
    """A value of which something in its midst was not written."""
    at = len(value) // 2
    return value[:at] + bytes([value[at] ^ 0xFF]) + value[at + 1 :]


class Node(MemoryStore):
    """A store that can lose power. A head and its stream's records mostly lie on different devices."""

    def __init__(self, max_record: int = 1 << 20) -> None:
        super().__init__(max_record=max_record)
        self._written: list[list[tuple[bytes, Entry | HeadEntry | None]]] = [[] for _ in range(DEVICES)]
        self._on_devices: dict[bytes, Entry | HeadEntry] = {}
        self._removed: dict[bytes, Entry] = {}
        self._crashes = 0

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, ordered=False)

    def incarnation(self) -> object:
        return self._crashes

    def flush(self) -> None:
        """Let the devices take all that was written so far."""
        for device, writes in enumerate(self._written):
            self._take(device, len(writes))

    def crash(self, chance: random.Random) -> None:
        """Lose what each device has not taken, a suffix of its writes, and start again from the devices.

        The first of what it has not taken may be torn: there, and not what was written.
        """
        self._crashes += 1
        for device, writes in enumerate(self._written):
            self._take(device, chance.randint(0, len(writes)))
            if writes and chance.random() < _TORN:
                self._tear(*writes[0])
            writes.clear()
        self._log = {key: entry for key, entry in self._on_devices.items() if isinstance(entry[0], bytes)}
        self._heads = {key: entry for key, entry in self._on_devices.items() if isinstance(entry[0], HeadRecord)}
        for key, entry in sorted(self._removed.items()):
            if key not in self._log and chance.random() < _RETURNING:
                self._log[key] = self._on_devices[key] = entry

    def _take(self, device: int, count: int) -> None:
        for key, entry in self._written[device][:count]:
            before = self._on_devices.pop(key, None)
            if entry is not None:
                self._on_devices[key] = entry
            elif before is not None and isinstance(before[0], bytes):
                self._removed[key] = before
        del self._written[device][:count]

    def _tear(self, key: bytes, entry: Entry | HeadEntry | None) -> None:
        if entry is not None and isinstance(entry[0], bytes) and entry[0] and kind_of(key) in DERIVED:
            self._on_devices[key] = tear(entry[0]), entry[1]

    # -- what is written -----------------------------------------------------------------------------------------------

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        created = super().create(records, ttl=ttl)
        self._note(key for (key, _), new in zip(records, created, strict=True) if new)
        return created

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        swapped = super().swap(head, expected=expected, ttl=ttl)
        if swapped:
            self._note([head.key])
        return swapped

    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        extended = [*keys], [*heads]
        super().extend(extended[0], heads=extended[1], ttl=ttl)
        self._note([*extended[0], *extended[1]])

    def remove_many(self, keys: Iterable[bytes]) -> None:
        removed = list(keys)
        super().remove_many(removed)
        self._note(removed)

    def empty_many(self, keys: Iterable[bytes]) -> None:
        emptied = list(keys)
        super().empty_many(emptied)
        self._note(emptied)

    def _note(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._written[zlib.crc32(key) % DEVICES].append((key, self._heads.get(key) or self._log.get(key)))
