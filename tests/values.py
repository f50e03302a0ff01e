"""Values of the model as hypothesis draws them, and an equality that sees every difference.

`pytest tests` puts this directory on the path (`conftest.py`).
"""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
from hypothesis import settings
from hypothesis import strategies as st

from foldpoint.codecs.model import Carried, Checkpoint, Header, Scalar, Value, Version, Write


def examples(share: float) -> settings:
    """The loaded profile with a share of its examples, for tests that are dear."""
    return settings(settings.default, max_examples=max(5, math.ceil(settings.default.max_examples * share)))


def exact(value: Any) -> Any:
    """Something that is equal only for values of the same types with the same bits in the same order.

    1, 1.0 and True differ, as do 0.0 and -0.0; a NaN equals itself; mappings remember their order.
    """
    if isinstance(value, float):
        return "float", struct.pack(">d", value)
    if isinstance(value, Mapping):
        return "map", [(exact(key), exact(inner)) for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [exact(inner) for inner in value]
    if is_dataclass(value):
        return type(value).__name__, [exact(getattr(value, field.name)) for field in fields(value)]
    return type(value).__name__, value


# Any code point: lone surrogates and NUL too.
texts = st.text(st.characters(), max_size=6) | st.sampled_from(
    ["", "\0", "\ud800", "a\udfff", "a:b/c|d", "é", "e\u0301"]
)
names = st.sampled_from(["messages", "branch:to:agent", "__pregel_tasks", "__start__", "a", "b", "1"]) | texts

whole = st.integers(-(2**62) + 1, 2**62 - 1)
"""What is stored as a difference: two of them never differ by more than 64 bits hold."""
integers = st.integers(-3, 3) | st.sampled_from([2**62 - 1, 1 - 2**62, 2**32, -(2**31)]) | whole
floats = st.floats() | st.sampled_from([0.0, -0.0, 1.0, math.nan, -math.nan, math.inf])
versions: st.SearchStrategy[Version] = (
    integers | floats | st.sampled_from(["1", "00000000000000000000000000000002.0.9"]) | texts
)
scalars: st.SearchStrategy[Scalar] = (
    st.sampled_from([0, 1, 0.0, 1.0, -0.0, True, False, None, "", "1"]) | integers | floats | texts
)


def v6(micros: int, clock_seq: int = 0, node: int = 0) -> str:
    """A version 6 UUID made `micros` after 1970."""
    ticks = micros * 10 + 0x01B21DD213814000
    number = (ticks >> 12) << 80 | 0x6000 << 64 | (ticks & 0xFFF) << 64 | 0x8000 << 48 | clock_seq << 48 | node
    return str(uuid.UUID(int=number))


_uuids = st.uuids() | st.builds(lambda micros: uuid.UUID(v6(micros)), st.integers(0, 1 << 52))
_spellings = st.sampled_from([str, lambda u: str(u).upper(), lambda u: u.hex, lambda u: u.urn, lambda u: f"{{{u}}}"])
_almost = st.sampled_from(
    [
        "1f0c69a2-0000-6000-8000-00000000000\u0661",
        "1f0c69a2-0000-6000-8000-0000000000_1",
        "-f0c69a2-0000-6000-8000-000000000001",
        " f0c69a2-0000-6000-8000-000000000001",
        "1f0c69a2_00_0-600-8000-000000000001",
        "1f0c69a2-0_00-6_00-8000-000000000001",
        "zzzzzzzz-zzzz-6zzz-zzzz-zzzzzzzzzzzz",
        "0" * 14 + "6" + "0" * 21,
    ]
)
ids = st.builds(lambda u, spell: str(spell(u)), _uuids, _spellings) | _almost | texts

_zones = st.sampled_from(
    [None, UTC, timezone(timedelta(0), "Z"), timezone(timedelta(hours=2)), timezone(timedelta(seconds=1))]
)
_moments = st.datetimes(timezones=st.none()).flatmap(lambda d: _zones.map(lambda zone: d.replace(tzinfo=zone)))
_forms = st.sampled_from(
    [
        datetime.isoformat,
        lambda d: d.isoformat(" "),
        lambda d: d.isoformat(timespec="milliseconds"),
        str,
        lambda d: d.isoformat().replace("+00:00", "Z"),
    ]
)
times = (
    st.builds(lambda moment, form: str(form(moment)), _moments, _forms)
    | st.sampled_from(["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00", "2024-02-30T00:00:00+00:00"])
    | texts
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
data = (
    st.binary(max_size=40) | plain.map(msgpack.packb) | st.sampled_from([b"", b"\x90", b"\x80", b"\xdc", b"\xdf\0\0"])
)
types = st.sampled_from(["msgpack", "bytes", "null", "json", ""]) | texts
stored_values = st.builds(Value, types, data)


def mapped(keys: st.SearchStrategy[str], values: st.SearchStrategy[Any], most: int = 5) -> st.SearchStrategy[Any]:
    """Dicts in any order of keys."""
    return st.lists(st.tuples(keys, values), max_size=most).map(dict)


@st.composite
def edited(draw: st.DrawFn, old: Mapping[str, Any], values: st.SearchStrategy[Any]) -> dict[str, Any]:
    """A map that follows from another: entries changed, removed, added, perhaps reordered; values kept or confused."""
    new = dict(old)
    for key in draw(st.lists(st.sampled_from(sorted(old)), max_size=3)) if old else ():
        new[key] = draw(values)
    for key in draw(st.lists(st.sampled_from(sorted(old)), max_size=2)) if old else ():
        new.pop(key, None)
    new.update(draw(mapped(names, values, 2)))
    return dict(draw(st.permutations(list(new.items())))) if draw(st.integers(0, 3)) == 0 else new


headers = st.builds(
    Header,
    id=ids,
    parent=st.none() | ids,
    v=st.integers(-1, 5),
    ts=times,
    channel_versions=mapped(names, versions),
    versions_seen=mapped(names, mapped(names, versions, 3), 3),
    updated_channels=st.none() | st.lists(names, max_size=3),
    extra=st.none() | stored_values,
)


@st.composite
def children(draw: st.DrawFn, old: Header) -> Header:
    """A header as it may follow another."""
    channel_versions = draw(edited(old.channel_versions, versions))
    seen = draw(edited(old.versions_seen, mapped(names, versions, 3)))
    for node in draw(st.lists(st.sampled_from(sorted(seen)), max_size=2)) if seen else ():
        seen[node] = draw(edited(seen[node], versions))
    known = st.sampled_from(sorted(channel_versions)) | names if channel_versions else names
    return Header(
        id=draw(ids),
        parent=draw(st.sampled_from([old.id, None]) | ids),
        v=draw(st.just(old.v) | st.integers(1, 5)),
        ts=draw(st.just(old.ts) | times),
        channel_versions=channel_versions,
        versions_seen=seen,
        updated_channels=draw(st.none() | st.lists(known, max_size=3)),
        extra=draw(st.just(old.extra) | st.none() | stored_values),
    )


writes = st.builds(Write, ids, st.integers(-5, 5), names, stored_values, texts)
carried = mapped(names, st.builds(Carried, st.none() | stored_values, st.lists(writes, max_size=2).map(tuple)), 2)
checkpoints = st.builds(
    Checkpoint,
    headers,
    mapped(names, stored_values),
    mapped(names, scalars),
    st.none() | stored_values,
    carried,
)


@st.composite
def successors(draw: st.DrawFn, old: Checkpoint) -> Checkpoint:
    """A checkpoint as it may follow another: its values edited as bytes, too."""
    header = draw(children(old.header))
    channels = draw(edited(old.channels, stored_values))
    for name in draw(st.lists(st.sampled_from(sorted(channels)), max_size=3)) if channels else ():
        channels[name] = Value(draw(st.just(channels[name].type) | types), draw(spliced(channels[name].data)))
    return Checkpoint(
        header,
        channels,
        draw(edited(old.labels, scalars)),
        draw(st.just(old.metadata) | st.none() | stored_values),
        draw(carried),
    )


@st.composite
def spliced(draw: st.DrawFn, old: bytes) -> bytes:
    """Bytes that share much with others."""
    cut = sorted(draw(st.lists(st.integers(0, len(old)), min_size=2, max_size=2)))
    return old[: cut[0]] + draw(data) + old[cut[1] :]


def messages(count: int, size: int = 60) -> list[list[Any]]:
    """A list as a conversation channel holds it: entry `n` is the same whatever the count."""
    return [["human", f"message {n} " + f"{n * 2654435761 % 1000003:07}" * (size // 7)] for n in range(count)]


def listed(items: Any) -> Value:
    return Value("msgpack", msgpack.packb(items))
