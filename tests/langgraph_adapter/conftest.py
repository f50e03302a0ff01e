"""Savers on every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import BACKENDS, Harness

from foldpoint import Engine, FoldpointSaver, Settings


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every backend; the memory once more without the fast paths of serializing."""
    if "backend" in metafunc.fixturenames:
        slow = ["memory, by LangGraph's serializer"] if "make_saver" in metafunc.fixturenames else []
        metafunc.parametrize("backend", [*sorted(BACKENDS), *slow])


@pytest.fixture
def harness(backend: str, tmp_path: Path) -> Iterator[Harness]:
    harness = BACKENDS[backend.partition(",")[0]](tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def make_saver(harness: Harness, backend: str) -> Iterator[Callable[..., FoldpointSaver]]:
    """Savers on one store object, as several threads of one process have."""
    store, fast = harness.open(), backend in BACKENDS
    savers: list[FoldpointSaver] = []

    def make(*, window: int = 64, **options: object) -> FoldpointSaver:
        settings = Settings(window=window, fast_encoding=fast, fast_decoding=fast)
        savers.append(FoldpointSaver(Engine(store, settings), **options))  # type: ignore[arg-type]
        return savers[-1]

    yield make
    for saver in savers:
        saver.close()


@pytest.fixture
def saver(make_saver: Callable[..., FoldpointSaver]) -> FoldpointSaver:
    return make_saver()
