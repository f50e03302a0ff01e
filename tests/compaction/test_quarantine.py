"""What cannot be repaired goes into quarantine as it lies; a thread goes on from what can be read, and nothing else."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from checkpoints import id_of, numbered, value, write
from faults.scenes import noise
from stores import BACKENDS
from streams import STREAMS, Stream, large, merge_early, with_levels, young

from foldpoint import Engine, Settings
from foldpoint.codecs.envelope import CHECK_BYTES, EVENT, SEGMENT, SNAPSHOT, event_content
from foldpoint.codecs.event import encode_checkpoint
from foldpoint.codecs.model import Checkpoint, Header, Value, Write
from foldpoint.codecs.segment import Snapshot, Told, decode_snapshot, encode_segment, encode_snapshot
from foldpoint.compaction import DropAll, KeepLast, rewrite_thread
from foldpoint.compaction.archives import is_same
from foldpoint.compaction.clean import clean
from foldpoint.compaction.verify import Verified, verify_stream
from foldpoint.engine import keys
from foldpoint.engine.fold import Entry
from foldpoint.engine.layout import Layout
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import RecordStore
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import CorruptRecord, RecordError, StoreBusy, StoreUnavailable
from torture.faulty import FAULTS, FaultyStore

Read = tuple[Header, object, dict[str, Value], list[Write]]
World = dict[str, Read]

FILLER = event_content(0, bytes(CHECK_BYTES), b"")
RIVAL = next(fault for fault in FAULTS if fault.applies == "after a rival")
CRASHES = [fault for fault in FAULTS if fault.crash]


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    merge_early(monkeypatch)


def told(entry: Entry) -> Read:
    return entry.folded.header, entry.folded.labels, entry.state(), entry.writes()


def world(engine: Engine) -> World:
    return {entry.folded.header.id: told(entry) for entry in engine.history("t", "")}


def readable(engine: Callable[[], Engine], ids: Iterable[str]) -> World:
    """Of these checkpoints, those that a process that starts now can find, and what they do not store themselves."""
    found: World = {}
    for checkpoint_id in ids:
        try:
            entry = engine().find("t", "", checkpoint_id)
            assert entry is not None
            if apart := entry.folded.header.channel_versions.keys() - entry.names():
                engine().channel_history("t", "", checkpoint_id, sorted(apart))
            found[checkpoint_id] = told(entry)
        except CorruptRecord:
            pass
    return found


def salvaged(engine: Engine, into: RecordStore) -> Verified:
    return verify_stream(engine, "t", "", repair=True, into=into)


def problems(verified: Verified) -> set[tuple[int, str, str]]:
    return {(one.invariant, one.key, one.problem) for one in verified.findings if not one.repaired}


def after_the_grace(stream: Stream) -> Stream:
    """Nothing is left of what was sealed or merged: what is damaged now stays damaged."""
    clean(stream.engine.reader("t", ""), 0)
    return stream


def lose(stream: Stream, key: bytes) -> None:
    stream.store.remove_many([key])


def flip(stream: Stream, key: bytes) -> None:
    stream.store.flip(key)


def tail(stream: Stream) -> list[bytes]:
    """The events of the window, ascending."""
    head = next(stream.engine.heads("t"))
    slots = {keys.event(head.epoch, seq) for seq in head.slots}
    return sorted(slots & stream.store.records().keys())


def segments(stream: Stream) -> list[bytes]:
    return [stream.layout.key(position) for position in range(len(stream.layout))]


def latest_snapshot(stream: Stream) -> bytes:
    head = next(stream.engine.heads("t"))
    assert head.snapshot is not None
    return keys.snapshot_parts(head.epoch, head.snapshot)[0]


def goes_on(stream: Stream, unharmed: World) -> Verified:
    """Put the damaged stream into quarantine, and hold what comes of it against what it was."""
    assert not verify_stream(stream.fresh(), "t", "", repair=True).sound
    before, raw = readable(stream.fresh, unharmed), stream.store.records()
    head = stream.store.get_head(keys.head("t", ""))
    into = MemoryStore()
    verified = salvaged(stream.fresh(), into)
    assert verified.quarantine is not None
    assert verified.quarantine.refused == ""
    assert verified.sound
    assert verify_stream(stream.fresh(), "t", "").findings == ()
    assert into.get_head(keys.head("t", "")) == head
    assert {key: value for key, (value, _) in into._log.items()} == raw
    assert problems(verify_stream(Engine(into), "t", "")) == problems(verified)
    after = world(stream.fresh())
    assert verified.quarantine.checkpoints == verified.checkpoints == len(after)
    assert before.items() <= after.items()
    for checkpoint_id, (header, labels, state, writes) in after.items():
        was = unharmed[checkpoint_id]
        assert (header, labels, state) == was[:3]
        assert all(one in was[3] for one in writes)
        if len(writes) < len(was[3]):
            assert checkpoint_id in verified.quarantine.without_writes or verified.quarantine.unread
    assert not after.keys() & {*verified.quarantine.left_out}
    assert {*verified.quarantine.left_out} <= unharmed.keys()
    stream.fresh().put("t", "", numbered(500, max(int(str(one[1]["step"])) for one in after.values())))  # type: ignore[index]
    assert world(stream.fresh()).keys() == {*after, id_of(500)}
    return verified


# -- what is damaged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", STREAMS)
def test_a_segment_is_damaged_or_lost_when_the_grace_is_over(made: str) -> None:
    stream = after_the_grace(STREAMS[made]())
    unharmed, records, heads = world(stream.fresh()), stream.store.records(), {**stream.store._heads}
    kept = []
    for at, key in enumerate(segments(stream)):
        (lose, flip)[at % 2](stream, key)
        kept.append(goes_on(stream, unharmed).checkpoints)
        stream.store.bring_back(records)
        stream.store._heads = {**heads}
    assert max(kept) >= 0.7 * len(unharmed)


@pytest.mark.parametrize("made", STREAMS)
def test_an_event_of_the_tail_is_lost_and_others_build_upon_it(made: str) -> None:
    stream = STREAMS[made]()
    while len(tail(stream)) < 5:
        stream.put(first := len(world(stream.fresh())), first + 1)
    unharmed, records, heads = world(stream.fresh()), stream.store.records(), {**stream.store._heads}
    for key in tail(stream)[:-2]:
        lose(stream, key)
        if not verify_stream(stream.fresh(), "t", "", repair=True).sound:
            verified = goes_on(stream, unharmed)
            assert verified.checkpoints >= len(unharmed) - 4
        stream.store.bring_back(records)
        stream.store._heads = {**heads}


@pytest.mark.parametrize("damage", [lose, flip])
def test_the_latest_snapshot_is_damaged_and_what_it_was_made_of_is_too(damage: Callable[[Stream, bytes], None]) -> None:
    stream = after_the_grace(with_levels())
    unharmed = world(stream.fresh())
    for key in (segments(stream)[-1], latest_snapshot(stream)):
        damage(stream, key)
    verified = goes_on(stream, unharmed)
    assert 0.9 * len(unharmed) < verified.checkpoints < len(unharmed)


def test_a_checkpoint_that_only_a_snapshot_still_holds_goes_on() -> None:
    stream = after_the_grace(with_levels())
    unharmed = world(stream.fresh())
    for key in segments(stream):
        lose(stream, key)
    verified = goes_on(stream, unharmed)
    assert 3 <= verified.checkpoints < 0.2 * len(unharmed)


@pytest.mark.parametrize("rest", ["segments", "events"])
def test_what_is_still_in_its_grace_fills_in(rest: str) -> None:
    """Not enough to restore a segment, as one of the records that it was made of is gone."""
    kept = []
    for stream in (with_levels(), after_the_grace(with_levels())):
        unharmed, place = world(stream.fresh()), stream.layout.place(len(stream.layout) - 1 if rest == "events" else 0)
        key = keys.segment(stream.layout.epoch, place.index, place.level)
        [position] = [at for at, one in enumerate(segments(stream)) if one == key]
        span = stream.segments()[position].span
        made_of = {
            "segments": [keys.segment(stream.layout.epoch, index, place.level - 1) for index in range(span.inputs)],
            "events": [keys.event(stream.layout.epoch, seq) for seq in range(span.first, span.last + 1)],
        }
        if rest == "segments":
            stream.store.remove_many([*made_of["events"], keys.segment(stream.layout.epoch, 2)])
        for one in [key, stream.layout.span_key(position), made_of[rest][-1]]:
            lose(stream, one)
        kept.append(goes_on(stream, unharmed).checkpoints)
    assert kept[0] > kept[1]


def test_a_head_that_cannot_be_read_is_an_error_and_nothing_is_done() -> None:
    stream, into = young(), MemoryStore()
    record = stream.store.get_head(keys.head("t", ""))
    assert record is not None
    stream.store.swap(replace(record, revision=record.revision + 1, value=b"\1\0"), expected=record.revision, ttl=None)
    before = stream.store.records(), {**stream.store._heads}
    with pytest.raises(RecordError):
        salvaged(stream.fresh(), into)
    assert (stream.store.records(), stream.store._heads) == before
    assert into._log == {}


def test_a_stream_of_which_nothing_can_be_read_stays_as_it_is() -> None:
    stream, into = Stream(), MemoryStore()
    stream.put(0, 3)
    lose(stream, tail(stream)[0])
    before = stream.store.records(), {**stream.store._heads}
    verified = salvaged(stream.fresh(), into)
    assert not verified.sound
    assert verified.quarantine is not None
    assert verified.quarantine.refused.startswith("no checkpoint of it can be read")
    assert (stream.store.records(), stream.store._heads) == before
    assert {key: one for key, (one, _) in into._log.items()} == before[0]


# -- what cannot be vouched for ----------------------------------------------------------------------------------------


def short() -> Stream:
    """Of which all that is told lies in its tail: checkpoint, write, checkpoint, write."""
    stream = Stream()
    stream.put(0, 2)
    return stream


def test_a_checkpoint_is_left_out_if_a_later_put_of_it_is_known_and_cannot_be_read() -> None:
    stream = Stream()
    stream.engine = Engine(stream.store, Settings(window=8, segment_level=1, snapshot_ratio=99.0), clock=stream.clock)
    for checkpoints in ([numbered(0), numbered(1)], [numbered(2)], [numbered(0, 2, value="anew"), numbered(3, 1)]):
        for checkpoint in checkpoints:
            stream.engine.put("t", "", checkpoint)
        stream.engine.reader("t", "").seal()
    unharmed = world(after_the_grace(stream).fresh())
    lose(stream, segments(stream)[1])
    verified = goes_on(stream, unharmed)
    assert verified.quarantine is not None
    assert {id_of(0), id_of(2)} <= {*verified.quarantine.left_out}
    assert id_of(1) in world(stream.fresh())


def test_a_checkpoint_is_left_out_if_a_lost_segment_says_that_it_is_about_it() -> None:
    """The span of a merged segment lies apart."""
    stream = after_the_grace(with_levels())
    unharmed = world(stream.fresh())
    late = next(segment.span.late for segment in stream.segments() if len(segment.span.late) > 1)
    lose(stream, next(segments(stream)[at] for at, one in enumerate(stream.segments()) if one.span.late == late))
    verified = goes_on(stream, unharmed)
    assert verified.quarantine is not None
    assert {*late} <= {*verified.quarantine.left_out}


def with_writes_upon_writes() -> tuple[Stream, list[Callable[[], object]]]:
    """Ways to log two tasks' writes, of which the second refers to the first one's bytes, and then a third one's."""
    stream = Stream()
    stream.engine = Engine(stream.store, Settings(window=8, segment_level=1, snapshot_ratio=99.0), clock=stream.clock)
    stream.put(0, 2)
    long = value([f"{n:x}" * 50 for n in range(200)])
    writes = [Write("first", 0, "list", long, ""), Write("second", 0, "list", long, ""), write(9, "third")]
    return stream, [lambda one=one: stream.engine.put_writes("t", "", id_of(1), [one]) for one in writes]  # type: ignore[misc]


