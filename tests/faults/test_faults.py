"""Whatever goes wrong in the store, at whichever operation: nothing acknowledged is lost, nothing wrong is read."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import product

import pytest
from faults.scenes import SCENES, Cluster, Step, World, check, check_any, engine_on, read
from moving import MovingClock

from foldpoint.compaction import upkeep
from foldpoint.compaction.verify import verify
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import FoldpointError
from torture.faulty import FAULTS, SOURCE, VERBS, Fault, FaultyStore, Place

pytestmark = pytest.mark.timeout(1200)  # a minute of work, on a machine that may do much besides

STORES: dict[str, Callable[[], MemoryStore]] = {
    "ordered": lambda: MemoryStore(max_record=500),
    "cluster": lambda: Cluster(max_record=500),
}


def steps(scene: str, clock: MovingClock) -> list[Step]:
    return [*SCENES[scene](clock), Step("read", read)]


@cache
def operations(scene: str, store: str) -> list[Place]:
    """Who asks the store for what, where nothing goes wrong."""
    clock = MovingClock()
    faulty = FaultyStore(STORES[store]())
    engine, world = engine_on(faulty, clock), World()
    for step in steps(scene, clock):
        step.do(engine)
        world = step.change(world)
    places = [*faulty.places]
    check(engine, world)
    return places


def play(scene: str, store: str, fault: Fault, at: int) -> FaultyStore:
    """Go through the scene, and go on after the fault."""
    clock = MovingClock()
    faulty = FaultyStore(STORES[store](), fault, at, lambda inner: upkeep(engine_on(inner, clock), "t", "", idle=True))
    engine, world = engine_on(faulty, clock), World()
    for step in steps(scene, clock):
        try:
            step.do(engine)
        except FoldpointError:
            assert faulty.fired
            if faulty.crashed:
                engine = engine_on(faulty.restart(), clock)
            check_either(clock, faulty, world, step)
            step.do(engine)
        world = step.change(world)
    check(engine, world)
    check(engine_on(faulty.restart(), clock), world)
    assert [one for one in verify(engine_on(faulty.inner, clock)) if one.findings] == []
    assert faulty.fired
    return faulty


def check_either(clock: MovingClock, faulty: FaultyStore, before: World, step: Step) -> None:
    """What was not acknowledged is wholly there or wholly absent, for whoever looks now."""
    check_any(engine_on(faulty.inner, clock), step.outcomes(before))


def chosen(places: list[Place]) -> list[int]:
    """The numbers of the first operation of each call site, and of its last."""
    by_place: dict[Place, list[int]] = {}
    for at, place in enumerate(places):
        by_place.setdefault(place, []).append(at)
    return sorted({at for found in by_place.values() for at in (found[0], found[-1])})


ELSEWHERE = (
    "memory",
    "sqlite",
    "aerospike",
    "overlay",
    "archives",
    "sweep",
    "verify",
    "quarantine",
    "job",
    "schedule",
)
"""The stores themselves and what stands before them; and what has tests of its own."""

LOST_RACES = {
    ("engine/reading.py", "moved", "get_head"),
    ("engine/sealing.py", "_write_segment", "extend"),
    ("compaction/merge.py", "_written", "extend"),
    ("compaction/rewrite.py", "discard", "remove_many"),
    ("engine/io.py", "send_again", "create"),
    ("engine/io.py", "send_again", "remove_many"),
}
"""Made only by who lost a race with another compactor, whose store lost events, or who asked for a repair of what is
damaged: all have their own tests.
"""


@dataclass
class Played:
    """What came of all cases: how many there were, which calls of a store were made, which met a fault."""

    cases: int = 0
    made: set[Place] = field(default_factory=set)
    struck: set[Place] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def played() -> Played:
    played = Played()
    for scene, store in product(SCENES, STORES):
        places = operations(scene, store)
        for at, fault in product(chosen(places), FAULTS):
            if not fault.fits(places[at][2]):
                continue
            played.cases += 1
            try:
                faulty = play(scene, store, fault, at)
                played.made.update(faulty.places)
                played.struck.add(faulty.places[at])
            except (AssertionError, FoldpointError) as error:
                played.failures.append(f"{scene}, {store}: operation {at} {places[at]} {fault}: {error!r}"[:300])
    return played


def test_nothing_is_lost_or_wrong_whatever_fails(played: Played) -> None:
    assert played.failures == []
    assert played.cases > 2000


def test_every_call_of_the_store_is_made_and_meets_faults(played: Played) -> None:
    assert sorted(call_sites() - played.made - LOST_RACES) == []
    at_first = {place for scene, store in product(SCENES, STORES) for place in operations(scene, store)}
    assert sorted(at_first - played.struck) == []


def call_sites() -> set[Place]:
    """Every call of a store's verb in the package but in the stores themselves, and in what stands before them."""
    found: set[Place] = set()
    for path in sorted([*(SOURCE / "engine").glob("*.py"), *(SOURCE / "compaction").glob("*.py")]):
        name = str(path.relative_to(SOURCE))
        if path.stem.startswith(ELSEWHERE):
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                found |= {(name, function.name, call) for call in _verbs(function)}
    return found


def _verbs(function: ast.FunctionDef) -> set[str]:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call, ast.Attribute) and call.attr in VERBS)
    return {call.attr for call in named if ast.unparse(call.value).endswith("store")}
