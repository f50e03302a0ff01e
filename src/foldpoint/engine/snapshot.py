"""What a snapshot holds: self-contained events that stand for everything up to a sequence number."""

from __future__ import annotations

from foldpoint.codecs.event import Base, encode_checkpoint, encode_writes
from foldpoint.codecs.model import Checkpoint
from foldpoint.codecs.segment import Told
from foldpoint.engine.fold import Slice


def snapshot_events(slice_: Slice, covers: int) -> list[Told]:
    """The latest checkpoint up to `covers`, its writes, and writes above it that still wait for their checkpoint.

    Each keeps its sequence number, so that later events can go on naming it. Ascending.
    """
    whole = slice_.until(covers)
    events: list[tuple[int, bytes]] = []
    base = None
    latest = whole.latest()
    if latest is not None:
        folded = latest.folded
        checkpoint = Checkpoint(folded.header, latest.state(), folded.labels, folded.metadata, folded.carried)
        events.append((folded.seq, encode_checkpoint(folded.seq, checkpoint, None)))
        base = whole.base(folded.seq)
        events += _writes_events(whole, folded.header.id, base)
    for checkpoint_id in whole.orphans():
        events += _writes_events(whole, checkpoint_id, None)
    return [Told(seq, payload, whole.check(seq)) for seq, payload in sorted(events)]


def _writes_events(slice_: Slice, checkpoint_id: str, base: Base | None) -> list[tuple[int, bytes]]:
    events: list[tuple[int, bytes]] = []
    logged = slice_.writes_events(checkpoint_id)
    for at, (seq, writes) in enumerate(logged):
        known = None
        if base is not None and seq > base.folded.seq:
            earlier = logged[:at]
            known = Base(base.folded, base.state, lambda earlier=earlier: earlier)  # type: ignore[misc]
        events.append((seq, encode_writes(seq, checkpoint_id, writes, known)))
    return events
