"""The model of a node loses what its devices have not taken, and nothing else; and brings back what was removed."""

from __future__ import annotations

import random

from checkpoints import id_of, numbered

from foldpoint import Engine, Settings
from foldpoint.compaction import DropAll, rewrite_thread, upkeep
from foldpoint.engine.keys import kind_of
from foldpoint.engine.records import HeadRecord
from torture.clock import MovingClock
from torture.node import Node


def head(revision: int) -> HeadRecord:
    return HeadRecord(b"h", b"t", revision, b"%d" % revision)


def test_what_the_devices_took_outlives_a_crash() -> None:
    node = Node()
    node.create([(b"%d" % n, b"value") for n in range(50)], ttl=None)
    node.swap(head(1), expected=None, ttl=None)
    node.flush()
    node.crash(random.Random(0))
    assert len(list(node.keys())) == 50
    assert node.get_head(b"h") == head(1)


def test_a_crash_loses_the_last_writes_of_each_device_and_heads_become_older() -> None:
    seen, revisions = set(), set()
    for seed in range(60):
        node = Node()
        node.swap(head(1), expected=None, ttl=None)
        node.flush()
        for n in range(12):
            node.create([(b"%d" % n, b"value")], ttl=None)
        node.swap(head(2), expected=1, ttl=None)
        node.crash(random.Random(seed))
        seen.add(len(list(node.keys())))
        found = node.get_head(b"h")
        assert found is not None
        revisions.add(found.revision)
    assert len(seen) > 5
    assert revisions == {1, 2}


def test_a_crash_tears_segments_and_snapshots_that_devices_were_about_to_take() -> None:
    torn, epoch = 0, bytes(16)
    for seed in range(40):
        node = Node()
        records = [(epoch + kind + b"%d" % n, b"value") for n in range(4) for kind in (b"e", b"s", b"p")]
        node.create(records, ttl=None)
        node.crash(random.Random(seed))
        found = dict(zip(node.keys(), node.get_many([*node.keys()]), strict=True))
        harmed = [key for key, value in found.items() if value != b"value"]
        assert {kind_of(key) for key in harmed} <= {b"s", b"p"}
        assert len(harmed) <= 3
        torn += len(harmed)
    assert torn > 5


def test_what_was_removed_comes_back() -> None:
    returned = 0
    for seed in range(20):
        node = Node()
        node.create([(b"k", b"value")], ttl=None)
        node.flush()
        node.remove_many([b"k"])
        node.flush()
        assert node.get_many([b"k"]) == [None]
        node.crash(random.Random(seed))
        returned += node.get_many([b"k"]) == [b"value"]
    assert 0 < returned < 20


def test_a_deleted_thread_stays_deleted_though_its_records_come_back() -> None:
    clock, node = MovingClock(), Node()
    engine = Engine(node, Settings(window=4), clock=clock)
    for n in range(20):
        engine.put("t", "", numbered(n))
    node.flush()
    rewrite_thread(engine, "t", DropAll())
    for _ in range(2):
        clock.advance(601)
        upkeep(engine, "t", "")
    assert list(node.keys()) == []
    node.flush()
    node.crash(random.Random(1))
    assert list(node.keys()) != []
    fresh = Engine(node, Settings(window=4), clock=clock)
    assert fresh.latest("t", "") is None
    assert fresh.find("t", "", id_of(3)) is None
    assert list(fresh.history("t", "")) == []
