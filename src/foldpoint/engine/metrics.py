"""What an engine does, counted: through the OpenTelemetry API, and as a dict for those who run no telemetry.

Totals are kept here and observed when they are collected, so that a put costs the same with an SDK and without one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from foldpoint.errors import Conflict

_COUNTERS = {
    "puts": ("foldpoint.put.count", "{put}", "Checkpoints and sets of pending writes that were put"),
    "bytes_logged": ("foldpoint.put.logged", "By", "Bytes that puts added to the log"),
    "bytes_of_state": ("foldpoint.put.state", "By", "Bytes of the full states and writes that were put, serialized"),
    "seals": ("foldpoint.seal.count", "{seal}", "Tails that were sealed into a segment"),
    "bytes_given_back": ("foldpoint.compaction.reclaimed", "By", "Bytes of records that compaction removed"),
}
_TOTALS = (
    *_COUNTERS,
    "resumes",
    "resume_seconds",
    "compactions_attempted",
    "compactions_succeeded",
    "compactions_conflicted",
    "compactions_failed",
    "compaction_seconds",
)

_lock = Lock()


def _renew() -> None:
    """In the child of a fork: a thread that it does not have may have held the lock."""
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
_process: dict[str, float] = dict.fromkeys(_TOTALS, 0)
"""Sums over all engines of this process: what OpenTelemetry sees."""


class Metrics:
    """The totals of one engine since it was made. Safe to share between threads."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = dict.fromkeys(_TOTALS, 0)

    def add(self, **amounts: float) -> None:
        """Add to the totals of these names."""
        with _lock:
            for name, amount in amounts.items():
                self._totals[name] += amount
                _process[name] += amount

    def as_dict(self) -> dict[str, float]:
        """The totals by name: counts, bytes, and seconds where the name says so."""
        with _lock:
            return dict(self._totals)

    def resumed(self, seconds: float) -> None:
        """The latest checkpoint of a thread was read and deserialized in so many seconds."""
        self.add(resumes=1, resume_seconds=seconds)
        _resume_duration.record(seconds)

    @contextmanager
    def compaction(self) -> Iterator[None]:
        """Time the block as compacting one stream. Conflict: others kept winning; any other error: it failed."""
        started = time.perf_counter()
        outcome, attributes = "compactions_succeeded", {}
        try:
            yield
        except BaseException as error:
            outcome = "compactions_conflicted" if isinstance(error, Conflict) else "compactions_failed"
            attributes = {"error.type": type(error).__qualname__}
            raise
        finally:
            seconds = time.perf_counter() - started
            self.add(**{"compactions_attempted": 1, outcome: 1, "compaction_seconds": seconds})
            _compaction_duration.record(seconds, attributes)


def _observe(name: str, options: CallbackOptions) -> Iterable[Observation]:
    with _lock:
        return [Observation(_process[name])]


_meter = metrics.get_meter("foldpoint")
for _name, (_metric, _unit, _description) in _COUNTERS.items():
    _callback: Callable[[CallbackOptions], Iterable[Observation]] = partial(_observe, _name)
    _meter.create_observable_counter(_metric, [_callback], unit=_unit, description=_description)
_resume_duration = _meter.create_histogram(
    "foldpoint.resume.duration", unit="s", description="Reading and deserializing the latest checkpoint of a thread"
)
_compaction_duration = _meter.create_histogram(
    "foldpoint.compaction.duration",
    unit="s",
    description="Compacting one stream; error.type is Conflict where others kept winning",
)
