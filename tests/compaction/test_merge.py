"""Merging segments upward changes no checkpoint, and makes the log small and a checkpoint quick to find."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from checkpoints import id_of, numbered, write
from counting import CountingStore
from hypothesis import given
from hypothesis import strategies as st
from moving import Interrupted

from foldpoint import Engine, Settings
from foldpoint.codecs.envelope import deflate
from foldpoint.codecs.head import Head, Level
from foldpoint.codecs.model import Checkpoint
from foldpoint.codecs.segment import Segment, SnapshotRef, Span, join
from foldpoint.compaction import clean as cleaning
from foldpoint.compaction import compact, upkeep
from foldpoint.compaction import merge as merging
from foldpoint.compaction.merge import FANOUT, FEWER, HEAVY, Merge, merge, next_merge
from foldpoint.compaction.threads import compact_thread
from foldpoint.compaction.verify import verify
from foldpoint.engine import keys
from foldpoint.engine.history import History
from foldpoint.engine.layout import Layout
from foldpoint.engine.log import Log
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.errors import CorruptRecord

HEAD = Head("t", "", bytes(16), 64, segments=100, snapshot=SnapshotRef(9, 6000, 98, 1))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments, merged as early and as far as they can be."""
    monkeypatch.setattr(merging, "FANOUT", 3)
    monkeypatch.setattr(merging, "WORTHWHILE", 0)
    monkeypatch.setattr(merging, "MAX_EVENTS", 50)


def with_levels(*levels: Level, logged: int = 0) -> Head:
    return replace(HEAD, merged=levels, segment_bytes=logged)


@pytest.mark.parametrize(
    ("head", "idle", "due"),
    [
        (HEAD, False, Merge(2, 0, 97)),
        (replace(HEAD, snapshot=None), True, None),
        (replace(HEAD, deleted=True), True, None),
        (with_levels(Level(6, 97 - FANOUT), Level()), False, Merge(2, 97 - FANOUT, 97)),
        (with_levels(Level(6, 98 - FANOUT), Level()), False, None),
        (with_levels(Level(6, 98 - FANOUT), Level()), True, Merge(2, 98 - FANOUT, 97)),
        (with_levels(Level(6, 98 - FANOUT), Level(), logged=HEAVY), False, Merge(2, 98 - FANOUT, 97)),
        (with_levels(Level(6, 98 - FANOUT), Level(), logged=HEAVY - 1), False, None),
        (with_levels(Level(6, 98 - FANOUT, replaced=1), Level(), logged=HEAVY), False, None),
        (with_levels(Level(6, 97 - FEWER), Level(), logged=HEAVY), False, Merge(2, 97 - FEWER, 97)),
        (with_levels(Level(6, 98 - FEWER), Level(), logged=HEAVY), False, None),
        (with_levels(Level(FEWER, 97, size=HEAVY), Level(), logged=HEAVY), False, None),
        (with_levels(Level(6, 96), Level()), True, None),
        (with_levels(Level(6, 97, size=merging.WORTHWHILE - 1), Level()), True, None),
        (with_levels(Level(6, 97, size=merging.WORTHWHILE), Level()), True, Merge(3, 0, 6)),
        (with_levels(Level(6, 97, size=merging.WORTHWHILE), Level()), False, None),
        (with_levels(Level(FANOUT, 97), Level()), False, Merge(3, 0, FANOUT)),
        (with_levels(Level(FANOUT, 97), Level(1, 1)), False, None),
        (with_levels(Level(7, 97, size=90_000, replaced=1), Level(1, 6, 1, 80_000)), True, None),
    ],
)
def test_what_is_merged_next(head: Head, idle: bool, due: Merge | None) -> None:
    assert next_merge(head, idle=idle) == due


