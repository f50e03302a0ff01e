"""What a crash of all nodes took, and a head names, is there again: as it was, or it is an error that says so."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import aerospike_server as servers
import pytest
from checkpoints import id_of, numbered, numbers, write
from faults.scenes import named, noise
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from moving import Interrupted
from streams import STREAMS, Nodes, Stream, large, merge_early, with_levels, young

from foldpoint import Engine, Settings
from foldpoint.codecs import envelope
from foldpoint.codecs.event import encode_checkpoint
from foldpoint.codecs.segment import SnapshotRef, encode_segment, encode_snapshot
from foldpoint.compaction import KeepLast, copy_thread, rewrite_thread, sweep, upkeep
from foldpoint.compaction.policy import DropAll
from foldpoint.compaction.verify import verify, verify_stream
from foldpoint.engine import io as records_io
from foldpoint.engine import keys, recovery, repair, sealing
from foldpoint.engine.lost import Lost
from foldpoint.engine.reading import read_head
from foldpoint.engine.records import RecordStore
from foldpoint.engine.snapshot import snapshot_of
from foldpoint.errors import CorruptRecord, LostRecord, StoreBusy, StoreUnavailable, StrayRecord


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    merge_early(monkeypatch)


def test_what_is_lost_again_and_again_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = young()
    segment = stream.layout.key(0)
    stream.store.remove_many([segment])
    create = stream.store.create

    def lossy(records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        created = create(records, ttl=ttl)
        stream.store.remove_many([segment])
        return created

    monkeypatch.setattr(stream.store, "create", lossy)
    for read in (stream.contents, lambda: stream.fresh().find("t", "", id_of(2))):
        with pytest.raises(LostRecord):
            read()


def test_any_number_of_lost_records_is_restored_by_one_call() -> None:
    stream = Stream()
    for n in range(1200):
        stream.engine.put("t", "", numbered(n))
    stream.engine.reader("t", "").seal()
    expected, layout = stream.contents(), stream.layout
    lost = {layout.key(at) for at in range(0, len(layout), 2)} | {
        key for key in stream.named() if keys.is_snapshot(key)
    }
    assert len(lost) > 80
    stream.store.remove_many(lost)
    assert stream.contents() == expected
    whole(stream)


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> Stream:
    made = STREAMS[request.param]()
    kinds = {key[16:18] if key[16:17] in (b"s", b"i") else key[16:17] for key in made.named()}
    wanted = {b"s\x01", b"s\x02", b"s\x03", b"i\x02", b"i\x03", b"k"} if request.param == "levels" else {b"s\x01"}
    assert kinds >= wanted
    return made


def whole(stream: Stream) -> None:
    """Nothing is lost or damaged any more."""
    assert verify_stream(stream.fresh(), "t", "").findings == ()


def lose(store: Nodes, key: bytes) -> None:
    store.remove_many([key])


def tear(store: Nodes, key: bytes) -> None:
    """As a server may that is killed while it writes the record; of an emptied one there is nothing to tear."""
    if store.get_many([key]) != [b""]:
        store.flip(key)


@pytest.mark.parametrize("harm", [lose, tear])
def test_each_record_that_a_head_names_is_restored_when_it_is_lost_or_torn(
    stream: Stream, harm: Callable[[Nodes, bytes], None]
) -> None:
    expected, records = stream.contents(), stream.store.records()
    segments = stream.segments()
    for key in stream.named():
        harm(stream.store, key)
        assert stream.contents() == expected, keys.words(key)
        assert verify_stream(stream.fresh(), "t", "", repair=True).sound  # what reading does not ask for
        assert stream.segments() == segments
        whole(stream)
        stream.store.bring_back(records)


def test_any_of_them_are_restored_together(stream: Stream) -> None:
    expected, records, named = stream.contents(), stream.store.records(), stream.named()
    rng = random.Random(5)
    lost = [*combinations(named[-4:], 2), *(rng.sample(named, rng.randint(2, len(named))) for _ in range(40)), named]
    for missing in lost:
        for key in missing:
            rng.choice([lose, lose, tear])(stream.store, key)
        assert stream.contents() == expected
        assert verify_stream(stream.fresh(), "t", "", repair=True).sound
        whole(stream)
        stream.store.bring_back(records)


def test_they_are_restored_when_they_are_damaged_if_that_is_asked_for(stream: Stream) -> None:
    expected, records, named = stream.contents(), stream.store.records(), stream.named()
    for damaged in [*([key] for key in named), named[::2], named]:
        for key in damaged:
            stream.store.flip(key)
        assert not verify_stream(stream.fresh(), "t", "").sound
        found = verify_stream(stream.fresh(), "t", "", repair=True)
        assert found.sound
        assert {finding.key for finding in found.findings} <= {key.hex() for key in damaged}
        assert stream.contents() == expected
        whole(stream)
        stream.store.bring_back(records)


def parts_by_segment(stream: Stream) -> dict[bytes, list[bytes]]:
    segments = [stream.layout.key(position) for position in range(len(stream.layout))]
    return {key: parts for key in segments if (parts := stream.engine.io.parts_of([key]))}


def test_a_segment_of_which_a_part_is_missing_is_restored_and_its_other_parts_are_removed() -> None:
    stream = large()
    expected, records, parts = stream.contents(), stream.store.records(), parts_by_segment(stream)
    for missing in [*([part] for some in parts.values() for part in some), [some[-1] for some in parts.values()]]:
        stream.store.remove_many(missing)
        assert stream.contents() == expected
        whole(stream)
        named = [part for some in parts_by_segment(stream).values() for part in some]
        assert not {*missing} & {*named}
        assert {key for key in stream.store.records() if keys.kind_of(key) == b"b"} == {*named}
        stream.store.bring_back(records)


def test_a_segment_of_which_a_part_is_torn_is_restored_and_its_other_parts_are_removed() -> None:
    stream = large()
    expected, records = stream.contents(), stream.store.records()
    for key, parts in parts_by_segment(stream).items():
        for part in parts:
            tear(stream.store, part)
            assert stream.contents() == expected
            whole(stream)
            named = [part for some in parts_by_segment(stream).values() for part in some]
            assert {key for key in stream.store.records() if keys.kind_of(key) == b"b"} == {*named}
            stream.store.bring_back(records)
            tear(stream.store, part)
            [finding] = verify_stream(stream.fresh(), "t", "", repair=True).findings
            assert (finding.key, finding.repaired) == (key.hex(), True)
            assert part.hex() in finding.problem
            stream.store.bring_back(records)


def test_a_segment_that_a_crash_left_without_a_part_holds_up_nobody() -> None:
    """It was stored, the head that would have named it was not."""
    stream, unharmed = large(), large()
    heads = {**stream.store._heads}
    log = stream.engine.reader("t", "")
    log.seal()
    view = log.load()
    assert view is not None
    left = keys.segment(view.head.epoch, view.head.segments - 1)
    stream.store.remove_many(stream.engine.io.parts_of([left])[1:2])
    stream.store._heads = heads
    stream.engine = stream.fresh()
    for one in (stream, unharmed):
        one.put(14, 40)
    assert stream.contents() == unharmed.contents()
    whole(stream)


def test_records_that_a_crash_tore_and_no_head_names_hold_up_nobody() -> None:
    """They were stored, the heads that would have named them were not."""
    stream, unharmed = with_levels(), with_levels()
    heads, records = {**stream.store._heads}, stream.store.records()
    for one in (stream, unharmed):
        one.put(160, 190)
        upkeep(one.engine, "t", "", idle=True)
    since = [key for key in stream.store.records().keys() - records.keys() if keys.kind_of(key) != b"e"]
    assert {keys.kind_of(key) for key in since} >= {b"s", b"i", b"p"}
    for key in since:
        tear(stream.store, key)
    stream.store._heads = heads
    upkeep(stream.fresh(), "t", "", idle=True)
    assert stream.contents() == unharmed.contents()
    whole(stream)


@pytest.mark.parametrize("kind", [keys.segment, keys.span])
def test_a_merged_record_that_a_crash_left_without_a_part_holds_up_nobody(kind: Callable[..., bytes]) -> None:
    stream = large()
    expected, heads = stream.contents(), {**stream.store._heads}
    upkeep(stream.engine, "t", "", idle=True)
    left = kind(next(stream.engine.heads("t")).epoch, 0, 2)
    if not stream.engine.io.parts_of([left]):  # a span is small here
        content = stream.engine.io.read([left])[0]
        assert content is not None
        stream.store.remove_many([left])
        parts, stub = stream.engine.io._in_parts(left, content)
        stream.store.create([*parts, (left, stub)], ttl=None)
    stream.store.remove_many(stream.engine.io.parts_of([left])[:1])
    stream.store._heads = heads
    upkeep(stream.fresh(), "t", "", idle=True)
    assert next(stream.engine.heads("t")).merged[0].count
    assert stream.contents() == expected
    whole(stream)


@pytest.mark.parametrize("turns", range(6))
def test_two_who_restore_a_sealed_snapshot_at_once_leave_one_in_one_piece(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed twice it differs. The other one, which had removed what was left before, writes between two calls."""
    monkeypatch.setattr(repair, "_PAUSE", 0)
    cipher = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef").cipher

    def sealed(store: RecordStore, stream: Stream) -> Engine:
        return Engine(store, stream.engine.settings, clock=stream.clock, cipher=cipher)

    stream = large()
    stream.store = Nodes(max_record=600)
    stream.engine = sealed(stream.store, stream)
    for n in range(0, 14, 2):
        stream.put(n, n + 2, big=noise(n))
    head = next(stream.engine.heads("t"))
    assert head.snapshot is not None
    parts = keys.snapshot_parts(head.epoch, head.snapshot)
    assert len(parts) > 1
    expected = [entry.state() for entry in stream.engine.history("t", "")]
    stream.store.remove_many(parts)

    class OneByOne(Interrupted):
        """A batch of a cluster is no transaction."""

        def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
            return [super(OneByOne, self).create([record], ttl=ttl)[0] for record in records]

    seam = OneByOne(stream.store)
    others = Lost(sealed(stream.store, stream).reader("t", "").reader, head, False).records(parts[0])
    other = [lambda: stream.store.create(others, ttl=None)]

    def between() -> None:
        """Before the call after `turns` others."""
        nonlocal turns
        if turns and other:
            turns -= 1
            for verb in ("remove_many", "create", "get_many"):
                seam.before[verb] = between
        elif other:
            other.pop()()

    seam.before["remove_many"] = between
    one = sealed(seam, stream)  # type: ignore[arg-type]
    assert [entry.state() for entry in one.history("t", "")] == expected
    assert not other
    assert [entry.state() for entry in sealed(stream.store, stream).history("t", "")] == expected
    assert verify_stream(sealed(stream.store, stream), "t", "").findings == ()


