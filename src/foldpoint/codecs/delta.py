"""How the bytes of one value follow from the bytes of another.

A delta keeps a prefix and a suffix of the old value and puts a body between them:

    new = head + old[skip : size - removed - suffix] + body + old[size - suffix :]

`head` and `skip` stand for the header of a msgpack array or map whose count changed: appending a message to a list
rewrites one to five leading bytes and nothing else. Only the growth of the count is stored. A value without an old
one is a body alone. A large body may stand for a part of named references, or be a zstd frame against them (see
`event`).

Encoded as a msgpack array [body, removed, suffix, grow, type, references], cut after the last non-default entry;
`removed` nil means that nothing of the old value is kept. `type` nil means the old type, "msgpack" if there is none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from foldpoint.codecs.model import Stored, Value
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import ARRAY, MAP, Malformed, container_header

DEFAULT_TYPE = "msgpack"
_DEFAULTS: tuple[Any, ...] = (b"", 0, 0, 0, None, None)
_WORTH_KEEPING = 12
"""Keeping fewer bytes of the old value than this costs more than it saves."""


class Splice(NamedTuple):
    body: bytes
    removed: int | None = 0
    suffix: int = 0
    grow: int = 0


class _Container(NamedTuple):
    kind: int  # ARRAY or MAP
    entries: int
    size: int


def _container(data: bytes) -> _Container | None:
    """The msgpack array or map header that `data` starts with, if it is in its shortest form."""
    if not data:
        return None
    first = data[0]
    if 0x80 <= first <= 0x9F:
        return _Container(MAP if first < 0x90 else ARRAY, first & 0x0F, 1)
    if 0xDC <= first <= 0xDF:
        size = 3 if first in (ARRAY, MAP) else 5
        header = _Container(first & 0xFE, int.from_bytes(data[1:size], "big"), size)
        if len(data) >= size and container_header(header.kind, header.entries) == data[:size]:
            return header
    return None


def _common_prefix(a: bytes, i: int, b: bytes, j: int, limit: int) -> int:
    """How many bytes a[i:] and b[j:] share at their start, up to `limit`: galloping, then bisecting."""
    shared, step = 0, 64
    while shared < limit:
        size = min(step, limit - shared)
        if a[i + shared : i + shared + size] == b[j + shared : j + shared + size]:
            shared += size
            step = min(step * 4, 1 << 16)
        elif size == 1:
            break
        else:
            limit, step = shared + size, size // 2
    return shared


def _common_suffix(a: bytes, b: bytes, limit: int) -> int:
    shared, step = 0, 64
    while shared < limit:
        size = min(step, limit - shared)
        if a[len(a) - shared - size : len(a) - shared] == b[len(b) - shared - size : len(b) - shared]:
            shared += size
            step = min(step * 4, 1 << 16)
        elif size == 1:
            break
        else:
            limit, step = shared + size, size // 2
    return shared


def splice(old: Rope, new: Rope) -> Splice:
    """The splice that makes `new` of `old`. What the two share in whole pieces is not looked at byte by byte."""
    if len(old) < _WORTH_KEEPING or len(new) < _WORTH_KEEPING:
        return Splice(bytes(new), None)
    start, skip, grow = 0, 0, 0
    was, now = _container(old.start(5)), _container(new.start(5))
    if was and now and was.kind == now.kind and was.entries != now.entries:
        start, skip, grow = now.size, was.size, now.entries - was.entries
    shared = old.shared(skip, new, start)
    before, i = old.tail(skip + shared)
    after, j = new.tail(start + shared)
    shorter = min(len(before) - i, len(after) - j)
    prefix = _common_prefix(before, i, after, j, shorter)
    suffix = _common_suffix(before, after, shorter - prefix)
    if shared + prefix + suffix < _WORTH_KEEPING:
        return Splice(bytes(new), None)
    return Splice(after[j + prefix : len(after) - suffix], len(before) - i - prefix - suffix, suffix, grow)


def encode(old: Stored | None, new: Value | Stored) -> list[Any] | None:
    """The delta from `old` to `new`; None if they are equal. Without an old value its body is the new one's Rope."""
    type_, data = Stored.of(new)
    if old is None:
        return _trim([data, 0, 0, 0, None if type_ == DEFAULT_TYPE else type_, None])
    type_change = None if type_ == old.type else type_
    if type_change is None and old.data.equals(data):
        return None
    return _trim([*splice(old.data, data), type_change, None])


def _trim(fields: list[Any]) -> list[Any]:
    while len(fields) > 1 and fields[-1] == _DEFAULTS[len(fields) - 1]:
        fields.pop()
    return fields


def with_references(delta: list[Any], body: Any, references: list[int | str]) -> list[Any]:
    """The same delta with its body replaced by what gives it back from `references`."""
    return [body, *delta[1:5], *_DEFAULTS[len(delta) : 5], references]


def references_of(delta: list[Any]) -> list[int | str] | None:
    """What the body refers to: None where it stands plain."""
    return delta[5] if len(delta) > 5 else None


def apply(old: Stored | None, delta: list[Any], body: bytes) -> Stored:
    """The value that `delta` makes of `old`; `body` is its body, unpacked. Malformed if they do not fit."""
    try:
        _, removed, suffix, grow, type_, _ = [*delta, *_DEFAULTS[len(delta) :]]
        if type(body) is not bytes or type(type_) not in (str, type(None)):
            raise Malformed("delta whose body or type is something else")
        if old is None:
            return Stored(DEFAULT_TYPE if type_ is None else type_, Rope(body))
        new_type = old.type if type_ is None else type_
        if removed is None:
            return Stored(new_type, Rope(body))
        skip, head = 0, b""
        if grow:
            was = _container(old.data.start(min(5, len(old.data))))
            if was is None or was.entries + grow < 0:
                raise Malformed("delta grows a value that is no array or map")
            skip, head = was.size, container_header(was.kind, was.entries + grow)
        return Stored(new_type, old.data.splice(head, skip, removed, suffix, body))
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"delta does not apply: {error}") from error
