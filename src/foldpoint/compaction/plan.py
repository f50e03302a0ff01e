"""What compacting a stream does, step by step: named and printable before anything is done. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foldpoint.codecs.head import Head
from foldpoint.compaction.choice import Choice
from foldpoint.compaction.clean import is_clean
from foldpoint.compaction.merge import Merge, next_merge
from foldpoint.engine.url import without_secrets


@dataclass(frozen=True, slots=True)
class Export:
    """Copy the thread into the store at `url`."""

    url: str

    def __str__(self) -> str:
        return f"copy the thread to {without_secrets(self.url)}"


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the stream. unchanged: (epoch, number); only if it has no event after that number of that epoch."""

    why: str
    unchanged: tuple[bytes, int] | None = None

    def __str__(self) -> str:
        return f"delete it: {self.why}"


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal the tail, with a snapshot if one is due."""

    events: int

    def __str__(self) -> str:
        return f"seal {counted(self.events, 'event')}"


@dataclass(frozen=True, slots=True)
class Retain:
    """Drop what does not stay by `policy`, as chosen."""

    policy: str
    choice: Choice

    def __str__(self) -> str:
        choice = self.choice
        dropped = f"{choice.dropped:,}" if choice.whole else f"{choice.dropped:,} or more"
        writes = f" and {choice.needless:,} superseded writes" if choice.needless else ""
        return f"drop {dropped} checkpoints{writes}, keep {len(choice.ids or ()):,} ({self.policy})"


@dataclass(frozen=True, slots=True)
class MergeDue:
    """Do the merges that are due, beginning with `first`; None: only an earlier step can make one due."""

    first: Merge | None

    def __str__(self) -> str:
        if self.first is None:
            return "merge segments if any are due then"
        first = self.first
        segments = f"segments {first.first} to {first.end - 1} of level {first.level - 1}"
        return f"merge {segments} into level {first.level}, and what is due then"


@dataclass(frozen=True, slots=True)
class Clean:
    """Remove what is superseded; what has to wait for the grace then waits. Counts of what there is before."""

    events: int
    epochs: int

    def __str__(self) -> str:
        counts = {"sealed event": self.events, "left epoch": self.epochs}
        said = ", ".join(counted(count, noun) for noun, count in counts.items() if count)
        return "remove what is superseded" + (f": {said}" if said else "")


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


Step = Export | Delete | Seal | Retain | MergeDue | Clean


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps for one stream, in order. grace: seconds. idle: few segments are merged too, as no more may come.

    `str` gives a few lines for people.
    """

    thread_id: str
    namespace: str
    steps: tuple[Step, ...]
    grace: float
    idle: bool = False

    def __str__(self) -> str:
        where = f", namespace {self.namespace!r}" if self.namespace else ""
        steps = [f"  {step}" for step in self.steps] or ["  nothing to do"]
        return "\n".join([f"thread {self.thread_id!r}{where}", *steps])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        steps = [{"step": type(step).__name__.lower(), "does": str(step)} for step in self.steps]
        return {"thread_id": self.thread_id, "namespace": self.namespace, "steps": steps}


def plan(
    head: Head, tail: int, *, grace: float, idle: bool = False, choice: Choice | None = None, policy: object = ""
) -> Plan:
    """How the stream of `head`, with `tail` events after the sealed ones, gets smaller. choice: what `policy` keeps."""
    steps: list[Step] = []
    first = next_merge(head, idle=idle)
    if choice is not None and not choice.changes_nothing:
        steps, first = [Retain(str(policy), choice)], None
    elif tail and not head.deleted:
        steps = [Seal(tail)]
    if steps or first:
        steps.append(MergeDue(first))
    if steps or not is_clean(head):
        steps.append(Clean(head.superseded.sealed - head.cleaned.sealed, len(head.dead)))
    return Plan(head.thread_id, head.namespace, tuple(steps), grace, idle)