@pytest.mark.parametrize("max_record", [1 << 20, 600], ids=["one record", "parts"])
def test_an_older_head_that_a_crash_brought_back_reads_what_its_emptied_snapshot_held(max_record: int) -> None:
    stream = Stream(max_record=max_record)
    heads = []
    for n in range(40):
        stream.put(n, n + 1, big=noise(n // 4))
        heads.append({**stream.store._heads})

    def checkpoints() -> list[object]:
        return [one[:3] for one in stream.contents()]  # type: ignore[index]

    expected = checkpoints()
    emptied = 0
    for before in reversed(heads):
        stream.store._heads = {**before}
        head = next(stream.engine.heads("t"))
        if head.snapshot is None:
            break
        emptied += stream.store.get_many(keys.snapshot_parts(head.epoch, head.snapshot))[0] == b""
        assert checkpoints() == expected
    assert emptied >= 5
    stream.engine = stream.fresh()
    stream.put(40, 60)
    assert checkpoints()[20:] == expected
    assert verify_stream(stream.fresh(), "t", "").findings == ()


def _reverted(windows: int, **channels: object) -> tuple[Stream, list[object]]:
    """A stream whose head a crash made older by so many windows of events, and what it holds."""
    stream = Stream(max_record=600)
    stream.put(0, 3, **channels)
    heads = {**stream.store._heads}
    stream.put(3, 3 + 4 * windows, **channels)
    head = next(stream.engine.heads("t"))
    expected = stream.contents()
    stream.store._heads = heads
    assert head.sealed > next(stream.engine.heads("t")).slots[-1]
    stream.engine = stream.fresh()
    return stream, expected


@pytest.mark.parametrize("windows", [2, 3, 9])
def test_what_lies_beyond_the_window_of_an_older_head_is_read(windows: int) -> None:
    stream, expected = _reverted(windows)
    head = read_head(next(iter(stream.store.heads())))
    assert stream.contents() == expected
    latest = stream.fresh().latest("t", "")
    assert latest is not None
    assert latest.folded.header == expected[0][0]  # type: ignore[index]
    assert read_head(next(iter(stream.store.heads()))) == head  # reading changes nothing
    assert verify_stream(stream.fresh(), "t", "").findings == ()


def test_a_segment_of_more_than_a_window_is_restored() -> None:
    stream, expected = _reverted(9)
    stream.engine.reader("t", "").seal()
    for key in stream.named():
        stream.store.remove_many([key])
        assert stream.contents() == expected
        whole(stream)


@pytest.mark.parametrize("by", ["a put", "upkeep", "a rewrite", "a deletion", "a copy"])
def test_whoever_goes_on_from_an_older_head_goes_on_from_what_lies_beyond_its_window(by: str) -> None:
    stream, expected = _reverted(5)
    if by == "a put":
        stream.put(23, 24)
        assert stream.contents()[1:] == expected
    elif by == "upkeep":
        upkeep(stream.engine, "t", "")
        assert next(stream.engine.heads("t")).sealed > 40
        assert stream.contents() == expected
    elif by == "a rewrite":
        rewrite_thread(stream.engine, "t", KeepLast(4))
        assert stream.contents() == expected[:4]
    elif by == "a copy":
        copy_thread(stream.engine, "t", "u")
        assert numbers(stream.fresh(), "u") == [*range(22, -1, -1)]
    else:
        rewrite_thread(stream.engine, "t", DropAll())
        assert stream.contents() == []
    for _ in range(3):
        stream.clock.advance(1000)
        upkeep(stream.engine, "t", "")
        sweep(stream.fresh())
    if by == "a deletion":
        assert {keys.epoch_of(key) for key in stream.store.records()} <= {keys.LOOKS}
    else:
        assert len(stream.contents()) == (24 if by == "a put" else 4 if by == "a rewrite" else 23)
        assert all(report.sound for report in verify(stream.fresh()))


def test_parts_of_large_values_beyond_the_window_of_an_older_head_are_not_swept() -> None:
    stream, expected = _reverted(4, big=noise(1))
    for _ in range(4):
        sweep(stream.fresh())
        stream.clock.advance(1000)
    assert stream.contents() == expected


def test_an_event_that_is_lost_beyond_the_window_is_an_error_and_no_older_state() -> None:
    stream, _ = _reverted(4)
    [head] = stream.engine.heads("t")
    lost = keys.event(head.epoch, head.slots.stop + 3)
    stream.store.remove_many([lost])
    with pytest.raises(CorruptRecord) as caught:
        stream.fresh().latest("t", "")
    assert caught.value.key == lost
    assert not verify_stream(stream.fresh(), "t", "", repair=True).sound


def test_what_a_sealer_that_was_held_up_puts_is_not_taken_for_the_snapshot_that_is_restored() -> None:
    stream = Stream()
    stream.put(0, 10, big=noise(1))
    earlier = stream.engine.reader("t", "")
    earlier.load()
    assert earlier.view is not None
    late = encode_snapshot(snapshot_of(earlier.view.slice, earlier.view.head.sealed))
    stream.put(10, 20, big=noise(2))
    head = next(stream.engine.heads("t"))
    assert head.snapshot is not None
    [key] = keys.snapshot_parts(head.epoch, head.snapshot)
    expected = stream.contents()
    io = stream.engine.io
    late_part = io.seal_part(key, io.seal(key, envelope.SNAPSHOT, *envelope.deflate(late, 1)))
    stream.store.empty_many([key])
    seam = Interrupted(stream.store)
    seam.before["create"] = lambda: stream.store.create([(key, late_part)], ttl=None)
    assert len([*stream.fresh(seam).history("t", "")]) == len(expected)  # type: ignore[arg-type]
    assert stream.contents() == expected


def test_a_snapshot_of_less_that_a_sealer_held_up_put_in_the_place_of_a_lost_one_is_not_read() -> None:
    stream = Stream()
    stream.put(0, 10, big=noise(1))
    earlier = stream.engine.reader("t", "")
    earlier.load()
    assert earlier.view is not None
    late = encode_snapshot(snapshot_of(earlier.view.slice, earlier.view.head.sealed))
    stream.put(10, 20, big=noise(2))
    head = next(stream.engine.heads("t"))
    assert head.snapshot is not None
    [key] = keys.snapshot_parts(head.epoch, head.snapshot)
    expected = stream.contents()
    io = stream.engine.io
    late_part = io.seal_part(key, io.seal(key, envelope.SNAPSHOT, *envelope.deflate(late, 1)))
    stream.store.remove_many([key])
    stream.store.create([(key, late_part)], ttl=None)
    assert stream.contents() == expected
    assert verify_stream(stream.fresh(), "t", "").sound


def test_a_restored_snapshot_lies_in_the_parts_that_its_head_names_whatever_its_size() -> None:
    """A part of the very size that a record may have."""
    for max_record in range(660, 690):
        stream = Stream(max_record=max_record)
        for n in range(0, 14, 2):
            stream.put(n, n + 2, big=noise(n))
        stream.engine.reader("t", "").seal()
        head = next(stream.engine.heads("t"))
        assert head.snapshot is not None
        parts = keys.snapshot_parts(head.epoch, head.snapshot)
        stream.store.remove_many(parts)
        assert len(stream.contents()) == 14
        assert stream.engine.io.parts_of(parts) == []


def test_an_event_in_parts_is_remembered_wholly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than is remembered: what is sent again without its first parts nobody could read."""
    monkeypatch.setattr(records_io, "_REMEMBERED_BYTES", 20_000)
    stream = Stream(max_record=1000)
    stream.put(0, 3)
    before = stream.store.records()
    stream.engine.put("t", "", numbered(3, big=random.Random(3).randbytes(30_000)))
    stream.store.bring_back(before)
    assert stream.engine.io.send_again(next(stream.engine.heads("t")).epoch, 0) == 0
    assert len(stream.contents()) == 3


@pytest.mark.parametrize("ordered", [False, True])
def test_a_merger_held_up_between_parts_and_stub_holds_up_nobody(ordered: bool) -> None:
    """Sweeps have removed the parts by then."""
    stream = large()
    if ordered:
        capabilities = replace(stream.store.capabilities, ordered=True)
        stream.store.__class__ = type("Ordered", (Nodes,), {"capabilities": property(lambda self: capabilities)})
    expected, times = stream.contents(), iter(range(3))

    class HeldUp(Interrupted):
        def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
            if records[0][0][16:18] == b"s\x02":
                for _ in times:
                    sweep(stream.fresh())
                    stream.clock.advance(101)
            return super().create(records, ttl=ttl)

    upkeep(stream.fresh(HeldUp(stream.store)), "t", "", idle=True)  # type: ignore[arg-type]
    assert next(times, None) is None
    for _ in range(3):
        stream.clock.advance(101)
        upkeep(stream.fresh(), "t", "", idle=True)
    assert next(stream.engine.heads("t")).merged[0].count
    assert stream.contents() == expected
    whole(stream)


@pytest.mark.parametrize("most", [0, 1], ids=["first", "all"])
@pytest.mark.parametrize("wholly", [False, True], ids=["part", "record"])
def test_what_was_merged_and_lost_goes_like_the_rest(wholly: bool, most: int) -> None:
    """Its removal was broken off, or a crash of the store took it."""
    stream = large()
    upkeep(stream.engine, "t", "", idle=True)
    head = next(stream.engine.heads("t"))
    merged = [keys.segment(head.epoch, index) for index in range(head.superseded.segments[0])]
    assert len(merged) > 2
    for segment in merged if most else merged[:1]:
        stream.store.remove_many([segment] if wholly else stream.engine.io.parts_of([segment])[:1])
    expected = stream.contents()
    for _ in range(3):
        stream.clock.advance(101)
        upkeep(stream.fresh(), "t", "", idle=True)
    assert not {*merged} & stream.store.records().keys()
    assert stream.contents() == expected
    whole(stream)


def test_where_an_event_is_gone_too_it_is_an_error_and_never_another_value(stream: Stream) -> None:
    expected, records, layout = stream.contents(), stream.store.records(), stream.layout
    for position, segment in enumerate(stream.segments()):
        if layout.place(position).level > 1:
            continue
        for seq in range(segment.span.first, segment.span.last + 1):
            stream.store.remove_many([layout.key(position), keys.event(layout.epoch, seq)])
            with pytest.raises(LostRecord, match="verify --thread T --repair") as caught:
                stream.contents()
            assert caught.value.key == layout.key(position)
            found = verify_stream(stream.fresh(), "t", "", repair=True)
            assert layout.key(position).hex() in [one.key for one in found.findings if not one.repaired]
            stream.store.bring_back(records)
    assert stream.contents() == expected


def test_a_segment_for_which_the_head_leaves_no_number_is_not_made_up() -> None:
    stream = young()
    layout, last = stream.layout, stream.segments()[-1].span
    stream.store.remove_many([layout.key(len(layout) - 1)])
    log = stream.engine.reader("t", "")
    record = stream.store.get_head(log.key)
    assert record is not None
    assert log.swap(replace(read_head(record), sealed=last.first - 1), record.revision)
    with pytest.raises(LostRecord):
        stream.contents()
    assert stream.store.get_many([layout.key(len(layout) - 1)]) == [None]


@pytest.mark.parametrize("harm", [lose, tear])
def test_a_merged_segment_that_is_lost_with_its_inputs_is_restored_from_what_those_were_made_of(
    harm: Callable[[Nodes, bytes], None],
) -> None:
    stream = with_levels()
    expected, records = stream.contents(), stream.store.records()
    rng = random.Random(7)
    for position, inputs, events in merged_segments(stream):
        layout = stream.layout
        lost = [[gone] for gone in inputs] + [rng.sample(inputs, rng.randint(1, len(inputs))) for _ in range(5)]
        after = [layout.key(one) for one in range(position + 1, len(layout)) if layout.place(one).level == 1]
        level = layout.place(position).level
        if level == 2:
            lost += [[*inputs, *after[:1]], [*inputs, *after[:3]], [*inputs, *after]]
        for gone in [*lost, inputs]:
            for key in (layout.key(position), layout.span_key(position), *gone):
                harm(stream.store, key)
            if level == 3:
                stream.store.remove_many(events)  # as those of level 1 are there
            assert stream.contents() == expected
            left = {finding.key for finding in verify_stream(stream.fresh(), "t", "").findings}
            assert left == ({key.hex() for key in gone if key in inputs} if harm is tear else set())
            stream.store.bring_back(records)
        below = [key for key in records if keys.kind_of(key) == b"s" and key[17] < level]
        stream.store.remove_many([layout.key(position), layout.span_key(position), *below, rng.choice(events)])
        with pytest.raises(LostRecord):
            stream.contents()
        stream.store.bring_back(records)


@pytest.mark.parametrize("seed", range(30))
def test_segments_of_all_levels_side_by_side_are_restored_from_events(seed: int) -> None:
    """Lost with what they were merged from: where one level ends and the next begins nothing tells then."""
    stream, rng = with_levels(), random.Random(seed)
    expected, layout = stream.contents(), stream.layout
    levels = [layout.place(position).level for position in range(len(layout))]
    low, high = sorted(rng.sample([*range(levels.count(3) - 1, len(layout) + 1)], 2)) if seed else (0, len(layout))
    lost = {key for at in range(low, high) for key in (layout.key(at), layout.span_key(at))}
    lost |= {key for key in stream.store.records() if keys.kind_of(key) == b"s" and key not in stream.named()}
    if seed % 2 == 0:
        lost |= {key for key in stream.named() if keys.is_snapshot(key)}
    stream.store.remove_many(lost)
    assert stream.contents() == expected
    assert verify_stream(stream.fresh(), "t", "", repair=True).sound
    whole(stream)


@pytest.mark.parametrize("gone", ["events", "inputs"])
@pytest.mark.parametrize(("level", "nth"), [(2, 0), (3, 0), (3, 1)])
def test_a_segment_is_restored_though_all_that_tells_of_later_ones_is_lost(level: int, nth: int, gone: str) -> None:
    """Its span tells what it holds, but not how many there are after it; and those are told from the log up to it."""
    stream = with_levels()
    expected, layout = stream.contents(), stream.layout
    position, *later = [at for at in range(len(layout)) if layout.place(at).level == level][nth:]
    assert later
    span = stream.engine.reader("t", "").reader.span(layout, position)
    unnamed = [key for key in stream.store.records() if keys.kind_of(key) == b"s" and key not in stream.named()]
    low = span.first if gone == "inputs" else span.last + 1
    lost = {key for key in unnamed if first_of(stream, key) >= low}
    lost |= {key for at in later for key in (layout.key(at), layout.span_key(at))}
    if gone == "events":
        lost |= {keys.event(layout.epoch, seq) for seq in range(span.first, low)}
    stream.store.remove_many(lost | {layout.key(position)})
    assert stream.contents() == expected
    whole(stream)


@pytest.mark.parametrize("repaired", [False, True], ids=["by a reader", "by the checker"])
def test_a_restored_segment_begins_with_the_snapshot_that_its_span_names(
    repaired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clean-up looks at spans alone: the snapshot that nothing but the segment named would go."""
    monkeypatch.setattr(sealing, "KEPT_RATIO", 2)
    stream = with_levels()
    records, layout, reader = stream.store.records(), stream.layout, stream.engine.reader("t", "").reader
    named = set()
    for position, inputs, _ in merged_segments(stream):
        span = reader.span(layout, position)
        named.add(span.start)
        stream.store.remove_many([layout.key(position), inputs[0]])
        if repaired:
            assert verify_stream(stream.fresh(), "t", "", repair=True).sound
        else:
            stream.contents()
        assert reader.segments(layout, [position])[0].span == span
        assert stream.store.get_many([layout.span_key(position)]) == [records[layout.span_key(position)]]
        stream.store.bring_back(records)
    assert len(named) > 3


def test_of_two_who_restore_a_segment_at_once_none_adds_his_own_span_to_the_segment_of_the_other() -> None:
    """Told a moment earlier or later it may begin with another snapshot."""
    stream = with_levels()
    expected, records, layout = stream.contents(), stream.store.records(), stream.layout
    for position, _, _ in merged_segments(stream):
        key = layout.key(position)
        [segment] = stream.engine.reader("t", "").reader.segments(layout, [position])
        others = replace(segment, span=replace(segment.span, start=None))
        stream.store.remove_many([key, layout.span_key(position)])
        seam = Interrupted(stream.store)
        record = stream.engine.io.seal(key, envelope.SEGMENT, 0, bytes(encode_segment(others)))
        seam.before["create"] = lambda key=key, record=record: stream.store.create([(key, record)], ttl=None)
        assert [*stream.fresh(seam).history("t", "")]  # type: ignore[arg-type]
        assert stream.contents() == expected
        assert stream.engine.reader("t", "").reader.span(layout, position) == others.span
        whole(stream)
        stream.store.bring_back(records)


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("kind", ["segment", "span"])
@pytest.mark.parametrize("harm", [lose, tear])
@pytest.mark.parametrize("since", [0, 40], ids=["all is in its grace", "much is cleaned"])
def test_what_nobody_has_met_is_restored_before_what_it_was_made_of_is_removed(
    since: int, harm: Callable[[Nodes, bytes], None], kind: str, idle: bool
) -> None:
    stream, restored = with_levels(), 0
    if since:
        keep_up(stream, idle=True)
        stream.put(160, 160 + since)
        upkeep(stream.engine, "t", "", idle=True)
    expected, records, heads, layout = stream.contents(), stream.store.records(), {**stream.store._heads}, stream.layout
    for position in range(len(layout)):
        key = layout.key(position) if kind == "segment" else layout.span_key(position)
        harm(stream.store, key)
        could_be_restored = is_readable(stream)
        stream.store.bring_back(records)
        if could_be_restored:
            harm(stream.store, key)
            keep_up(stream, idle=idle)
            assert stream.contents() == expected
            stream.store.bring_back(records)
            restored += 1
        stream.store._heads = {**heads}
    assert restored > 3


def is_readable(stream: Stream) -> bool:
    try:
        stream.contents()
    except LostRecord:
        return False
    return True


def keep_up(stream: Stream, *, idle: bool) -> None:
    """Until all that is superseded is gone."""
    for _ in range(4):
        stream.clock.advance(102)
        upkeep(stream.fresh(), "t", "", idle=idle)


def test_a_kept_snapshot_is_restored_though_the_span_that_names_it_is_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "KEPT_RATIO", 2)
    stream = with_levels()
    expected, records, layout, found = stream.contents(), stream.store.records(), stream.layout, 0
    for position, _, _ in merged_segments(stream):
        start = stream.engine.reader("t", "").reader.span(layout, position).start
        if start is not None:
            stream.store.remove_many([layout.span_key(position), *keys.snapshot_parts(layout.epoch, start)])
            assert stream.contents() == expected
            stream.store.bring_back(records)
            found += 1
    assert found > 3


def merged_segments(stream: Stream) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
    """The position of each segment above level 1, the keys of what it was merged from, and of its events."""
    layout, records = stream.layout, stream.store.records()
    for position in (position for position in range(len(layout)) if layout.place(position).level > 1):
        [segment] = stream.engine.reader("t", "").reader.segments(layout, [position])
        below = [key for key in records if key[16:18] == b"s" + bytes([layout.place(position).level - 1])]
        inputs = [key for key in below if segment.span.first <= first_of(stream, key) <= segment.span.last]
        assert len(inputs) == segment.span.inputs
        yield position, inputs, [keys.event(layout.epoch, seq) for seq, _ in segment.events]


def first_of(stream: Stream, key: bytes) -> int:
    return stream.engine.reader("t", "").reader.segment(key, stream.store.get_many([key])[0]).span.first


@pytest.mark.parametrize(
    "use",
    [
        lambda engine: engine.latest("t", ""),
        lambda engine: engine.find("t", "", id_of(0)),
        lambda engine: engine.put("t", "", numbered(15)),
        lambda engine: engine.put_writes("t", "", id_of(0), [write(0, "later")]),
        lambda engine: engine.reader("t", "").seal(),
        lambda engine: engine.channel_history("t", "", None, ["list"]),
        lambda engine: upkeep(engine, "t", "", idle=True),
    ],
    ids=["latest", "find", "put", "put_writes", "seal", "channel_history", "upkeep"],
)
def test_whoever_meets_it_goes_on(use: Callable[[Engine], object], caplog: pytest.LogCaptureFixture) -> None:
    stream = young()
    stream.store.remove_many(stream.named())
    with caplog.at_level(logging.WARNING, "foldpoint"):
        use(stream.fresh())
    assert any("thread 't': restored" in record.getMessage() for record in caplog.records)
    entries = [*stream.fresh().history("t", "")]
    for entry in entries:
        assert isinstance(step := entry.folded.labels["step"], int)
        assert entry.state() == numbered(step).channels
    assert len(entries) >= 15


def test_a_writer_that_knows_its_stream_seals_and_goes_on_over_what_was_lost() -> None:
    unharmed, stream = young(), young()
    stream.store.remove_many(stream.named())
    for one in (unharmed, stream):
        one.put(15, 40)
    assert stream.contents() == unharmed.contents()
    whole(stream)


def test_two_who_restore_at_once_leave_one_whole_log(stream: Stream) -> None:
    expected, named = stream.contents(), stream.named()
    first, second = stream.fresh(), stream.fresh()
    for missing in (named[:3], named[1:], named):
        stream.store.remove_many(missing)
        interleaved(first.history("t", ""), second.history("t", ""))
        assert stream.contents() == expected
        assert verify_stream(stream.fresh(), "t", "", repair=True).sound
        whole(stream)


def interleaved(one: Iterable[object], other: Iterable[object]) -> None:
    assert sum(1 for _ in zip(one, other, strict=True)) > 10


def test_what_is_restored_lives_as_long_as_what_was_lost() -> None:
    stream = Stream()
    for n in range(20):
        stream.engine.put("t", "", numbered(n), ttl=1000)
    layout = stream.layout
    stream.store.remove_many([layout.key(0)])
    stream.contents()
    assert stream.store._log[layout.key(0)][1] is not None


# -- events that are lost, and others in their place -------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 9000], ids=["small", "with references"])
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("lost", [2, 3])
def test_what_builds_on_a_lost_event_is_refused_when_another_has_its_number(lost: int, sealed: bool, size: int) -> None:
    """A writer goes on from memory; another one, who finds numbers free that were taken, puts there."""
    stream = Stream()
    values = [random.Random(n).randbytes(size).hex() for n in range(4)]
    stream.put(0, 1, value=values[0])
    stream.put(1, 3, value=values[1])
    taken = [key for key in stream.store.records() if keys.kind_of(key) == b"e"]
    if sealed:
        heads = {**stream.store._heads}
        with stream.engine.log("t", "") as log:
            log.seal()
        stream.store._heads = heads
    stream.store.remove_many([*sorted(taken)[-lost:], *(stream.store.records().keys() - taken)])
    other = stream.fresh()
    for n in range(lost):
        if n % 2:
            other.put_writes("t", "", id_of(0), [write(20 + n, f"other {n}")])
        else:
            other.put("t", "", numbered(20 + n, 0, value=values[2]))
    stream.put(3, 4, value=values[1])
    for reader in (stream.fresh(), other):
        with pytest.raises(CorruptRecord):
            reader.latest("t", "")


def test_what_is_sealed_upon_a_lost_event_is_refused_when_a_segment_holds_another_of_the_same_checkpoint() -> None:
    """However far back that lies: what vouches for an event vouches for all that it builds upon."""
    stream = Stream()
    stream.engine = Engine(stream.store, Settings(window=8, segment_level=1, snapshot_ratio=9.0), clock=stream.clock)
    log = stream.engine.reader("t", "")
    for n in range(0, 16, 4):
        stream.put(n, n + 4, value=n)
        log.seal()
    assert next(stream.engine.heads("t")).snapshot is None
    expected = stream.contents()
    first = stream.layout.key(0)
    [segment, *_] = stream.segments()
    payloads = dict(segment.events)
    payloads[1] = encode_checkpoint(1, numbered(0, value="another"), None)
    other = bytes(encode_segment(replace(segment, events=tuple(payloads.items()))))
    stream.store.remove_many([first])
    stream.store.create([(first, envelope.seal(first, envelope.SEGMENT, 0, other))], ttl=None)
    reader = stream.fresh()
    for read in (lambda: reader.latest("t", ""), lambda: reader.find("t", "", id_of(5)), stream.contents):
        with pytest.raises(CorruptRecord, match="builds upon events that the store has lost"):
            read()
    assert not verify_stream(stream.fresh(), "t", "").sound
    stream.store.remove_many([first])
    assert stream.contents() == expected


def with_a_stray_segment() -> tuple[Stream, bytes]:
    """The head is an older one by then, and other events take the numbers. The segment's key."""
    stream = Stream()
    stream.put(0, 8)
    heads, known = {**stream.store._heads}, stream.store.records()
    stream.put(8, 13)
    stream.engine.reader("t", "").seal()
    lost = stream.store.records()
    stream.store._heads = heads
    left = keys.segment(next(stream.engine.heads("t")).epoch, len(stream.layout))
    stream.store.bring_back({**known, left: lost[left]})
    stream.engine = stream.fresh()
    return stream, left


def test_a_segment_that_a_crash_left_of_a_lost_future_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    stream, _ = with_a_stray_segment()
    with caplog.at_level(logging.WARNING, "foldpoint"):
        stream.put(8, 40, value="other")
    assert "removed segment" in caplog.text
    unharmed = Stream()
    unharmed.put(0, 8)
    unharmed.put(8, 40, value="other")
    assert stream.contents() == unharmed.contents()
    whole(stream)


def test_a_segment_that_begins_with_a_snapshot_of_a_lost_future_is_not_adopted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its number is taken by another by the time that somebody asks for it."""
    stream = Stream()
    stream.put(0, 78)
    heads, known = {**stream.store._heads}, stream.store.records()
    log = stream.engine.reader("t", "")
    log.seal()
    [segment] = log.reader.segments(stream.layout, [len(stream.layout) - 1])
    left = stream.layout.key(len(stream.layout) - 1)
    stream.store._heads = heads
    head = next(stream.fresh().heads("t"))
    start = SnapshotRef(head.snapshots + 1, head.sealed, head.segments, 1, kept=True)
    other = bytes(encode_segment(replace(segment, span=replace(segment.span, start=start))))
    stream.store.bring_back({**known, left: envelope.seal(left, envelope.SEGMENT, 0, other)})
    stream.engine = stream.fresh()
    unharmed = Stream()
    unharmed.put(0, 78)
    with caplog.at_level(logging.WARNING, "foldpoint"):
        for one in (stream, unharmed):
            for n in range(12):
                one.engine.put_writes("t", "", id_of(3), [write(n, "later")])
    assert stream.contents() == unharmed.contents()
    assert "removed segment" in caplog.text
    whole(stream)


def test_any_number_of_segments_of_a_lost_future_is_replaced_at_once() -> None:
    stream = Stream()
    stream.put(0, 8)
    heads, first = {**stream.store._heads}, len(stream.layout)
    stream.put(8, 140)
    expected, layout = stream.contents(), stream.layout
    gone = SnapshotRef(99, 1, 1, 1, kept=True)
    left = {}
    for at, segment in list(enumerate(stream.segments()))[first:]:
        other = bytes(encode_segment(replace(segment, span=replace(segment.span, start=gone))))
        left[layout.key(at)] = envelope.seal(layout.key(at), envelope.SEGMENT, 0, other)
    stream.store._heads = heads
    stream.store.bring_back({**stream.store.records(), **left})
    stream.engine = stream.fresh()
    stream.engine.reader("t", "").seal()
    assert len(stream.layout) > 30
    assert stream.contents() == expected
    whole(stream)


@pytest.mark.parametrize("tokens", [[], [b"before", b"after"]], ids=["data moves", "nodes came or went in between"])
def test_no_segment_is_removed_while_a_node_may_be_cut_off(
    tokens: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heads are old ones, and what they do not name the others' do."""
    stream, left = with_a_stray_segment()
    record = stream.store.records()[left]

    def settled() -> bytes:
        if not tokens:
            raise StoreBusy("data moves")
        return tokens.pop(0)

    monkeypatch.setattr(stream.store, "settled", settled)
    with pytest.raises((StoreBusy, StrayRecord)):
        stream.put(8, 40, value="other")
    assert stream.store.records()[left] == record


def test_a_swap_that_outlived_a_crash_does_not_count() -> None:
    """It was made over a head that the crash took, and others have swapped as often since."""
    stream = Stream()
    stream.put(0, 9)
    heads = {**stream.store._heads}
    for engine in (stream.engine, stream.fresh()):
        with engine.log("t", "") as log:
            log.seal()
            held = log.view
        stream.store._heads = {**heads}
    assert held is not None
    with stream.engine.log("t", "") as log:
        assert log.view is not None
        assert log.view.revision != held.revision
        assert log.swap(log.view.head, log.view.revision) is None


def test_a_merged_segment_that_a_crash_left_of_a_lost_future_is_not_taken_over() -> None:
    stream = Stream()
    stream.put(0, 8)
    before = stream.store.records(), {**stream.store._heads}
    stream.put(8, 10)
    stream.engine.put_writes("t", "", id_of(1), [write(99, "late")])
    stream.put(10, 40)
    upkeep(stream.engine, "t", "", idle=True)
    head = next(stream.engine.heads("t"))
    left = [make(head.epoch, index, 2) for make in (keys.segment, keys.span) for index in (0, 1)]
    stream.store.bring_back({**before[0], **{key: stream.store.records()[key] for key in left}})
    stream.store._heads = before[1]
    stream.engine = stream.fresh()
    stream.put(8, 40, value="other")
    upkeep(stream.engine, "t", "", idle=True)
    unharmed = Stream()
    unharmed.put(0, 8)
    unharmed.put(8, 40, value="other")
    assert stream.contents() == unharmed.contents()
    whole(stream)


@pytest.mark.parametrize("seed", range(20))
def test_a_writer_puts_again_what_it_remembers_and_the_store_has_lost_or_torn(seed: int) -> None:
    """A crash takes the newest heads, and some of all that was written since; the process that wrote it lives on."""
    rng = random.Random(seed)
    unharmed, stream = Stream(), Stream()
    for one in (unharmed, stream):
        one.put(0, 11)
    heads, records = {**stream.store._heads}, stream.store.records()
    for one in (unharmed, stream):
        one.put(11, 13 + seed % 7)
    if rng.random() < 0.7:
        stream.store._heads = heads
    since = sorted(stream.store.records().keys() - records.keys())
    harmed = {key: rng.choice([lose, lose, tear]) for key in rng.sample(since, rng.randint(1, len(since)))}
    for key, harm in harmed.items():
        harm(stream.store, key)
    stream.clock.advance(20)  # the view is too old to be acted upon
    for one in (unharmed, stream):
        one.put(13 + seed % 7, 30)
    assert stream.contents() == unharmed.contents()
    sealed = {key.hex() for key in harmed if keys.kind_of(key) == b"e"}  # nothing needs them any more
    assert {finding.key for finding in verify_stream(stream.fresh(), "t", "").findings} <= sealed


class Crashing(Nodes):
    """Which tells that its servers are others than before."""

    crashes = 0

    def incarnation(self) -> object:
        return self.crashes

    def crash(self, heads: dict[bytes, Any], records: dict[bytes, bytes]) -> None:
        """Nothing but these is left."""
        self.crashes += 1
        self._heads = {**heads}
        self.bring_back(records)


def crashing() -> Stream:
    stream = Stream()
    stream.store = Crashing()
    stream.engine = stream.fresh()
    return stream


@pytest.mark.parametrize("before", range(1, 16))
def test_what_is_put_after_a_crash_that_took_the_newest_heads_is_seen_by_all(before: int) -> None:
    """Also by a writer that rested meanwhile, and whose next put is quick."""
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 10)
    heads, records = {**stream.store._heads}, stream.store.records()
    stream.put(10, 10 + before)
    stream.store.crash(heads, records)
    stream.engine.put("t", "", numbered(10 + before))
    for reader in (stream.fresh(), stream.engine):
        assert numbers(reader) == [*reversed(range(11 + before))]
    other = stream.fresh()
    for n in range(11 + before, 40 + before):
        other.put("t", "", numbered(n))
    assert numbers(stream.fresh()) == [*reversed(range(40 + before))]
    assert verify_stream(stream.fresh(), "t", "").findings == ()


