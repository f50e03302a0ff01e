"""Headers and labels come back with exact types, in their order, whatever they follow from."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from values import children, edited, exact, headers, ids, mapped, names, scalars, times, v6

from foldpoint.codecs.header import (
    EMPTY,
    HeaderFold,
    apply_labels,
    diff_header,
    diff_labels,
    pack_id,
    unpack_id,
)
from foldpoint.codecs.model import Header, Scalar
from foldpoint.codecs.wire import Malformed, pack, unpack


def apply_header(old: Header, fields: list[Any]) -> Header:
    fold = HeaderFold(old)
    fold.add(fields)
    return fold.header()


def through(old: Header, new: Header) -> Header:
    return apply_header(old, unpack(pack(diff_header(old, new))))


def labels_through(old: dict[str, Scalar], new: dict[str, Scalar]) -> dict[str, Scalar]:
    return apply_labels(old, unpack(pack(diff_labels(old, new))))


@given(headers)
def test_a_first_header_comes_back(new: Header) -> None:
    assert exact(through(EMPTY, new)) == exact(new)


@given(headers, headers)
def test_any_header_follows_from_any_other(old: Header, new: Header) -> None:
    assert exact(through(old, new)) == exact(new)


@given(st.data(), headers)
def test_a_header_follows_from_its_like(data: st.DataObject, old: Header) -> None:
    new = data.draw(children(old))
    assert exact(through(old, new)) == exact(new)


@pytest.mark.parametrize("version", [int, str])
@pytest.mark.parametrize("old", [{"a": 1, "b": 2}, {"a": 1}, {}])
def test_the_order_in_which_a_node_saw_channels_is_kept(old: dict[str, int], version: type) -> None:
    def seen(number: int, by_node: dict[str, int]) -> Header:
        spelled = {channel: version(at) for channel, at in by_node.items()}
        return Header(str(number), versions_seen={"n": spelled, "m": {"a": version(1)}})

    before, after = seen(1, old), seen(2, {"b": 2, "a": 1})
    assert exact(through(before, after)) == exact(after)


@given(st.data(), mapped(names, scalars))
def test_labels_follow_from_any_others(data: st.DataObject, old: dict[str, Scalar]) -> None:
    new = data.draw(edited(old, scalars) | mapped(names, scalars))
    assert exact(labels_through(old, new)) == exact(new)


@pytest.mark.parametrize("new", [0, 1, True, False, 1.0, 0.0, -0.0, None, "1", "", float("nan"), 2**62 - 1, 1 - 2**62])
@pytest.mark.parametrize("old", [0, 1, True, False, 1.0, 0.0, -0.0, None, "1", "", float("nan"), 2**62 - 1, 1 - 2**62])
def test_equal_looking_scalars_are_told_apart(old: Scalar, new: Scalar) -> None:
    assert exact(labels_through({"a": old}, {"a": new})) == exact({"a": new})
    assert exact(labels_through({"a": old, "b": 1}, {"b": 1, "a": new})) == exact({"b": 1, "a": new})
    if not isinstance(new, (bool, type(None))) and not isinstance(old, (bool, type(None))):
        before, after = Header("1", channel_versions={"a": old}), Header("2", channel_versions={"a": new})
        assert exact(through(before, after)) == exact(after)
        before, after = Header("1", versions_seen={"n": {"a": old}}), Header("2", versions_seen={"n": {"a": new}})
        assert exact(through(before, after)) == exact(after)


def test_a_format_version_of_another_type_is_told_apart() -> None:
    old, new = Header("1", v=1.0), Header("2", v=1)  # type: ignore[arg-type]
    assert exact(through(old, new)) == exact(new)
    assert exact(through(new, old)) == exact(old)


def test_a_map_of_one_order_follows_from_the_same_entries_in_another() -> None:
    old = Header("1", channel_versions={"a": 1, "b": 2}, versions_seen={"n": {"a": 1, "b": 1}, "m": {}})
    new = Header("2", channel_versions={"b": 2, "a": 1}, versions_seen={"m": {}, "n": {"b": 1, "a": 1}})
    assert exact(through(old, new)) == exact(new)
    assert exact(through(new, old)) == exact(old)


@pytest.mark.parametrize("version", [2**63, 2**64 - 1, -(2**63)])
@pytest.mark.parametrize("before", [0, -(2**63), 2**64 - 1, 5])
def test_a_version_at_the_limits_comes_back_or_is_refused_when_it_is_stored(before: int, version: int) -> None:
    old, new = Header("1", channel_versions={"a": before}), Header("2", channel_versions={"a": version})
    try:
        packed = pack(diff_header(old, new))
    except ValueError:
        assert abs(version - before) >= 2**63
        return
    assert exact(apply_header(old, unpack(packed))) == exact(new)


@given(ids)
@example(str(uuid.UUID(int=0)))
def test_ids_come_back_in_their_own_spelling(checkpoint_id: str) -> None:
    packed = pack_id(checkpoint_id)
    assert unpack_id(unpack(pack(packed))) == checkpoint_id
    assert not isinstance(packed, bytes) or len(packed) == 16


def test_only_the_usual_spelling_of_a_uuid_is_packed() -> None:
    made = uuid.uuid4()
    assert pack_id(str(made)) == made.bytes
    for spelling in (str(made).upper(), made.hex, made.urn, f"{{{made}}}"):
        assert pack_id(spelling) == spelling


@given(ids, times)
def test_times_of_any_form_come_back(checkpoint_id: str, ts: str) -> None:
    assert through(EMPTY, Header(checkpoint_id, ts=ts)).ts == ts


def test_a_time_beside_its_id_costs_a_few_bytes() -> None:
    with_time = pack(diff_header(EMPTY, Header(v6(1_700_000_000_123_456), ts="2023-11-14T22:13:20.123499+00:00")))
    without = pack(diff_header(EMPTY, Header(v6(1_700_000_000_123_456), ts="")))
    assert len(with_time) - len(without) < 3


def test_the_headers_of_a_steady_loop_differ_in_their_ids_only() -> None:
    def step(n: int) -> Header:
        return Header(
            f"{n:04}",
            parent=f"{n - 1:04}",
            channel_versions={"messages": 2 * n, "branch:to:agent": 2 * n + 1, "__start__": 2},
            versions_seen={"agent": {"branch:to:agent": 2 * n - 1}, "__input__": {}},
            updated_channels=["messages", "branch:to:agent"],
        )

    first, second = (diff_header(step(n), step(n + 1))[1:] for n in (50, 51))
    assert pack(first) == pack(second)
    assert len(pack(first)) < 40


@pytest.mark.parametrize("size", [0, 15, 17])
def test_an_id_of_another_length_is_malformed(size: int) -> None:
    with pytest.raises(Malformed):
        unpack_id(bytes(size))
