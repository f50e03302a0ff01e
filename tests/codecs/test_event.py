"""Events fold back to what they were made of; large bodies are found where they stand already."""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import checkpoints, exact, examples, ids, listed, messages, names, stored_values, successors, texts, types

from foldpoint.codecs import event
from foldpoint.codecs.event import (
    CHECKPOINT,
    FILLER,
    FILLER_PAYLOAD,
    WRITES,
    Base,
    Event,
    Fold,
    Folded,
    builds_on,
    check_of,
    copied,
    encode_checkpoint,
    encode_writes,
    fold_state,
    fold_writes,
    folded_of,
    is_plain,
    unpack_event,
)
from foldpoint.codecs.header import names_of
from foldpoint.codecs.model import Carried, Checkpoint, Header, Stored, Value, Version, Write
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import Malformed, pack, unpack


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(size)


def no_writes(seq: int) -> list[Write]:
    raise AssertionError(f"writes of {seq} were asked for")


def folded_with(event: Event, base: Folded | None) -> Folded:
    fold = Fold(base)
    fold.add(event)
    return fold.folded()


def based_on(seq: int, checkpoint: Checkpoint, writes: Sequence[tuple[int, list[Write]]] = ()) -> Base:
    """What a child of `checkpoint`, put at `seq`, may refer to."""
    folded = folded_with(unpack_event(seq, encode_checkpoint(seq, checkpoint, None)), None)
    state = {name: Stored.of(value) for name, value in checkpoint.channels.items()}
    return Base(folded, lambda: state, lambda: list(writes))


def through(seq: int, checkpoint: Checkpoint, base: Base | None) -> Checkpoint:
    """What a reader makes of the event that logs `checkpoint`."""
    event = unpack_event(seq, encode_checkpoint(seq, checkpoint, base))
    assert (event.kind, event.checkpoint_id) == (CHECKPOINT, checkpoint.header.id)
    assert event.base == (base.folded.seq if base else None)
    folded = folded_with(event, base.folded if base else None)
    own = copied(checkpoint)
    assert own is not None
    assert exact(folded_of(seq, own)) == exact(folded)
    writes_at = dict(base.writes()).__getitem__ if base else no_writes
    state = fold_state(event, names_of(folded.header.channel_versions), base.channels if base else None, writes_at)
    channels = {name: Value(stored.type, bytes(stored.data)) for name, stored in state.items()}
    return Checkpoint(folded.header, channels, folded.labels, folded.metadata, folded.carried)


def writes_through(seq: int, checkpoint_id: str, writes: list[Write], base: Base | None) -> list[Write]:
    event = unpack_event(seq, encode_writes(seq, checkpoint_id, writes, base))
    assert event.kind == WRITES
    own = base is not None and base.folded.header.id == checkpoint_id
    assert event.checkpoint_id == (None if own else checkpoint_id)
    return fold_writes(event, base.channels if base else None, dict(base.writes()).__getitem__ if base else no_writes)


def assert_same(got: Checkpoint, put: Checkpoint) -> None:
    """Equal with types and orders; only the channels are a mapping without an order."""
    assert got.channels == put.channels
    assert exact(replace(got, channels={})) == exact(replace(put, channels={}))


@given(checkpoints, st.integers(1, 1 << 40))
def test_a_checkpoint_based_on_nothing_comes_back(checkpoint: Checkpoint, seq: int) -> None:
    assert_same(through(seq, checkpoint, None), checkpoint)


@given(st.data(), checkpoints)
def test_a_checkpoint_comes_back_from_what_it_follows(data: st.DataObject, old: Checkpoint) -> None:
    new = data.draw(successors(old) | checkpoints)
    seq = data.draw(st.integers(1, 1 << 40))
    assert_same(through(seq + data.draw(st.integers(1, 1 << 30)), new, based_on(seq, old)), new)


class Text(str):
    pass


class Number(int):
    pass


