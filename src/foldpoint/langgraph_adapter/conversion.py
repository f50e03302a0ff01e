"""LangGraph's checkpoints as the engine stores them, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.base import Checkpoint as LangGraphCheckpoint

from foldpoint.codecs.event import Folded
from foldpoint.codecs.model import PARENTS, Checkpoint, Header, Scalar, Value, Version, Write
from foldpoint.engine.fold import Known
from foldpoint.langgraph_adapter.decoding import Decoder
from foldpoint.langgraph_adapter.encoding import Encoder

_HEADER_KEYS = {"v", "id", "ts", "channel_values", "channel_versions", "versions_seen", "updated_channels"}
_INT_LIMIT = 1 << 62
"""Labels are stored as differences, which must fit 64 bits too."""


def to_checkpoint(
    encoder: Encoder,
    stream: tuple[str, str],
    config: RunnableConfig,
    checkpoint: LangGraphCheckpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    parent: Known,
) -> Checkpoint:
    """new_versions: of the channels that changed since `parent`.

    Raises the serializer's error for a value it cannot serialize, ValueError for metadata whose name is no string.
    """
    extra = {key: value for key, value in checkpoint.items() if key not in _HEADER_KEYS}
    merged = cast(dict[str, Any], get_checkpoint_metadata(config, metadata))
    _check_names("metadata", merged)
    labels, rest = split_metadata(merged)
    versions, old_versions = checkpoint["channel_versions"], parent.header.channel_versions
    told = [name for name in checkpoint["channel_values"] if name not in (new_versions or ())]
    as_in_parent = {
        name for name in told if name in parent.state and _is_same(old_versions.get(name), versions.get(name))
    }
    return Checkpoint(
        Header(
            id=checkpoint["id"],
            parent=config["configurable"].get("checkpoint_id") or None,
            v=checkpoint.get("v", 1),
            ts=checkpoint.get("ts", ""),
            channel_versions=versions,
            versions_seen=checkpoint["versions_seen"],
            updated_channels=_listed(checkpoint.get("updated_channels")),
            extra=encoder.value(extra) if extra else None,
        ),
        channels={
            name: parent.state[name]
            if name in as_in_parent
            else encoder.channel((*stream, name), value).shared(parent.state.get(name))
            for name, value in checkpoint["channel_values"].items()
        },
        labels=labels,
        metadata=encoder.value(rest) if rest else None,
    )


def _is_same(old: Version | None, new: Version | None) -> bool:
    return old is not None and type(old) is type(new) and old == new


def _check_names(what: str, names: Iterable[Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{what}: names are strings, got {name!r}")


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def split_metadata(metadata: Mapping[str, Any]) -> tuple[dict[str, Scalar], dict[str, Any]]:
    """(labels, the rest). Labels are the plain scalars, and the parents of a subgraph's checkpoint one by one."""
    labels: dict[str, Scalar] = {}
    rest: dict[str, Any] = {}
    for key, value in metadata.items():
        if key == "parents" and _are_parents(value):
            labels.update({PARENTS + namespace: checkpoint_id for namespace, checkpoint_id in value.items()})
        else:
            (labels if _is_label(value) and not key.startswith(PARENTS) else rest)[key] = value
    return labels, rest


def _are_parents(value: Any) -> bool:
    """Whether it is what LangGraph puts there, and not empty: checkpoint ids by namespace."""
    return type(value) is dict and bool(value) and all(type(text) is str for text in (*value, *value.values()))


def _is_label(value: Any) -> bool:
    if type(value) is int:
        return -_INT_LIMIT < value < _INT_LIMIT
    return value is None or type(value) in (str, bool, float)


def to_writes(encoder: Encoder, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> list[Write]:
    _check_names("writes", [channel for channel, _ in writes])
    return [
        Write(task_id, WRITES_IDX_MAP.get(channel, at), channel, encoder.value(value), task_path)
        for at, (channel, value) in enumerate(writes)
    ]


def from_writes(decoder: Decoder, writes: Sequence[Write]) -> list[PendingWrite]:
    return [(write.task_id, write.channel, decoder.value(write.value)) for write in writes]


def from_metadata(decoder: Decoder, folded: Folded) -> CheckpointMetadata:
    rest = decoder.value(folded.metadata) if folded.metadata else {}
    labels = {key: value for key, value in folded.labels.items() if not key.startswith(PARENTS)}
    parents = {key.removeprefix(PARENTS): value for key, value in folded.labels.items() if key.startswith(PARENTS)}
    return cast(CheckpointMetadata, {**labels, **({"parents": parents} if parents else {}), **rest})


def matches(decoder: Decoder, folded: Folded, wanted: Mapping[str, Any]) -> bool:
    """Whether the metadata has all of `wanted`; deserializes only if a wanted key is no plain scalar."""
    if all(key in folded.labels and not key.startswith(PARENTS) for key in wanted):
        return all(folded.labels[key] == value for key, value in wanted.items())
    metadata = from_metadata(decoder, folded)
    return all(metadata.get(key) == value for key, value in wanted.items())


def from_header(decoder: Decoder, header: Header, values: dict[str, Any]) -> LangGraphCheckpoint:
    checkpoint = {
        "v": header.v,
        "ts": header.ts,
        "id": header.id,
        "channel_values": values,
        "channel_versions": dict(header.channel_versions),
        "versions_seen": {node: dict(seen) for node, seen in header.versions_seen.items()},
        "updated_channels": _listed(header.updated_channels),
    }
    if header.extra:
        checkpoint.update(decoder.value(header.extra))
    return cast(LangGraphCheckpoint, checkpoint)


def to_config(thread_id: Any, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id},
    }


def to_tuple(
    decoder: Decoder,
    thread_id: Any,
    namespace: str,
    folded: Folded,
    channels: Mapping[str, Value],
    writes: Sequence[Write],
) -> CheckpointTuple:
    header = folded.header
    stream = str(thread_id), namespace
    values = {name: decoder.channel((*stream, name), value) for name, value in channels.items()}
    return CheckpointTuple(
        config=to_config(thread_id, namespace, header.id),
        checkpoint=from_header(decoder, header, values),
        metadata=from_metadata(decoder, folded),
        parent_config=to_config(thread_id, namespace, header.parent) if header.parent else None,
        pending_writes=from_writes(decoder, writes),
    )
