"""Which checkpoints of one stream stay. Pure.

A selection is shown checkpoints newest first and decides on each at once. It remembers what it keeps and where
branches are open, not what it drops, and says when nothing older can stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from foldpoint.codecs.event import Folded
from foldpoint.codecs.header import id_micros
from foldpoint.codecs.model import PARENTS, Header, Scalar

MAY_COME = 86_400.0
"""Seconds after it was made that a checkpoint may still come into the log: its writer's machine may have slept."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A checkpoint as selections see it.

    made_at: seconds since 1970, None if nothing tells. pending: whether it has pending writes; looked up when called.
    """

    id: str
    parent: str | None
    labels: Mapping[str, Scalar]
    made_at: float | None
    pending: Callable[[], bool]

    @classmethod
    def of(cls, folded: Folded, pending: Callable[[], bool]) -> Summary:
        return cls(folded.header.id, folded.header.parent, folded.labels, made_at(folded.header), pending)

    @property
    def parents(self) -> dict[str, str]:
        """Of a subgraph's checkpoint: by namespace, the checkpoints of the graphs around it that it was made under."""
        return {
            name.removeprefix(PARENTS): value
            for name, value in self.labels.items()
            if name.startswith(PARENTS) and isinstance(value, str)
        }


def made_at(header: Header) -> float | None:
    """When a checkpoint was made, in seconds since 1970; None if neither its id nor its `ts` tells."""
    if micros := id_micros(header.id):
        return micros / 1e6
    try:
        moment = datetime.fromisoformat(header.ts)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


class Selection(Protocol):
    """One stream's decision. REQUIRES that checkpoints are shown greatest id first, each once."""

    def keeps(self, shown: Summary) -> bool:
        """Whether this one stays. If looking up what it needs fails, it was not shown, and may be shown again."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing older than what was shown can stay."""
        ...


class Nothing:
    """Keeps none."""

    done = True

    def keeps(self, shown: Summary) -> bool:
        return False


class Last:
    """Keeps the newest `count`."""

    def __init__(self, count: int) -> None:
        self._left = count

    @property
    def done(self) -> bool:
        return self._left == 0

    def keeps(self, shown: Summary) -> bool:
        kept = self._left > 0
        self._left -= kept
        return kept


class WithoutRuns:
    """Keeps those of other runs."""

    done = False

    def __init__(self, run_ids: frozenset[str]) -> None:
        self._run_ids = run_ids

    def keeps(self, shown: Summary) -> bool:
        return shown.labels.get("run_id") not in self._run_ids


@dataclass(frozen=True, slots=True)
class Rules:
    """What a user wants kept; a checkpoint stays if any rule names it. newer_than: seconds since 1970."""

    last: int | None = None
    newer_than: float | None = None
    one_per_run: bool = False
    with_labels: frozenset[str] = frozenset()
    everything: bool = False


class Retained:
    """What the rules name, the latest, and whatever they say:

    * those that wait: with pending writes and without a child in the log. An interrupt that nobody answered is one;
      so is the end of a branch whose last step was broken off. One with a child was gone on from, or passed over.
    * those that two or more kept ones name as their parent: without it, what they share would be told apart no more.

    A child with a smaller id than its parent comes too late: the parent is taken for one that waits, and stays.
    """

    done = False  # an older branch may wait for an answer

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._shown = 0
        self._aged = False
        self._runs: set[Scalar] = set()
        self._continued: set[str] = set()
        """Parents of what was shown that were not shown themselves yet: one for each open branch."""
        self._kept_children: Counter[str] = Counter()

    def keeps(self, shown: Summary) -> bool:
        waits = shown.id not in self._continued and shown.pending()  # may fail, so it comes first
        branches = self._kept_children.pop(shown.id, 0) > 1
        kept = self._named(shown) or branches or waits
        self._continued.discard(shown.id)
        if shown.parent is not None:
            self._continued.add(shown.parent)
            self._kept_children[shown.parent] += kept
        return kept

    def _named(self, shown: Summary) -> bool:
        rules, run = self._rules, shown.labels.get("run_id")
        self._shown += 1
        if shown.made_at is not None and rules.newer_than is not None:
            young = shown.made_at >= rules.newer_than
            self._aged = self._aged or not young
        else:
            young = not self._aged
        newest_of_run = rules.one_per_run and run is not None and run not in self._runs
        if newest_of_run:
            self._runs.add(run)
        return (
            self._shown <= (rules.last or 1)
            or (rules.newer_than is not None and young)
            or newest_of_run
            or not rules.with_labels.isdisjoint(shown.labels)
            or rules.everything
        )


