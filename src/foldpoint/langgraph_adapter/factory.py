"""The entry for `langgraph.json`: `"checkpointer": {"path": "foldpoint.langgraph_adapter.generate_checkpointer"}`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from foldpoint.langgraph_adapter.saver import FoldpointSaver
from foldpoint.settings import load_settings


@asynccontextmanager
async def generate_checkpointer() -> AsyncIterator[FoldpointSaver]:
    """A saver on the store of FOLDPOINT_URL, configured by FOLDPOINT_*. May be entered any number of times."""
    # In a thread: opening a file or connecting to a server would hold up the loop.
    async with await asyncio.to_thread(_open) as saver:
        await saver.asetup()
        yield saver


def _open() -> FoldpointSaver:
    return FoldpointSaver.from_conn_string(load_settings().url)