@pytest.mark.parametrize(
    "odd",
    [
        Checkpoint(Header(Text("1")), {}),
        Checkpoint(Header("1", parent=Text("0")), {}),
        Checkpoint(Header("1", parent=Text("")), {}),
        Checkpoint(Header("1", v=Number(4)), {}),
        Checkpoint(Header("1", ts=Text("")), {}),
        Checkpoint(Header("1", channel_versions={"c": Number(1)}), {}),
        Checkpoint(Header("1", channel_versions={Text("c"): 1}), {}),
        Checkpoint(Header("1", versions_seen={"n": {"c": Number(1)}}), {}),
        Checkpoint(Header("1", versions_seen={"n": OrderedDict(c=1)}), {}),
        Checkpoint(Header("1", versions_seen={Text("n"): {}}), {}),
        Checkpoint(Header("1", versions_seen=OrderedDict()), {}),
        Checkpoint(Header("1", updated_channels=[Text("c")]), {}),
        Checkpoint(Header("1"), {}, {"step": Number(1)}),
        Checkpoint(Header("1"), {}, {Text("step"): 1}),
    ],
)
def test_what_is_not_of_a_builtin_class_is_folded_as_it_is_stored(odd: Checkpoint) -> None:
    assert copied(odd) is None


def test_writes_of_builtin_classes_alone_are_known_to_be_read_as_they_are() -> None:
    plain = Write("t", 0, "c", Value("msgpack", b"1"), "path")
    assert is_plain(plain)
    for odd in (
        plain._replace(task_id=Text("t")),
        plain._replace(idx=Number(0)),
        plain._replace(idx=True),
        plain._replace(channel=Text("c")),
        plain._replace(value=Value(Text("msgpack"), b"1")),
        plain._replace(value=Value("msgpack", bytearray(b"1"))),
        plain._replace(task_path=Text("path")),
    ):
        assert not is_plain(odd)


def test_a_copy_does_not_change_with_what_was_put() -> None:
    put = Checkpoint(
        Header("1", channel_versions={"c": 1}, versions_seen={"n": {"c": 1}}, updated_channels=["c"]), {}, {"step": 1}
    )
    own = copied(put)
    was = deepcopy(own)
    put.header.channel_versions["c"] = put.header.versions_seen["n"]["c"] = put.labels["step"] = 2
    put.header.versions_seen["m"] = {}
    put.header.updated_channels.append("d")  # type: ignore[union-attr]
    assert own == was


@given(st.data(), checkpoints)
@examples(0.5)
def test_large_values_come_back_wherever_they_stood_before(data: st.DataObject, old: Checkpoint) -> None:
    pieces = [noise(5000, n) for n in range(4)]
    large = st.lists(st.sampled_from(pieces) | st.binary(max_size=9), max_size=4).map(b"".join)
    channel = st.sampled_from(sorted({*old.header.channel_versions, "new", "other"}))
    several = st.dictionaries(channel, st.builds(Value, types, large), max_size=3)
    old = replace(old, channels={**old.channels, **data.draw(several)})
    logged = st.builds(Write, ids, st.integers(-3, 9), names, st.builds(Value, types, large), texts)
    writes = [(11 + at, [write]) for at, write in enumerate(data.draw(st.lists(logged, max_size=2)))]
    base = based_on(10, old, writes)
    new = data.draw(successors(old))
    new = replace(new, channels={**new.channels, **data.draw(several)})
    assert_same(through(20, new, base), new)
    own = data.draw(logged)._replace(idx=0)
    assert writes_through(20, old.header.id, [own], base) == [own]


@given(st.data(), checkpoints)
def test_a_chain_folds_at_once_to_what_it_folds_to_one_by_one(data: st.DataObject, old: Checkpoint) -> None:
    at_once, base, put = Fold(None), None, old
    for seq in range(1, data.draw(st.integers(2, 5))):
        payload = encode_checkpoint(seq, put, base)
        at_once.add(unpack_event(seq, payload))
        folded = folded_with(unpack_event(seq, payload), base.folded if base else None)
        assert names_of(at_once.versions) == [*put.header.channel_versions]
        channels = {name: Stored(value.type, Rope(value.data)) for name, value in put.channels.items()}
        base = Base(folded, lambda channels=channels: channels)  # type: ignore[misc]
        put = data.draw(successors(put))
    assert base is not None
    assert exact(at_once.folded()) == exact(base.folded)
    assert exact(at_once.folded()) == exact(base.folded)  # asked again


