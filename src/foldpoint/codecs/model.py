"""What a stream consists of, as plain data. Values are the serializer's (type, bytes) and stay unread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from foldpoint.codecs.rope import Rope

Version = str | int | float
Scalar = str | int | float | bool | None

PARENTS = "parents:"
"""Begins the labels of a subgraph's checkpoint that say under which checkpoints of the graphs around it it was made.

The rest of such a label is a namespace, its value a checkpoint id.
"""


class Value(NamedTuple):
    """A serialized value: the serializer's type name and bytes."""

    type: str
    data: bytes


class Stored(NamedTuple):
    """A serialized value of a state, in pieces that it may share with other values."""

    type: str
    data: Rope

    @classmethod
    def of(cls, value: Value | Stored) -> Stored:
        return value if isinstance(value, Stored) else cls(value.type, Rope(value.data))

    def shared(self, old: Stored | None) -> Stored:
        """`old`, if it is the same, so that it is held once. One in pieces stays: the next is likely to share them."""
        same = old is not None and self.data.joined and old.type == self.type and old.data.equals(self.data)
        return old if same and old is not None else self


class Write(NamedTuple):
    """A pending write. `idx` below 0 marks the special writes, which replace an earlier one of the same task."""

    task_id: str
    idx: int
    channel: str
    value: Value
    task_path: str = ""


class Carried(NamedTuple):
    """What a dropped ancestry held of one channel: its last stored value, if any, and the writes since, in order."""

    seed: Value | None
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """A LangGraph checkpoint without its values. `extra` holds keys that this version does not know, serialized."""

    id: str
    parent: str | None = None
    v: int = 1
    ts: str = ""
    channel_versions: dict[str, Version] = field(default_factory=dict)
    versions_seen: dict[str, dict[str, Version]] = field(default_factory=dict)
    updated_channels: list[str] | None = None
    extra: Value | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as it is handed to the log and as it comes back.

    Metadata is split: `labels` are its plain scalars, readable without a serializer; `metadata` is the rest,
    serialized (None: there is no rest).
    """

    header: Header
    channels: Mapping[str, Value | Stored]
    labels: dict[str, Scalar] = field(default_factory=dict)
    metadata: Value | None = None
    carried: dict[str, Carried] = field(default_factory=dict)
