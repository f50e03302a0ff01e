"""Checkpoints for tests of the engine, built by hand."""

from __future__ import annotations

import uuid

import msgpack

from foldpoint import Engine
from foldpoint.codecs.model import Checkpoint, Header, Value, Write


def id_of(n: int) -> str:
    """Ids ascend with n."""
    return str(uuid.UUID(int=(0x1EF << 116) + (n << 32)))


def value(data: object) -> Value:
    return Value("msgpack", msgpack.packb(data))


def numbered(n: int, parent: int | None = None, **channels: object) -> Checkpoint:
    """The n-th of a line: a channel `list` that grows, and what else is given."""
    before = n - 1 if parent is None else parent
    return Checkpoint(
        Header(id_of(n), id_of(before) if before >= 0 else None, 2, "", {"list": n + 1}),
        {"list": value([f"item {m}" for m in range(n)]), **{name: value(data) for name, data in channels.items()}},
        {"step": n},
    )


def write(n: int, task: str = "task", idx: int = 0) -> Write:
    return Write(task, idx, "list", value([f"write {n}"]))


def numbers(engine: Engine, thread: str = "t", namespace: str = "") -> list[int]:
    """The steps of a stream's checkpoints, greatest id first, each compared with what `numbered` put."""
    found = []
    for entry in engine.history(thread, namespace):
        n = entry.folded.labels["step"]
        assert isinstance(n, int)
        assert entry.folded.header.id == id_of(n)
        assert entry.value("list") == numbered(n).channels["list"]
        found.append(n)
    return found
