"""Deltas of a checkpoint's header and labels: small maps of which a few entries change at each step.

A map delta names an entry of the base map by its position, a new one by its key. Integers are stored as differences
(versions to the base's greatest version, labels to their old value), so that the deltas of a steady loop are the same
bytes again and again and the compressor makes nothing of them. Where a difference would not give back the same map,
with the same types in the same order, the whole map is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, cast

from foldpoint.codecs.maps import MAPS, differ
from foldpoint.codecs.model import Header, Scalar, Value, Version
from foldpoint.codecs.wire import Malformed

EMPTY = Header(id="")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UUID_EPOCH_TICKS = 0x01B21DD213814000  # 100 ns from 1582-10-15 to 1970-01-01

_FEW = 8  # names are sooner found by going through a list than by building a map for them
MapDelta = list[Any]
"""[changed, removed]: changed maps position or key to value; removed lists positions, nil: the base is ignored."""


def diff_map(old: Mapping[str, Any], new: Mapping[str, Any], code: Callable[[str, Any], Any]) -> MapDelta | None:
    """The delta from `old` to `new`, None if they are equal; `code(key, value)` gives an entry's stored form."""
    if not old:
        return [{key: code(key, value) for key, value in new.items()}] if new else None
    places = MAPS.changed(old, new)
    if places is None:
        return _diff_otherwise(old, new, code)
    changed: dict[int | str, Any] = {at: code(name, new[name]) for at, name in places.items()}
    changed.update((name, code(name, new[name])) for name in islice(new, len(old), None))
    return [changed] if changed else None


def _diff_otherwise(old: Mapping[str, Any], new: Mapping[str, Any], code: Callable[[str, Any], Any]) -> MapDelta:
    """Where names are gone, or in another order."""
    kept = {name: value for name, value in old.items() if name in new}
    places, at_kept = MAPS.changed(kept, new), [at for at, name in enumerate(old) if name in new]
    if places is None:
        return [{name: code(name, value) for name, value in new.items()}, None]
    changed: dict[int | str, Any] = {at_kept[at]: code(name, new[name]) for at, name in places.items()}
    changed.update((name, code(name, new[name])) for name in islice(new, len(kept), None))
    return [changed, [at for at, name in enumerate(old) if name not in new]]


