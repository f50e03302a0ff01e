"""LangGraph's checkpointer on the engine: `conversion` (objects to bytes and back), `saver`, `factory`."""

from foldpoint.langgraph_adapter.factory import generate_checkpointer
from foldpoint.langgraph_adapter.saver import FoldpointSaver

__all__ = ["FoldpointSaver", "generate_checkpointer"]
