"""What a snapshot holds: self-contained events that stand for everything up to a sequence number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from foldpoint.codecs.event import CHECKPOINT, Base, Event, encode_whole, encode_writes, unpack_event
from foldpoint.codecs.model import Checkpoint
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.segment import Snapshot, Told
from foldpoint.engine.fold import REFERRED_WRITES, Slice

LARGE = 1 << 14
"""Bytes; to open a snapshot once more takes longer than to keep less."""


def snapshot_of(slice_: Slice, covers: int) -> Snapshot:
    """The latest checkpoint up to `covers`, its writes, and writes above it that still wait for their checkpoint.

    Each keeps its sequence number, so that later events can go on naming it.
    """
    whole = slice_.until(covers)
    events: dict[int, bytes | Rope] = {}
    latest = whole.latest()
    if latest is not None:
        folded = latest.folded
        checkpoint = Checkpoint(folded.header, whole.state(folded.seq), folded.labels, folded.metadata, folded.carried)
        events[folded.seq] = encode_whole(folded.seq, checkpoint)
        events |= _writes_events(whole, folded.header.id, whole.base(folded.seq))
    for checkpoint_id in whole.orphans():
        events |= _writes_events(whole, checkpoint_id, None)
    return Snapshot(covers, tuple(Told(seq, events[seq], whole.check(seq)) for seq in sorted(events)))


def events_of(
    snapshot: Snapshot, again: Callable[[], Snapshot], known: Slice | None = None
) -> Iterator[tuple[Event, bytes]]:
    """The events that a slice begins with, and their checks. Raises Malformed.

    The payload of a large checkpoint is not kept beside what it folds to: `again` gives the snapshot once more.
    known: a slice that knows what it folds to, so that it need not be unpacked.
    """
    for seq, payload, check in snapshot.events:
        large = len(payload) >= LARGE
        source = partial(_payload_of, again, seq)
        if large and known is not None and seq in known.checkpoints.values():
            yield Event(seq, CHECKPOINT, None, known.about(seq), source), check
            continue
        event = unpack_event(seq, bytes(payload))
        # Of writes there may be many, and to open the snapshot for each of them takes long.
        yield (replace(event, source=source) if large and event.kind == CHECKPOINT else event), check


def _payload_of(again: Callable[[], Snapshot], seq: int) -> bytes:
    return next(bytes(one.payload) for one in again().events if one.seq == seq)


def _writes_events(slice_: Slice, checkpoint_id: str, base: Base | None) -> dict[int, bytes]:
    events: dict[int, bytes] = {}
    logged = slice_.writes_events(checkpoint_id)
    for at, (seq, writes) in enumerate(logged):
        known = None
        if base is not None and seq > base.folded.seq:
            earlier = logged[max(0, at - REFERRED_WRITES) : at]
            known = Base(base.folded, base.state, lambda earlier=earlier: earlier)  # type: ignore[misc]
        events[seq] = encode_writes(seq, checkpoint_id, writes, known)
    return events
