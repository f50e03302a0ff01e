"""Damage is an error that names the record: never nothing, never an old or a partial state."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import pytest
from checkpoints import id_of, numbered, numbers, value, write
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint import Engine, Settings
from foldpoint.codecs import envelope
from foldpoint.codecs.envelope import Cipher
from foldpoint.codecs.model import Write
from foldpoint.compaction import upkeep
from foldpoint.engine import keys
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


@pytest.mark.parametrize(("kind", "how"), [case for case in product("esp", DAMAGES) if case != ("p", "emptied")])
def test_a_damaged_record_is_named_and_other_streams_are_unharmed(store: Damaged, kind: str, how: str) -> None:
    key = needed(store, kind)
    store.damage(key, DAMAGES[how])
    with pytest.raises(RecordError) as caught:
        numbers(Engine(store))
    assert caught.value.key == key
    assert key.hex() in str(caught.value)
    assert numbers(Engine(store), "fine") == list(range(41, -1, -1))


@pytest.mark.parametrize("how", [DAMAGES["emptied"], None])
def test_a_snapshot_that_was_emptied_or_is_gone_is_restored_from_the_log(store: Damaged, how: Damage | None) -> None:
    store.damage(needed(store, "p"), how)
    assert numbers(Engine(store)) == list(range(41, -1, -1))


def test_a_missing_segment_is_named_where_its_events_are_gone_too(store: Damaged) -> None:
    key = needed(store, "s")
    store.damage(key, None)
    store.damage(min(event for event in store.kinds()["e"] if keys.epoch_of(event) == keys.epoch_of(key)), None)
    with pytest.raises(CorruptRecord) as caught:
        numbers(Engine(store))
    assert caught.value.key == key


@pytest.mark.parametrize("kind", ["e", "s", "p"])
def test_a_record_of_a_newer_format_says_to_upgrade(store: Damaged, kind: str) -> None:
    key = needed(store, kind)

    def newer(record: bytes) -> bytes:
        start = bytes([record[0] + 1, record[1]])
        return start + envelope._checksum(key, start, record[6:]) + record[6:]

    store.damage(key, newer)
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


# -- every record, every byte ------------------------------------------------------------------------------------------


def cipher(key: bytes = b"0123456789abcdef") -> Cipher:
    return EncryptedSerializer.from_pycryptodome_aes(key=key).cipher


@dataclass
class Small:
    """A store in which records of every kind occur, and what its streams hold."""

    store: Damaged
    cipher: Cipher | None
    expected: dict[str, list[object]] = field(default_factory=dict)

    def engine(self) -> Engine:
        return Engine(self.store, Settings(window=4), cipher=self.cipher)

    def held(self, thread: str) -> list[object]:
        """Everything that can be read of a thread."""
        return [
            (entry.folded.header, entry.folded.labels, entry.state(), entry.writes())
            for entry in self.engine().history(thread, "")
        ]

    def key_of(self, thread: str) -> bytes:
        return next(record.key for record in self.store.heads() if record.thread == thread.encode())


@pytest.fixture(params=[None, cipher()], ids=["plain", "encrypted"])
def small(request: pytest.FixtureRequest) -> Small:
    made = Small(Damaged(max_record=400), request.param)
    engine = made.engine()
    for thread in ("t", "fine"):
        for n in range(27):
            noise = random.Random(n // 9).randbytes(500 if n % 9 == 0 else 10)
            engine.put(thread, "", replace(numbered(n % 5, noise=noise.hex()), header=numbered(n).header))
            engine.put(thread, "", numbered(n % 5, again=n))  # one of the first five, put again
        engine.put_writes(thread, "", id_of(26), [write(1)])
        made.expected[thread] = made.held(thread)
    assert set(made.store.kinds()) >= {"e", "s", "k", "b"}
    return made


def named_by_reading(small: Small) -> bytes | None:
    """The key that the error of reading thread t names; None if all reads as it was put."""
    try:
        held = small.held("t")
    except RecordError as error:
        return error.key
    assert held == small.expected["t"]
    return None


def needed_by_history(small: Small) -> list[bytes]:
    """The keys that reading all of thread t asks for and finds: sealed events and old snapshots are not among them."""
    head = next(small.engine().heads("t"))
    asked: set[bytes] = set()
    get_many = small.store.get_many

    def noting(wanted: Sequence[bytes]) -> list[bytes | None]:
        asked.update(wanted)
        return get_many(wanted)

    small.store.get_many = noting  # type: ignore[method-assign]
    small.held("t")
    small.store.get_many = get_many  # type: ignore[method-assign]
    found = [key for key in small.store._log if key in asked and key.startswith(head.epoch)]
    assert {chr(key[16]) for key in found} >= {"e", "s", "k", "b"}
    return found


def test_a_damaged_byte_anywhere_is_noticed_and_named(small: Small) -> None:
    for key in needed_by_history(small):
        record = small.store._log[key]
        for at in {0, 1, 2, 5, 6, 7, len(record[0]) // 2, len(record[0]) - 1}:
            damaged = bytearray(record[0])
            damaged[at] ^= 1 << at % 8
            small.store._log[key] = (bytes(damaged), record[1])
            assert named_by_reading(small) == key
        small.store._log[key] = record
    assert small.held("t") == small.expected["t"]


def test_a_record_cut_anywhere_is_noticed_and_named(small: Small) -> None:
    for key in needed_by_history(small):
        record = small.store._log[key]
        for size in {0, 1, 2, 5, 6, 7, len(record[0]) // 2, len(record[0]) - 1}:
            small.store._log[key] = (record[0][:size], record[1])
            assert named_by_reading(small) == (None if size == 0 and key[16:17] in (b"p", b"k") else key)
        small.store._log[key] = record


def test_a_missing_record_is_restored_or_named_unless_it_was_the_last(small: Small) -> None:
    found = needed_by_history(small)
    last = max(key for key in found if key[16:17] == b"e")
    before = {**small.store._log}
    parts_of = small.engine().io.parts_of
    events = {part: key for key in before if key[16:17] == b"e" for part in (key, *parts_of([key]))}
    for key in found:
        del small.store._log[key]
        if key == last:
            # Nothing tells a last event that was lost from one that was never put.
            assert small.held("t") != small.expected["t"]
        else:
            assert named_by_reading(small) == events.get(key)
        small.store._log = {**before}


def test_a_record_in_the_place_of_another_of_its_kind_is_noticed_and_named(small: Small) -> None:
    found = needed_by_history(small)
    for key in found:
        record = small.store._log[key]
        other = next((k for k in small.store._log if k != key and k[16] == key[16]), None)
        assert other is not None
        small.store._log[key] = small.store._log[other]
        assert named_by_reading(small) == key
        small.store._log[key] = record


def test_damage_of_one_thread_leaves_the_others_readable_and_writable(small: Small) -> None:
    for key in needed_by_history(small):
        small.store.damage(key, lambda record: record[:-1])
    assert small.held("fine") == small.expected["fine"]
    small.engine().put("fine", "", numbered(40, 26))
    assert small.held("fine")[1:] == small.expected["fine"]


def test_no_byte_of_a_head_can_change_unnoticed(small: Small) -> None:
    key = small.key_of("t")
    stored, expires = small.store._heads[key]
    for at in range(len(stored.value)):
        damaged = bytearray(stored.value)
        damaged[at] ^= 1 << at % 8
        small.store._heads[key] = (replace(stored, value=bytes(damaged)), expires)
        with pytest.raises(RecordError) as caught:
            small.held("t")
        assert caught.value.key == key
    other, _ = small.store._heads[small.key_of("fine")]
    small.store._heads[key] = (replace(stored, value=other.value), expires)
    with pytest.raises(CorruptRecord) as caught:
        small.held("t")
    assert caught.value.key == key
    assert small.held("fine") == small.expected["fine"]


def test_a_thread_without_a_head_does_not_exist(small: Small) -> None:
    """Nothing tells a head that was lost from one that never was: so heads are never removed (docs/DESIGN.md)."""
    del small.store._heads[small.key_of("t")]
    assert small.held("t") == []
    assert small.engine().latest("t", "") is None
    assert small.held("fine") == small.expected["fine"]


def test_writing_after_damage_is_refused_rather_than_built_on_it(small: Small) -> None:
    engine = small.engine()
    head = next(engine.heads("t"))
    assert head.snapshot is not None
    (key, *_) = keys.snapshot_parts(head.epoch, head.snapshot)
    small.store.damage(key, lambda record: record[:-1])
    with pytest.raises(CorruptRecord) as caught:
        engine.put("t", "", numbered(40, 26))
    assert caught.value.key == key


# -- encryption --------------------------------------------------------------------------------------------------------


def test_a_wrong_key_reads_nothing_and_says_which_record_does_not_open() -> None:
    store = Damaged()
    Engine(store, cipher=cipher()).put("t", "", numbered(3))
    (key,) = store.kinds()["e"]
    for wrong in (cipher(b"another 16 bytes"), None):
        with pytest.raises(CorruptRecord) as caught:
            Engine(store, cipher=wrong).latest("t", "")
        assert caught.value.key == key


def test_plain_records_are_refused_by_an_encrypted_store_unless_it_is_being_migrated() -> None:
    store = Damaged()
    Engine(store).put("t", "", numbered(3))
    (key,) = store.kinds()["e"]
    with pytest.raises(CorruptRecord, match="not encrypted") as caught:
        Engine(store, cipher=cipher()).latest("t", "")
    assert caught.value.key == key
    migrating = Engine(store, Settings(allow_plain=True), cipher=cipher())
    migrating.put("t", "", numbered(4))
    assert numbers(migrating) == [4, 3]


def test_no_record_of_an_encrypted_stream_shows_its_values() -> None:
    store = Damaged(max_record=400)
    engine = Engine(store, Settings(window=4), cipher=cipher())
    for n in range(20):
        engine.put("t", "", numbered(n, secret=f"the secret {n} " * 40))
        engine.put_writes("t", "", id_of(n), [Write("task", 0, "secret", value("the secret"))])
    upkeep(engine, "t", "")
    everything = b"".join(record for record, _ in store._log.values())
    assert b"secret" not in everything
    assert b"list" not in everything