def test_where_pending_writes_cannot_be_read_those_of_other_tasks_stay() -> None:
    stream, puts = with_writes_upon_writes()
    for put in puts:
        put()
    unharmed = world(stream.fresh())
    lose(stream, tail(stream)[4])
    verified = goes_on(stream, unharmed)
    assert [one.task_id for one in world(stream.fresh())[id_of(1)][3]] == ["task", "third"]
    assert verified.quarantine is not None
    assert verified.quarantine.unread == ((6, 6),)


def test_checkpoints_that_go_on_without_pending_writes_that_are_known_of_are_named() -> None:
    stream, puts = with_writes_upon_writes()
    for put in puts[:2]:
        stream.engine.reader("t", "").seal()
        put()
    stream.engine.reader("t", "").seal()
    unharmed = world(after_the_grace(stream).fresh())
    lose(stream, segments(stream)[1])
    verified = goes_on(stream, unharmed)
    assert [one.task_id for one in world(stream.fresh())[id_of(1)][3]] == ["task"]
    assert verified.quarantine is not None
    assert verified.quarantine.without_writes == (id_of(1),)


def with_delta(n: int, *, stored: bool) -> Checkpoint:
    """The n-th of a line with a DeltaChannel, which few store; the others are read from their ancestors' writes."""
    made = numbered(n, **({"delta": f"as of {n}"} if stored else {}))
    return replace(made, header=replace(made.header, channel_versions={"list": n + 1, "delta": n + 1}))


