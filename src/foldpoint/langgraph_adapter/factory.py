"""The entry for `langgraph.json`: `"checkpointer": {"path": "foldpoint.langgraph_adapter.generate_checkpointer"}`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint.langgraph_adapter.key import cipher_of
from foldpoint.langgraph_adapter.saver import FoldpointSaver
from foldpoint.settings import load_settings


@asynccontextmanager
async def generate_checkpointer() -> AsyncIterator[FoldpointSaver]:
    """A saver on the store of FOLDPOINT_URL, configured by FOLDPOINT_*. May be entered any number of times.

    Where LANGGRAPH_AES_KEY is set everything is encrypted with that key, and read with FOLDPOINT_PREVIOUS_AES_KEY too,
    as by the `foldpoint` command.
    """
    # In a thread: opening a file or connecting to a server would hold up the loop.
    async with await asyncio.to_thread(_open) as saver:
        await saver.asetup()
        yield saver


def _open() -> FoldpointSaver:
    settings = load_settings()
    cipher = cipher_of(settings)
    return FoldpointSaver.from_conn_string(settings.url, serde=EncryptedSerializer(cipher) if cipher else None)
