"""Time, in one place so that tests can move it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """`monotonic` measures how old knowledge is; `now` dates what other processes read (seconds since 1970)."""

    def monotonic(self) -> float: ...

    def now(self) -> float: ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock. `now` moves with the monotonic clock: a jump while the process runs is not seen."""

    started: float = field(default_factory=lambda: time.time() - time.monotonic())

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return self.started + time.monotonic()
