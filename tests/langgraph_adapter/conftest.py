"""Savers on every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import BACKENDS, Harness

from foldpoint import Engine, FoldpointSaver, Settings


@pytest.fixture(params=sorted(BACKENDS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = BACKENDS[request.param](tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def make_saver(harness: Harness) -> Iterator[Callable[..., FoldpointSaver]]:
    """Savers on one store object, as several threads of one process have."""
    store = harness.open()
    savers: list[FoldpointSaver] = []

    def make(*, window: int = 64, **options: object) -> FoldpointSaver:
        savers.append(FoldpointSaver(Engine(store, Settings(window=window)), **options))  # type: ignore[arg-type]
        return savers[-1]

    yield make
    for saver in savers:
        saver.close()


@pytest.fixture
def saver(make_saver: Callable[..., FoldpointSaver]) -> FoldpointSaver:
    return make_saver()