def delta_write(n: int) -> Write:
    return Write("task", 0, "delta", value(f"write {n}"), "")


def with_a_delta_channel(stored: set[int]) -> Stream:
    stream = Stream()
    for n in range(40):
        stream.engine.put("t", "", with_delta(n, stored=n in stored))
        stream.engine.put_writes("t", "", id_of(n), [delta_write(n)])
    return after_the_grace(stream)


def test_a_checkpoint_goes_on_only_if_no_writes_that_came_before_its_parent_may_be_lost() -> None:
    stream = Stream()
    stream.engine = Engine(stream.store, Settings(window=8, segment_level=1, snapshot_ratio=99.0), clock=stream.clock)
    for act in (
        lambda: stream.engine.put("t", "", with_delta(0, stored=True)),
        lambda: stream.engine.put_writes("t", "", id_of(1), [delta_write(1)]),
        lambda: [stream.engine.put("t", "", with_delta(n, stored=n == 1)) for n in (1, 2)],
    ):
        act()
        stream.engine.reader("t", "").seal()
    unharmed = world(after_the_grace(stream).fresh())
    lose(stream, segments(stream)[1])
    goes_on(stream, unharmed)
    assert world(stream.fresh()).keys() == {id_of(0), id_of(1), id_of(500)}


def test_a_checkpoint_whose_ancestors_hold_what_it_does_not_store_goes_on_only_with_them() -> None:
    stream = with_a_delta_channel({0, 37})
    unharmed = world(stream.fresh())

    def history(checkpoint_id: str) -> object:
        return stream.fresh().channel_history("t", "", checkpoint_id, ["delta"])

    expected = {checkpoint_id: history(checkpoint_id) for checkpoint_id in unharmed}
    at = next(at for at, segment in enumerate(stream.segments()) if segment.span.first <= 40 <= segment.span.last)
    lose(stream, segments(stream)[at])
    goes_on(stream, unharmed)
    after = world(stream.fresh())
    assert {id_of(n) for n in (0, 5, 10, 37, 38, 39)} <= after.keys()
    assert {id_of(n) for n in (25, 35, 36)}.isdisjoint(after)
    for checkpoint_id in after.keys() - {id_of(0), id_of(37), id_of(500)}:
        assert history(checkpoint_id) == expected[checkpoint_id]


