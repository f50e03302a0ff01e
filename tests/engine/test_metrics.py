"""What is counted, as a dict and as an OpenTelemetry collector sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from checkpoints import id_of, numbered, write
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from foldpoint import Engine, Settings
from foldpoint.compaction import upkeep
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.metrics import Metrics
from foldpoint.errors import Conflict, StoreUnavailable

READER = InMemoryMetricReader()


@pytest.fixture(scope="session", autouse=True)
def provider() -> None:
    """The process's meter provider, which can be set once."""
    metrics.set_meter_provider(MeterProvider(metric_readers=[READER]))


def collected() -> dict[str, Any]:
    """The project's metrics by name."""
    data = READER.get_metrics_data()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
    return {metric.name: metric for scope in scopes if scope.scope.name == "foldpoint" for metric in scope.metrics}


def total(name: str) -> float:
    """The sum over a counter's points, or how often a histogram was recorded."""
    found = collected().get(name)
    points = found.data.data_points if found else []
    return sum(getattr(point, "value", None) or getattr(point, "count", 0) for point in points)


@pytest.fixture
def engine() -> Engine:
    return Engine(MemoryStore(), Settings(window=8))


def test_puts_are_counted_with_the_bytes_logged_and_those_of_the_full_state(engine: Engine) -> None:
    states = [numbered(n) for n in range(5)]
    for checkpoint in states:
        engine.put("t", "", checkpoint)
    engine.put_writes("t", "", id_of(4), [write(1), write(2)])
    stats = engine.metrics.as_dict()
    assert stats["puts"] == 6
    full = sum(len(value.data) for checkpoint in states for value in checkpoint.channels.values())
    assert stats["bytes_of_state"] == full + sum(len(write(n).value.data) for n in (1, 2))
    keys = list(engine.store.keys())
    assert stats["bytes_logged"] == sum(len(record or b"") for record in engine.store.get_many(keys))


def test_a_put_that_loses_its_number_is_counted_once(engine: Engine) -> None:
    other = Engine(engine.store, engine.settings)
    engine.put("t", "", numbered(0))
    other.put("t", "", numbered(1))
    engine.put("t", "", numbered(2))
    assert engine.metrics.as_dict()["puts"] == 2
    assert other.metrics.as_dict()["puts"] == 1


def test_seals_are_counted_whoever_seals(engine: Engine) -> None:
    for n in range(20):
        engine.put("t", "", numbered(n))
    assert engine.metrics.as_dict()["seals"] == 2
    upkeep(engine, "t", "")
    assert engine.metrics.as_dict()["seals"] == 3


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "succeeded"), (Conflict("others won"), "conflicted"), (StoreUnavailable("gone"), "failed")],
    ids=lambda value: str(value),
)
def test_a_compaction_succeeds_conflicts_or_fails(error: Exception | None, outcome: str) -> None:
    counted = Metrics()
    before = total("foldpoint.compaction.duration")
    with pytest.raises(type(error)) if error else nullcontext(), counted.compaction():
        if error is not None:
            raise error
    stats = counted.as_dict()
    assert {name: stats[f"compactions_{name}"] for name in ("succeeded", "conflicted", "failed")} == {
        name: int(name == outcome) for name in ("succeeded", "conflicted", "failed")
    }
    assert stats["compactions_attempted"] == 1
    assert stats["compaction_seconds"] > 0
    assert total("foldpoint.compaction.duration") == before + 1
    types = [
        point.attributes.get("error.type") for point in collected()["foldpoint.compaction.duration"].data.data_points
    ]
    assert (type(error).__name__ if error else None) in types


CALLS: dict[str, Callable[[Metrics], None]] = {
    "foldpoint.put.count": lambda counted: counted.add(puts=3),
    "foldpoint.put.logged": lambda counted: counted.add(bytes_logged=3),
    "foldpoint.put.state": lambda counted: counted.add(bytes_of_state=3),
    "foldpoint.seal.count": lambda counted: counted.add(seals=3),
    "foldpoint.compaction.reclaimed": lambda counted: counted.add(bytes_given_back=3),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_collector_sees_the_sum_over_all_engines_of_the_process(name: str) -> None:
    before = total(name)
    for _ in range(2):
        CALLS[name](Metrics())
    assert total(name) == before + 6


def test_every_metric_has_a_unit_and_a_description() -> None:
    Metrics().resumed(0.5)
    with Metrics().compaction():
        pass
    found = collected()
    assert set(found) == {*CALLS, "foldpoint.resume.duration", "foldpoint.compaction.duration"}
    assert {name: metric.unit for name, metric in found.items()} == {
        "foldpoint.put.count": "{put}",
        "foldpoint.put.logged": "By",
        "foldpoint.put.state": "By",
        "foldpoint.seal.count": "{seal}",
        "foldpoint.compaction.reclaimed": "By",
        "foldpoint.resume.duration": "s",
        "foldpoint.compaction.duration": "s",
    }
    assert all(metric.description for metric in found.values())


def test_engines_of_one_saver_count_together(engine: Engine) -> None:
    class Cipher:
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            return "none", plaintext

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            return ciphertext

    sealed = engine.with_cipher(Cipher())
    sealed.put("t", "", numbered(0))
    assert engine.metrics.as_dict()["puts"] == 1
