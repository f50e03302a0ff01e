"""decode after encode is identity, and what changed little costs little."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import examples, listed, messages, spliced, stored_values, types

from foldpoint.codecs import delta as deltas
from foldpoint.codecs.model import Stored, Value
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import Malformed, pack, unpack

COUNTS = [0, 1, 14, 15, 16, 17, 65534, 65535, 65536, 65537]


def stored(value: Value) -> Stored:
    return Stored(value.type, Rope(value.data))


def through(old: Value | None, new: Value) -> Value:
    """What a reader makes of the delta from `old` to `new`; asserts that equality, and only it, has no delta."""
    delta = deltas.encode(stored(old) if old else None, new)
    if delta is None:
        assert old == new
        return new
    assert old != new
    delta = unpack(pack(delta))
    result = deltas.apply(stored(old) if old else None, delta, delta[0])
    return Value(result.type, bytes(result.data))


@given(st.none() | stored_values, stored_values)
def test_any_value_follows_from_any_other(old: Value | None, new: Value) -> None:
    assert through(old, new) == new


@given(st.data(), st.binary(max_size=200) | st.lists(st.integers(0, 300), max_size=40).map(msgpack.packb), types)
def test_a_value_follows_from_one_that_it_shares_bytes_with(draws: st.DataObject, old: bytes, type_: str) -> None:
    new = Value(draws.draw(st.just(type_) | types), draws.draw(spliced(old)))
    assert through(Value(type_, old), new) == new


@pytest.mark.parametrize("new", COUNTS)
@pytest.mark.parametrize("old", COUNTS)
@pytest.mark.parametrize("kind", ["array", "map"])
def test_containers_grow_and_shrink_over_every_change_of_their_header(kind: str, old: int, new: int) -> None:
    def value(count: int) -> Value:
        return listed([7] * count if kind == "array" else dict.fromkeys(range(count), 7))

    assert through(value(old), value(new)) == value(new)


@pytest.mark.parametrize("old", [15, 65535])
def test_an_append_over_a_change_of_the_header_stores_the_appended_entry_only(old: int) -> None:
    delta = deltas.encode(stored(listed([7] * old)), listed([7] * old + ["new"]))
    assert delta is not None
    assert delta[0] == msgpack.packb("new")


@given(st.data())
@examples(0.5)
def test_lists_edited_anywhere_are_rebuilt(draws: st.DataObject) -> None:
    old = messages(draws.draw(st.integers(0, 40)))
    new = list(old)
    for _ in range(draws.draw(st.integers(0, 3))):
        at = draws.draw(st.integers(0, len(new)))
        new[at : at + draws.draw(st.integers(0, 2))] = draws.draw(st.lists(st.just(["ai", "inserted"]), max_size=2))
    assert through(listed(old), listed(new)) == listed(new)


@pytest.mark.parametrize("count", [15, 1000, 70_000])
def test_appending_one_message_costs_its_bytes_and_less_than_twenty_more(count: int) -> None:
    old, added = messages(count), ["ai", "an answer " * 30]
    delta = deltas.encode(stored(listed(old)), listed([*old, added]))
    assert len(pack(delta)) < len(msgpack.packb(added)) + 20


@pytest.mark.parametrize("at", [0, 1, 500, 999])
def test_replacing_or_removing_one_of_a_thousand_messages_costs_little(at: int) -> None:
    old = messages(1000)
    changed = [*old[:at], ["human", "edited"], *old[at + 1 :]]
    assert len(pack(deltas.encode(stored(listed(old)), listed(changed)))) < 40
    assert len(pack(deltas.encode(stored(listed(old)), listed(old[:at] + old[at + 1 :])))) < 20


def cut(draws: st.DataObject, data: bytes, places: list[int]) -> Rope:
    """The same bytes in pieces: cut at some of the places, and at some more."""
    some = [at for at in places if draws.draw(st.booleans())] + draws.draw(
        st.lists(st.integers(0, len(data)), max_size=3)
    )
    at = [0, *sorted(place for place in some if place <= len(data)), len(data)]
    return Rope(*(data[a:b] for a, b in pairwise(at)))


@given(st.data(), st.binary(max_size=200) | st.lists(st.integers(0, 300), max_size=40).map(msgpack.packb))
def test_a_delta_does_not_depend_on_the_pieces_that_its_values_are_made_of(draws: st.DataObject, old: bytes) -> None:
    new = draws.draw(spliced(old))
    places = draws.draw(st.lists(st.integers(0, 200), max_size=6))
    whole = deltas.encode(stored(Value("msgpack", old)), Value("msgpack", new))
    before, after = cut(draws, old, places), cut(draws, new, places)
    assert deltas.encode(Stored("msgpack", before), Stored("msgpack", after)) == whole
    assert (bytes(before), bytes(after)) == (old, new)


@given(st.lists(st.sampled_from([b"", b"a", b"message" * 4, b"another" * 3]), max_size=12), st.data())
def test_a_delta_of_values_that_share_pieces_is_that_of_their_bytes(pieces: list[bytes], draws: st.DataObject) -> None:
    kept = pieces[: draws.draw(st.integers(0, len(pieces)))]
    old, new = (
        [b"\xdc\x00\x20", *pieces],
        [draws.draw(st.sampled_from([b"\xdc\x00\x20", b"\xdc\x00\x21"])), *kept, b"new"],
    )
    whole = deltas.encode(stored(Value("msgpack", b"".join(old))), Value("msgpack", b"".join(new)))
    assert deltas.encode(Stored("msgpack", Rope(*old)), Stored("msgpack", Rope(*new))) == whole


@pytest.mark.parametrize("start", [b"\xdc\x00\x03", b"\xdd\x00\x00\x00\x03", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"])
def test_containers_that_are_not_in_their_shortest_form_come_back_as_they_were(start: bytes) -> None:
    entries = bytes(range(100, 120))
    for old, new in [(start, b"\x94"), (b"\x94", start), (start, start + b"\x01"), (start, b"\x84"), (b"\x84", start)]:
        assert through(Value("msgpack", old + entries), Value("msgpack", new + entries)) == ("msgpack", new + entries)


@pytest.mark.parametrize("new", ["", "msgpack", "bytes"])
@pytest.mark.parametrize("old", [None, "", "msgpack", "bytes"])
def test_a_type_is_kept_whatever_the_old_one_was(old: str | None, new: str) -> None:
    for body in (b"", b"short", b"long enough to be kept"):
        before = None if old is None else Value(old, b"long enough to be kept")
        assert through(before, Value(new, body)) == Value(new, body)


def test_equal_bytes_of_another_type_are_a_change() -> None:
    delta = deltas.encode(stored(Value("a", bytes(5000))), Value("b", bytes(5000)))
    assert delta is not None
    assert len(pack(delta)) < 12


def test_a_body_in_a_frame_stands_beside_what_it_refers_to() -> None:
    plain = [b"body", 3]
    framed = deltas.with_references(plain, b"frame", [1, "name"])
    assert deltas.references_of(plain) is None
    assert deltas.references_of(framed) == [1, "name"]
    assert framed[0] == b"frame"
    old = stored(Value("msgpack", b"0123456789"))
    assert bytes(deltas.apply(old, framed, b"body").data) == bytes(deltas.apply(old, plain, b"body").data)


@pytest.mark.parametrize(
    "delta",
    [
        [b"", 11],
        [b"", 0, 11],
        [b"", 6, 6],
        [b"", -1],
        [b"", 0, -1],
        [b"", 0, 0, 1],
        [b"", "x"],
        [b"", 0, "x"],
        [b"", 0, 0, "x"],
        [b"", 0, 0, 2**63],
        [b"", 0, 0, 0, None, None, 1],
    ],
)
def test_a_delta_that_does_not_fit_its_old_value_is_malformed(delta: list[Any]) -> None:
    with pytest.raises(Malformed):
        deltas.apply(stored(Value("msgpack", b"0123456789")), delta, b"")


@pytest.mark.parametrize("grow", [-3, 2**32, 2**70])
def test_a_container_cannot_grow_below_nothing_or_beyond_its_header(grow: int) -> None:
    with pytest.raises(Malformed):
        deltas.apply(stored(Value("msgpack", b"\x92\x01\x01")), [b"", 0, 0, grow], b"")