@pytest.mark.parametrize("whole", [True, False])
def test_a_snapshot_that_contradicts_the_log_tells_nothing(whole: bool) -> None:
    stream = Stream()
    settings = Settings(window=8, segment_level=1, grace=100)
    for checkpoints, ratio in (([numbered(0), numbered(1)], 99.0), ([numbered(5, 1)], 99.0), ([numbered(6, 1)], 0.01)):
        engine = Engine(stream.store, settings.model_copy(update={"snapshot_ratio": ratio}), clock=stream.clock)
        for checkpoint in checkpoints:
            engine.put("t", "", checkpoint)
        engine.reader("t", "").seal()
    unharmed = world(after_the_grace(stream).fresh())
    key, io = latest_snapshot(stream), stream.engine.io
    [part] = stream.store.get_many([key])
    there = decode_snapshot(io.inflate(key, io.part(key, part), SNAPSHOT))
    [one] = there.events
    other = Told(
        one.seq, encode_checkpoint(one.seq, numbered(6, 1, forged=True), None), one.check if whole else b"else"
    )
    lose(stream, key)
    content = bytes(encode_snapshot(Snapshot(there.covers, (other,))))
    stream.store.create([(key, io.seal_part(key, io.seal(key, SNAPSHOT, 0, content)))], ttl=None)
    if not whole:
        lose(stream, segments(stream)[1])
    latest = stream.fresh().latest("t", "")
    assert latest is not None
    assert told(latest) != unharmed[id_of(6)]
    assert salvaged(stream.fresh(), MemoryStore()).sound
    assert world(stream.fresh()) == {id_of(n): unharmed[id_of(n)] for n in (0, 1, *([5] if whole else []), 6)}


