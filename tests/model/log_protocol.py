"""Every interleaving of writers, sealers, a cleaner, a rewriter and a reader, over the three atomic steps of a store.

The steps are create-only, compare-and-swap of the head, and removal (or emptying) of records. After each step every
acknowledged event must be readable, and what a reader returns must hold all that was acknowledged when it began. A rule
that is left out (`RULES`) shows a history that loses an event. The numbers are those of docs/DESIGN.md's invariants:

    adopt    a segment that is already there is taken as it is (5)
    recheck  a writer looks at the age of its view after the answer (7)
    retry    a reader that finds something gone, or was held up, reads the head again (6)
    fence    an epoch is fenced before it is left (8)

A seal fills the holes below its last event here too, but no history of this model has one: they take a store that loses
a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

RULES = frozenset({"adopt", "recheck", "retry", "fence"})
WINDOW = 2
FILLER, EMPTIED = "filler", "emptied"
Slot = tuple[int, int]


@dataclass(frozen=True)
class Head:
    epoch: int = 1
    sealed: int = 0
    segments: int = 0
    revision: int = 0


@dataclass(frozen=True)
class World:
    """`late`: creates that are under way. `removals`: how often the grace has passed and something was removed."""

    head: Head = field(default_factory=Head)
    slots: frozenset[tuple[Slot, str]] = frozenset()
    segments: frozenset[tuple[Slot, tuple[int, tuple[str, ...]]]] = frozenset()
    late: frozenset[tuple[Slot, str]] = frozenset()
    acknowledged: frozenset[str] = frozenset()
    removals: int = 0
    actors: tuple[tuple[Any, ...], ...] = ()

    def slot(self, key: Slot) -> str | None:
        return dict(self.slots).get(key)

    def segment(self, key: Slot) -> tuple[int, tuple[str, ...]] | None:
        return dict(self.segments).get(key)

    def create(self, key: Slot, value: str) -> World:
        return self if self.slot(key) else replace(self, slots=self.slots | {(key, value)})

    def create_segment(self, key: Slot, last: int, values: tuple[str, ...]) -> World:
        return self if self.segment(key) else replace(self, segments=self.segments | {(key, (last, values))})

    def window(self, head: Head) -> dict[int, str]:
        """What stands in the window after the head's `sealed`, by number."""
        numbers = range(head.sealed + 1, head.sealed + WINDOW + 1)
        found = {number: self.slot((head.epoch, number)) for number in numbers}
        return {number: value for number, value in found.items() if value}

    def read(self, head: Head) -> set[str] | None:
        """The events that a reader of `head` finds now; None if a segment is missing or an event emptied."""
        parts = [self.segment((head.epoch, index)) for index in range(head.segments)]
        tail = set(self.window(head).values())
        if None in parts or EMPTIED in tail:
            return None
        return {value for part in parts if part for value in part[1]} | tail - {FILLER}

    def is_safe(self) -> bool:
        return self.acknowledged <= (self.read(self.head) or set())


Step = tuple[str, World]


def steps(world: World, rules: frozenset[str]) -> Iterator[Step]:
    for key, value in world.late:
        yield (
            f"a late create of {value} at {key} lands",
            replace(world.create(key, value), late=world.late - {(key, value)}),
        )
    for at, actor in enumerate(world.actors):
        for label, changed, *state in ACTORS[actor[0]](world, rules, *actor[1:]):
            actors = (*world.actors[:at], (actor[0], *state), *world.actors[at + 1 :])
            yield f"{actor[0]} {at} {label}", replace(changed, actors=actors)


def writer(world: World, rules: frozenset[str], todo: Any, stage: str, head: Head, seen: int, number: int) -> Any:
    """Puts the events in `todo`, one after the other. `seen`: the removals when its view was read."""
    if not todo:
        return
    value = todo[0]
    again = (todo, "read", head, 0, 0)
    if stage == "read":
        yield "reads the head", world, todo, "look", world.head, world.removals, 0
    elif stage == "look":
        taken = world.window(head)
        if EMPTIED in taken.values():
            yield "finds its head old", world, *again
        else:
            yield "reads the window", world, todo, "send", head, seen, max(taken, default=head.sealed) + 1
    elif stage == "send":
        if number > head.sealed + WINDOW:
            yield "waits for a seal", world, *again
            return
        key = (head.epoch, number)
        after = world.create(key, value)
        there = after.slot(key)
        if there == value:
            yield f"creates {value} at {key}", after, todo, "check", head, seen, number
        elif there in (FILLER, EMPTIED):
            yield f"finds {key} sealed or fenced", world, *again
        else:
            yield f"finds {key} taken", world, todo, "send", head, seen, number + 1
        if not world.late and world.slot(key) is None:
            yield f"gives up on {key}", replace(world, late=world.late | {(key, value)}), *again
    elif stage == "check":
        if "recheck" in rules and world.removals > seen and value not in (world.read(world.head) or set()):
            yield f"finds {value} lost and puts it again", world, *again
        else:
            done = replace(world, acknowledged=world.acknowledged | {value})
            yield f"acknowledges {value}", done, todo[1:], "send", head, seen, number + 1


