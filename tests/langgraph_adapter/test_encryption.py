"""With an EncryptedSerializer nothing that a user said is readable in the store."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from building import chain, config, id_of, ids, put
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.codecs.envelope import PART, is_encrypted
from foldpoint.compaction import compact, reseal_thread
from foldpoint.compaction.verify import verify
from foldpoint.engine import keys
from foldpoint.engine.keyring import Keyring
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import CorruptRecord

SECRET = "the quick brown fox"


def cipher(key: bytes = b"k" * 16) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


def records(store: Any) -> list[tuple[bytes, bytes]]:
    wanted = list(store.keys())
    return [(key, record) for key, record in zip(wanted, store.get_many(wanted), strict=True) if record]


def placed(key: bytes, record: bytes) -> bytes:
    """The same content under another key, with the checksum that belongs there."""
    start, content = record[:2], record[6:]
    return start + zlib.crc32(content, zlib.crc32(start, zlib.crc32(key))).to_bytes(4, "big") + content


def on_disk(path: Path) -> bytes:
    """The file and its write-ahead log."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_no_byte_of_what_was_said_is_ever_on_disk(tmp_path: Path, encrypted: bool) -> None:
    """Random bytes, which compression leaves as they are; without encryption they are found."""
    path, serde = tmp_path / "a.db", cipher() if encrypted else None
    value, metadata, write = (random.Random(seed).randbytes(24) for seed in range(3))
    with FoldpointSaver.from_conn_string(f"sqlite:///{path}", serde=serde, window=8, compaction="off") as saver:
        where = put(saver, None, {"a": value}, note=metadata)
        saver.put_writes(where, [("a", write)], "task")
        logged = [secret in on_disk(path) for secret in (value, metadata, write)]
        assert logged == [not encrypted] * 3
        line = chain(saver, 30, thread="other")
        saver.prune(["other"], keep_last=3)
        saver.copy_thread("thread", "copy")
        for round_ in range(2):
            assert list(compact(saver.engine, grace=0))
            compacted = [secret in on_disk(path) for secret in (value, metadata, write)]
            assert compacted == [not encrypted] * 3, round_
        assert ids(saver, config("other"))[0] == id_of(line[-1])


def test_a_record_moved_to_another_thread_or_position_is_refused() -> None:
    store = MemoryStore()
    with FoldpointSaver(Engine(store, Settings()), serde=cipher()) as saver:
        for thread in ("mine", "yours"):
            put(saver, None, {"a": thread}, thread=thread)
        mine, yours = (next(saver.engine.heads(thread)).epoch for thread in ("mine", "yours"))
        [record] = store.get_many([keys.event(mine, 1)])
        assert record is not None
        moved = {keys.event(yours, 2): "yours", keys.event(mine, 2): "mine"}
        for key, thread in moved.items():
            store.create([(key, placed(key, record))], ttl=None)
            with pytest.raises(CorruptRecord, match="sealed for another key"):
                FoldpointSaver(Engine(store, Settings()), serde=cipher()).get_tuple(config(thread))


def test_nothing_of_values_metadata_or_writes_is_in_the_file(tmp_path: Path) -> None:
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a.db", serde=cipher(), window=8) as saver:
        where = None
        for step in range(30):
            where = put(saver, where, {f"{SECRET} {step}": [SECRET] * step}, step=step, note=SECRET)
            saver.put_writes(where, [(SECRET, SECRET)], SECRET, SECRET)
        assert list(compact(saver.engine, grace=0))
        for path in tmp_path.iterdir():
            assert SECRET.encode() not in path.read_bytes()
            assert b"brown" not in path.read_bytes()
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a.db", serde=cipher()) as saver:
        assert [found.metadata["note"] for found in saver.list(config())] == [SECRET] * 30  # type: ignore[typeddict-item]
        found = saver.get_tuple(config())
        assert found is not None
        assert found.checkpoint["channel_values"] == {f"{SECRET} 29": [SECRET] * 29}
        assert found.pending_writes == [(SECRET, SECRET, SECRET)]


def test_a_wrong_key_and_a_missing_key_are_typed_errors() -> None:
    store = MemoryStore()
    put(FoldpointSaver(Engine(store, Settings()), serde=cipher()), None, {"a": 1})
    for serde, reason in ((cipher(b"x" * 16), "does not decrypt"), (None, "there is no key")):
        with pytest.raises(CorruptRecord, match=reason):
            FoldpointSaver(Engine(store, Settings()), serde=serde).get_tuple(config())


