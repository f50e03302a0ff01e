"""A store in which the k-th operation goes wrong, in every way that a store can go wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import foldpoint
from foldpoint.engine.records import RecordStore
from foldpoint.errors import RecordTooBig, StoreBusy, StoreFull, StoreUnavailable

SOURCE = Path(foldpoint.__file__).parent
WRITES = frozenset({"create", "create_all", "swap", "extend", "remove_many", "empty_many"})
VERBS = WRITES | {"get_many", "get_head", "heads", "keys", "reclaim"}

Place = tuple[str, str, str]
"""A call site: file, function, verb."""


class Fault:
    """How one operation goes wrong. `error` is what its caller sees; `crash`: the process is gone, too."""

    def __init__(self, name: str, error: type[StoreUnavailable], *, applies: str = "no", crash: bool = False) -> None:
        self.name = name
        self.error = error
        self.applies = applies  # "no", "yes", "late", "partly"
        self.crash = crash

    def fits(self, verb: str) -> bool:
        if self.applies == "partly":
            return verb in ("create", "extend", "remove_many", "empty_many")
        if self.error is RecordTooBig:
            return verb in ("create", "create_all", "swap")
        return (
            verb in WRITES or self.applies == "after a rival" or (self.applies == "no" and self.error is not StoreFull)
        )

    def __repr__(self) -> str:
        return self.name


FAULTS = [
    Fault("fails before", StoreUnavailable),
    Fault("busy", StoreBusy),
    Fault("full", StoreFull),
    Fault("record too big", RecordTooBig),
    Fault("applies, and the answer is lost", StoreUnavailable, applies="yes"),
    Fault("applies after the caller gave up", StoreUnavailable, applies="late"),
    Fault("applies to some of the records", StoreUnavailable, applies="partly"),
    Fault("crashes before", StoreUnavailable, crash=True),
    Fault("crashes after", StoreUnavailable, applies="yes", crash=True),
    Fault("crashes amid a batch", StoreUnavailable, applies="partly", crash=True),
    Fault("another process compacts right before", StoreUnavailable, applies="after a rival"),
]


class FaultyStore:
    """Passes operations on to `inner` and counts them; number `at` meets `fault`. `places`: who called, in order."""

    def __init__(
        self,
        inner: RecordStore,
        fault: Fault | None = None,
        at: int = -1,
        rival: Callable[[RecordStore], object] = lambda store: None,
    ) -> None:
        self.inner = inner
        self._rival = rival
        self.places: list[Place] = []
        self.fired = False
        self.crashed = False
        self._fault = fault
        self._at = at
        self._late: list[Callable[[], object]] = []

    def arm(self, fault: Fault, after: int) -> None:
        """Let the operation that comes after so many others meet a fault."""
        self._fault, self._at, self.fired = fault, len(self.places) + after, False

    def disarm(self) -> None:
        self._fault = None

    def restart(self) -> RecordStore:
        """What a new process finds."""
        self._land()
        return self.inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return found if name not in VERBS else lambda *given, **named: self._call(name, found, given, named)

    def _call(self, verb: str, found: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self.crashed:
            raise StoreUnavailable("the process is gone")
        number = len(self.places)
        self.places.append((*_caller(), verb))
        self._land()
        fault = self._fault
        if fault is None or number != self._at or not fault.fits(verb):
            return found(*given, **named)
        self.fired = True
        self.crashed = fault.crash
        if fault.applies == "after a rival":
            self._rival(self.inner)
            return found(*given, **named)
        if fault.applies == "yes":
            found(*given, **named)
        elif fault.applies == "late":
            self._late.append(lambda: found(*given, **named))
        elif fault.applies == "partly":
            some: Sequence[Any] = list(given[0])
            found(some[: len(some) // 2], *given[1:], **named)
        raise fault.error(f"operation {number} ({verb}) {fault.name}")

    def _land(self) -> None:
        while self._late:
            self._late.pop()()


def _caller() -> tuple[str, str]:
    """The file and function in the package that asked the store."""
    frame = sys._getframe(3)
    while not frame.f_code.co_filename.startswith(str(SOURCE)) or frame.f_code.co_filename.endswith("overlay.py"):
        assert frame.f_back is not None
        frame = frame.f_back
    while frame.f_code.co_name in ("<listcomp>", "<genexpr>", "<lambda>", "<dictcomp>", "<setcomp>"):
        assert frame.f_back is not None
        frame = frame.f_back
    return str(Path(frame.f_code.co_filename).relative_to(SOURCE)), frame.f_code.co_name
