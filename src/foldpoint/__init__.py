"""Foldpoint: an event-sourced checkpoint engine with compaction for LangGraph agents.

Reading order, as the data flows: `langgraph_adapter` (LangGraph's objects to bytes) → `engine` (the log of a stream in
a store) → `codecs` (what the bytes are); `compaction` makes it smaller; `cli` is for people.
"""

from foldpoint.engine.engine import Engine
from foldpoint.engine.keyring import Keyring
from foldpoint.engine.url import open_store
from foldpoint.langgraph_adapter import FoldpointSaver
from foldpoint.settings import Settings

__all__ = ["Engine", "FoldpointSaver", "Keyring", "Settings", "open_store"]