def test_what_was_sealed_upon_something_else_than_is_there_is_left_out() -> None:
    stream = Stream()
    stream.engine = Engine(stream.store, Settings(window=8, segment_level=1, snapshot_ratio=9.0), clock=stream.clock)
    for n in range(0, 12, 4):
        stream.put(n, n + 4, value=n)
        stream.engine.reader("t", "").seal()
    unharmed, [first, *_] = world(after_the_grace(stream).fresh()), stream.segments()
    payloads = {**dict(first.events), 1: encode_checkpoint(1, numbered(0, value="another"), None)}
    key = segments(stream)[0]
    other = bytes(encode_segment(replace(first, events=tuple(payloads.items()))))
    lose(stream, key)
    stream.store.create([(key, stream.engine.io.seal(key, SEGMENT, 0, other))], ttl=None)
    verified = salvaged(stream.fresh(), MemoryStore())
    assert verified.sound
    assert world(stream.fresh()).keys() == {id_of(n) for n in range(4)}
    assert verified.quarantine is not None
    assert {*verified.quarantine.left_out} == unharmed.keys() - world(stream.fresh()).keys()


def test_what_was_put_upon_something_else_than_is_there_is_left_out() -> None:
    """A store lost an event, another process put one in its place, and the first one went on from what it knew."""
    stream = Stream()
    for n in range(3):
        stream.engine.put("t", "", numbered(n))
    lose(stream, tail(stream)[-1])
    stream.fresh().put("t", "", numbered(9, 1))
    for n in (3, 4):
        stream.engine.put("t", "", numbered(n))
    assert len(tail(stream)) == 5
    with pytest.raises(CorruptRecord):
        stream.contents()
    verified = salvaged(stream.fresh(), MemoryStore())
    assert verified.sound
    assert [labels["step"] for _, labels, _, _ in world(stream.fresh()).values()] == [9, 1, 0]  # type: ignore[index]


def test_writes_wait_for_their_checkpoint_as_before() -> None:
    stream = after_the_grace(young())
    stream.engine.put_writes("t", "", id_of(16), [write(16)])
    stream.put(15, 16)
    lose(stream, segments(stream)[0])
    assert salvaged(stream.fresh(), MemoryStore()).sound
    stream.fresh().put("t", "", numbered(16))
    assert world(stream.fresh())[id_of(16)][3] == [write(16)]


def test_what_a_checkpoint_carries_of_ancestors_that_were_dropped_stays_with_it() -> None:
    stream = with_a_delta_channel({0})
    rewrite_thread(stream.engine, "t", KeepLast(3))
    for n in (40, 41):
        stream.engine.put("t", "", with_delta(n, stored=False))

    def histories() -> list[object]:
        return [stream.fresh().channel_history("t", "", id_of(n), ["delta"]) for n in (37, 38, 39)]

    expected = histories()
    lose(stream, tail(stream)[0])
    assert salvaged(stream.fresh(), MemoryStore()).sound
    assert histories() == expected
    assert world(stream.fresh()).keys() == {id_of(n) for n in (37, 38, 39)}


