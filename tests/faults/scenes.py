"""What a thread goes through, step by step, and what it must hold after each: plain dicts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import NamedTuple

from checkpoints import id_of, numbered, value, write
from moving import MovingClock

from foldpoint import Engine, Settings
from foldpoint.codecs.model import Value, Write
from foldpoint.compaction import DropRuns, KeepLast, compact, copy_thread, rewrite_thread, upkeep
from foldpoint.compaction.policy import DropAll
from foldpoint.engine import keys
from foldpoint.engine.layout import Layout
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.records import Capabilities, RecordStore
from torture.node import tear
from torture.together import together


class Held(NamedTuple):
    """A checkpoint as a stream holds it: all its channels, its label `step`, and its writes by task and index."""

    channels: dict[str, Value]
    step: object
    writes: dict[tuple[str, int], Value]


World = dict[str, dict[str, Held]]
"""By thread and checkpoint id."""


@dataclass
class Step:
    """Something done to an engine, and what it makes of the world.

    partly: what it may be when only some of its calls succeeded, where there are several.
    """

    name: str
    do: Callable[[Engine], object]
    change: Callable[[World], World] = field(default=lambda world: world)
    partly: list[Callable[[World], World]] = field(default_factory=list)

    def outcomes(self, before: World) -> list[World]:
        """What there may be if it failed."""
        after = self.change(before)
        whole = {thread: before.get(thread, {}) for thread in after}
        return [whole, after, *(change(whole) for change in self.partly)]


class Cluster(MemoryStore):
    """Whose crashes need not keep the order of writes, so that what is superseded stays for the grace."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, ordered=False)


SETTINGS = Settings(window=4, segment_level=1, compression_level=1, snapshot_ratio=0.25, grace=100, ttl=None)


def engine_on(store: RecordStore, clock: MovingClock) -> Engine:
    return Engine(store, SETTINGS, clock=clock)


def put(n: int, parent: int | None = None, *, thread: str = "t", run: str = "r1", **channels: object) -> Step:
    checkpoint = numbered(n, parent, **channels)
    checkpoint = replace(checkpoint, labels={**checkpoint.labels, "run_id": run})

    def change(world: World) -> World:
        held = world.get(thread, {})
        writes = held[id_of(n)].writes if id_of(n) in held else {}
        return {**world, thread: {**held, id_of(n): Held(checkpoint.channels, n, writes)}}

    return Step(f"put {n}", lambda engine: engine.put(thread, "", checkpoint), change)


def put_write(n: int, task: str = "task", *, thread: str = "t", big: object = None) -> Step:
    made: Write = write(n, task)
    made = made._replace(value=value(big)) if big else made

    def change(world: World) -> World:
        held = dict(world[thread])
        one = held[id_of(n)]
        held[id_of(n)] = one._replace(writes={(task, made.idx): made.value, **one.writes})
        return {**world, thread: held}

    return Step(f"write for {n}", lambda engine: engine.put_writes(thread, "", id_of(n), [made]), change)


def at_once(*steps: Step, thread: str = "t") -> Step:
    """Appends by threads that wait for each other."""

    def do(engine: Engine) -> None:
        for result in together(engine, thread, "", *(step.do for step in steps)):
            result.result()

    def change(world: World, done: Iterable[Step] = steps) -> World:
        for step in done:
            world = step.change(world)
        return world

    some = [partial(change, done=done) for count in range(1, len(steps)) for done in combinations(steps, count)]
    return Step(" and ".join(step.name for step in steps), do, change, some)


def keep(chosen: Callable[[str, Held], bool], thread: str = "t") -> Callable[[World], World]:
    def change(world: World) -> World:
        kept = {id_: one for id_, one in world.get(thread, {}).items() if chosen(id_, one)}
        return {**world, thread: kept}

    return change


def copied(world: World) -> World:
    return {**world, "copy": dict(world["t"])}


def care(clock: MovingClock, *, idle: bool = True) -> Step:
    """The grace passes; then seal, merge and clean."""

    def do(engine: Engine) -> None:
        upkeep(engine, "t", "", idle=idle)

    return Step("upkeep", do)


def later(clock: MovingClock) -> Step:
    return Step("time passes", lambda engine: clock.advance(101))


def named(engine: Engine) -> list[bytes]:
    """What the head of `t` leads to: segments, spans, and every part of the snapshots that are used."""
    head = next(engine.heads("t"))
    layout = Layout.of(head)
    spans = engine.reader("t", "").reader.spans(layout, len(layout))
    refs = [head.snapshot, head.kept, *(span.start for span in spans)]
    parts = [key for ref in refs if ref for key in keys.snapshot_parts(head.epoch, ref)]
    positions = range(len(layout))
    return sorted({*map(layout.key, positions), *map(layout.span_key, positions), *parts})


def lose(clock: MovingClock, *, parts: bool = False, torn: bool = False) -> Step:
    """A crash takes all that the head names, where it need not keep the order of writes. Nobody counts that.

    parts: only what of it lies in parts of a record. torn: something else stands in its place.
    """

    def do(engine: Engine) -> None:
        store = getattr(engine.store, "inner", engine.store)
        if not store.capabilities.ordered:
            uncounted = engine_on(store, clock)
            lost = named(uncounted)
            lost = uncounted.io.parts_of(lost) if parts else lost
            values = store.get_many(lost)
            store.remove_many(lost)
            if torn:
                store.create([(key, tear(value)) for key, value in zip(lost, values, strict=True)], ttl=None)

    return Step("lose", do)


