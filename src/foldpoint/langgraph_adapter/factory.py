"""The entry for `langgraph.json`: `"checkpointer": {"path": "foldpoint.langgraph_adapter.generate_checkpointer"}`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint.langgraph_adapter.saver import FoldpointSaver
from foldpoint.settings import KEY_VARIABLE, load_settings


@asynccontextmanager
async def generate_checkpointer() -> AsyncIterator[FoldpointSaver]:
    """A saver on the store of FOLDPOINT_URL, configured by FOLDPOINT_*. May be entered any number of times.

    Where LANGGRAPH_AES_KEY is set everything is encrypted with that key, as by the `foldpoint` command.
    """
    # In a thread: opening a file or connecting to a server would hold up the loop.
    async with await asyncio.to_thread(_open) as saver:
        await saver.asetup()
        yield saver


def _open() -> FoldpointSaver:
    sealed = EncryptedSerializer.from_pycryptodome_aes() if KEY_VARIABLE in os.environ else None
    return FoldpointSaver.from_conn_string(load_settings().url, serde=sealed)
