"""How calls are measured: wall and CPU time, and what they ask of the store."""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from foldpoint.engine.records import RecordStore

P = ParamSpec("P")
T = TypeVar("T")
_ROUND_TRIPS = frozenset(("create", "get_many", "get_head", "swap", "heads", "extend", "remove_many"))


class TalliedStore:
    """A `RecordStore` that counts, for each calling thread, the calls that go to a server and the seconds in them."""

    def __init__(self, inner: RecordStore) -> None:
        self.inner = inner
        self.mine = _Tally()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.inner, name)
        if name in _ROUND_TRIPS:
            verb = functools.partial(self._tallied, verb)
            setattr(self, name, verb)
        return verb

    def _tallied(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        started = time.perf_counter()
        try:
            return verb(*args, **kwargs)
        finally:
            self.mine.seconds += time.perf_counter() - started
            self.mine.calls += 1


class _Tally(threading.local):
    calls = 0
    seconds = 0.0


@dataclass(frozen=True)
class Call:
    """Seconds of the clock and of the calling thread's CPU time; calls of the store, and seconds in them."""

    wall: float
    cpu: float
    store_calls: int = 0
    store: float = 0.0


@dataclass
class Meter:
    """What a saver's calls cost, in the order they returned. Lists, because calls come from several threads."""

    puts: list[Call] = field(default_factory=list)
    writes: list[Call] = field(default_factory=list)
    gets: list[Call] = field(default_factory=list)

    def watch(self, saver: Any, *, asynchronous: bool = False) -> None:
        """From now on note the calls of this saver: only those of one kind, as one may be made of the other."""
        for name, calls in (("put", self.puts), ("put_writes", self.writes), ("get_tuple", self.gets)):
            if asynchronous:
                setattr(saver, f"a{name}", _anoted(getattr(saver, f"a{name}"), calls))
            else:
                setattr(saver, name, _noted(getattr(saver, name), calls, tally_of(saver)))


def tally_of(saver: Any) -> _Tally:
    """Where the store of this saver counts; nowhere unless it is Foldpoint's."""
    store = getattr(getattr(saver, "engine", None), "store", None)
    return store.mine if isinstance(store, TalliedStore) else _Tally()


def measured(call: Callable[[], T], tally: _Tally) -> tuple[T, Call]:
    """The result of a call, and what it cost."""
    calls, seconds, cpu, started = tally.calls, tally.seconds, time.thread_time(), time.perf_counter()
    result = call()
    wall = time.perf_counter() - started
    return result, Call(wall, time.thread_time() - cpu, tally.calls - calls, tally.seconds - seconds)


def _noted(call: Callable[P, T], calls: list[Call], tally: _Tally) -> Callable[P, T]:
    @functools.wraps(call)
    def noted(*args: P.args, **kwargs: P.kwargs) -> T:
        result, cost = measured(lambda: call(*args, **kwargs), tally)
        calls.append(cost)
        return result

    return noted


def _anoted(call: Any, calls: list[Call]) -> Any:
    @functools.wraps(call)
    async def noted(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = await call(*args, **kwargs)
        calls.append(Call(time.perf_counter() - started, 0.0))
        return result

    return noted


class Stopwatch:
    """Adds up wall and CPU time of this process over the blocks in which it runs."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def spread(seconds: Iterable[float]) -> dict[str, float] | None:
    """Median and tenth and ninetieth percentile, in milliseconds; None of nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return {
        "median": _milliseconds(statistics.median(ordered)),
        "p10": _milliseconds(_at(ordered, 0.1)),
        "p90": _milliseconds(_at(ordered, 0.9)),
    }


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes.

    Of its own: what getrusage gives on Linux begins with the parent's.
    """
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
