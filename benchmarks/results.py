"""Figures of many cells, and how they compare."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.savers import PEERS

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One saver on one workload: its figures, or why it has none."""

    workload: str
    saver: str
    figures: Figures | None
    failure: str | None = None


class Results:
    """What was measured. Of several rounds each figure is their median; one that failed in any round has none."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.rounds: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            self.rounds.setdefault((cell.workload, cell.saver), []).append(cell)
        self.cells = {key: _merge(rounds) for key, rounds in self.rounds.items()}

    @property
    def workloads(self) -> list[str]:
        return list(dict.fromkeys(workload for workload, _ in self.cells))

    def of(self, workload: str) -> list[Cell]:
        return [cell for cell in self.cells.values() if cell.workload == workload]

    def figure(self, workload: str, saver: str, name: str) -> float | None:
        """A figure by its name in `FIGURES`; None where it was not measured."""
        cell = self.cells.get((workload, saver))
        return None if cell is None or cell.figures is None else FIGURES[name](cell.figures)

    def best(self, workload: str, name: str, peers: Iterable[str] = PEERS) -> float | None:
        """The smallest figure among durable savers of other projects."""
        found = [figure for peer in peers if (figure := self.figure(workload, peer, name)) is not None]
        return min(found, default=None)

    def ratio(self, workload: str, saver: str, name: str, peers: Iterable[str] = PEERS) -> float | None:
        """A figure as a multiple of the best peer's."""
        return divided(self.figure(workload, saver, name), self.best(workload, name, peers))


def divided(figure: float | None, by: float | None) -> float | None:
    return None if figure is None or not by else figure / by


def _merge(rounds: list[Cell]) -> Cell:
    if failed := next((cell for cell in rounds if cell.figures is None), None):
        return failed
    return Cell(rounds[0].workload, rounds[0].saver, _medians([cell.figures for cell in rounds]))


def _medians(values: list[Any]) -> Any:
    """Values of one form; every number in it becomes the median of all."""
    first = values[0]
    if isinstance(first, Mapping):
        return {name: _medians([value[name] for value in values]) for name in first}
    if isinstance(first, list):
        return [_medians(list(column)) for column in zip(*values, strict=True)]
    return None if first is None else statistics.median(values)


def _at(sample: int, call: str, what: str = "median") -> Callable[[Figures], float | None]:
    """A figure of one kind of call at a mark; -1 is the end of the run."""

    def read(figures: Figures) -> float | None:
        costs = figures["samples"][sample].get(call)
        found: float | None = costs[what] if costs else None
        return found

    return read


def _growth(call: str) -> Callable[[Figures], float | None]:
    return lambda figures: divided(_at(-1, call)(figures), _at(0, call)(figures))


def _beyond(call: str, bare: str, sample: int = -1) -> Callable[[Figures], float | None]:
    """A call's median less that of what LangGraph's serializer alone takes for the state."""

    def read(figures: Figures) -> float | None:
        total, alone = _at(sample, call)(figures), _at(sample, bare)(figures)
        return None if total is None or alone is None else total - alone

    return read


FIGURES: Mapping[str, Callable[[Figures], float | None]] = {
    "wall": lambda figures: figures["wall_s"],
    "cpu": lambda figures: figures["cpu_s"],
    "per_checkpoint": lambda figures: figures["ms_per_checkpoint"],
    "stored": lambda figures: figures["stored"] or None,
    "compacted": lambda figures: figures["compacted"] or None,
    "peak": lambda figures: figures["peak_bytes"],
    "put": _at(-1, "put"),
    "put_first": _at(0, "put"),
    "put_growth": _growth("put"),
    "put_beyond_first": _beyond("put", "dumps", 0),
    "put_beyond": _beyond("put", "dumps"),
    "put_calls": _at(-1, "put", "store_calls"),
    "put_writes": _at(-1, "put_writes"),
    "latest": _at(-1, "latest"),
    "latest_first": _at(0, "latest"),
    "latest_growth": _growth("latest"),
    "latest_calls": _at(-1, "latest", "store_calls"),
    "resume": _at(-1, "resume"),
    "resume_first": _at(0, "resume"),
    "resume_growth": _growth("resume"),
    "resume_beyond_first": _beyond("resume", "loads", 0),
    "resume_beyond": _beyond("resume", "loads"),
    "resume_calls": _at(-1, "resume", "store_calls"),
}
