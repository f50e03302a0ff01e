"""Folding is associative: fold(all) = fold(fold(prefix), suffix). And which of several writes count."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import Mock, patch

import pytest
from checkpoints import numbered, value
from hypothesis import given
from hypothesis import strategies as st
from values import checkpoints, exact, examples, ids, successors

from foldpoint import Engine
from foldpoint.codecs.event import FILLER_PAYLOAD, Event, encode_checkpoint, encode_writes, fold_state, unpack_event
from foldpoint.codecs.model import Carried, Checkpoint, Header, Stored, Value, Write
from foldpoint.codecs.segment import Snapshot, decode_snapshot, encode_snapshot
from foldpoint.engine import fold, snapshot
from foldpoint.engine.fold import Earlier, Entry, Slice, merge_writes
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.snapshot import events_of, snapshot_of
from foldpoint.errors import CorruptRecord

EPOCH = bytes(16)
IDS = ["", "a", "b", "c", "d", "e"]
TASKS = ["t1", "t2"]


@dataclass
class Put:
    """A log as it grew, and what it should fold to."""

    events: list[Event] = field(default_factory=list)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    writes: dict[str, dict[tuple[str, int], Write]] = field(default_factory=dict)

    def pending(self, checkpoint_id: str) -> list[Write]:
        found = self.writes.get(checkpoint_id, {}).values()
        return sorted(found, key=lambda write: (write.task_path, write.task_id, write.idx))


@st.composite
def logs(draw: st.DrawFn) -> Put:
    """Checkpoints in any order of ids, some put again, forks, writes before and after theirs, fillers."""
    put, slice_ = Put(), Slice(EPOCH)
    for seq in range(1, draw(st.integers(2, 9))):
        target = draw(st.sampled_from(IDS))
        kind = draw(st.sampled_from(["checkpoint", "checkpoint", "writes", "filler"]))
        if kind == "filler":
            payload = FILLER_PAYLOAD
        elif kind == "writes":
            task = draw(st.sampled_from(TASKS))
            drawn = draw(st.lists(st.tuples(st.integers(-2, 2), ids), min_size=1, max_size=3))
            listed = [Write(task, idx, "a", value(data.encode("utf-8", "surrogatepass"))) for idx, data in drawn]
            payload = encode_writes(seq, target, listed, slice_.base_of(target))
            kept = put.writes.setdefault(target, {})
            for write in listed:
                if write.idx < 0:
                    kept[write.task_id, write.idx] = write
                else:
                    kept.setdefault((write.task_id, write.idx), write)
        else:
            parent = draw(st.none() | st.sampled_from(IDS))
            old = put.checkpoints.get(parent or "a")
            new = draw(successors(old) if old else checkpoints)
            new = replace(new, header=replace(new.header, id=target, parent=parent))
            payload = encode_checkpoint(seq, new, slice_.base_for(parent))
            put.checkpoints[target] = new
        put.events.append(unpack_event(seq, payload))
        slice_.add(put.events[-1])
    return put


def slice_of(events: Sequence[Event], earlier: Earlier | None = None) -> Slice:
    slice_ = Slice(EPOCH, earlier=earlier)
    for event in events:
        slice_.add(event)
    return slice_


def restarted(slice_: Slice, covers: int, earlier: Earlier | None) -> Slice:
    """The slice that begins with a snapshot of `slice_`."""
    told = snapshot_of(slice_, covers)
    with patch.object(snapshot, "LARGE", 0):
        return Slice(EPOCH, events_of(told, lambda: told, slice_), covers=covers, earlier=earlier)


def assert_holds(entry: Entry | None, put: Put, checkpoint_id: str) -> None:
    expected = put.checkpoints[checkpoint_id]
    assert entry is not None
    assert exact(entry.folded.header) == exact(expected.header)
    assert exact(entry.folded.labels) == exact(expected.labels)
    assert exact(entry.folded.metadata) == exact(expected.metadata)
    assert exact(entry.folded.carried) == exact(expected.carried)
    assert entry.state() == expected.channels
    assert entry.names() == set(expected.channels)
    assert exact(entry.writes()) == exact(put.pending(checkpoint_id))


def assert_latest(slice_: Slice, put: Put) -> None:
    if put.checkpoints:
        assert_holds(slice_.latest(), put, max(put.checkpoints))
    else:
        assert slice_.latest() is None


@given(logs())
@examples(0.5)
def test_all_events_fold_to_what_was_put(put: Put) -> None:
    slice_ = slice_of(put.events)
    assert_latest(slice_, put)
    for checkpoint_id in IDS:
        if checkpoint_id in put.checkpoints:
            assert_holds(slice_.find(checkpoint_id), put, checkpoint_id)
        else:
            assert slice_.find(checkpoint_id) is None


@given(logs())
@examples(0.5)
def test_a_snapshot_and_what_follows_fold_to_the_same(put: Put) -> None:
    whole = slice_of(put.events)
    for covers in range(1, len(put.events) + 1):
        slice_ = restarted(whole, covers, whole)
        for event in put.events[covers:]:
            slice_.add(event)
        assert_latest(slice_, put)
        # From its own latest on, a snapshot leaves nothing out: writes whose checkpoint has not come either.
        for checkpoint_id in (id_ for id_ in put.checkpoints if id_ >= slice_.whole_from):
            assert_holds(slice_.find(checkpoint_id), put, checkpoint_id)


@given(logs(), st.data())
@examples(0.5)
def test_a_snapshot_of_a_snapshot_folds_to_the_same(put: Put, data: st.DataObject) -> None:
    whole = slice_of(put.events)
    first = data.draw(st.integers(1, len(put.events)))
    second = data.draw(st.integers(first, len(put.events)))
    slice_ = restarted(whole, first, whole)
    for event in put.events[first:]:
        slice_.add(event)
    slice_ = restarted(slice_, second, whole)
    for event in put.events[second:]:
        slice_.add(event)
    assert_latest(slice_, put)


@given(logs())
@examples(0.5)
def test_a_snapshot_stands_on_its_own(put: Put) -> None:
    slice_ = restarted(slice_of(put.events), len(put.events), None)
    assert_latest(slice_, put)


@given(logs())
@examples(0.3)
def test_neither_the_order_of_reading_nor_a_copy_changes_what_is_found(put: Put) -> None:
    slice_ = slice_of(put.events)
    twin = slice_.fork()
    for checkpoint_id in sorted(put.checkpoints, reverse=True):
        assert_holds(slice_.find(checkpoint_id), put, checkpoint_id)
    slice_.forget_states()
    for checkpoint_id in sorted(put.checkpoints):
        assert_holds(slice_.find(checkpoint_id), put, checkpoint_id)
        assert_holds(twin.find(checkpoint_id), put, checkpoint_id)


@given(logs(), st.data())
@examples(0.3)
def test_a_slice_up_to_a_number_is_what_it_was_then(put: Put, data: st.DataObject) -> None:
    last = data.draw(st.integers(0, len(put.events)))
    shorter, then = slice_of(put.events).until(last), slice_of(put.events[:last])
    assert shorter.checkpoints == then.checkpoints
    for checkpoint_id in then.checkpoints:
        now, was = shorter.find(checkpoint_id), then.find(checkpoint_id)
        assert now is not None
        assert was is not None
        assert (now.folded, now.state(), now.writes()) == (was.folded, was.state(), was.writes())


def test_adding_to_a_copy_leaves_the_original() -> None:
    first = Checkpoint(Header("a"), {"x": value(1)})
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, first, None))])
    twin = slice_.fork()
    twin.add(unpack_event(2, encode_checkpoint(2, Checkpoint(Header("b"), {}), twin.base_for("a"))))
    twin.add(unpack_event(3, encode_writes(3, "a", [Write("t", 0, "x", value(2))], twin.base_of("a"))))
    assert slice_.latest_id == "a"
    entry = slice_.latest()
    assert entry is not None
    assert entry.writes() == []
    assert 2 not in slice_.events


def test_what_nothing_comes_before_says_which_record_is_missing() -> None:
    base = slice_of([unpack_event(5, encode_checkpoint(5, Checkpoint(Header("a"), {"x": value(1)}), None))])
    child = encode_checkpoint(7, Checkpoint(Header("b", "a"), {"x": value(2)}), base.base_for("a"))
    slice_ = slice_of([unpack_event(7, child)])
    with pytest.raises(CorruptRecord) as caught:
        slice_.latest()
    assert caught.value.key == EPOCH + b"e" + (5).to_bytes(6, "big")


def test_an_event_based_on_writes_names_itself_as_damaged() -> None:
    writes = unpack_event(1, encode_writes(1, "a", [Write("t", 0, "x", value(1))], None))
    base = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {}), None))])
    child = unpack_event(2, encode_checkpoint(2, Checkpoint(Header("b", "a"), {}), base.base_for("a")))
    with pytest.raises(CorruptRecord, match="something else"):
        slice_of([writes, child]).latest()


@pytest.mark.parametrize("checkpoint_id", IDS)
def test_writes_that_come_before_their_checkpoint_pass_through_a_snapshot(checkpoint_id: str) -> None:
    early = write("t", 0, "early")
    slice_ = restarted(slice_of([unpack_event(1, encode_writes(1, checkpoint_id, [early], None))]), 1, None)
    slice_.add(unpack_event(2, encode_checkpoint(2, Checkpoint(Header(checkpoint_id), {}), None)))
    entry = slice_.latest()
    assert entry is not None
    assert entry.writes() == [early]


def test_writes_that_come_before_their_checkpoint_repeat_for_next_to_nothing_what_the_one_before_it_held() -> None:
    """As they do wherever a graph does not wait for its checkpoints, which is what LangGraph does by default."""
    large = random.Random(1).randbytes(30_000)
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {"x": Value("m", large)}), None))])
    early = [Write(f"t{n}", 0, "y", Value("m", b"%d" % n + large)) for n in range(3)]
    for seq, one in enumerate(early, 2):
        payload = encode_writes(seq, "b", [one], slice_.base_of("b"))
        assert len(payload) < 200
        slice_.add(unpack_event(seq, payload))
    assert slice_.find("b") is None
    child = Checkpoint(Header("b", "a"), {"x": Value("m", large[::-1])})
    slice_.add(unpack_event(5, encode_checkpoint(5, child, slice_.base_for("a"))))
    for told in (slice_, restarted(slice_, 5, None)):
        entry = told.latest()
        assert entry is not None
        assert entry.writes() == early
    before = restarted(slice_.until(4), 4, None)
    before.add(slice_.events[5])
    assert before.latest().writes() == early  # type: ignore[union-attr]


def test_early_writes_refer_to_earlier_ones_of_their_checkpoint() -> None:
    large = random.Random(1).randbytes(30_000)
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {}), None))])
    for seq in (2, 3):
        payload = encode_writes(seq, "b", [Write(f"t{seq}", 0, "y", Value("m", large))], slice_.base_of("b"))
        slice_.add(unpack_event(seq, payload))
    assert (len(slice_.events[2].payload) > 30_000, len(slice_.events[3].payload) < 100) == (True, True)
    assert [write.value.data for _, [write] in slice_.writes_events("b")] == [large, large]


def test_a_thousand_writes_of_which_each_refers_to_the_one_before_are_read_from_the_last_on() -> None:
    large = random.Random(1).randbytes(5000)
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {}), None))])
    for seq in range(2, 1002):
        one = Write(f"t{seq}", 0, "x", Value("m", large + b"%d" % seq))
        payload = encode_writes(seq, "a", [one], slice_.base_of("a"))
        slice_.add(unpack_event(seq, payload))
        slice_.put_writes(seq, [one])
        assert len(payload) < 100 or seq == 2
    cold = slice_of([*slice_.events.values()])
    assert cold.writes(1001)[0].value.data == large + b"1001"
    entry = cold.latest()
    assert entry is not None
    assert [write.value.data for write in entry.writes()] == sorted(large + b"%d" % seq for seq in range(2, 1002))


def forks(count: int, size: int) -> tuple[list[Event], list[bytes]]:
    """Each forks from the first checkpoint, and writes before its checkpoint what the fork before it holds, edited."""
    out = random.Random(1).randbytes(size)
    slice_, outs = Slice(EPOCH), []
    slice_.add(unpack_event(1, encode_checkpoint(1, Checkpoint(Header("0000"), {}), None)))
    for seq in range(2, 3 * count, 3):
        out = out[:100] + seq.to_bytes(4, "big") + out[104:]
        fork, after = f"{seq:04}", f"{seq + 1:04}"
        writes = [Write(f"t{seq}", 0, "out", Value("bytes", out))]
        slice_.add(unpack_event(seq, encode_writes(seq, fork, writes, slice_.base_of(fork))))
        forked = Checkpoint(Header(fork, "0000", 2, "", {"k": seq}), {"k": value(seq)})
        slice_.add(unpack_event(seq + 1, encode_checkpoint(seq + 1, forked, slice_.base_for("0000"))))
        child = Checkpoint(
            Header(after, fork, 2, "", {"k": seq, "out": seq}), {**forked.channels, "out": writes[0].value}
        )
        slice_.add(unpack_event(seq + 2, encode_checkpoint(seq + 2, child, slice_.base_for(fork))))
        outs.append(out)
    return [*slice_.events.values()], outs


def test_values_that_lead_from_fork_to_fork_are_read_from_the_last_on() -> None:
    events, outs = forks(200, 5000)
    assert sum(event.size for event in events[2:]) < 200 * 600
    latest = slice_of(events).latest()
    assert latest is not None
    assert bytes(latest.state()["out"].data) == outs[-1]
    history = slice_of(events)
    found = [bytes(history.state(seq)["out"].data) for seq in range(4, 3 * 200 + 2, 3)]
    assert found == outs


def test_what_lies_on_the_way_to_a_value_is_not_held() -> None:
    """Of hundreds of values that each refer to the one before a reader would take hundreds of times what one takes."""
    size = 200_000
    events, outs = forks(100, size)
    for read in (lambda one: one.state(301)["out"], lambda one: one.writes(299)[0].value):
        slice_ = slice_of(events)
        gc.collect()
        tracemalloc.start()
        assert bytes(read(slice_).data) == outs[-1]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 * size
        assert slice_.memory > size


def test_what_bodies_are_compared_with_is_asked_for_once_an_event() -> None:
    """A thousand bodies, after sixty tasks that had written a thousand each, took seconds."""
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {}), None))])
    slice_.add(unpack_event(2, encode_writes(2, "a", [write("t", idx, "small") for idx in range(100)], None)))
    bodies = [Write("t", idx, "x", Value("bytes", random.Random(idx).randbytes(5000))) for idx in range(50)]
    known = slice_.base_of("a")
    assert known is not None
    state, writes = Mock(side_effect=known.state), Mock(side_effect=known.writes)
    encode_writes(3, "a", bodies, replace(known, state=state, writes=writes))
    assert (state.call_count, writes.call_count) == (1, 1)


def test_what_an_event_is_compared_with_is_bounded_however_many_writes_there_are() -> None:
    """A thousand tasks took as long as ten thousand, when each looked at all that came before."""
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {}), None))])
    for seq in range(2, 300):
        slice_.add(unpack_event(seq, encode_writes(seq, "ab"[seq % 2], [write(f"t{seq}", 0, "w")], None)))
    for checkpoint_id, most in (("a", fold.REFERRED_WRITES), ("b", 2 * fold.REFERRED_WRITES)):
        base = slice_.base_of(checkpoint_id)
        assert base is not None
        assert len(base.writes()) == most
        assert max(base.writes())[0] >= 298
    assert len(slice_.writes_events("a")) == 149


def test_what_the_next_event_may_repeat_is_remembered_when_states_are_forgotten() -> None:
    first, second = Checkpoint(Header("a"), {}), Checkpoint(Header("b", "a"), {})
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, first, None))])
    for seq, checkpoint_id in ((2, "a"), (3, "b"), (4, "c")):
        slice_.add(unpack_event(seq, encode_writes(seq, checkpoint_id, [write("t", 0, checkpoint_id)], None)))
        slice_.put_writes(seq, [write("t", 0, checkpoint_id)])
    slice_.add(unpack_event(5, encode_checkpoint(5, second, slice_.base_for("a"))))
    slice_.forget_states(5)
    with patch.object(fold, "fold_writes", side_effect=AssertionError("folded again")):
        assert [slice_.writes(seq)[0].value.data for seq in (3, 4)] == [b"b", b"c"]
        with pytest.raises(AssertionError):
            slice_.writes(2)
    slice_.forget_states()
    assert slice_.writes(3) == [write("t", 0, "b")]


# -- writes ------------------------------------------------------------------------------------------------------------


def write(task: str, idx: int, data: str, path: str = "") -> Write:
    return Write(task, idx, "x", Value("msgpack", data.encode()), path)


def test_of_two_writes_at_one_index_the_first_counts() -> None:
    assert merge_writes([[write("t", 0, "first")], [write("t", 0, "second")]]) == [write("t", 0, "first")]


def test_of_two_special_writes_the_last_counts() -> None:
    assert merge_writes([[write("t", -1, "first")], [write("t", -1, "second")]]) == [write("t", -1, "second")]


def test_writes_of_other_tasks_and_other_indices_stand_beside_each_other() -> None:
    logged = [[write("t", 0, "a"), write("t", 1, "b"), write("t", -1, "c")], [write("u", 0, "d"), write("u", -1, "e")]]
    assert merge_writes(logged) == [logged[0][2], *logged[0][:2], logged[1][1], logged[1][0]]


def test_writes_come_ordered_by_path_then_task_then_index() -> None:
    logged = [
        [write("b", 1, "", "~x"), write("b", 0, "", "~x")],
        [write("a", 0, "", "~x")],
        [write("z", 5, "")],
        [write("z", -3, "")],
    ]
    assert [(w.task_path, w.task_id, w.idx) for w in merge_writes(logged)] == [
        ("", "z", -3),
        ("", "z", 5),
        ("~x", "a", 0),
        ("~x", "b", 0),
        ("~x", "b", 1),
    ]


def test_no_writes_merge_to_none() -> None:
    assert merge_writes([]) == merge_writes([[]]) == []


def test_a_large_snapshot_is_not_held_and_is_opened_again_for_what_was_forgotten() -> None:
    state = {"files": Value("bytes", bytes(100_000)), "n": value(1)}
    whole = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), state), None))])
    told, opened = snapshot_of(whole, 1), 0

    def again() -> Snapshot:
        nonlocal opened
        opened += 1
        return decode_snapshot(bytes(encode_snapshot(told)))

    slice_ = Slice(EPOCH, events_of(told, again, whole), covers=1)
    slice_.learn(whole)
    slice_.put_state(1, whole.state(1))
    child = Checkpoint(Header("b", "a"), {**state, "n": value(2)})
    slice_.add(unpack_event(2, encode_checkpoint(2, child, slice_.base_for("a"))))
    assert (opened, slice_.size) == (0, slice_.events[2].size)
    slice_.forget_states()
    for checkpoint_id, channels in (("a", state), ("b", child.channels)):
        entry = slice_.find(checkpoint_id)
        assert entry is not None
        assert entry.state() == channels
    assert opened > 0


def test_large_writes_of_a_snapshot_are_read_without_opening_it_again() -> None:
    first = Checkpoint(Header("a"), {"files": Value("bytes", bytes(100_000))})
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, first, None))])
    writes = [write(f"t{n}", 0, random.Random(n).randbytes(15_000).hex()) for n in range(20)]
    for seq, one in enumerate(writes, 2):
        slice_.add(unpack_event(seq, encode_writes(seq, "a", [one], None)))
    told = snapshot_of(slice_, 21)

    def again() -> Snapshot:
        raise AssertionError("opened again")

    slice_ = Slice(EPOCH, events_of(told, again), covers=21)
    assert slice_.size > sum(len(one.value.data) for one in writes) + 100_000
    slice_.forget_states(1)
    assert sorted(slice_.base(1).writes()) == [(seq, [one]) for seq, one in enumerate(writes, 2)]


@pytest.mark.parametrize("back", [False, True], ids=["newest first", "by parent"])
def test_who_walks_back_folds_each_state_a_few_times(monkeypatch: pytest.MonkeyPatch, back: bool) -> None:
    folded = 0

    def counted(*args: Any) -> Any:
        nonlocal folded
        folded += 1
        return fold_state(*args)

    engine = Engine(MemoryStore())
    for n in range(300):
        engine.put("t", "", numbered(n))
    monkeypatch.setattr(fold, "fold_state", counted)
    if back:
        assert engine.channel_history("t", "", None, ["never stored"]) == {"never stored": Carried(None, ())}
    else:
        assert [entry.state() for entry in engine.history("t", "")] == [
            numbered(n).channels for n in range(299, -1, -1)
        ]
    assert 299 <= folded <= 3 * 300


def test_what_a_checkpoint_carries_survives_a_snapshot() -> None:
    carried = {"d": Carried(value("seed"), (Write("t", 0, "d", value(1)),)), "n": Carried(None, ())}
    events = [unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {}, carried=carried), None))]
    entry = restarted(slice_of(events), 1, None).latest()
    assert entry is not None
    assert entry.folded.carried == carried


# -- what another slice of the stream remembers ------------------------------------------------------------------------


def _with_early_writes(data: str) -> tuple[Slice, list[Write]]:
    slice_ = slice_of([unpack_event(1, encode_checkpoint(1, Checkpoint(Header("a"), {}), None))])
    early = [write("t", 0, data)]
    slice_.add(unpack_event(2, encode_writes(2, "b", early, slice_.base_of("b"))))
    return slice_, early


def test_what_is_remembered_is_taken_over_where_the_same_events_stand() -> None:
    (mine, early), (sealed, _) = _with_early_writes("same"), _with_early_writes("same")
    mine.put_writes(2, early)
    state = {"x": Stored.of(value(1))}
    mine.put_state(1, state)
    sealed.remember(mine)
    with patch.object(fold, "fold_writes", side_effect=AssertionError("folded again")):
        assert sealed.writes(2) == early
    assert sealed.state(1) is state


def test_what_is_remembered_of_other_events_is_not_taken_over() -> None:
    """A crash of the store may have taken what this process put, and another has put its own there."""
    (mine, early), (sealed, others) = _with_early_writes("mine"), _with_early_writes("another's")
    mine.put_writes(2, early)
    sealed.remember(mine)
    assert sealed.writes(2) == others
