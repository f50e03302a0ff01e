"""Tables for people: each workload, how cost grows within it, and the claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich.table import Table

from benchmarks.claims import CLAIMS, Claim
from benchmarks.results import Cell, Results
from benchmarks.savers import BY_NAME, FOLDPOINT
from benchmarks.workloads import WORKLOADS

Format = Callable[[float], str]


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _size(value: float) -> str:
    return f"{value / 1e6:,.1f} MB" if value >= 1e6 else f"{value / 1e3:,.1f} KB"


COLUMNS: list[tuple[str, str, Format]] = [
    ("run", "wall", _seconds),
    ("CPU", "cpu", _seconds),
    ("a checkpoint", "per_checkpoint", _ms),
    ("put", "put", _ms),
    ("put_writes", "put_writes", _ms),
    ("latest", "latest", _ms),
    ("latest, cold", "resume", _ms),
    ("stored", "stored", _size),
    ("compacted", "compacted", _size),
    ("memory", "peak", _size),
]
GROWTH = ["put", "latest", "resume"]


def tables(results: Results) -> Iterator[Table]:
    for workload in results.workloads:
        yield _compared(results, workload)
    growing = [cell for cell in results.cells.values() if cell.figures and len(cell.figures["samples"]) > 1]
    if growing:
        yield _growth(results, growing)


def failures(results: Results) -> Iterator[str]:
    """A line for each saver that has no figures."""
    for cell in results.cells.values():
        if cell.failure:
            yield f"{cell.workload}: {BY_NAME[cell.saver].title} fails: {cell.failure}"


def _compared(results: Results, workload: str) -> Table:
    """A row for each saver: its figures, and each as a multiple of the best durable peer's."""
    table = Table(title=f"{workload}: {about(workload)}", title_justify="left")
    table.add_column("saver", no_wrap=True)
    for title, _, _ in COLUMNS:
        table.add_column(title, justify="right")
    for cell in results.of(workload):
        title = BY_NAME[cell.saver].title
        if cell.figures is None:
            table.add_row(title, "[red]fails[/red]")
        else:
            table.add_row(
                title, *(_compare(results, cell, name, form) for _, name, form in COLUMNS), style=_style(cell)
            )
    return table


def about(workload: str) -> str:
    """The first line of what a workload says of itself."""
    return (WORKLOADS[workload].__doc__ or "").strip().splitlines()[0]


def _style(cell: Cell) -> str | None:
    return {"foldpoint": "bold", "reference": "dim"}.get(BY_NAME[cell.saver].role)


def _compare(results: Results, cell: Cell, name: str, form: Format) -> str:
    value = results.figure(cell.workload, cell.saver, name)
    if value is None:
        return "–"
    ratio = results.ratio(cell.workload, cell.saver, name)
    return form(value) + (f"\n{times(ratio)}" if ratio is not None else "")


def times(ratio: float) -> str:
    """A ratio as people say it."""
    return f"×{ratio:.2f}" if ratio >= 0.095 else f"1/{1 / ratio:,.0f}"


def _growth(results: Results, cells: list[Cell]) -> Table:
    """From the first mark to the last, with what is beyond the bare serializer, and calls of the store."""
    table = Table(title="From the first mark of a run to its end, medians in ms", title_justify="left")
    table.add_column("workload")
    table.add_column("saver", no_wrap=True)
    table.add_column("checkpoints", justify="right")
    for title in ("put", "beyond dumps", "latest", "latest, cold", "beyond loads", "store calls"):
        table.add_column(title, justify="right")
    for cell in cells:
        figures: Any = cell.figures
        first, last = figures["samples"][0]["checkpoints"], figures["samples"][-1]["checkpoints"]

        def pair(name: str, cell: Cell = cell) -> str:
            before, after = (results.figure(cell.workload, cell.saver, which) for which in (f"{name}_first", name))
            return "–" if before is None or after is None else f"{before:.3g} → {after:.3g}"

        def grown(name: str, cell: Cell = cell) -> str:
            ratio = results.figure(cell.workload, cell.saver, f"{name}_growth")
            return pair(name) if ratio is None else f"{pair(name)} ×{ratio:.2f}"

        calls = [results.figure(cell.workload, cell.saver, f"{name}_calls") for name in GROWTH]
        table.add_row(
            cell.workload,
            BY_NAME[cell.saver].title,
            f"{first:,.0f} → {last:,.0f}",
            grown("put"),
            pair("put_beyond"),
            grown("latest"),
            grown("resume"),
            pair("resume_beyond"),
            " / ".join("–" if call is None else f"{call:g}" for call in calls) if any(calls) else "–",
            style=_style(cell),
        )
    return table


def claims_table(results: Results) -> Table:
    """What each of Foldpoint's durable savers was measured at."""
    table = Table(title="Claims, as multiples of the best durable peer unless said otherwise", title_justify="left")
    table.add_column("claim")
    table.add_column("at most", justify="right")
    for saver in FOLDPOINT:
        table.add_column(BY_NAME[saver].title, justify="right")
    for claim in CLAIMS:
        found = [claim.measure(results, saver) for saver in FOLDPOINT]
        if any(value is not None for value in found):
            table.add_row(claim.text, _said(claim, claim.limit), *(_judged(claim, value) for value in found))
    return table


def _judged(claim: Claim, value: float | None) -> str:
    if value is None:
        return "–"
    said = _said(claim, value)
    return f"[green]{said}[/green]" if value <= claim.limit else f"[red]{said} missed[/red]"


def _said(claim: Claim, value: float) -> str:
    return f"{value:.3g} {claim.unit}" if claim.unit else times(value)