@st.composite
def runs(draw: st.DrawFn) -> list[Segment]:
    """Consecutive segments, whose `before` rises and whose late ids lie below it."""
    ids = [id_of(n) for n in range(9)]
    befores = sorted(draw(st.lists(st.sampled_from(ids), min_size=1, max_size=6)))
    first, made = draw(st.integers(1, 90)), []
    for before in befores:
        count = draw(st.integers(1, 4))
        late = draw(st.sets(st.sampled_from(ids[: ids.index(before) + 1]))) - {before}
        events = tuple((first + n, b"%d" % n) for n in range(count) if draw(st.booleans()))
        made.append(Segment(Span(first, first + count - 1, None, before, tuple(sorted(late))), events))
        first += count
    return made


@given(runs())
def test_a_merged_segment_says_of_itself_what_its_inputs_said(inputs: list[Segment]) -> None:
    whole = join(inputs)
    assert [*whole.events] == [event for one in inputs for event in one.events]
    assert (whole.span.first, whole.span.last) == (inputs[0].span.first, inputs[-1].span.last)
    assert whole.span.inputs == len(inputs)
    assert whole.span.before == inputs[0].span.before
    said = {id_ for one in inputs for id_ in one.span.late}
    assert set(whole.span.late) == {id_ for id_ in said if id_ < whole.span.before}


