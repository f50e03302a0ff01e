"""How long threads live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foldpoint.settings import LONGEST

_MOST_MINUTES = LONGEST // 60
_KEYS = {"default_ttl", "refresh_on_read"}


@dataclass(frozen=True, slots=True)
class Lifetime:
    """seconds: after the last use, None for ever. refresh_on_read: reading is a use, as writing always is."""

    seconds: int | None = None
    refresh_on_read: bool = False

    @classmethod
    def parse(cls, ttl: Mapping[str, Any] | None, default: int | None) -> Lifetime:
        """From LangGraph's form, `default_ttl` in minutes; `default` (seconds) where it gives none."""
        given = ttl or {}
        if not isinstance(given, Mapping):
            raise ValueError(f'ttl: expected {{"default_ttl": minutes, "refresh_on_read": bool}}, got {given!r}')
        if unknown := set(given) - _KEYS:
            raise ValueError(f"ttl: expected the keys {sorted(_KEYS)}, got {sorted(unknown)}")
        minutes = given.get("default_ttl")
        number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
        if minutes is not None and not (number and 0 < minutes <= _MOST_MINUTES):
            raise ValueError(f"ttl: default_ttl is a number of minutes above 0 (100 years at most), got {minutes!r}")
        refresh = given.get("refresh_on_read") or False
        if not isinstance(refresh, bool):
            raise ValueError(f"ttl: refresh_on_read is True or False, got {refresh!r}")
        seconds = default if minutes is None else max(1, round(minutes * 60))
        return cls(seconds, seconds is not None and refresh)
