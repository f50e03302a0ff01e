"""How long threads live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
        if unknown := set(given) - _KEYS:
            raise ValueError(f"ttl: expected the keys {sorted(_KEYS)}, got {sorted(unknown)}")
        minutes = given.get("default_ttl")
        if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes <= 0):
            raise ValueError(f"ttl: default_ttl is a number of minutes above 0, got {minutes!r}")
        seconds = default if minutes is None else max(1, round(minutes * 60))
        return cls(seconds, seconds is not None and bool(given.get("refresh_on_read", False)))