def test_a_thread_that_a_crash_took_is_brought_back_by_who_has_just_begun_it() -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 3)
    stream.store.crash({}, {})
    stream.engine.put("t", "", numbered(3))
    assert numbers(stream.fresh()) == [3, 2, 1, 0]


@pytest.mark.parametrize("behind", [0, 30])
def test_a_head_that_a_crash_tore_is_brought_back_by_who_knows_it(behind: int) -> None:
    """Or knew it lately: what was put since is found beyond it. Nobody else makes up what it said."""
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 13)
    other = stream.fresh()
    for n in range(13, 13 + behind):
        other.put("t", "", numbered(n))
    [(key, (head, expiry))] = stream.store._heads.items()
    torn = replace(head, value=head.value[:-1] + bytes([head.value[-1] ^ 1]))
    stream.store.crash({key: (torn, expiry)}, stream.store.records())
    with pytest.raises(CorruptRecord, match="head"):
        stream.fresh().latest("t", "")
    stream.engine.put("t", "", numbered(13 + behind))
    assert numbers(stream.fresh()) == [*reversed(range(14 + behind))]
    whole(stream)


@pytest.mark.parametrize("verb", ["swap", "get_many", "get_head", "create"])
@pytest.mark.parametrize("turn", range(3))
def test_what_is_to_be_brought_back_is_not_forgotten_if_that_fails(verb: str, turn: int) -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    seam = Interrupted(stream.store)
    engine = stream.fresh(seam)  # type: ignore[arg-type]
    for n in range(3):
        engine.put("t", "", numbered(n))
    stream.store.crash({}, {})
    left = turn

    def fails() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            seam.before[verb] = fails
            return
        raise StoreUnavailable("not yet")

    seam.before[verb] = fails
    for _ in range(5):
        with suppress(StoreUnavailable):
            engine.put("t", "", numbered(3))
            break
    assert numbers(stream.fresh()) == [3, 2, 1, 0]


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("then", ["read", "put", "deleted"])
def test_a_thread_that_was_deleted_and_begun_again_is_there_after_a_crash_that_took_its_head(
    count: int, then: str
) -> None:
    """The tombstone is back; who deletes what is under it deletes it for good."""
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 5)
    rewrite_thread(stream.engine, "t", DropAll())
    heads = {**stream.store._heads}
    stream.put(0, count)
    expected = stream.contents()
    events = {key: record for key, record in stream.store.records().items() if keys.kind_of(key) == b"e"}
    stream.store.crash(heads, events)
    if then == "deleted":
        rewrite_thread(stream.fresh(), "t", DropAll())
        for one in (stream.fresh(), stream.engine):
            assert one.latest("t", "") is None
        return
    if then == "put":
        stream.fresh().put("t", "", numbered(count))
    for one in (stream.fresh(), stream.engine):
        assert numbers(one) == [*reversed(range(count + (then == "put")))]
    assert then == "put" or stream.contents() == expected
    whole(stream)