def filled(store: RecordStore, count: int, window: int = 8) -> Engine:
    """A thread of `count` checkpoints, each with a write, some of them written to again late."""
    engine = Engine(store, Settings(window=window, segment_level=1, snapshot_ratio=1.0))
    for n in range(count):
        engine.put("t", "", numbered(n))
        engine.put_writes("t", "", id_of(n), [write(n)])
        if n % 7 == 6:
            engine.put_writes("t", "", id_of(n // 2), [write(n, "late")])
        if n % 11 == 10:
            engine.put("t", "", numbered(n // 3, again=n))
    return engine


def contents(engine: Engine) -> list[object]:
    return [
        (entry.folded.header, entry.folded.labels, entry.state(), entry.writes()) for entry in engine.history("t", "")
    ]


def contents_by_id(engine: Engine, count: int) -> None:
    for n in range(count):
        engine.find("t", "", id_of(n))


def keys_of(store: MemoryStore, *kinds: bytes) -> list[bytes]:
    return [key for key in iter(store.keys()) if key[16:18].startswith(kinds)]


def levels(engine: Engine) -> list[int]:
    return [level.count for level in next(engine.heads("t")).merged]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("grace", [600, 0])
def test_merging_changes_no_checkpoint_and_no_write(grace: float) -> None:
    store = MemoryStore()
    engine = filled(store, 150)
    before = contents(engine)
    for _ in range(2):
        upkeep(engine, "t", "", grace=grace)
        for reader in (engine, Engine(store)):
            assert contents(reader) == before
            for header, labels, state, writes in before:  # type: ignore[misc]
                entry = reader.find("t", "", header.id)
                assert entry is not None
                assert (entry.folded.header, entry.folded.labels, entry.state(), entry.writes()) == (
                    header,
                    labels,
                    state,
                    writes,
                )
    assert min(levels(engine)) > 0
    assert engine.find("t", "", id_of(1000)) is None
    assert engine.find("t", "", "") is None


@pytest.mark.usefixtures("eager")
def test_the_same_checkpoints_come_oldest_first_a_few_slices_at_a_time() -> None:
    store = MemoryStore()
    engine = filled(store, 150)
    newest_first = [(header, state, writes) for header, _, state, writes in contents(engine)]  # type: ignore[misc]
    for _ in range(2):
        log = Engine(store).reader("t", "")
        view = log.load()
        assert view is not None
        found = [(e.folded.header, e.state(), e.writes()) for e in History(log.reader, view).oldest_first()]
        assert found == newest_first[::-1]
        upkeep(engine, "t", "", grace=0, idle=True)


@pytest.mark.usefixtures("eager")
def test_what_was_merged_goes_with_the_snapshots_that_nothing_folds_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_EVENTS", 250)
    store = MemoryStore()
    engine = filled(store, 400)
    snapshots = len(keys_of(store, b"k"))
    upkeep(engine, "t", "", grace=0, idle=True)
    head = next(engine.heads("t"))
    assert len(keys_of(store, b"s\x01")) == head.segments - head.merged[0].reach
    assert len(keys_of(store, b"s\x02")) == head.merged[0].count - head.merged[1].reach
    assert len(keys_of(store, b"s\x03")) == head.merged[1].count
    layout = Layout.of(head)
    starts = {span.start for span in engine.reader("t", "").reader.spans(layout, len(layout))} | {head.kept}
    expected = [key for ref in starts if ref for key in keys.snapshot_parts(head.epoch, ref)]
    assert sorted(keys_of(store, b"k")) == sorted(expected)
    assert len(expected) < snapshots


@pytest.mark.usefixtures("eager")
def test_a_cleaner_that_was_held_up_removes_nothing_that_others_have_merged_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merging, "FANOUT", 1 << 30)
    monkeypatch.setattr(merging, "WORTHWHILE", 1 << 30)
    store = MemoryStore()
    filled(store, 400)
    held_up = Interrupted(store)
    slow = Engine(held_up).reader("t", "")
    merge(slow, idle=True)
    view = slow.load()
    assert view is not None
    monkeypatch.setattr(merging, "WORTHWHILE", 0)
    # When it has read the merged segments of level 1, another goes on to level 3, and removes what that stands for.
    held_up.after["get_many"] = lambda: upkeep(Engine(store), "t", "", idle=True)
    with suppress(CorruptRecord):
        cleaning._at_once(slow, view.head)
    assert [one for one in verify(Engine(store)) if one.findings] == []
    assert len(contents(Engine(store))) == 400


@pytest.mark.usefixtures("eager")
def test_a_head_tells_the_bytes_of_its_log() -> None:
    store = MemoryStore()
    engine = filled(store, 100)
    for _ in range(2):
        upkeep(engine, "t", "", grace=0, idle=True)
        segments = keys_of(store, b"s")
        assert next(engine.heads("t")).log_bytes == sum(len(value or b"") for value in store.get_many(segments))


@pytest.mark.usefixtures("eager")
def test_a_merged_segment_that_another_compactor_wrote_is_adopted() -> None:
    store = MemoryStore()
    engine = filled(store, 100)
    before = contents(engine)
    head = next(engine.heads("t"))
    slow, other = engine.reader("t", ""), engine.reader("t", "")
    assert slow.load() is not None
    step = next_merge(head)
    assert step is not None
    merging._merge(other, head, replace(step, end=step.first + 2))  # writes two in one, and dies before the swap
    assert merge(slow) > 0
    layout = History(slow.reader, slow.load())._layout  # type: ignore[arg-type]
    spans = [*slow.reader.spans(layout, len(layout))]
    assert all(newer.first == older.last + 1 for newer, older in pairwise(spans))
    assert contents(engine) == before


@pytest.mark.usefixtures("eager")
def test_a_merge_that_lost_the_race_for_the_head_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = filled(MemoryStore(), 100)
    log, swap, compressed = engine.reader("t", ""), Log.swap, []
    monkeypatch.setattr(merging, "deflate", lambda *given: compressed.append(given) or deflate(*given))
    refused = iter([False, False, False])
    monkeypatch.setattr(
        Log, "swap", lambda self, *head, **how: next(refused, None) is None and swap(self, *head, **how)
    )
    merge(log)
    done = sum(level.count for level in next(engine.heads("t")).merged)
    assert len(compressed) == 2 * done  # a segment and its span


@pytest.mark.usefixtures("eager")
def test_a_reader_that_began_before_segments_were_merged_and_removed_goes_on() -> None:
    store = MemoryStore()
    engine = filled(store, 200)
    expected = contents(engine)
    reading: Iterator[object] = (
        (entry.folded.header, entry.folded.labels, entry.state(), entry.writes())
        for entry in Engine(store).history("t", "")
    )
    found = [next(reading) for _ in range(30)]
    upkeep(engine, "t", "", grace=0, idle=True)
    assert [*found, *reading] == expected


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("read_before", [0, 60])
def test_a_history_follows_segments_that_are_merged_and_removed_under_it(read_before: int) -> None:
    store = MemoryStore()
    engine = filled(store, 200)
    expected = [entry.folded.header.id for entry in engine.history("t", "")]
    log = Engine(store).reader("t", "")
    view = log.load()
    assert view is not None
    by_id, in_order, backwards = (History(log.reader, view) for _ in range(3))
    assert all(by_id.find(id_) for id_ in expected[:read_before])
    ascending, descending = by_id.oldest_first(), backwards.entries()
    first = [next(ascending).folded.header.id for _ in range(read_before)]
    last = [next(descending).folded.header.id for _ in range(read_before)]
    for n in range(200, 230):
        engine.put("t", "", numbered(n))
    upkeep(engine, "t", "", grace=0, idle=True)
    found = [by_id.find(id_) for id_ in expected]
    assert [entry and entry.folded.header.id for entry in found] == expected
    assert [*first, *(entry.folded.header.id for entry in ascending)] == expected[::-1]
    assert [*last, *(entry.folded.header.id for entry in descending)] == expected
    assert [entry.folded.header.id for entry in in_order.oldest_first()] == expected[::-1]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", [b"s\x02", b"s\x03"])
def test_a_merged_record_that_is_gone_is_an_error_that_names_it(kind: bytes) -> None:
    store = MemoryStore()
    upkeep(filled(store, 300), "t", "", grace=0, idle=True)
    lost = keys_of(store, kind)
    assert lost
    store.remove_many(lost)
    with pytest.raises(CorruptRecord) as error:
        contents_by_id(Engine(store), 300)
    assert error.value.key in lost


def test_a_checkpoint_of_twenty_thousand_is_found_by_id_in_four_round_trips() -> None:
    inner = MemoryStore()
    engine = Engine(inner, Settings(segment_level=1, compression_level=1))
    for n in range(20_000):
        header = replace(numbered(0).header, id=id_of(n), parent=id_of(n - 1) if n else None)
        if engine.put("t", "", Checkpoint(header, {}, {"step": n})) >= 48:
            upkeep(engine, "t", "")
    store = CountingStore(inner)
    for chosen in [0, 19_999, *random.Random(7).sample(range(20_000), 30)]:
        store.reset()
        entry = Engine(store, Settings()).find("t", "", id_of(chosen))
        assert entry is not None
        assert entry.folded.labels == {"step": chosen}
        assert store.round_trips <= 4
    assert [*compact(engine, grace=0)]
    assert [entry.folded.labels["step"] for entry in Engine(inner).history("t", "")] == list(range(19_999, -1, -1))


@pytest.mark.usefixtures("eager")
def test_what_a_snapshot_superseded_is_gone_before_a_merge_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    engine, seen = filled(store, 0), []
    deflated = merging.deflate

    def watched(*args: Any) -> Any:
        seen.append(len(keys_of(store, b"p")))
        return deflated(*args)

    monkeypatch.setattr(merging, "deflate", watched)
    for n in range(200):
        engine.put("t", "", numbered(n, text="x" * n))
        if n % 5 == 4:
            upkeep(engine, "t", "")
    assert set(seen) == {0, 1}  # 0: the one that latest is read from is kept


@pytest.mark.usefixtures("eager")
def test_segments_that_others_sealed_since_the_engine_last_looked_are_merged() -> None:
    store = MemoryStore()
    engine = filled(store, 3)
    other = Engine(store, engine.settings)
    for n in range(3, 100):
        other.put("t", "", numbered(n))
    with other.log("t", "") as log:
        log.seal()
    assert sum(report.merges for report in compact_thread(engine, "t")) > 0