def test_plain_records_are_refused_in_an_encrypted_store_unless_allowed() -> None:
    store = MemoryStore()
    put(FoldpointSaver(Engine(store, Settings())), None, {"a": 1})
    with pytest.raises(CorruptRecord, match="not encrypted"):
        FoldpointSaver(Engine(store, Settings()), serde=cipher()).get_tuple(config())
    with FoldpointSaver(Engine(store, Settings(allow_plain=True)), serde=cipher()) as migrating:
        assert len(ids(migrating, config())) == 1


def test_a_plain_record_put_among_sealed_ones_is_refused() -> None:
    """Whoever may write to the store, and has no key, can bring in nothing."""
    store = MemoryStore()
    with FoldpointSaver(Engine(store, Settings()), serde=cipher()) as saver:
        first = put(saver, None, {"a": 1})
        forger = FoldpointSaver(Engine(MemoryStore(), Settings()))
        put(forger, None, {"a": "forged"})
        [[_, forged]] = records(forger.engine.store)
        head = next(saver.engine.heads("thread"))
        key = keys.event(head.epoch, 2)
        store.create([(key, placed(key, forged))], ttl=None)
        with pytest.raises(CorruptRecord, match="not encrypted"):
            FoldpointSaver(Engine(store, Settings()), serde=cipher()).get_tuple(first)


OLD, NEW = b"o" * 16, b"n" * 16


def test_a_key_is_changed_by_writing_every_record_again() -> None:
    store = MemoryStore()
    with FoldpointSaver(Engine(store, Settings(window=4)), serde=cipher(OLD)) as saver:
        line = chain(saver, 20)
        saver.put_writes(line[-1], [("a", SECRET)], "task")
        below = chain(saver, 6, namespace="child")
        before = list(saver.list(config("thread", None)))
    ring = EncryptedSerializer(Keyring(cipher(NEW).cipher, cipher(OLD).cipher))
    with FoldpointSaver(Engine(store, Settings(window=4)), serde=ring) as saver:
        line.append(put(saver, line[-1], {"n": 20}, step=20))
        assert [report.outdated for report in reseal_thread(saver.engine, "thread")] == [False, False]
        assert list(compact(saver.engine, grace=0))
        line.append(put(saver, line[-1], {"n": 21}, step=21))
    with FoldpointSaver(Engine(store, Settings()), serde=cipher(NEW)) as saver:
        assert ids(saver, config()) == [id_of(where) for where in reversed(line)]
        assert ids(saver, config("thread", "child")) == [id_of(where) for where in reversed(below)]
        assert [found for found in saver.list(config("thread", None)) if found in before] == before
        assert not any(verified.findings for verified in verify(saver.engine))
    with pytest.raises(CorruptRecord, match="does not decrypt"):
        FoldpointSaver(Engine(store, Settings()), serde=cipher(OLD)).get_tuple(config())


def test_a_plain_store_becomes_an_encrypted_one() -> None:
    store = MemoryStore()
    with FoldpointSaver(Engine(store, Settings(window=4))) as saver:
        line = chain(saver, 20)
    with FoldpointSaver(Engine(store, Settings(window=4, allow_plain=True)), serde=cipher()) as saver:
        assert list(reseal_thread(saver.engine, "thread"))
        assert list(compact(saver.engine, grace=0))
    # A snapshot lies in pieces of a record that is sealed as a whole.
    assert all(is_encrypted(record) or record[1] >> 4 == PART for _, record in records(store))
    with FoldpointSaver(Engine(store, Settings()), serde=cipher()) as saver:
        assert ids(saver, config()) == [id_of(where) for where in reversed(line)]
        assert not any(verified.findings for verified in verify(saver.engine))


def test_the_serializer_may_be_replaced_after_construction(tmp_path: Path) -> None:
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a.db") as saver:
        plain = put(saver, None, {"a": 1}, thread="plain")
        saver.serde = cipher()
        sealed = put(saver, None, {"a": SECRET}, thread="sealed")
        assert ids(saver, config("sealed")) == [id_of(sealed)]
        clone = saver.with_allowlist([("builtins", "set")])
        assert clone.engine is saver.engine
        assert ids(clone, config("sealed")) == [id_of(sealed)]
        saver.serde = FoldpointSaver(saver.engine).serde
        assert ids(saver, config("plain")) == [id_of(plain)]


def test_encrypted_threads_are_pruned_copied_and_compacted() -> None:
    store = MemoryStore()
    with FoldpointSaver(Engine(store, Settings(window=4)), serde=cipher()) as saver:
        line = chain(saver, 20)
        saver.copy_thread("thread", "copy")
        saver.prune(["thread"], keep_last=2)
        assert ids(saver, config()) == [id_of(line[-1]), id_of(line[-2])]
        assert len(ids(saver, config("copy"))) == 20