def test_a_thread_is_deleted_for_good_though_what_lies_under_its_tombstone_is_damaged() -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 5)
    rewrite_thread(stream.engine, "t", DropAll())
    heads = {**stream.store._heads}
    stream.put(0, 3)
    stream.store.crash(heads, stream.store.records())
    epoch = next(stream.fresh().all_heads("t")).epoch
    stream.store.flip(keys.event(epoch, 2))
    rewrite_thread(stream.fresh(), "t", DropAll())
    assert stream.fresh().latest("t", "") is None


def test_a_thread_that_is_lost_as_a_whole_begins_anew_and_is_not_damaged() -> None:
    """As on servers that hold nothing on disk, some time after what it is made of was put."""
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 40)
    stream.engine.io._sent.clear()
    stream.store.crash({}, {})
    assert stream.engine.latest("t", "") is None
    stream.engine.put("t", "", numbered(40, 39))
    assert numbers(stream.fresh()) == [40]


def test_what_is_remembered_is_put_again_by_who_has_forgotten_the_stream() -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 3)
    heads, records = {**stream.store._heads}, stream.store.records()
    stream.put(3, 6)
    stream.engine._forget()
    stream.store.crash(heads, records)
    stream.engine.put("t", "", numbered(6))
    assert numbers(stream.fresh()) == [*reversed(range(7))]


