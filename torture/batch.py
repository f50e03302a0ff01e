"""Many runs, a batch to a seed, over processes: the seed of each batch that fails is what repeats it."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

Batch = Callable[[int], int]
"""Does the runs of a seed; how many there were. What it raises is a failure."""


@dataclass(frozen=True)
class Outcome:
    """Of one batch. failure: what went wrong, empty if nothing did."""

    name: str
    seed: int
    runs: int
    failure: str = ""

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}: {self.failure or f'{self.runs} runs'}"


def outcomes(jobs: Sequence[tuple[str, Batch, int]], workers: int) -> Iterator[Outcome]:
    """What became of each (name, batch, seed), as they end."""
    context = multiprocessing.get_context("spawn")  # a fork would copy locks and open files
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for future in as_completed([pool.submit(_outcome, *job) for job in jobs]):
            yield future.result()


def _outcome(name: str, batch: Batch, seed: int) -> Outcome:
    try:
        return Outcome(name, seed, batch(seed))
    except Exception as error:  # noqa: BLE001 - whatever it is, it was looked for
        notes = "\n".join(getattr(error, "__notes__", ()))
        return Outcome(name, seed, 0, f"{''.join(traceback.format_exception(error))}{notes}")