class Xor:
    """Encryption enough to tell keys apart."""

    def __init__(self, key: int) -> None:
        self._key = key

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "xor", bytes(one ^ self._key for one in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return self.encrypt(ciphertext)[1]


def test_what_is_sealed_with_another_key_is_not_damaged() -> None:
    store, into = MemoryStore(), MemoryStore()
    engines = [Engine(store, Settings(window=8), cipher=Xor(key)) for key in (1, 2)]
    for n in range(20):
        engines[0].put("t", "", numbered(n))
    before = {**store._log}, {**store._heads}
    verified = salvaged(engines[1], into)
    assert verified.quarantine is not None
    assert "not damaged" in verified.quarantine.refused
    assert (store._log, store._heads) == before


# -- the quarantine ----------------------------------------------------------------------------------------------------


def test_the_quarantine_is_another_store_by_whatever_name(tmp_path: Path) -> None:
    stores = [SqliteStore(str(tmp_path / name)) for name in ("one.db", f"../{tmp_path.name}/one.db", "two.db")]
    assert is_same(stores[0], stores[1])
    assert not is_same(stores[0], stores[2])
    for store in stores:
        assert list(store.keys()) == []
        store.close()


def test_nothing_is_done_while_data_moves_between_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read then need not be lost."""
    stream, into, tokens = lost_in_the_tail(), MemoryStore(), iter([b"one", b"two"])
    before = stream.store.records(), {**stream.store._heads}
    monkeypatch.setattr(stream.store, "settled", lambda: next(tokens))
    with pytest.raises(StoreBusy):
        salvaged(stream.fresh(), into)
    assert (stream.store.records(), stream.store._heads, into._log) == (*before, {})


def test_a_thread_that_is_in_quarantine_already_is_left_alone_until_it_is_deleted_there() -> None:
    into = MemoryStore()
    salvaged(lost_in_the_tail().fresh(), into)
    stream = lost_in_the_tail()
    before = stream.store.records(), {**stream.store._heads}, {**into._log}, {**into._heads}
    verified = salvaged(stream.fresh(), into)
    assert verified.quarantine is not None
    assert "delete it there" in verified.quarantine.refused
    assert (stream.store.records(), stream.store._heads, into._log, into._heads) == before
    rewrite_thread(Engine(into), "t", DropAll())
    assert salvaged(stream.fresh(), into).sound


def lost_in_the_tail() -> Stream:
    stream = short()
    lose(stream, tail(stream)[2])
    return stream


def test_what_came_of_it_may_be_looked_at_and_deleted_though_it_cannot_be_read() -> None:
    stream, into = lost_in_the_tail(), MemoryStore()
    salvaged(stream.fresh(), into)
    engine = Engine(into)
    with pytest.raises(CorruptRecord):
        engine.latest("t", "")
    assert [info.thread_id for info in engine.threads()] == ["t"]
    rewrite_thread(engine, "t", DropAll())
    assert engine.latest("t", "") is None
    clean(engine.reader("t", ""), 0)
    assert into._log == {}


def test_the_left_epoch_is_removed_after_the_grace_whatever_was_damaged_in_it() -> None:
    """Also a record in parts, where nothing tells which those are any more."""
    stream, into = after_the_grace(large()), MemoryStore()
    stubs = [key for key in segments(stream) if stream.engine.io.parts_of([key])]
    flip(stream, stubs[0])
    epoch = stream.layout.epoch
    raw = stream.store.records()
    assert salvaged(stream.fresh(), into).sound
    assert {key: one for key, (one, _) in into._log.items()} == raw
    expected = world(stream.fresh())
    clean(stream.engine.reader("t", ""), 0)
    left = {keys.kind_of(key) for key in stream.store.records() if keys.epoch_of(key) == epoch}
    assert left == {b"b"}  # which the sweep takes, as no head names the epoch any more
    assert world(stream.fresh()) == expected


# -- beside others, and killed -----------------------------------------------------------------------------------------


def with_an_old_gap() -> Stream:
    """Of which the latest can be read and written, and much of its history cannot."""
    stream = after_the_grace(young())
    stream.put(15, 17)
    lose(stream, segments(stream)[0])
    return stream


def test_a_head_names_the_new_epoch_before_anything_is_written_there() -> None:
    """A sweep would else take it for garbage."""
    stream = with_an_old_gap()
    create = stream.store.create

    def watched(records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        head = next(stream.engine.heads("t"))
        named = {head.epoch, *(dead.epoch for dead in head.dead)}
        assert {keys.epoch_of(key) for key, _ in records} <= named
        return create(records, ttl=ttl)

    stream.store.create = watched  # type: ignore[method-assign]
    assert salvaged(stream.fresh(), MemoryStore()).sound


def test_a_process_that_puts_meanwhile_or_later_loses_nothing() -> None:
    calls = 0
    for at in range(1000):
        stream, into = with_an_old_gap(), MemoryStore()
        held, epoch = stream.fresh(), stream.layout.epoch
        held.put("t", "", numbered(20, 16))
        acknowledged = [20]

        def put(store: RecordStore, held: Engine = held, acknowledged: list[int] = acknowledged) -> None:
            held.put("t", "", numbered(21, 20))
            held.put_writes("t", "", id_of(21), [write(21)])
            acknowledged.append(21)

        faulty = FaultyStore(stream.store, RIVAL, at, put)
        assert salvaged(stream.fresh(faulty), into).sound
        if not faulty.fired:
            break
        calls += 1
        held.put("t", "", numbered(22, acknowledged[-1]))
        after = world(stream.fresh())
        assert {id_of(n) for n in (16, *acknowledged, 22)} <= after.keys()
        if 21 in acknowledged:
            assert after[id_of(21)][3] == [write(21)]
        assert verify_stream(stream.fresh(), "t", "").findings == ()
        records = stream.store.records()
        left = [key for key in records if keys.epoch_of(key) == epoch and key not in into._log]
        assert {len(stream.engine.io.open(key, records[key], EVENT).content) for key in left} <= {len(FILLER)}
    assert calls > 20


@pytest.mark.parametrize("where", ["store", "quarantine"])
def test_killed_at_any_call_the_old_stream_or_the_new_one_is_there(where: str) -> None:
    reference, calls = with_an_old_gap(), FaultyStore(MemoryStore())
    watched = {"store": FaultyStore(reference.store), "quarantine": calls}
    assert salvaged(reference.fresh(watched["store"]), calls).sound
    expected, killed = world(reference.fresh()), 0
    for at, fault in product(range(len(watched[where].places)), CRASHES):
        stream, into = with_an_old_gap(), MemoryStore()
        before, raw = readable(stream.fresh, expected), stream.store.records()
        stores: dict[str, RecordStore] = {"store": stream.store, "quarantine": into}
        faulty = FaultyStore(stores[where], fault, at)
        stores[where] = faulty
        with suppress(StoreUnavailable):
            salvaged(stream.fresh(stores["store"]), stores["quarantine"])
        if faulty.crashed:
            killed += 1
            done = verify_stream(stream.fresh(), "t", "").sound
            assert before.items() <= readable(stream.fresh, expected).items()
            assert not done or world(stream.fresh()) == expected
            assert done or salvaged(stream.fresh(), into).sound
        assert world(stream.fresh()) == expected
        assert {key: one for key, (one, _) in into._log.items()} == raw
        assert not verify_stream(Engine(into), "t", "").sound
    assert killed >= len(watched[where].places)


def test_what_goes_on_lives_as_long_as_before_and_the_quarantine_for_ever() -> None:
    stream, into = Stream(), MemoryStore()
    for n in range(3):
        stream.engine.put("t", "", numbered(n), ttl=1000)
    lose(stream, tail(stream)[1])
    ended = next(stream.engine.heads("t")).extended_at
    assert salvaged(stream.fresh(), into).sound
    head = next(stream.fresh().heads("t"))
    assert (head.ttl, head.extended_at) == (1000, ended)
    assert all(expires is not None for key, (_, expires) in stream.store._log.items())
    assert all(expires is None for _, expires in [*into._log.values(), *into._heads.values()])


# -- in a file ---------------------------------------------------------------------------------------------------------


def overwrite(path: Path, key: bytes) -> None:
    """Change the last byte of a record in the file, wherever it lies there."""
    with sqlite3.connect(path) as file:
        [(stored,)] = file.execute("SELECT value FROM log WHERE key = ?", (key,)).fetchall()
        if isinstance(stored, int):
            [(body,)] = file.execute("SELECT body FROM large WHERE id = ?", (stored,)).fetchall()
            file.execute("UPDATE large SET body = ? WHERE id = ?", (body[:-1] + bytes([body[-1] ^ 1]), stored))
        else:
            changed = stored[:-1] + bytes([stored[-1] ^ 1])
            file.execute("UPDATE log SET value = ? WHERE key = ?", (changed, key))
    file.close()


@pytest.mark.parametrize("kind", ["segment", "tail"])
def test_a_file_with_a_damaged_record_goes_on_and_the_quarantine_is_a_file_too(kind: str, tmp_path: Path) -> None:
    def engine(name: str) -> Engine:
        return Engine(SqliteStore(str(tmp_path / name)), Settings(window=8))

    writer = engine("agents.db")
    for n in range(30):
        writer.put("t", "", numbered(n))
    clean(writer.reader("t", ""), 0)
    unharmed = world(writer)
    head = next(writer.heads("t"))
    layout = Layout.of(head)
    key = layout.key(len(layout) // 2) if kind == "segment" else keys.event(head.epoch, head.sealed + 1)
    writer.store.close()
    overwrite(tmp_path / "agents.db", key)
    damaged, into = engine("agents.db"), engine("lost.db")
    before = readable(lambda: Engine(damaged.store), unharmed)
    raw = dict(zip(listed := sorted(damaged.store.keys()), damaged.store.get_many(listed), strict=True))
    verified = salvaged(damaged, into.store)
    assert verified.sound
    assert problems(verify_stream(into, "t", "")) == problems(verified)
    assert dict(zip(listed, into.store.get_many(listed), strict=True)) == raw
    after = world(engine("agents.db"))
    assert before.items() <= after.items() <= unharmed.items()
    assert len(after) > 10
    damaged.put("t", "", numbered(40, 5))
    assert id_of(40) in world(engine("agents.db"))
    for one in (damaged, into):
        one.store.close()


def test_a_thread_of_a_cluster_goes_on_and_the_quarantine_is_a_file(tmp_path: Path) -> None:
    harness = BACKENDS["aerospike"](tmp_path)
    try:
        engine, into = Engine(harness.open(), Settings(window=8)), SqliteStore(str(tmp_path / "lost.db"))
        assert not is_same(engine.store, into)
        for n in range(13):
            engine.put("t", "", numbered(n))
        unharmed, head = world(engine), next(engine.heads("t"))
        engine.store.remove_many([keys.event(head.epoch, head.sealed + 2)])
        damaged = Engine(engine.store, Settings(window=8))
        verified = salvaged(damaged, into)
        assert verified.sound
        assert problems(verify_stream(Engine(into), "t", "")) == problems(verified) != set()
        after = world(damaged)
        assert after.items() <= unharmed.items()
        assert len(after) == head.sealed + 1
        into.close()
    finally:
        harness.close()


def test_a_quarantine_that_takes_only_smaller_records_is_refused_and_the_thread_stays() -> None:
    stream = young()
    stream.put(15, 17, big=noise(1))
    last = max(key for key in stream.store.records() if keys.kind_of(key) == b"e")
    stream.store.flip(last)
    before = stream.store.records()
    small = MemoryStore(max_record=300)
    done = verify_stream(stream.fresh(), "t", "", repair=True, into=small).quarantine
    assert done is not None
    assert re.search(r"a record has [\d,]+ bytes, the quarantine takes 300; give another store", done.refused)
    assert stream.store.records() == before
    assert not [*small.heads()]


def test_what_lies_beyond_the_window_of_an_older_head_is_kept_too() -> None:
    stream = Stream()
    stream.put(0, 40)
    after_the_grace(stream)
    heads = {**stream.store._heads}
    stream.put(40, 60)
    unharmed = world(stream.fresh())
    stream.store._heads = heads
    stream.engine = stream.fresh()
    lose(stream, segments(stream)[1])
    found = goes_on(stream, unharmed)
    assert found.quarantine is not None
    assert {id_of(n) for n in range(40, 60)} <= world(stream.fresh()).keys()
