"""One saver on one workload, in a process of its own: `python -m benchmarks.cell` with a spec as JSON.

Prints the figures as JSON. When the saver fails, the last line of stderr says how.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from benchmarks.job import Case, Job, thread
from benchmarks.meter import Call, Meter, Stopwatch, measured, peak_memory, spread, tally_of
from benchmarks.places import stored_bytes
from benchmarks.savers import BY_NAME, Contender, Saver
from benchmarks.workloads import WORKLOADS
from demo.source import Source

RECENT = 60  # the figures at a mark are of so many calls before it
REPEATS = 7  # of reading the latest


@dataclass
class Run:
    """What a saver does with a job."""

    contender: Contender
    place: str
    job: Job
    meter: Meter
    clock: Stopwatch

    def one_by_one(self) -> dict[str, Any]:
        """Input after input."""
        samples: list[dict[str, Any]] = []
        reads: list[Call] = []
        with self.contender.open(self.place) as saver:
            self.meter.watch(saver)
            graph = self.job.build(saver)
            at_start, last = peak_memory(), len(self.job.inputs)
            untimed = Stopwatch()
            for number, value in enumerate(self.job.inputs, 1):
                with untimed if number <= self.job.warmup else self.clock:
                    graph.invoke(value, thread(self._thread(number)), durability="sync")
                if number == self.job.warmup:
                    self._forget()
                if number == last:
                    peak = peak_memory()
                if any(mark - self.job.phases < number < mark for mark in (*self.job.marks, last)):
                    reads.append(self._resume(saver, number))
                if number == last or number in self.job.marks:
                    samples.append(self._sample(saver, number, reads))
                    reads.clear()
            return self._figures(saver, peak, at_start, samples)

    def at_once(self) -> dict[str, Any]:
        """All inputs on each of many threads."""
        with self.contender.open(self.place) as saver, ThreadPoolExecutor(self.job.at_once) as pool:
            self.meter.watch(saver)
            graph = self.job.build(saver)
            at_start = peak_memory()
            together = threading.Barrier(self.job.at_once + 1)

            def converse(number: int, inputs: Any) -> None:
                together.wait()
                for value in inputs:
                    graph.invoke(value, thread(number), durability="sync")

            def all_say(inputs: Any) -> None:
                working = [pool.submit(converse, number, inputs) for number in range(self.job.at_once)]
                together.wait()
                for one in working:
                    one.result()

            all_say(self.job.inputs[: self.job.warmup])
            self._forget()
            with self.clock:
                all_say(self.job.inputs[self.job.warmup :])
            return self._figures(saver, peak_memory(), at_start, [self._calls()])

    async def at_once_on_a_loop(self) -> dict[str, Any]:
        """All inputs on each of many threads, through the asynchronous calls."""
        async with self.contender.aopen(self.place) as saver:
            self.meter.watch(saver, asynchronous=True)
            graph = self.job.build(saver)
            at_start = peak_memory()

            async def converse(number: int, inputs: Any) -> None:
                for value in inputs:
                    await graph.ainvoke(value, thread(number), durability="sync")

            async def all_say(inputs: Any) -> None:
                await asyncio.gather(*(converse(number, inputs) for number in range(self.job.at_once)))

            await all_say(self.job.inputs[: self.job.warmup])
            self._forget()
            with self.clock:
                await all_say(self.job.inputs[self.job.warmup :])
            return self._figures(saver, peak_memory(), at_start, [self._calls()])

    def _thread(self, number: int) -> int:
        return number if self.job.fresh else 1

    def _forget(self) -> None:
        """The calls before the clock started."""
        for calls in (self.meter.puts, self.meter.writes, self.meter.gets):
            calls.clear()

    def _figures(self, saver: Saver, peak: int, at_start: int, samples: list[dict[str, Any]]) -> dict[str, Any]:
        checkpoints = len(self.meter.puts)
        stored = stored_here(saver, self.place)
        self.contender.shrink(saver, self.place)
        return {
            "checkpoints": checkpoints,
            "writes": len(self.meter.writes),
            "wall_s": round(self.clock.wall, 4),
            "cpu_s": round(self.clock.cpu, 4),
            "ms_per_checkpoint": round(1e3 * self.clock.wall / max(1, checkpoints), 4),
            "stored": stored,
            "compacted": stored_here(saver, self.place),
            "peak_bytes": peak,
            "start_bytes": at_start,
            "samples": samples,
        }

    def _calls(self) -> dict[str, Any]:
        """What the latest calls cost."""
        puts, writes = self.meter.puts[-RECENT:], self.meter.writes[-RECENT:]
        return {
            "checkpoints": len(self.meter.puts),
            "put": costs(puts),
            "put_writes": costs(writes),
        }

    def _sample(self, saver: Saver, number: int, reads: list[Call]) -> dict[str, Any]:
        """Figures at this point of the run, taken while its clock stands still. reads: right before it."""
        calls = self._calls()
        again = [self._resume(saver, number) for _ in range(REPEATS)]
        latest = reads or again
        resumes = [self._resume_cold(number) for _ in range(REPEATS)] if self._opens_anew else again
        found = saver.get_tuple(thread(self._thread(number)))
        assert found is not None
        values = found.checkpoint["channel_values"]
        return {
            **calls,
            "latest": costs(latest),
            "resume": costs(resumes) if self.contender.kind != "memory" else None,
            **bare_serializer(values),
            "stored": stored_here(saver, self.place),
        }

    def _resume(self, saver: Saver, number: int) -> Call:
        """Read the latest checkpoint, and what has to be rebuilt from its history."""

        def read() -> None:
            found = saver.get_tuple(thread(self._thread(number)))
            if self.job.delta:
                assert found is not None
                saver.get_delta_channel_history(config=found.config, channels=self.job.delta)

        return measured(read, tally_of(saver))[1]

    @property
    def _opens_anew(self) -> bool:
        return self.contender.kind != "memory" and not self.contender.slow_to_open

    def _resume_cold(self, number: int) -> Call:
        """The same with a saver that has read nothing before."""
        with self.contender.open(self.place) as saver:
            return self._resume(saver, number)


def costs(calls: list[Call]) -> dict[str, Any] | None:
    """Spread of wall and CPU time in milliseconds; where the store is Foldpoint's, the time in it and calls of it."""
    if not calls:
        return None
    return {
        **(spread(call.wall for call in calls) or {}),
        "cpu": spread(call.cpu for call in calls),
        "store": spread(call.store for call in calls),
        "store_calls": round(sum(call.store_calls for call in calls) / len(calls), 2),
    }


