"""LangGraph's own conformance suite, in its released version."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from langgraph.checkpoint.conformance import checkpointer_test, validate
from stores import BACKENDS

from foldpoint import Engine, FoldpointSaver, Settings


async def test_all_eight_capabilities_are_found_and_none_fails(backend: str, tmp_path: Path) -> None:
    folders: Callable[[], int] = itertools.count().__next__

    @checkpointer_test(name=backend)
    async def factory() -> AsyncIterator[FoldpointSaver]:
        folder = tmp_path / str(folders())
        folder.mkdir()
        harness = BACKENDS[backend](folder)
        async with FoldpointSaver(Engine(harness.open(), Settings())) as saver:
            yield saver
        harness.close()

    report = await validate(factory)
    assert {name for name, result in report.results.items() if result.detected} == {
        "put",
        "put_writes",
        "get_tuple",
        "list",
        "delete_thread",
        "delete_for_runs",
        "copy_thread",
        "prune",
    }
    assert [failure for result in report.results.values() for failure in result.failures] == []
    assert sum(result.tests_passed for result in report.results.values()) >= 70
