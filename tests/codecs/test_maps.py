"""What changed in a map is found exactly, and a copy is the caller's no more; compiled and in Python alike."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldpoint.codecs import event, header, maps
from foldpoint.codecs.maps import IN_C, IN_PYTHON, Maps
from foldpoint.codecs.wire import pack


class Text(str):
    pass


class Number(int):
    pass


every_way = pytest.mark.parametrize(
    "way",
    [
        pytest.param(IN_PYTHON, id="python"),
        pytest.param(IN_C, id="c", marks=pytest.mark.skipif(IN_C is None, reason="not compiled here")),
    ],
)

# Many that are equal and stored otherwise, and some that are stored as themselves only by their bits.
scalars = st.sampled_from(
    [0, 1, 2, True, False, 1.0, 0.0, -0.0, float("nan"), None, "", "1", "\ud800", 1 << 62, -1]
) | st.floats(allow_nan=True)
names = st.sampled_from(["", "a", "b", "c", "\ud800", "x" * 40])
flat = st.dictionaries(names, scalars, max_size=5)
nested = st.dictionaries(names, flat, max_size=5)
odd = st.sampled_from([Number(1), Text("1"), b"1", [1], {"a": {}}, OrderedDict(a=1), 1 + 2j])
anything = st.dictionaries(names | st.sampled_from([1, Text("a")]), scalars | flat | odd, max_size=4)


def stored(value: Any) -> bytes:
    return pack(list(value.items()) if type(value) is dict else value)


def exact(value: Any) -> Any:
    """Equal only for what is in type, order and bits the same."""
    if isinstance(value, dict):
        return type(value), [(type(name), name, exact(one)) for name, one in value.items()]
    return type(value), repr(value)


def shuffled(data: st.DataObject, old: dict[str, Any], values: st.SearchStrategy[Any]) -> dict[str, Any]:
    """What may follow: some entries are others, some new, some gone; or it is in another order."""
    new = {name: data.draw(st.just(value) | values) for name, value in old.items()}
    new.update(data.draw(st.dictionaries(names, values, max_size=2)))
    if data.draw(st.booleans()):
        return new
    return dict(data.draw(st.permutations(list(new.items()))))


@every_way
@given(st.data())
def test_the_names_of_what_is_stored_as_other_bytes_are_found_by_position(way: Maps, data: st.DataObject) -> None:
    values = data.draw(st.sampled_from([scalars, flat]))
    old = data.draw(st.dictionaries(names, values, max_size=5))
    new = shuffled(data, old, values)
    found = way.changed(old, deepcopy(new))
    if [*new][: len(old)] != [*old]:
        assert found is None
    else:
        assert found == {at: name for at, name in enumerate(old) if stored(old[name]) != stored(new[name])}
        assert [*found] == sorted(found)


@every_way
@pytest.mark.parametrize(
    ("was", "now"),
    [
        (1, True),
        (0, False),
        (1, 1.0),
        (True, 1.0),
        (0.0, -0.0),
        (None, 0),
        ("1", 1),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_what_is_equal_and_stored_otherwise_is_found(way: Maps, was: Any, now: Any) -> None:
    for old, new in ((was, now), (now, was), ({"c": was}, {"c": now})):
        assert way.changed({"a": 5, "b": old}, {"a": 5, "b": new, "c": 1}) == {1: "b"}
        assert way.changed({"a": 5, "b": old}, {"a": 5, "b": deepcopy(old)}) == {}
    assert way.changed({"b": float("nan")}, {"b": float("nan")}) == {}


@every_way
@given(flat | nested | anything)
def test_a_copy_is_the_same_and_shares_only_what_nobody_changes(way: Maps, given_map: dict[str, Any]) -> None:
    was = deepcopy(given_map)
    copies = [way.copied(given_map), way.copied(given_map, {})]
    for value in given_map.values():
        if type(value) is dict:
            value["new"] = 1
    given_map["new"] = {}
    for copy in copies:
        assert copy is None or exact(copy) == exact(was)


@every_way
@given(st.data(), nested)
def test_what_a_base_holds_is_shared_only_where_it_is_stored_as_the_same(
    way: Maps, data: st.DataObject, base: dict[str, Any]
) -> None:
    new = shuffled(data, base, flat)
    was = deepcopy(base)
    copy = way.copied(new, base)
    assert exact(copy) == exact(new)
    assert exact(base) == exact(was)
    assert copy is not None
    assert all(copy[name] is not new[name] or new[name] is base.get(name) for name in new)


@pytest.mark.skipif(IN_C is None, reason="not compiled here")
@given(anything, anything)
def test_both_ways_take_and_refuse_the_same(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert IN_C is not None
    for given_map in (old, new):
        for base in ((), ({},)):
            assert exact(IN_C.copied(given_map, *base)) == exact(IN_PYTHON.copied(given_map, *base))
    assert (IN_C.changed(old, new) is None) == (IN_PYTHON.changed(old, new) is None)


@every_way
@pytest.mark.parametrize("value", [Number(1), Text("1"), b"1", [1], (1,), {1}, 1 + 2j, OrderedDict(a=1)])
def test_what_is_not_plain_is_not_copied(way: Maps, value: Any) -> None:
    assert way.copied({"a": 1, "b": value}) is None
    assert way.copied({"a": {"b": value}}, {}) is None
    assert way.copied({"a": {}, "b": value}, {}) is None
    assert way.copied(OrderedDict(a=1)) is None
    assert way.copied({Text("a"): 1}) is None
    assert way.copied({"a": {Text("b"): 1}}, {}) is None


@every_way
def test_a_copy_needs_no_base_and_no_order_of_it(way: Maps) -> None:
    base: dict[str, Any] = {"b": {"x": 1}, "a": {"y": 2}, "c": 5}
    new: dict[str, Any] = {"a": {"y": 2}, "b": {"x": True}, "c": {}}
    assert exact(way.copied(new, base)) == exact(new)
    assert exact(way.copied({"a": 1}, None)) == exact({"a": 1})
    assert way.copied({"a": 1}, {"a": 1}) is None  # a base is no excuse for what is no map of maps


@every_way
def test_maps_that_others_change_meanwhile_are_copied_as_they_are_at_some_time(way: Maps) -> None:
    """And the interpreter lives on; a collection of garbage may run other code at any allocation."""
    shared: dict[str, Any] = {f"n{at}": {"c": at} for at in range(300)}
    over = threading.Event()

    def change() -> None:
        at = 0
        while not over.is_set():
            shared[f"n{at % 300}"] = {"c": at}
            at += 1

    thread = threading.Thread(target=change)
    thread.start()
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            copy = way.copied(shared, shared)
            assert copy is not None
            assert [*copy] == [*shared]
            assert way.changed(copy, copy) == {}
    finally:
        gc.set_threshold(*threshold)
        over.set()
        thread.join()


@pytest.mark.skipif(IN_C is None, reason="not compiled here")
def test_what_is_compiled_is_used() -> None:
    assert maps.MAPS is header.MAPS is event.MAPS is IN_C
