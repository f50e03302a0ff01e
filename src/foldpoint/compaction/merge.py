"""Merging segments upward: the same events in fewer, larger, better compressed records.

What was merged stays until the grace is over. A merged segment is created once, like any record: of two compactors the
second adopts what the first wrote, whatever it would have merged itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from foldpoint.codecs.envelope import SEGMENT, SPAN, deflate
from foldpoint.codecs.head import LEVELS, Head, Level
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.segment import Segment, encode_segment, encode_span, join
from foldpoint.engine import keys
from foldpoint.engine.io import LOST_PARTS
from foldpoint.engine.log import Log
from foldpoint.errors import CorruptRecord, StrayRecord

FANOUT = 16
"""So many segments are merged into one of the next level while a thread is in use."""
HEAVY, FEWER = 128 * 1024, 4
"""Of level 1 fewer are enough where they weigh that many stored bytes: merging halves them where steps are alike."""
WORTHWHILE = 32 * 1024
"""Stored bytes; an idle thread's segments are merged into the last level from this size on, however few they are."""
MAX_EVENTS = 4096
MAX_BYTES = 4 << 20
"""A merged segment is closed when its events, uncompressed, reach either: reading one of them reads it whole."""
_AT_ONCE = 8
_OTHER = "tells of other events than were to be merged: the store has lost what it was made of"
_COMPRESSION = {2: 15, 3: 19}


@dataclass(frozen=True, slots=True)
class Merge:
    """Segments first..end - 1 of the level below become one of `level`, or as many of them as one may hold."""

    level: int
    first: int
    end: int


def next_merge(head: Head, *, idle: bool = False) -> Merge | None:
    """The merge that is due, lowest level first. Pure. `idle`: few segments are enough, as no more may come.

    What latest is read from is left alone: the segments since the snapshot, and the one before it.
    """
    if head.deleted or head.snapshot is None:
        return None
    counts = [head.snapshot.segments - 1, *(level.count for level in head.merged)]
    for level in range(2, LEVELS + 1):
        first, end = head.merged[level - 2].reach, counts[level - 2]
        count, size = end - first, _live_bytes(head, level - 1)
        few = idle and count > 1 and (level < LEVELS or size >= WORTHWHILE)
        heavy = level == 2 and count >= FEWER and size >= HEAVY
        if few or heavy or count >= FANOUT:
            return Merge(level, first, end)
    return None


def _live_bytes(head: Head, level: int) -> int:
    """Of the segments of a level that are not merged; of level 1, but for those since the snapshot."""
    size = head.segment_bytes - head.logged if level == 1 else head.merged[level - 2].size
    return size - head.merged[level - 1].replaced


def merge(log: Log, *, idle: bool = False) -> int:
    """Do every merge that is due, safely beside writers and other compactors; how many were done."""
    done = 0
    while (view := log.current()) is not None and (step := next_merge(view.head, idle=idle)) is not None:
        try:
            head = _merge(log, view.head, step)
        except CorruptRecord as error:
            # Another compactor may have merged the same segments, and removed them.
            log.recover(error)
            continue
        if revision := log.swap_read(view, head):
            log.view = replace(view, head=head, revision=revision)
            done += 1
    return done


def _merge(log: Log, head: Head, step: Merge) -> Head:
    """Write the merged segment: the head that makes it count."""
    at = step.level - 2
    level = head.merged[at]
    key = keys.segment(head.epoch, level.count, step.level)
    record = _written(log, head, key, SEGMENT, lambda: encode_segment(join(_inputs(log, head, step))))
    segment = log.reader.segment(key, record)
    count = segment.span.inputs
    if not 0 < count <= step.end - step.first:
        raise StrayRecord(key, _OTHER)
    inputs = [keys.segment(head.epoch, step.first + index, step.level - 1) for index in range(count)]
    records = log.io.read(inputs)
    if segment != join([log.reader.segment(*one) for one in zip(inputs, records, strict=True)]):
        raise StrayRecord(key, _OTHER)
    span_key, span = keys.span(head.epoch, level.count, step.level), encode_span(segment.span)
    if log.io.inflate(span_key, _written(log, head, span_key, SPAN, lambda: span), SPAN) != span:
        raise StrayRecord(span_key, _OTHER)
    level = Level(
        count=level.count + 1,
        reach=level.reach + count,
        size=level.size + len(record),
        replaced=level.replaced + sum(len(one or b"") for one in records),
    )
    return replace(head, merged=(*head.merged[:at], level, *head.merged[at + 1 :]))


def _inputs(log: Log, head: Head, step: Merge) -> list[Segment]:
    """Consecutive segments, at least one, as many as fit."""
    inputs: list[Segment] = []
    events = size = 0
    for first in range(step.first, step.end, _AT_ONCE):
        indexes = range(first, min(first + _AT_ONCE, step.end))
        wanted = [keys.segment(head.epoch, index, step.level - 1) for index in indexes]
        for key, record in zip(wanted, log.io.read(wanted), strict=True):
            segment = log.reader.segment(key, record)
            events += len(segment.events)
            size += sum(len(payload) for _, payload in segment.events)
            if inputs and (events > MAX_EVENTS or size > MAX_BYTES):
                return inputs
            inputs.append(segment)
    return inputs


def _written(log: Log, head: Head, key: bytes, kind: int, content: Callable[[], bytes | Rope]) -> bytes:
    """The record that stands under `key` then: what another try wrote there, which saves the work, or this one."""
    found = log.io.read([key], whole=False)[0]
    if found is None:
        codec, body = deflate(content(), _COMPRESSION[key[keys.EPOCH_BYTES + 1]])
        record = log.io.seal(key, kind, codec, body)
        if log.io.create(key, record, head.record_ttl):
            return record
        found = log.io.read([key], whole=False)[0]
    if found is None:
        raise StrayRecord(key, LOST_PARTS)
    if head.record_ttl is not None:
        # It may have been written long ago: no extension since has known of it.
        log.io.store.extend([key, *log.io.parts_of([key])], ttl=head.record_ttl)
    return found