def test_nothing_is_built_upon_what_another_put_and_a_crash_took() -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 3)
    heads, records = {**stream.store._heads}, stream.store.records()
    stream.fresh().put("t", "", numbered(3))
    latest = stream.engine.latest("t", "")
    assert latest is not None
    assert latest.folded.header.id == id_of(3)
    stream.store.crash(heads, records)
    stream.engine.put("t", "", numbered(4))
    assert numbers(stream.fresh()) == [4, 2, 1, 0]


def test_a_thread_that_is_gone_is_not_brought_back_unless_a_crash_can_have_taken_it() -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 3)
    stream.store._heads = {}
    assert stream.engine.latest("t", "") is None
    assert stream.fresh().latest("t", "") is None


def test_what_is_in_parts_is_put_again_also_where_its_first_answer_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sent the create again, and heard that the number is taken: by its own event."""
    stream = Stream(max_record=600)
    stream.put(0, 2)
    create = stream.store.create

    def twice(records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        created = create(records, ttl=ttl)
        return create(records, ttl=ttl) if keys.kind_of(records[0][0]) == b"e" else created

    with monkeypatch.context() as patch:
        patch.setattr(stream.store, "create", twice)
        stream.put(2, 3, big=random.Random(2).randbytes(3000))
    stream.put(3, 5)
    expected, head = stream.contents(), next(stream.engine.heads("t"))
    since = sorted(keys.event(head.epoch, seq) for seq in range(5, 11))
    for lost in (since[-2:], since):
        stream.store.remove_many([key for key in lost if stream.store.get_many([key]) != [None]])
        assert stream.engine.io.send_again(head.epoch, 0) > 0
        assert stream.contents() == expected


def test_nothing_is_put_again_where_another_has_its_number() -> None:
    stream = young()
    taken = sorted(key for key in stream.store.records() if keys.kind_of(key) == b"e")
    stream.store.remove_many(taken[-3:])
    stream.fresh().put("t", "", numbered(20, 13))
    expected = stream.contents()
    before = stream.store.records()
    with stream.engine.log("t", "") as log:
        assert log.view is not None
        log.view.revision += 1  # of a head that the crash took
        log.load()
    assert stream.store.records() == before
    assert stream.contents() == expected


def test_a_writer_whose_look_broke_off_knows_which_numbers_are_taken() -> None:
    stream = Stream()
    stream.put(0, 2)
    other = stream.fresh()
    for n in (20, 21):
        other.put("t", "", numbered(n))
    last = max(key for key in stream.store.records() if keys.kind_of(key) == b"e")
    stream.store.flip(last)
    with stream.engine.log("t", "") as log, pytest.raises(CorruptRecord):
        log.load()
    with pytest.raises(CorruptRecord) as caught:
        stream.engine.put_writes("t", "", id_of(20), [write(3, "more")])
    assert caught.value.key == last


def test_a_writer_goes_on_where_another_has_the_number_of_what_it_remembers() -> None:
    stream = Stream()
    stream.put(0, 2)
    last = max(key for key in stream.store.records() if keys.kind_of(key) == b"e")
    stream.store.remove_many([last])
    other = stream.fresh()
    for n in (20, 21):
        other.put("t", "", numbered(n, 1))
    stream.clock.advance(20)
    stream.engine.put("t", "", numbered(22, 21))
    assert [entry.folded.labels["step"] for entry in stream.fresh().history("t", "")] == [22, 21, 20, 1, 0]


# -- on a real server --------------------------------------------------------------------------------------------------


def test_on_aerospike_a_cold_start_brings_no_thread_back_and_what_a_crash_took_is_restored(
    own: Callable[..., servers.Cluster],
) -> None:
    """A node that was killed and started brings back records that were removed, and not all that was written last."""
    node = own(storage="device")
    store = servers.connect(node.hosts, node.namespace)
    store.setup()
    settings = Settings(window=8, segment_level=1, snapshot_ratio=1.0)

    def contents(thread: str) -> list[object]:
        entries = Engine(store, settings).history(thread, "")
        return [(entry.folded.header, entry.state(), entry.writes()) for entry in entries]

    engine = Engine(store, settings)
    for n in range(40):
        for thread in ("t", "deleted"):
            engine.put(thread, "", numbered(n))
            engine.put_writes(thread, "", id_of(n), [write(n)])
    upkeep(engine, "t", "", idle=True)
    rewrite_thread(engine, "deleted", DropAll())
    upkeep(engine, "deleted", "", grace=0)
    expected = contents("t")
    time.sleep(1.5)  # until the device has it
    for _ in range(2):
        node.kill(0)
        node.restart(0)
        assert contents("t") == expected
        assert contents("deleted") == []
        store.remove_many(named(Engine(store)))
        assert contents("t") == expected
        [verified] = [one for one in verify(Engine(store), repair=True) if one.thread_id == "t"]
        assert verified.sound
        assert named(Engine(store)) == [key for key in named(Engine(store)) if store.get_many([key])[0] is not None]
    store.close()


@pytest.mark.parametrize("storage", ["device", "memory"])
def test_on_aerospike_what_a_writer_that_rested_puts_after_all_nodes_died_is_seen_by_all(
    own: Callable[..., servers.Cluster], storage: str
) -> None:
    """What was put less than a second before is on no device, nor the heads that it moved."""
    node = own(storage=storage)
    settings, threads = Settings(window=8, compaction="off"), [f"t{n}" for n in range(8)]
    store = servers.connect(node.hosts, node.namespace)
    engine = Engine(store, settings)
    for n in range(30):
        for thread in threads:
            engine.put(thread, "", numbered(n))
        if n == 9 and storage == "device":
            time.sleep(3)
    node.kill(0)
    node.restart(0)
    for thread in threads:
        engine.put(thread, "", numbered(30))
    other = servers.connect(node.hosts, node.namespace)
    reader = Engine(other, settings)
    for thread in threads:
        assert numbers(reader, thread) == [*reversed(range(31))]
        for n in range(31, 60):
            reader.put(thread, "", numbered(n))
        assert numbers(Engine(other, settings), thread) == [*reversed(range(60))]
    store.close()
    other.close()


def test_a_sealer_that_was_held_up_over_a_crash_stores_no_head_for_what_it_had_written() -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 11)
    held_up, other = Interrupted(stream.store), Interrupted(stream.store)
    log = stream.fresh(held_up).reader("t", "")  # type: ignore[arg-type]
    log.load()
    heads, records = {**stream.store._heads}, stream.store.records()

    def crash() -> None:
        assert isinstance(stream.store, Crashing)
        stream.store.crash(heads, records)
        put_and_seal_half()

    def put_and_seal_half() -> None:
        engine = stream.fresh(other)  # type: ignore[arg-type]
        engine.put("t", "", numbered(11))
        other.before["swap"] = lose_connection
        with pytest.raises(StoreUnavailable):
            engine.reader("t", "").seal()

    held_up.after["create"] = crash
    log.seal()
    assert numbers(stream.fresh()) == [*reversed(range(12))]
    whole(stream)


def lose_connection() -> None:
    raise StoreUnavailable("gone")


@pytest.mark.parametrize("by", ["a reader", "the checker"])
def test_a_shorter_segment_that_a_sealer_held_up_put_in_the_place_of_a_lost_one_is_replaced(by: str) -> None:
    stream = with_levels()
    expected, records, layout = stream.contents(), stream.store.records(), stream.layout
    for position, segment in enumerate(stream.segments()):
        last = segment.span.last - 1
        if layout.place(position).level > 1 or last < segment.span.first:
            continue
        events = tuple(one for one in segment.events if one[0] <= last)
        shorter = replace(segment, span=replace(segment.span, last=last), events=events)
        key, io = layout.key(position), stream.engine.io
        stream.store.remove_many([key])
        stream.store.create([(key, io.seal(key, envelope.SEGMENT, 0, bytes(encode_segment(shorter))))], ttl=None)
        if by == "the checker":
            assert not verify_stream(stream.fresh(), "t", "").sound
            assert verify_stream(stream.fresh(), "t", "", repair=True).sound
            whole(stream)
        assert stream.contents() == expected
        whole(stream)
        stream.store.bring_back(records)


def at_create(seam: Interrupted, number: int, act: Callable[[], object]) -> None:
    """Right after so many calls of `create`."""
    seam.after["create"] = act if number == 1 else partial(at_create, seam, number - 1, act)


@pytest.mark.parametrize("after", range(1, 6))
def test_a_rewrite_over_a_crash_begins_again(after: int) -> None:
    """What it had written may be gone, and nothing else tells what that held."""
    stream, unharmed = crashing(), Stream()
    assert isinstance(stream.store, Crashing)
    for one in (stream, unharmed):
        one.put(0, 30)
    rewrite_thread(unharmed.engine, "t", KeepLast(9))
    seam = Interrupted(stream.store)

    def crash() -> None:
        assert isinstance(stream.store, Crashing)
        head = next(stream.engine.heads("t"))
        stream.store.crash(
            stream.store._heads, {k: v for k, v in stream.store.records().items() if k[:16] == head.epoch}
        )

    at_create(seam, after, crash)
    rewrite_thread(stream.fresh(seam), "t", KeepLast(9))  # type: ignore[arg-type]
    assert stream.contents() == unharmed.contents()
    whole(stream)


@pytest.mark.parametrize("after", range(1, 21))
def test_a_sealer_of_which_a_crash_takes_what_it_has_written_and_reads_begins_again(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No head names that yet, so nothing is restored, and nobody is waited for."""
    monkeypatch.setattr(recovery, "_TURNS", 0)
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 8)
    heads, records = {**stream.store._heads}, stream.store.records()
    for n in range(8, 30):
        stream.put(n, n + 1)
        stream.engine.put_writes("t", "", id_of(n - 1), [write(n, "again")])
        if n == 8:
            stream.engine.reader("t", "").seal()  # those after the crash end elsewhere
    expected = stream.contents()
    records |= {key: record for key, record in stream.store.records().items() if keys.kind_of(key) == b"e"}
    stream.store.crash(heads, records)
    seam = Interrupted(stream.store)
    at_create(seam, after, partial(stream.store.crash, heads, records))
    stream.fresh(seam).reader("t", "").seal()  # type: ignore[arg-type]
    assert stream.contents() == expected
    whole(stream)


@pytest.mark.parametrize("more", [1, 5, 9, 20])
def test_a_reader_over_a_crash_that_makes_the_log_shorter_misses_nothing(more: int) -> None:
    stream = crashing()
    assert isinstance(stream.store, Crashing)
    stream.put(0, 10)
    heads, records = {**stream.store._heads}, stream.store.records()
    stream.put(10, 10 + more)
    events = {key: value for key, value in stream.store.records().items() if keys.kind_of(key) == b"e"}
    for n in range(10 + more):
        seam = Interrupted(stream.store)
        seam.after["get_many"] = lambda: stream.store.crash(heads, {**records, **events})
        found = stream.fresh(seam).find("t", "", id_of(n))  # type: ignore[arg-type]
        assert found is not None
        assert found.folded.header.id == id_of(n)
