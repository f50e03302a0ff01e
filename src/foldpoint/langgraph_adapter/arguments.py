"""What callers give a saver: taken as what it says, or refused with a ValueError that says what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

from foldpoint.compaction import DropAll, KeepLast, Policy
from foldpoint.engine.engine import Engine
from foldpoint.engine.url import open_on_client
from foldpoint.settings import load_settings

_STRATEGIES = "'keep_latest', 'delete' (or 'delete_all'), or keep_last=N"


def engine_of(engine: Engine | None, client: Any, namespace: str | None, prefix: str) -> Engine:
    if engine is None and client is not None and namespace is not None:
        return Engine(open_on_client(client, namespace, prefix), load_settings())
    if isinstance(engine, Engine) and client is None and namespace is None:
        return engine
    if isinstance(engine, str):
        raise ValueError(f"got the text {engine!r}: use FoldpointSaver.from_conn_string(url)")
    raise ValueError(
        "give either an engine, or client= and namespace= of Aerospike; or use FoldpointSaver.from_conn_string(url)"
    )


def stream_of(config: RunnableConfig) -> tuple[str, str]:
    """(thread id, namespace). Raises ValueError where the thread id is missing, or the namespace is no text."""
    configurable = (config or {}).get("configurable") or {}
    thread_id, namespace = configurable.get("thread_id"), configurable.get("checkpoint_ns") or ""
    if thread_id is None:
        raise ValueError("config['configurable']['thread_id'] is missing: it names the thread to store or read")
    if not isinstance(namespace, str):
        raise ValueError(f"config['configurable']['checkpoint_ns']: expected a text, got {namespace!r}")
    return str(thread_id), namespace


def checkpoint_of(config: RunnableConfig) -> str | None:
    """The checkpoint id that a config names; None if it names none. Raises ValueError where that is no text."""
    checkpoint_id = config["configurable"].get("checkpoint_id") or None
    if checkpoint_id is not None and not isinstance(checkpoint_id, str):
        raise ValueError(f"config['configurable']['checkpoint_id']: expected a text, got {checkpoint_id!r}")
    return checkpoint_id


def thread_of(thread_id: object) -> str:
    if thread_id is None:
        raise ValueError("expected a thread's id, got None")
    return str(thread_id)


def bound_of(before: RunnableConfig | None) -> str | None:
    """The checkpoint id of `before`; None if it names none. Raises ValueError for what is no config."""
    if before is None:
        return None
    if not isinstance(before.get("configurable"), dict):
        raise ValueError(f"before: expected a config with a checkpoint_id in 'configurable', got {before!r}")
    return checkpoint_of(before)


def several(name: str, ids: Sequence[str]) -> Sequence[str]:
    if isinstance(ids, str):
        raise ValueError(f"{name}: expected a list of ids, got the text {ids!r}: its letters would be taken for ids")
    return ids


def policy_of(strategy: str, keep_last: int | None) -> Policy:
    if strategy == "keep_latest":
        return KeepLast(1 if keep_last is None else keep_last)
    if strategy in ("delete", "delete_all"):
        if keep_last is not None:
            raise ValueError(f"strategy: {strategy!r} keeps nothing, keep_last={keep_last!r} would; give one of them")
        return DropAll()
    raise ValueError(f"strategy: expected {_STRATEGIES}, got {strategy!r}")


def require_serializer(serde: object) -> None:
    """LangGraph wraps whatever it is given, and fails at the first put."""
    if serde is not None and not (hasattr(serde, "dumps_typed") or hasattr(serde, "dumps")):
        raise ValueError(f"serde: expected a serializer with dumps_typed and loads_typed, got {serde!r}")


def require_limit(limit: int | None) -> None:
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise ValueError(f"limit: expected a number of checkpoints, got {limit!r}")