def sealer(world: World, rules: frozenset[str], rounds: int, stage: str, head: Head, last: int, values: Any) -> Any:
    """Seals what is in the window up to its last event."""
    idle = (rounds, "read", head, 0, ())
    if stage == "read" and rounds:
        yield "reads the head", world, rounds - 1, "look", world.head, 0, ()
    elif stage == "look":
        taken = world.window(head)
        if not taken or EMPTIED in taken.values():
            yield "finds nothing to seal", world, *idle
        else:
            yield "reads the window", world, rounds, "fill", head, max(taken), ()
    elif stage == "fill":
        numbers = range(head.sealed + 1, last + 1)
        hole = next((number for number in numbers if not world.slot((head.epoch, number))), None)
        if hole is not None:
            yield f"fills {hole}", world.create((head.epoch, hole), FILLER), rounds, "fill", head, last, ()
            return
        found = [world.slot((head.epoch, number)) for number in numbers]
        if EMPTIED in found:
            yield "finds its head old", world, *idle
        else:
            kept = tuple(value for value in found if value not in (None, FILLER))
            yield "has them all", world, rounds, "write", head, last, kept
    elif stage == "write":
        key = (head.epoch, head.segments)
        after = world.create_segment(key, last, values)
        there = after.segment(key)
        assert there is not None
        sealed = there[0] if "adopt" in rules else last
        yield f"writes segment {key}", after, rounds, "swap", head, sealed, ()
    elif stage == "swap":
        if world.head == head:
            moved = Head(head.epoch, last, head.segments + 1, head.revision + 1)
            yield f"swaps to {last}", replace(world, head=moved), *idle
        else:
            yield "loses the swap", world, *idle


def rewriter(world: World, rules: frozenset[str], stage: str, head: Head, values: Any) -> Any:
    """Leaves the epoch for a new one that holds the same events."""
    if stage == "read":
        yield "reads the head", world, "fence", world.head, ()
    elif stage == "fence":
        numbers = range(head.sealed + 1, head.sealed + WINDOW + 1)
        free = next((number for number in numbers if not world.slot((head.epoch, number))), None)
        if free is not None and "fence" in rules:
            yield f"fences {free}", world.create((head.epoch, free), FILLER), "fence", head, ()
            return
        found = world.read(head)
        if found is None:
            yield "finds its head old", world, "read", head, ()
        else:
            yield "has them all", world, "write", head, tuple(sorted(found))
    elif stage == "write":
        written = world.create_segment((head.epoch + 1, 0), WINDOW, values)
        yield "writes the new epoch", written, "swap", head, values
    elif stage == "swap":
        if world.head == head:
            moved = Head(head.epoch + 1, WINDOW, 1, head.revision + 1)
            yield "swaps to the new epoch", replace(world, head=moved), "done", head, ()
        else:
            garbage = ((head.epoch + 1, 0), (WINDOW, values))
            yield "loses the swap", replace(world, segments=world.segments - {garbage}), "read", head, ()


def cleaner(world: World, rules: frozenset[str], rounds: int) -> Any:
    """Empties what is sealed, at once, and removes it when the grace has passed."""
    head = world.head
    sealed = {(key, value) for key, value in world.slots if key[0] < head.epoch or key[1] <= head.sealed}
    emptied = {(key, EMPTIED) for key, _ in sealed}
    if sealed - emptied:
        yield "empties what is sealed", replace(world, slots=world.slots - sealed | emptied), rounds
    if sealed and rounds:
        removed = replace(world, slots=world.slots - sealed, removals=world.removals + 1)
        yield "removes what is sealed", removed, rounds - 1


def reader(world: World, rules: frozenset[str], stage: str, head: Head, seen: int, expected: Any) -> Any:
    if stage == "read":
        yield "reads the head", world, "look", world.head, world.removals, world.acknowledged
    elif stage == "look":
        found = world.read(head)
        old = found is None or world.removals > seen
        if old and "retry" in rules:
            yield "finds its head old", world, "read", head, 0, ()
        elif expected <= (found or set()):
            yield "returns", world, "done", head, 0, ()
        else:
            yield "returns less than was acknowledged", world, "wrong", head, 0, ()


ACTORS = {"writer": writer, "sealer": sealer, "rewriter": rewriter, "cleaner": cleaner, "reader": reader}
AT_FIRST = Head()


def start(*events: str, sealers: int = 1, rewrites: bool = True, reads: bool = True, rounds: int = 2) -> World:
    """A world with a writer for each of `events`, whose letters it puts."""
    actors: list[tuple[Any, ...]] = [("writer", tuple(todo), "read", AT_FIRST, 0, 0) for todo in events]
    actors += [("sealer", rounds, "read", AT_FIRST, 0, ())] * sealers
    actors += [("rewriter", "read", AT_FIRST, ())] * rewrites
    actors += [("reader", "read", AT_FIRST, 0, ())] * reads
    return World(actors=(*actors, ("cleaner", 2)))


@dataclass(frozen=True)
class Explored:
    """How many states there were; the history that ends in a loss, if any."""

    states: int
    loss: list[str] | None


def explore(world: World, rules: frozenset[str] = RULES) -> Explored:
    came: dict[World, tuple[World, str] | None] = {world: None}
    queue = deque([world])
    while queue:
        now = queue.popleft()
        if not now.is_safe() or any(actor[0] == "reader" and actor[1] == "wrong" for actor in now.actors):
            return Explored(len(came), _history(came, now))
        for label, after in steps(now, rules):
            if after not in came:
                came[after] = (now, label)
                queue.append(after)
    return Explored(len(came), None)


def _history(came: dict[World, tuple[World, str] | None], end: World) -> list[str]:
    labels = []
    while (step := came[end]) is not None:
        end, label = step
        labels.append(label)
    return labels[::-1]