def apply_map(old: dict[str, Any], delta: MapDelta | None, decode: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The map that `diff_map` was given as `new`; `old` itself if they are equal."""
    if delta is None:
        return old
    changed, result = delta[0], dict(old)
    names = [*old]
    if len(delta) > 1:
        if delta[1] is None:
            return {key: decode(key, value) for key, value in changed.items()}
        for at in delta[1]:
            result.pop(names[at], None)
    for name, value in changed.items():
        key = names[name] if type(name) is int else name
        result[key] = decode(key, value)
    return result


def _relative(base: Any, value: Any) -> Any:
    return value - base if type(value) is int else value


def _absolute(base: Any, value: Any) -> Any:
    return value + base if type(value) is int else value


def _whole(value: Any) -> int:
    return value if type(value) is int else 0


def _top(versions: Mapping[str, Version]) -> int:
    kinds = set(map(type, versions.values()))
    if int not in kinds:
        return 0
    if kinds == {int}:
        return max(cast(Iterable[int], versions.values()))
    return max(version for version in versions.values() if type(version) is int)


def diff_labels(old: Mapping[str, Scalar], new: Mapping[str, Scalar]) -> MapDelta | None:
    return diff_map(old, new, lambda key, value: _relative(_whole(old.get(key)), value))


def apply_labels(old: dict[str, Scalar], delta: MapDelta | None) -> dict[str, Scalar]:
    return apply_map(old, delta, lambda key, value: _absolute(_whole(old.get(key)), value))


def pack_id(checkpoint_id: str) -> str | bytes:
    """16 bytes for a UUID in its usual spelling, any other string as it is."""
    if len(checkpoint_id) != 36:
        return checkpoint_id
    try:
        packed = bytes.fromhex(checkpoint_id.replace("-", ""))
    except ValueError:
        return checkpoint_id
    return packed if len(packed) == 16 and unpack_id(packed) == checkpoint_id else checkpoint_id


def unpack_id(packed: str | bytes) -> str:
    if isinstance(packed, str):
        return packed
    if type(packed) is not bytes or len(packed) != 16:
        raise Malformed(f"id {packed!r:.40} that is no text and has no 16 bytes")
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def id_micros(checkpoint_id: str) -> int:
    """The microsecond since 1970 that a version 6 UUID was made in, 0 for any other id."""
    if len(checkpoint_id) != 36 or checkpoint_id[14] != "6":
        return 0
    try:
        digits = checkpoint_id[0:8] + checkpoint_id[9:13] + checkpoint_id[15:18]
        return (int(digits, 16) - _UUID_EPOCH_TICKS) // 10
    except ValueError:
        return 0


def _pack_time(ts: str, checkpoint_id: str) -> int | str:
    """Microseconds after the id's own time, for a UTC time as `datetime.isoformat` spells it."""
    try:
        moment = datetime.fromisoformat(ts)
        if moment.isoformat() != ts or not ts.endswith("+00:00"):
            return ts
    except (ValueError, OverflowError):
        return ts
    return (moment - _EPOCH) // _MICROSECOND - id_micros(checkpoint_id)


def _unpack_time(packed: int | str, checkpoint_id: str) -> str:
    if isinstance(packed, str):
        return packed
    return (_EPOCH + timedelta(microseconds=packed + id_micros(checkpoint_id))).isoformat()


def _diff_seen(old: Header, new: Header, top: int) -> MapDelta | None:
    def inner(node: str, seen: Mapping[str, Version]) -> Any:
        before = old.versions_seen.get(node)
        return diff_map(before, seen, lambda _, version: _relative(top, version)) if before else _first_seen(seen, top)

    if not old.versions_seen:
        return [_all_first_seen(new, top)] if new.versions_seen else None
    delta = diff_map(old.versions_seen, new.versions_seen, inner)
    if delta and len(delta) > 1 and delta[1] is None:
        return [_all_first_seen(new, top), None]
    return delta


def _all_first_seen(new: Header, top: int) -> dict[str, Any]:
    return {node: _first_seen(seen, top) for node, seen in new.versions_seen.items()}


def _first_seen(seen: Mapping[str, Version], top: int) -> MapDelta | None:
    """As `diff_map` from nothing, for the many small maps of a whole header."""
    if top == 0:
        return [dict(seen)] if seen else None
    return diff_map({}, seen, lambda _, version: _relative(top, version))


def _apply_seen(old: dict[str, dict[str, Version]], delta: MapDelta | None, top: int) -> dict[str, dict[str, Version]]:
    whole = delta is not None and len(delta) > 1 and delta[1] is None

    def inner(node: str, seen: MapDelta | None) -> dict[str, Version]:
        base = {} if whole else old.get(node, {})
        return apply_map(base, seen, lambda _, version: _absolute(top, version))

    return apply_map(old, delta, inner)


def names_of(versions: Mapping[str, Version]) -> list[str]:
    """The channels that an event may name by position, from its channel versions."""
    return [*versions]


def positions_of(header: Header, wanted: Collection[str]) -> dict[str, int]:
    """By which position an event names each of the `wanted` channels that has one."""
    names = names_of(header.channel_versions)
    if len(wanted) > _FEW:
        return {name: at for at, name in enumerate(names)}
    return {name: names.index(name) for name in wanted if name in header.channel_versions}


def diff_header(old: Header, new: Header) -> list[Any]:
    """[id, parent, ts, channel versions, versions seen, updated channels, v, extra].

    parent true: the base's id; v and extra nil: as the base's; extra false: none.
    """
    top = _top(old.channel_versions)
    updated = new.updated_channels
    positions = positions_of(new, updated or ())
    return [
        pack_id(new.id),
        new.parent if new.parent is None else (True if new.parent == old.id else pack_id(new.parent)),
        _pack_time(new.ts, new.id),
        diff_map(old.channel_versions, new.channel_versions, lambda _, version: _relative(top, version)),
        _diff_seen(old, new, top),
        updated if updated is None else [positions.get(name, name) for name in updated],
        new.v if differ(old.v, new.v) else None,
        None if new.extra == old.extra else (list(new.extra) if new.extra else False),
    ]


class HeaderFold:
    """A header, and what the deltas of one checkpoint after another make of it.

    Of each only what the next one builds upon is unpacked.
    """

    def __init__(self, base: Header) -> None:
        self.versions: dict[str, Version] = base.channel_versions
        self._seen = base.versions_seen
        self._v, self._extra = base.v, base.extra
        self._id: Any = base.id
        self._parent: Any = base.parent
        self._ts: Any = base.ts
        self._updated: Any = base.updated_channels

    def add(self, fields: list[Any]) -> None:
        """Take in what `diff_header` gave. The maps that were there stay as they are."""
        packed_id, parent, self._ts, versions, seen, self._updated, v, extra = fields
        top = _top(self.versions)
        self._parent = self._id if parent is True else parent
        self._id = packed_id
        self.versions = apply_map(self.versions, versions, lambda _, version: _absolute(top, version))
        self._seen = _apply_seen(self._seen, seen, top)
        if v is not None:
            self._v = v
        if extra is not None:
            self._extra = Value(*extra) if extra else None

    def header(self) -> Header:
        """The header that `diff_header` was given last as `new`. REQUIRES an `add`."""
        names, updated = [*self.versions], self._updated
        checkpoint_id = unpack_id(self._id)
        return Header(
            id=checkpoint_id,
            parent=None if self._parent is None else unpack_id(self._parent),
            v=self._v,
            ts=_unpack_time(self._ts, checkpoint_id),
            channel_versions=self.versions,
            versions_seen=self._seen,
            updated_channels=None if updated is None else [names[n] if type(n) is int else n for n in updated],
            extra=self._extra,
        )