def bare_serializer(values: dict[str, Any]) -> dict[str, Any]:
    """What LangGraph's serializer alone takes for all values of a checkpoint, there and back."""
    serde = JsonPlusSerializer()
    here = tally_of(None)
    dumps, loads = [], []
    for _ in range(REPEATS):
        dumped, cost = measured(lambda: list(map(serde.dumps_typed, values.values())), here)
        dumps.append(cost.wall)
        _, cost = measured(partial(list, map(serde.loads_typed, dumped)), here)
        loads.append(cost.wall)
    return {"dumps": spread(dumps), "loads": spread(loads), "state_bytes": sum(len(data) for _, data in dumped)}


def stored_here(saver: Any, place: str) -> int:
    """What the place holds; in memory, the bytes of the saver's records."""
    if place != "memory:":
        return stored_bytes(place)
    if hasattr(saver, "engine"):
        store = saver.engine.store
        return sum(map(len, store.get_many([*store.keys()]))) + sum(len(head.value) for head in store.heads())
    return _bytes_in([getattr(saver, name) for name in ("storage", "writes", "blobs") if hasattr(saver, name)])


def _bytes_in(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return _bytes_in(list(value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes_in, value))
    return 0


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """spec: workload, saver, place, trace, seed, quick."""
    source = Source(Path(spec["trace"]) if spec["trace"] else None, spec["seed"])
    job = WORKLOADS[spec["workload"]](Case(source, spec["quick"]))
    started = Run(BY_NAME[spec["saver"]], spec["place"], job, Meter(), Stopwatch())
    if job.at_once == 1:
        return started.one_by_one()
    return asyncio.run(started.at_once_on_a_loop()) if job.asynchronous else started.at_once()


def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The traceback, and below it, after all notes, the error in one line."""
    traceback.print_exception(kind, error, trace)
    said = str(error).splitlines()
    print(f"{kind.__name__}: {said[0] if said else ''}", file=sys.stderr)


if __name__ == "__main__":
    sys.excepthook = explain
    print(json.dumps(run(json.loads(sys.argv[1]))))