def extend(engine: Engine) -> None:
    engine.refresh("t", 1000)


def noise(seed: int) -> list[str]:
    """What does not compress, so that it takes several records."""
    return [f"{random.Random(seed).getrandbits(3000):x}"]


def line(first: int, end: int, **channels: object) -> Iterable[Step]:
    for n in range(first, end):
        yield put(n, run="r2" if n % 3 == 2 else "r1", **channels)
        yield put_write(n)


SCENES: dict[str, Callable[[MovingClock], list[Step]]] = {
    "first puts": lambda clock: [*line(0, 2)],
    "a put that seals": lambda clock: [*line(0, 3)],
    "snapshots": lambda clock: [*line(0, 7)],
    "appends at once": lambda clock: [
        *line(0, 2),
        *(at_once(put_write(n), put(n + 1), put_write(n, "other")) for n in range(1, 5)),
        at_once(put_write(5, big=noise(0)), put(6, big=noise(1))),
    ],
    "large values": lambda clock: [put(0, big=noise(0)), put(1, big=noise(1)), *line(2, 8), care(clock)],
    "a fork": lambda clock: [*line(0, 5), put(9, 1), put_write(1, "late"), put_write(9)],
    "upkeep": lambda clock: [*line(0, 9), care(clock), put(9), later(clock), care(clock), put(10)],
    "upkeep twice": lambda clock: [*line(0, 10), care(clock), later(clock), care(clock), later(clock), care(clock)],
    "a crash of all nodes": lambda clock: [
        *line(0, 9),
        lose(clock),
        Step("another process reads", lambda engine: read(engine_on(engine.store, clock))),
        *line(9, 11),
        lose(clock),
    ],
    "a crash that takes parts": lambda clock: [
        *(put(n, big=noise(n)) for n in range(6)),
        lose(clock, parts=True),
        Step("another process reads", lambda engine: read(engine_on(engine.store, clock))),
        *line(6, 8),
    ],
    "a crash that tears what it takes": lambda clock: [
        *(put(n, big=noise(n)) for n in range(6)),
        lose(clock, torn=True),
        Step("another process reads", lambda engine: read(engine_on(engine.store, clock))),
        *line(6, 8),
        lose(clock, parts=True, torn=True),
        care(clock),
    ],
    "keep the last": lambda clock: [
        *line(0, 6),
        Step(
            "prune",
            lambda engine: rewrite_thread(engine, "t", KeepLast(2)),
            keep(lambda id_, one: id_ >= id_of(4)),
        ),
        put(6),
        later(clock),
        care(clock),
    ],
    "drop a run": lambda clock: [
        *line(0, 6),
        Step(
            "drop runs",
            lambda engine: rewrite_thread(engine, "t", DropRuns({"r2"})),
            keep(lambda id_, one: one.step not in (2, 5)),
        ),
        put(6),
    ],
    "delete": lambda clock: [
        *line(0, 5),
        Step("delete", lambda engine: rewrite_thread(engine, "t", DropAll()), keep(lambda id_, one: False)),
        put(7, None),
        later(clock),
        care(clock),
    ],
    "copy": lambda clock: [
        *line(0, 5, big=noise(2)),
        Step("copy", lambda engine: copy_thread(engine, "t", "copy"), copied),
    ],
    "a life that is extended": lambda clock: [
        *line(0, 9),
        Step("extend", extend),
        *line(9, 12),
        care(clock),
        *line(12, 14),
        Step("extend", extend),
        Step("prune", lambda engine: rewrite_thread(engine, "t", KeepLast(3)), keep(lambda id_, one: id_ >= id_of(11))),
        Step("compact", lambda engine: list(compact(engine, "t"))),
    ],
}


def some(ids: Iterable[str]) -> list[str]:
    """The first, one in the middle, and the last."""
    known = sorted(ids)
    return [known[0], known[len(known) // 2], known[-1]] if known else []


def read(engine: Engine) -> None:
    """By every path."""
    for thread in ("t", "copy"):
        entries = {entry.folded.header.id: entry for entry in engine.history(thread, "")}
        for id_ in some(entries):
            found = engine.find(thread, "", id_)
            assert found is not None
            assert found.state() == entries[id_].state()
        if latest := engine.latest(thread, ""):
            latest.writes()
    list(engine.threads())


def check_any(engine: Engine, worlds: list[World]) -> None:
    """Every read path gives what one of them holds."""
    for world in worlds[:-1]:
        try:
            return check(engine, world)
        except AssertionError:
            continue
    check(engine, worlds[-1])


def check(engine: Engine, world: World) -> None:
    """Every read path gives what the world holds, and nothing else."""
    for thread, held in world.items():
        listed = list(engine.history(thread, ""))
        assert [entry.folded.header.id for entry in listed] == sorted(held, reverse=True)
        latest = engine.latest(thread, "")
        assert (latest.folded.header.id if latest else None) == max(held, default=None)
        found = [engine.find(thread, "", id_) for id_ in some(held)]
        for entry in [*listed, *found, *([latest] if latest else [])]:
            assert entry is not None
            one = held[entry.folded.header.id]
            assert entry.state() == one.channels
            assert entry.folded.labels["step"] == one.step
            assert {(made.task_id, made.idx): made.value for made in entry.writes()} == one.writes
