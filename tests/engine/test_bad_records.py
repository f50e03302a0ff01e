"""Damage is an error that names the record: never nothing, never an old or a partial state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from checkpoints import id_of, numbered, numbers, write

from foldpoint import Engine, Settings
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import CorruptRecord, RecordError, UnsupportedFormat

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda record: record[: len(record) // 2],
    "emptied": lambda record: b"",
    "one bit flipped": lambda record: record[:-1] + bytes([record[-1] ^ 1]),
    "foreign": lambda record: b"something else altogether",
}


class Damaged(MemoryStore):
    """Log records can be damaged behind everybody's back."""

    def kinds(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for key in self.keys():
            found.setdefault(chr(key[16]), []).append(key)
        return found

    def damage(self, key: bytes, how: Damage | None) -> None:
        record = self._log.pop(key)
        if how is not None:
            self._log[key] = (how(record[0]), record[1])


@pytest.fixture
def store() -> Damaged:
    store = Damaged()
    engine = Engine(store, Settings(window=8))
    for n in range(42):
        engine.put("t", "", numbered(n))
        engine.put("fine", "", numbered(n))
        if n % 5 == 0:
            engine.put_writes("t", "", id_of(n), [write(n)])
    return store


def needed(store: Damaged, kind: str) -> bytes:
    """The key of a record of thread t that reading its latest needs."""
    head = next(Engine(store).heads("t"))
    assert head.snapshot is not None
    if kind == "e":
        return max(key for key in store.kinds()["e"] if key.startswith(head.epoch))
    if kind == "p":
        return next(key for key in store.kinds()["p"] if key.startswith(head.epoch) and key[20] == head.snapshot.number)
    return min(key for key in store.kinds()["s"] if key.startswith(head.epoch))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", ["e", "s", "p"])
def test_a_damaged_record_is_named_and_other_streams_are_unharmed(store: Damaged, kind: str, how: str) -> None:
    key = needed(store, kind)
    store.damage(key, DAMAGES[how])
    with pytest.raises(RecordError) as caught:
        numbers(Engine(store))
    assert caught.value.key == key
    assert key.hex() in str(caught.value)
    assert numbers(Engine(store), "fine") == list(range(41, -1, -1))


@pytest.mark.parametrize("kind", ["s", "p"])
def test_a_missing_record_is_named(store: Damaged, kind: str) -> None:
    key = needed(store, kind)
    store.damage(key, None)
    with pytest.raises(CorruptRecord) as caught:
        numbers(Engine(store))
    assert caught.value.key == key


@pytest.mark.parametrize("kind", ["e", "s", "p"])
def test_a_record_of_a_newer_format_says_to_upgrade(store: Damaged, kind: str) -> None:
    key = needed(store, kind)
    store.damage(key, lambda record: bytes([record[0] + 1]) + record[1:])
    with pytest.raises(UnsupportedFormat, match="upgrade") as caught:
        numbers(Engine(store))
    assert caught.value.key == key


def test_a_record_under_another_key_does_not_open(store: Damaged) -> None:
    first, second = sorted(store.kinds()["e"])[-2:]
    moved = store._log[first]
    store._log[second] = moved
    (head,) = (head for head in Engine(store).heads() if second.startswith(head.epoch))
    with pytest.raises(CorruptRecord, match="written for") as caught:
        numbers(Engine(store), head.thread_id)
    assert caught.value.key == second


def test_a_damaged_head_is_an_error_and_not_a_new_thread(store: Damaged) -> None:
    engine = Engine(store)
    record = next(record for record in store.heads() if record.thread == b"t")
    stored, expires = store._heads[record.key]
    broken = stored.__class__(stored.key, stored.thread, stored.revision, stored.value[:-2])
    store._heads[record.key] = (broken, expires)
    for call in (
        lambda: engine.latest("t", ""),
        lambda: engine.find("t", "", id_of(3)),
        lambda: list(engine.history("t", "")),
        lambda: engine.put("t", "", numbered(99)),
    ):
        with pytest.raises(CorruptRecord) as caught:
            call()
        assert caught.value.key == record.key
    assert numbers(Engine(store), "fine") == list(range(41, -1, -1))
