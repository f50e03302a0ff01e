"""Plots of one thread as it grows: bytes stored, time of a put, time of a resume, against checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.savers import BY_NAME

WORKLOAD = "airline"
COLORS = {
    "sqlite": "#8c6d31",
    "postgres": "#31688e",
    "aerospike": "#b5485d",
    "foldpoint-sqlite": "#2ca02c",
    "foldpoint-aerospike": "#006d2c",
}
PLOTS: dict[str, tuple[str, str, Callable[[Any], float]]] = {
    "stored": ("Stored by one thread", "MB", lambda sample: sample["stored"] / 1e6),
    "put": ("One put", "ms, median", lambda sample: sample["put"]["median"]),
    "resume": ("Reading the latest checkpoint, cold", "ms, median", lambda sample: sample["resume"]["median"]),
}


def draw(results: Results, folder: Path) -> Iterator[Path]:
    """One SVG for each plot; the files written."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "foldpoint", "svg.fonttype": "none", "font.size": 11})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for name, (title, unit, read) in PLOTS.items():
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        for saver, color in COLORS.items():
            cell = results.cells.get((WORKLOAD, saver))
            if cell is None or cell.figures is None:
                continue
            samples = cell.figures["samples"]
            foldpoint = BY_NAME[saver].role == "foldpoint"
            axes.plot(
                [sample["checkpoints"] for sample in samples],
                [read(sample) for sample in samples],
                label=BY_NAME[saver].title,
                color=color,
                linewidth=2.4 if foldpoint else 1.4,
                linestyle="--" if saver.endswith("aerospike") else "-",
                marker="o",
                markersize=3.5,
            )
        axes.set(title=title, xlabel="checkpoints", ylabel=unit)
        if name == "stored":  # the savers lie orders of magnitude apart
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        yield path
