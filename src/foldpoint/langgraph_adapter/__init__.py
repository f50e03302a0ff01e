"""LangGraph's checkpointer on the engine.

Read in this order: `frozen` (what messages held), `known` (their classes), `blocks` (lists of them), `encoding`,
`decoding` (objects to bytes and back; only these two serialize), `conversion` (checkpoints to the engine's and back),
`arguments` (what callers give), `ttl`, `saver`, `key`, `factory`.
"""

from foldpoint.langgraph_adapter.factory import generate_checkpointer
from foldpoint.langgraph_adapter.saver import FoldpointSaver

__all__ = ["FoldpointSaver", "generate_checkpointer"]
