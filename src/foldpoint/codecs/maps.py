"""Small maps by name, of versions and labels: what changed in one, and a copy of one.

Compiled where there was a compiler when Foldpoint was installed. Otherwise in Python: slower, and the same in every
respect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, compress, count, islice
from operator import ne
from typing import Any, NamedTuple

from foldpoint.codecs.wire import pack

try:
    from foldpoint.codecs._maps import changed, copied
except ImportError:
    IS_COMPILED = False
else:
    IS_COMPILED = True

Map = Mapping[str, Any]
_SCALARS = {str, int, float, bool, type(None)}
_PLAIN = _SCALARS | {bytes, list, dict}


class Maps(NamedTuple):
    """One way to go through maps.

    changed(old, new): by position in `old` the names whose entries in `new` are stored as other bytes; None unless
    `new` begins with the names of `old`, in their order, and both are dicts.
    copied(map): the same map; None unless it is a dict of names and scalars. copied(map, base): of such maps, those of
    which that are stored as in `base` may be that one's.
    """

    changed: Callable[[Map, Map], dict[int, str] | None]
    copied: Callable[..., dict[str, Any] | None]


def _changed(old: Map, new: Map) -> dict[int, str] | None:
    names, leading = [*old], [*islice(new, len(old))]
    if {type(old), type(new)} != {dict} or leading != names or not _are_texts(chain(names, leading)):
        return None
    return {at: names[at] for at in _other([*old.values()], [*islice(new.values(), len(names))])}


def _other(before: Sequence[Any], after: Sequence[Any]) -> Iterable[int]:
    """What equals a string is stored as it is, and so is an integer that equals one; other equal values need not be (1
    and 1.0, maps in another order).
    """
    kinds = _kinds(after)
    plain = kinds <= {str} or (kinds == {int} and _kinds(before) == {int})
    if plain and {*map(type, after)} == {dict} and max(map(len, after)) > 1:
        before, after = _in_order(before), _in_order(after)
    return compress(count(), map(ne if plain else differ, before, after))


def _kinds(values: Collection[Any]) -> set[type]:
    """The types of the values, or where all are maps those of what they hold."""
    kinds = set(map(type, values))
    return set(map(type, chain.from_iterable(map(dict.values, values)))) if kinds == {dict} else kinds


def _in_order(values: Iterable[Any]) -> list[Any]:
    return [tuple(value.items()) if type(value) is dict else value for value in values]


def _are_texts(names: Iterable[Any]) -> bool:
    return {*map(type, names)} <= {str}


def differ(old: Any, new: Any) -> bool:
    """Whether the two are, or may be, stored as different bytes; the usual kinds are not packed for it."""
    if type(old) is not type(new) or type(old) not in _PLAIN:
        return True
    if type(old) is dict:
        return [*old] != [*new] or any(map(differ, old.values(), new.values()))
    return bool(old != new) if type(old) in (str, int) else pack(old) != pack(new)


def _copied(given: Map, base: Map | None = None) -> dict[str, Any] | None:
    if type(given) is not dict or not _are_texts(given):
        return None
    if base is None:
        return {**given} if {*map(type, given.values())} <= _SCALARS else None
    if {*map(type, given.values())} - {dict} or not _are_texts(chain.from_iterable(given.values())):
        return None
    return {name: {**value} for name, value in given.items()} if _kinds(given.values()) <= _SCALARS else None


IN_PYTHON = Maps(_changed, _copied)
IN_C = Maps(changed, copied) if IS_COMPILED else None
MAPS = IN_C or IN_PYTHON
