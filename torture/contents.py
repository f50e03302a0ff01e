"""What the machine puts, how savers are given it, and what is read of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from foldpoint import Engine, FoldpointSaver
from foldpoint.codecs.model import Checkpoint, Header, Value, Write
from foldpoint.engine.fold import Entry
from torture.small import packed

Stream = tuple[str, str]
SERDE = JsonPlusSerializer()
TIME = "2026-01-01T00:00:00.000001+00:00"


@dataclass
class Known:
    """What a stream should hold."""

    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    writes: dict[str, dict[tuple[str, int], Write]] = field(default_factory=dict)

    def pending(self, checkpoint_id: str) -> list[Write]:
        found = self.writes.get(checkpoint_id, {}).values()
        return sorted(found, key=lambda write: (write.task_path, write.task_id, write.idx))

    def ids(self) -> list[str]:
        """Newest first."""
        return sorted(self.checkpoints, reverse=True)


def next_checkpoint(
    checkpoint_id: str, before: Checkpoint | None, change: str, word: str, run: str | None
) -> Checkpoint:
    channels: dict[str, Any] = dict(before.channels) if before else {}
    versions = dict(before.header.channel_versions) if before else {}
    items = msgpack.unpackb(channels["list"].data) if "list" in channels else []
    step = len(versions) and max(version for version in versions.values() if isinstance(version, int))
    if change == "append":
        channels["list"] = packed([*items, [word, step]])
    elif change == "edit":
        channels["list"] = packed([*items[: len(items) // 2], [word, "edited"], *items[len(items) // 2 + 1 :]])
    elif change == "slide":
        channels["list"] = packed([*items[2:], [word, step]])
    elif change == "remove":
        channels.pop("list", None)
    elif change == "type":
        channels["raw"] = Value("bytes", word.encode())
    elif change == "big":
        channels["big"] = packed([items, [word] * 40, items])
    elif change == "noise":
        channels["noise"] = Value("bytes", noise(word, step))
    elif change == "cut" and "noise" in channels:
        half = len(channels["noise"].data) // 2
        channels["noise"] = Value("bytes", channels["noise"].data[half // 2 :] + word.encode())
    elif change == "copy":
        channels["copy"] = channels.get("noise", channels.get("big", packed(word)))
    versions |= {"list": step + 1, "raw": step + 1 if change == "type" else versions.get("raw", 0)}
    return Checkpoint(
        Header(
            checkpoint_id,
            before.header.id if before else None,
            2,
            TIME,
            versions,
            {"node": {"list": step}} if change != "nothing" else {},
            ["list"] if change == "append" else None,
        ),
        channels,
        {"step": step, "source": "loop", "flag": bool(step % 2), **({"run_id": run} if run else {})},
        packed({"writes": [word]}) if change == "edit" else None,
    )


def noise(word: str, step: int) -> bytes:
    """100 to 30,000 bytes that no compression makes smaller, the same ones now and then."""
    return random.Random(f"{word} {step // 4}").randbytes(100 * (len(word) + 1))


def config(stream: Stream, checkpoint_id: str | None = None) -> Any:
    named = {"checkpoint_id": checkpoint_id} if checkpoint_id else {}
    return {"configurable": {"thread_id": stream[0], "checkpoint_ns": stream[1], **named}}


def values_of(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: SERDE.loads_typed((value.type, bytes(value.data))) for name, value in checkpoint.channels.items()}


def metadata_of(checkpoint: Checkpoint) -> dict[str, Any]:
    return {**checkpoint.labels, **(SERDE.loads_typed(checkpoint.metadata) if checkpoint.metadata else {})}


def put_by_saver(engine: Engine, stream: Stream, checkpoint: Checkpoint) -> None:
    """As LangGraph puts it: as objects."""
    header = checkpoint.header
    given: Any = {
        "v": header.v,
        "id": header.id,
        "ts": header.ts,
        "channel_values": values_of(checkpoint),
        "channel_versions": header.channel_versions,
        "versions_seen": header.versions_seen,
        "updated_channels": header.updated_channels,
    }
    metadata: Any = metadata_of(checkpoint)
    FoldpointSaver(engine).put(config(stream, header.parent), given, metadata, header.channel_versions)


def content_of(checkpoint: Checkpoint) -> tuple[str, str, object, object]:
    # repr tells 1 from True and 1.0
    return repr(checkpoint.header), repr(checkpoint.labels), checkpoint.metadata, checkpoint.channels


def content(entry: Entry) -> tuple[str, str, object, object]:
    folded = entry.folded
    return repr(folded.header), repr(folded.labels), folded.metadata, entry.state()


def check(entry: Entry | None, known: Known, checkpoint_id: str) -> None:
    assert entry is not None
    assert content(entry) == content_of(known.checkpoints[checkpoint_id])
    assert entry.writes() == known.pending(checkpoint_id)
