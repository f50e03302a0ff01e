"""With an EncryptedSerializer nothing that a user said is readable in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import chain, config, id_of, ids, put
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import compact
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import CorruptRecord

SECRET = "the quick brown fox"


def cipher(key: bytes = b"k" * 16) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


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
    for serde, reason in ((cipher(b"x" * 16), "does not decrypt"), (None, "no cipher")):
        with pytest.raises(CorruptRecord, match=reason):
            FoldpointSaver(Engine(store, Settings()), serde=serde).get_tuple(config())


def test_plain_records_are_refused_in_an_encrypted_store_unless_allowed() -> None:
    store = MemoryStore()
    put(FoldpointSaver(Engine(store, Settings())), None, {"a": 1})
    with pytest.raises(CorruptRecord, match="not encrypted"):
        FoldpointSaver(Engine(store, Settings()), serde=cipher()).get_tuple(config())
    migrating = Engine(store, Settings()).with_cipher(cipher().cipher, allow_plain=True)
    assert migrating.latest("thread", "") is not None


def test_the_serializer_may_be_replaced_after_construction(tmp_path: Path) -> None:
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a.db") as saver:
        plain = put(saver, None, {"a": 1}, thread="plain")
        saver.serde = cipher()
        sealed = put(saver, None, {"a": SECRET}, thread="sealed")
        assert ids(saver, config("sealed")) == [id_of(sealed)]
        clone = saver.with_allowlist([("builtins", "set")])
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