@given(st.data(), st.none() | checkpoints, ids, ids, texts)
def test_writes_come_back(
    data: st.DataObject, old: Checkpoint | None, checkpoint_id: str, task_id: str, task_path: str
) -> None:
    write = st.builds(Write, st.just(task_id), st.integers(-5, 5), names, stored_values, st.just(task_path))
    writes = data.draw(st.lists(write, min_size=1, max_size=4))
    base = based_on(3, old) if old else None
    assert exact(writes_through(9, checkpoint_id, writes, base)) == exact(writes)
    if old:
        assert exact(writes_through(9, old.header.id, writes, base)) == exact(writes)


def test_a_filler_is_the_empty_payload() -> None:
    event = unpack_event(4, FILLER_PAYLOAD)
    assert (event.seq, event.kind, event.base, event.checkpoint_id) == (4, FILLER, None, None)


def test_a_filler_builds_upon_nothing_and_its_check_is_four_zero_bytes() -> None:
    for filler in (unpack_event(7, FILLER_PAYLOAD), unpack_event(7, FILLER_PAYLOAD).packed()):
        assert builds_on(filler) == []
        assert check_of(filler, lambda seq: b"none") == bytes(4)


# -- sizes -------------------------------------------------------------------------------------------------------------


def step(n: int, channels: dict[str, Value]) -> Checkpoint:
    versions = dict.fromkeys(channels, n)
    return Checkpoint(Header(f"{n:04}", f"{n - 1:04}", channel_versions=versions), channels, {"step": n})


def test_an_append_to_a_thousand_messages_costs_the_message() -> None:
    old, added = messages(1000), ["ai", "the answer " * 20]
    base = based_on(7, step(1, {"messages": listed(old), "static": Value("bytes", noise(50_000))}))
    new = step(2, {"messages": listed([*old, added]), "static": Value("bytes", noise(50_000))})
    # The rest is the header: id, version and step.
    assert len(encode_checkpoint(8, new, base)) < len(listed(added).data) + 60


def test_a_window_that_slides_over_messages_costs_what_came_in() -> None:
    history = [["human", noise(200, n)] for n in range(60)]
    base = based_on(7, step(1, {"messages": listed(history[:50])}))
    new = step(2, {"messages": listed(history[5:55])})
    assert len(encode_checkpoint(8, new, base)) < 5 * 210 + 300
    assert_same(through(8, new, base), new)


def test_packets_that_repeat_the_state_cost_next_to_nothing() -> None:
    state = {"messages": [["human", noise(200, n)] for n in range(50)], "files": noise(20_000)}
    base = based_on(7, step(1, {name: listed(value) for name, value in state.items()}))
    packets = listed([["Send", "worker", {**state, "n": n}] for n in range(3)])
    new = step(2, {**{name: listed(value) for name, value in state.items()}, "__pregel_tasks": packets})
    assert len(encode_checkpoint(8, new, base)) < len(packets.data) // 20
    assert_same(through(8, new, base), new)


def test_a_write_that_repeats_what_was_just_written_costs_next_to_nothing() -> None:
    value = Value("msgpack", noise(30_000))
    first = Write("task-1", 0, "messages", value)
    base = based_on(7, step(1, {}), [(8, [first])])
    again = Write("task-2", 0, "messages", value)
    assert len(encode_writes(9, "0001", [again], base)) < 200
    assert writes_through(9, "0001", [again], base) == [again]


def test_a_value_that_was_a_pending_write_costs_next_to_nothing_as_a_channel() -> None:
    value = Value("msgpack", noise(30_000))
    base = based_on(7, step(1, {}), [(8, [Write("task", 0, "messages", value)])])
    new = step(2, {"messages": value})
    assert len(encode_checkpoint(9, new, base)) < 80
    assert_same(through(9, new, base), new)


