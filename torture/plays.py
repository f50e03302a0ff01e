"""Playing the machine: on a store in memory, with keys, on a node that loses power, on a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from foldpoint.engine import keys
from torture.machine import NAMES, Histories, KeyHistories, SqliteHistories
from torture.power import NodeHistories, TornHistories
from torture.small import small_limits

RUNS = 100
"""Of one seed."""
STEPS = 30
STORES: dict[str, type[Histories]] = {
    "memory": Histories,
    "keys": KeyHistories,
    "node": NodeHistories,
    "torn": TornHistories,
    "sqlite": SqliteHistories,
}


def play(store: str, number: int, *, runs: int = RUNS, shrink: bool = False) -> int:
    """Play the runs of a seed. AssertionError, or what was raised, with its steps. shrink: look for few."""
    machine = seed(number)(type(STORES[store].__name__, (STORES[store],), {}))
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    with small_limits(), _repeatable_names():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=runs,
                stateful_step_count=STEPS,
                database=None,
                deadline=None,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return runs


@contextmanager
def _repeatable_names() -> Iterator[None]:
    """So that a seed repeats what it found."""
    epoch, token = partial(NAMES.randbytes, keys.EPOCH_BYTES), partial(NAMES.randbytes, 8)
    with patch.object(keys, "new_epoch", epoch), patch.object(keys, "new_token", token):
        yield
