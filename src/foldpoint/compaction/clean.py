"""Removing what is superseded: sealed events, earlier snapshots, merged segments, left epochs.

Removal waits for the grace: a sealed event may be needed again if the store loses the segment in a crash, and an
emptied slot looks free to a writer whose knowledge is old. Writers trust theirs for a tenth of the grace.

On a store whose crashes keep the order of writes only the second reason holds, and only for slots. There everything
goes at once but the keys of events, which are emptied and stay taken until the grace is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from foldpoint.codecs.head import DeadEpoch, Extent, Head
from foldpoint.engine.inventory import (
    epoch_keys,
    event_keys,
    read_holders,
    spent_starts,
    superseded_keys,
    superseded_spans,
)
from foldpoint.engine.log import Log
from foldpoint.errors import CorruptRecord


def clean(log: Log, grace: float) -> int:
    """Remove what may go by now; how many records. `grace` in seconds."""
    removed = 0
    while (view := log.current()) is not None:
        head = view.head
        try:
            if log.io.store.capabilities.ordered:
                head, count = _at_once(log, head)
                removed += count
            head, count = _after_grace(log, head, grace)
            removed += count
        except CorruptRecord as error:
            log.recover(error)
            continue
        if head == view.head:
            break
        if revision := log.swap_read(view, head):
            log.view = replace(view, head=head, revision=revision)
        if grace > 0:
            break
    return removed


def over_after(grace: float) -> float:
    """Seconds after which what was superseded goes: heads tell whole seconds, so it may have begun one later."""
    return grace + 1 if grace else 0


def _is_over(since: int, now: float, grace: float) -> bool:
    return now - since >= over_after(grace)


def is_clean(head: Head) -> bool:
    """Whether nothing is left that waits for the grace."""
    return not head.dead and head.superseded == head.cleaned


def _after_grace(log: Log, head: Head, grace: float) -> tuple[Head, int]:
    now, removed = log.clock.now(), 0
    over = [dead for dead in head.dead if _is_over(dead.since, now, grace)]
    for dead in over:
        removed += _remove(log, epoch_keys(log.io, dead.epoch, dead.cleaned, dead.extent))
    after = replace(head, dead=tuple(dead for dead in head.dead if dead not in over))
    if head.mark != head.cleaned and _is_over(head.marked_at, now, grace):
        removed += _remove_superseded(log, head, head.mark)
        after = replace(after, cleaned=head.mark)
    if after.mark == after.cleaned and head.superseded != after.mark:
        after = replace(after, mark=head.superseded, marked_at=int(now))
    return after, removed


def _at_once(log: Log, head: Head) -> tuple[Head, int]:
    """Remove all but events, and empty those."""
    removed, until = 0, head.superseded
    if until != replace(head.cleaned, sealed=head.emptied):
        removed += _remove_superseded(log, replace(head, cleaned=replace(head.cleaned, sealed=until.sealed)), until)
        _empty(log, head.epoch, head.emptied, until.sealed)
        cleaned, mark = (replace(until, sealed=one.sealed) for one in (head.cleaned, head.mark))
        head = replace(head, emptied=until.sealed, cleaned=cleaned, mark=mark)
    dead = []
    for one in head.dead:
        one, count = _dead_at_once(log, one)
        removed += count
        dead.append(one)
    return replace(head, dead=tuple(dead)), removed


def _dead_at_once(log: Log, dead: DeadEpoch) -> tuple[DeadEpoch, int]:
    without_events = replace(dead.extent, sealed=dead.cleaned.sealed)
    if dead.cleaned == without_events:
        return dead, 0
    removed = _remove(log, epoch_keys(log.io, dead.epoch, dead.cleaned, without_events))
    _empty(log, dead.epoch, dead.cleaned.sealed, dead.extent.sealed)
    return replace(dead, cleaned=without_events), removed


def _remove_superseded(log: Log, head: Head, until: Extent) -> int:
    superseded = superseded_spans(log.reader, head, until)
    if not log.io.store.capabilities.ordered:
        read_holders(log.reader, head, until, superseded)
    removed = _remove(log, spent_starts(log.reader, head, until, superseded))
    return removed + _remove(log, superseded_keys(log.io, head.epoch, head.cleaned, until))


def _empty(log: Log, epoch: bytes, after: int, until: int) -> None:
    for batch in event_keys(epoch, after, until):
        # The stubs first: one without its parts would be damage, parts without a stub are only garbage.
        parts = log.io.parts_of(batch)
        log.io.store.empty_many(batch)
        log.io.store.remove_many(parts)


def _remove(log: Log, batches: Iterable[list[bytes]]) -> int:
    removed = 0
    for batch in batches:
        log.io.store.remove_many(batch)
        removed += len(batch)
    return removed
