"""A flipped bit or a cut-off end of any kind of record: what is read is right, or refused with a typed error.

Every bit of every envelope and some of the contents; `python -m torture flips` takes them all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from foldpoint.codecs.envelope import Cipher
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from torture.flips import check, copied, damages, encrypted, in_memory
from torture.small import MAX_RECORD, Small, record, small

KINDS = [
    *("event", "emptied event", "part", "snapshot", "kept snapshot", "head", "tombstone", "look"),
    *(f"segment of level {level}" for level in (1, 2, 3)),
    *(f"span of level {level}" for level in (2, 3)),
]
STRIDE = 211  # of the content's bits


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "foldpoint")  # it warns of what it restores


@pytest.fixture(scope="module", params=[None, encrypted()], ids=["plain", "encrypted"])
def made(request: pytest.FixtureRequest) -> Small:
    return small(in_memory(), request.param)


def test_every_kind_of_record_is_there(made: Small) -> None:
    assert {*made.places()} == {*KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_to_a_record_is_ever_read_as_something_else(made: Small, kind: str) -> None:
    key = made.places()[kind][0]
    if record(made.store, key):
        some = [*damages(record(made.store, key), STRIDE)][:: 1 if made.cipher is None else 12]
        refused = [check(made, copied(made, in_memory()), key, damage, compact=at % 24 == 0)
                   for at, damage in enumerate(some)]  # fmt: skip
        assert any(refused) or kind in UNREAD


UNREAD = {"look", "event", "part", "span of level 2"}
"""Kinds of which the first record may be one that no reader needs any more, or that is restored."""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[RecordStore]:
    store = SqliteStore(tmp_path / "store.db", synchronous="OFF")
    yield store
    store.close()


@pytest.mark.parametrize("cipher", [None, encrypted()], ids=["plain", "encrypted"])
def test_nor_is_it_in_a_file(file: RecordStore, cipher: Cipher | None) -> None:
    made = small(in_memory(), cipher)
    copied(made, file)
    for kind, keys in made.places().items():
        for damage in list(damages(record(made.store, keys[-1]), 999))[::9]:
            if not kind.startswith("emptied"):
                check(made, file, keys[-1], damage, compact=False)
    assert file.capabilities.max_record > MAX_RECORD