# -- subgraphs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of a stream, for the streams beneath it.

    settled: no checkpoint up to this id can come any more. holds: whether the log has a checkpoint, kept or not.
    """

    ids: Collection[str]
    settled: str
    holds: Callable[[str], bool]

    def lacks(self, checkpoint_id: str) -> bool:
        """Whether the checkpoint is dropped, or is not there and cannot come."""
        return checkpoint_id not in self.ids and (checkpoint_id <= self.settled or self.holds(checkpoint_id))


class Beneath:
    """A subgraph's checkpoints, beneath those that stay of the graphs around it.

    What was made under a checkpoint that goes, goes. The newest made under each that stays, stays: resuming and
    looking at that one begins there. A subgraph with memory of its own (`checkpointer=True`: its namespace names no
    task) goes on from its latest, and a replay of a parent from the newest before that; so these stay too.
    """

    def __init__(self, inner: Selection, namespace: str, above: Mapping[str, Kept]) -> None:
        self._inner = inner
        self._above = {name: kept for name, kept in above.items() if name != namespace}
        self._has_memory = not _of_one_task(namespace)
        self._served: set[str] = set()
        self._replays = sorted(above[""].ids) if self._has_memory and "" in above else []
        self._oldest_parent = min((min(kept.ids, default="") for kept in self._above.values()), default="")
        self._first, self._last_shown = True, ""

    @property
    def done(self) -> bool:
        """What is older than all kept parents was made before them."""
        return self._inner.done and not self._first and self._last_shown < self._oldest_parent

    def keeps(self, shown: Summary) -> bool:
        named = self._inner.keeps(shown)
        under = {name: id_ for name, id_ in shown.parents.items() if name in self._above}
        remembered = self._starts_replay(shown.id) or (self._has_memory and self._first)
        self._first, self._last_shown = False, shown.id
        if not under:
            return named
        if any(self._above[name].lacks(id_) for name, id_ in under.items()):
            return remembered
        nearest = under[max(under, key=depth)]
        newest = nearest not in self._served
        self._served.add(nearest)
        return named or newest or remembered

    def _starts_replay(self, checkpoint_id: str) -> bool:
        """Whether this is the newest before one of the root's checkpoints that stay."""
        before = len(self._replays)
        while self._replays and self._replays[-1] > checkpoint_id:
            self._replays.pop()
        return len(self._replays) < before


def _of_one_task(namespace: str) -> bool:
    """Namespaces are parts joined by "|": a node's name, with ":" and the task's id unless it keeps its memory, or a
    number for the second and later subgraphs that one task calls.
    """
    parts = namespace.split("|")
    named = [part for part in parts if not part.isdigit()] or parts  # a node may be called by a number too
    return ":" in named[-1]


def depth(namespace: str) -> int:
    """How many graphs are around a subgraph, about: 0 for the root's namespace."""
    return namespace.count("|") + bool(namespace)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Of one stream. now: seconds since 1970. above: what stays of the streams around it, by namespace."""

    now: float
    namespace: str = ""
    above: Mapping[str, Kept] = field(default_factory=dict)

    def beneath(self, selection: Selection) -> Selection:
        return Beneath(selection, self.namespace, self.above) if self.above and self.namespace else selection