def test_a_large_value_with_an_edit_refers_to_the_channel_alone_that_it_repeats() -> None:
    files, other = noise(40_000), noise(40_000, 1)
    base = based_on(7, step(1, {"files": Value("bytes", files), "other": Value("bytes", other)}))
    edited = Write("task", 0, "result", Value("bytes", b"new" + files[:9000] + noise(90, 2) + files[9000:]))
    payload = encode_writes(9, "0001", [edited], base)
    assert len(payload) < 300
    assert unpack(payload)[5][0][4] == [0]
    assert writes_through(9, "0001", [edited], base) == [edited]


@pytest.mark.parametrize(("count", "size"), [(4, 10_000), (6, 5_000), (50, 600)])
def test_a_value_made_of_several_refers_to_them_all(count: int, size: int) -> None:
    """Also if they are more than the places at which it is looked at."""
    parts = {f"part {n}": noise(size, n) for n in range(count)}
    base = based_on(7, step(1, {name: Value("bytes", data) for name, data in parts.items()}))
    joined = Write("task", 0, "result", Value("bytes", b"-".join(parts.values())))
    payload = encode_writes(9, "0001", [joined], base)
    assert len(payload) < 200 + 20 * count
    assert sorted(unpack(payload)[5][0][4]) == [*range(count)]
    assert writes_through(9, "0001", [joined], base) == [joined]


