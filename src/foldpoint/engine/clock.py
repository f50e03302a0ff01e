"""Time, in one place so that tests can move it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

# Where the system has it, the clock that goes on while the machine sleeps: knowledge ages then too.
_elapsed = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


class Clock(Protocol):
    """`monotonic` measures how old knowledge is; `now` dates what other processes read (seconds since 1970)."""

    def monotonic(self) -> float: ...

    def now(self) -> float: ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock. `now` moves with the monotonic clock: a jump while the process runs is not seen."""

    started: float = field(default_factory=lambda: time.time() - _elapsed())

    monotonic = staticmethod(_elapsed)

    def now(self) -> float:
        return self.started + _elapsed()
