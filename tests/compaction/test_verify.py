"""The checker finds every damage, mends what follows from other records, and says nothing of what is sound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from checkpoints import id_of, numbered, numbers, write

from foldpoint import Engine, Settings
from foldpoint.codecs.envelope import HEAD, SEGMENT, SPAN, deflate, seal
from foldpoint.codecs.head import Extent, Head, encode_head
from foldpoint.codecs.segment import Segment, decode_snapshot, encode_segment, encode_snapshot, encode_span
from foldpoint.compaction import merge as merging
from foldpoint.compaction.clean import clean
from foldpoint.compaction.merge import merge
from foldpoint.compaction.verify import Finding, verify, verify_stream
from foldpoint.engine import keys
from foldpoint.engine.layout import Layout
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import Capabilities, HeadRecord


class Nodes(MemoryStore):
    """Whose crashes do not keep the order of writes: nothing is emptied at once."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, ordered=False)

    def damage(self, key: bytes, change: Callable[[bytes], bytes]) -> None:
        self._log[key] = (change(self._log[key][0]), None)

    def of(self, kind: bytes) -> list[bytes]:
        return sorted(key for key in self._log if key[16:].startswith(kind))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """A thread with segments on all levels, kept snapshots, late events, and sealed events within the grace."""
    monkeypatch.setattr(merging, "FANOUT", 3)
    monkeypatch.setattr(merging, "WORTHWHILE", 0)
    monkeypatch.setattr(merging, "MAX_EVENTS", 50)
    store = Nodes()
    engine = Engine(store, Settings(window=8, segment_level=1, snapshot_ratio=1.0))
    for n in range(200):
        engine.put("t", "", numbered(n))
        engine.put_writes("t", "", id_of(n), [write(n)])
        if n % 7 == 6:
            engine.put_writes("t", "", id_of(n // 2), [write(n, "late")])
    log = engine.reader("t", "")
    log.seal()
    merge(log, idle=True)
    clean(log, 0)
    monkeypatch.setattr(merging, "WORTHWHILE", 1 << 30)
    for n in range(200, 240):
        engine.put("t", "", numbered(n))
    log.seal()
    merge(log, idle=True)
    for n in range(240, 250):
        engine.put("t", "", numbered(n))
    engine.put("other", "", numbered(0))
    return store


def found(store: Nodes, *, repair: bool = False) -> list[Finding]:
    return [finding for verified in verify(Engine(store), repair=repair) for finding in verified.findings]


def flip(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


def head_of(store: Nodes) -> Head:
    return next(Engine(store).heads("t"))


def test_a_superseded_event_that_lost_a_part_is_as_good_as_gone_and_the_rest_is_looked_at() -> None:
    """Its removal was broken off."""
    store = Nodes(max_record=2000)
    engine = Engine(store, Settings(window=8))
    for thread in ("a", "b"):
        for n in range(4):
            engine.put(thread, "", numbered(n, big=random.Random(n).randbytes(5000)))
        with engine.log(thread, "") as log:
            assert log.seal()
    damaged = {}
    for head in engine.heads():
        damaged[head.thread_id] = [keys.event(head.epoch, 3).hex()]
        store.remove_many(engine.io.parts_of([keys.event(head.epoch, 2)])[1:2])
        store.damage(keys.event(head.epoch, 3), flip)
    checked = {one.thread_id: [finding.key for finding in one.findings] for one in verify(Engine(store))}
    assert checked == damaged


def test_nothing_is_found_where_all_is_sound(store: Nodes) -> None:
    kinds = (b"e", b"s\x01", b"s\x02", b"s\x03", b"i\x02", b"i\x03", b"k")
    assert all(store.of(kind) for kind in kinds)
    [other, thread] = sorted(verify(Engine(store)), key=lambda one: one.thread_id)
    assert (other.findings, thread.findings) == ((), ())
    assert (other.checkpoints, thread.checkpoints) == (1, 250)
    assert thread.segments > 3


@pytest.mark.parametrize("kind", [b"e", b"s\x01", b"s\x02", b"s\x03", b"i\x02", b"i\x03", b"k"])
@pytest.mark.parametrize("lost", [True, False])
def test_every_record_that_is_damaged_or_lost_is_named(store: Nodes, kind: bytes, lost: bool) -> None:
    layout = Layout.of(head_of(store))
    segments = {layout.key(position) for position in range(len(layout))}
    for key in store.of(kind):
        before = store.get_many([key])[0]
        assert before is not None
        if lost:
            store.remove_many([key])
        else:
            store.damage(key, flip)
        # Whether a slot was ever taken, or what is superseded is still there, cannot be told.
        untold = lost and (kind == b"e" or (kind[:1] == b"s" and key not in segments))
        assert untold or key.hex() in [finding.key for finding in found(store)]
        store.remove_many([key])
        store.create([(key, before)], ttl=None)
    assert found(store) == []


@pytest.mark.parametrize("kind", [b"i\x02", b"i\x03", b"k"])
@pytest.mark.parametrize("lost", [True, False])
def test_spans_and_snapshots_are_written_again(store: Nodes, kind: bytes, lost: bool) -> None:
    broken = store.of(kind)
    for key in broken:
        if lost:
            store.remove_many([key])
        else:
            store.damage(key, flip)
    repaired = found(store, repair=True)
    assert {finding.key for finding in repaired} == {key.hex() for key in broken}
    assert all(finding.repaired for finding in repaired)
    assert found(store) == []
    assert numbers(Engine(store)) == list(range(249, -1, -1))


def test_what_cannot_be_told_from_other_records_stays_and_is_reported(store: Nodes) -> None:
    [key] = store.of(b"s\x03")[:1]
    store.damage(key, flip)
    damaged = store.get_many([key])
    [finding] = found(store, repair=True)
    assert (finding.key, finding.invariant, finding.repaired) == (key.hex(), 13, False)
    assert store.get_many([key]) == damaged


def test_a_snapshot_that_says_something_else_than_the_log_is_found(store: Nodes) -> None:
    head = head_of(store)
    assert head.snapshot is not None
    old, new = store.of(b"k")[0], keys.snapshot_parts(head.epoch, head.snapshot)[0]
    reader = Engine(store).reader("t", "").reader
    content = reader.io.inflate(old, reader.io.part(old, store.get_many([old])[0]), 3)
    of_less = decode_snapshot(content)
    for snapshot, invariant in ((of_less, 13), (replace(of_less, covers=head.snapshot.covers), 11)):
        codec, body = deflate(encode_snapshot(snapshot), 1)
        record = reader.io.seal_part(new, reader.io.seal(new, 3, codec, body))
        store.damage(new, lambda _, record=record: record)  # type: ignore[misc]
        assert (invariant, new.hex()) in [(finding.invariant, finding.key) for finding in found(store)]


def test_a_span_that_says_something_else_than_its_segment_is_found(store: Nodes) -> None:
    key = store.of(b"i\x03")[0]
    reader = Engine(store).reader("t", "").reader
    layout = Layout.of(head_of(store))
    span = replace(reader.span(layout, 0), late=(id_of(9999),))
    codec, body = deflate(encode_span(span), 1)
    store.damage(key, lambda _: reader.io.seal(key, SPAN, codec, body))
    assert [(finding.invariant, finding.key) for finding in found(store)] == [(12, key.hex())]


def test_a_segment_that_is_silent_on_an_id_is_found(store: Nodes) -> None:
    reader = Engine(store).reader("t", "").reader
    layout = Layout.of(head_of(store))
    [segment] = reader.segments(layout, [1])
    assert segment.span.late
    silent = Segment(replace(segment.span, late=()), segment.events)
    key, span_key = layout.key(1), layout.span_key(1)
    for at, kind, content in (
        (key, SEGMENT, bytes(encode_segment(silent))),
        (span_key, SPAN, encode_span(silent.span)),
    ):
        codec, body = deflate(content, 1)
        store.damage(at, lambda _, at=at, kind=kind, codec=codec, body=body: reader.io.seal(at, kind, codec, body))  # type: ignore[misc]
    assert [finding.invariant for finding in found(store)] == [12]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda head: replace(head, sealed=head.sealed + 1),
        lambda head: replace(head, snapshots=0),
        lambda head: replace(head, cleaned=Extent(10**6, head.cleaned.snapshots, head.cleaned.segments)),
        lambda head: replace(head, emptied=10**6),
        lambda head: replace(head, segments=head.merged[0].reach - 1),
    ],
)
def test_a_head_that_contradicts_itself_or_the_log_is_found(store: Nodes, wrong: Callable[[Head], Head]) -> None:
    key = keys.head("t", "")
    record = store.get_head(key)
    assert record is not None
    value = seal(key, HEAD, 0, encode_head(wrong(head_of(store))))
    store.swap(HeadRecord(key, record.thread, record.revision + 1, value), expected=record.revision, ttl=None)
    findings = verify_stream(Engine(store), "t", "").findings
    assert {finding.invariant for finding in findings} & {2, 3, 13}