@pytest.mark.parametrize("size", [4096, 50_000, 1_000_000])
def test_what_is_new_is_not_compressed_against_what_it_does_not_repeat(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    compressed: list[int] = []
    monkeypatch.setattr(event, "compress", lambda *args: compressed.append(len(args[0])))
    old = noise(size, 1)
    base = based_on(7, step(1, {"files": Value("bytes", old)}), [(8, [Write("t", 0, "m", Value("bytes", old))])])
    for new in (noise(size), old[: size // 2] + noise(size // 2)):  # half of it is less than pays
        write = Write("task", 0, "result", Value("bytes", new))
        assert len(encode_writes(9, "0001", [write], base)) > size
    assert compressed == []


@pytest.mark.parametrize("versions", [{}, {"other": 1, "files": 3}], ids=["by name", "by position"])
def test_a_write_that_is_a_channels_value_names_the_channel(versions: dict[str, Version]) -> None:
    files = listed([noise(900, n) for n in range(40)])
    in_pieces = Rope(*(files.data[at : at + 7000] for at in range(0, len(files.data), 7000)))
    at_start = Checkpoint(
        Header("0001", channel_versions=versions),
        {"other": Value("bytes", noise(len(files.data))), "files": Stored("msgpack", in_pieces)},
    )
    write = Write("task", 0, "result", files)
    base = based_on(7, at_start)
    reference = 1 if versions else "files"
    assert unpack(encode_writes(8, "0001", [write], base))[5] == [
        ["result", [0, len(files.data)], None, None, [reference]]
    ]
    assert writes_through(8, "0001", [write], base) == [write]
    shorter = write._replace(value=files._replace(data=files.data[:-1]))
    assert writes_through(8, "0001", [shorter], base) == [shorter]


@pytest.mark.parametrize("copy", [[0, 4], [4, 0], [1, 3], [-1, 1], [0, -1], [0], [0.0, 1], ["0", 1], [True, 1]])
def test_a_copy_that_does_not_lie_in_what_it_refers_to_is_refused(copy: list[Any]) -> None:
    base = based_on(7, step(1, {}), [(8, [Write("task", 0, "m", Value("msgpack", b"abc"))])])
    fields = unpack(encode_writes(9, "0001", [Write("u", 0, "m", Value("msgpack", b"x"))], base))

    def copied(body: list[Any]) -> bytes:
        fields[5] = [["m", body, None, None, [-1]]]
        [write] = fold_writes(unpack_event(9, pack(fields)), base.channels, dict(base.writes()).__getitem__)
        return write.value.data

    assert copied([1, 2]) == b"bc"
    with pytest.raises(Malformed):
        copied(copy)


def test_a_static_channel_costs_nothing() -> None:
    channels = {"files": Value("bytes", noise(100_000))}
    assert len(encode_checkpoint(8, step(2, channels), based_on(7, step(1, channels)))) < 60


# -- what no writer makes ----------------------------------------------------------------------------------------------

_BASE = based_on(1, step(1, {"a": Value("msgpack", b"0123456789abcdef"), "b": listed([1, 2, 3])}))
_CHECKPOINT = encode_checkpoint(
    2,
    Checkpoint(
        Header("0002", "0001", 1, "now", {"a": 2, "b": 1}, {"n": {"a": 2}}, ["a"], Value("x", b"y")),
        {"a": Value("msgpack", b"0123456789ABcdef")},
        {"step": 2},
        Value("msgpack", b"rest"),
        {"d": Carried(Value("msgpack", b"seed"), (Write("t", 0, "d", Value("msgpack", b"w")),))},
    ),
    _BASE,
)
_WRITES = encode_writes(
    2, "0001", [Write("t", 0, "a", Value("msgpack", b"w")), Write("t", -1, "e", listed([1]))], _BASE
)


def fold_any(payload: bytes) -> None:
    event = unpack_event(2, payload)
    if event.kind == CHECKPOINT:
        folded = folded_with(event, _BASE.folded)
        state = fold_state(event, names_of(folded.header.channel_versions), _BASE.channels, no_writes)
        values = [Value(stored.type, bytes(stored.data)) for stored in state.values()]
        values += [folded.metadata] if folded.metadata else []
    else:
        values = [write.value for write in fold_writes(event, _BASE.channels, no_writes)]
    assert all(type(value.type) is str and type(value.data) is bytes for value in values)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        7,
        {},
        [],
        [CHECKPOINT],
        [3, 0, "id"],
        [CHECKPOINT, -1, "id"],
        [CHECKPOINT, 3, "id"],
        [CHECKPOINT, 1.0, "id"],
        [CHECKPOINT, True, "id"],
        [CHECKPOINT, 0, None],
        [WRITES, 0, None],
        [CHECKPOINT, 0, b"short"],
        [CHECKPOINT, 0, 5],
        [True, 0, "id"],
        [0.0, 0, "id"],
    ],
)
def test_what_is_no_event_is_malformed(fields: Any) -> None:
    with pytest.raises(Malformed):
        unpack_event(2, pack(fields))


@given(st.binary(min_size=1, max_size=40))
def test_any_bytes_are_an_event_or_malformed(payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        fold_any(payload)


@pytest.mark.parametrize("payload", [_CHECKPOINT, _WRITES], ids=["checkpoint", "writes"])
def test_every_truncation_of_a_payload_is_malformed(payload: bytes) -> None:
    for size in range(1, len(payload)):
        with pytest.raises(Malformed):
            fold_any(payload[:size])


_ODD = st.sampled_from(
    [None, True, -1, 10**6, 2**63, 1.5, "x", b"y", [], {}, [1], ["a"], {"a": 1}, {0: [1, 2]}, [[]], [b"x"]]
)


def places(obj: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in nested lists and dicts."""
    inner = obj.items() if isinstance(obj, dict) else enumerate(obj) if isinstance(obj, list) else ()
    return [found for key, value in list(inner) for found in [(obj, key), *places(value)]]


@pytest.mark.parametrize("payload", [_CHECKPOINT, _WRITES], ids=["checkpoint", "writes"])
@given(st.data())
def test_an_event_with_a_strange_field_folds_or_is_malformed(payload: bytes, data: st.DataObject) -> None:
    fields = unpack(payload)
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(st.sampled_from(places(fields)))
        container[key] = deepcopy(data.draw(_ODD))
    with contextlib.suppress(Malformed):
        fold_any(pack(fields))
