"""Appending to the log of one stream.

The other half of what keeps an acknowledged event from being lost (see `log`): a writer appends only inside the window
after `sealed`; it trusts its knowledge for a tenth of the grace, and checks its age again after the answer.
"""

from __future__ import annotations

import random
import time

from foldpoint.codecs.envelope import EVENT, context_from, deflate, event_content, stored_check
from foldpoint.codecs.event import FILLER_PAYLOAD, Event, check_of, unpack_event
from foldpoint.codecs.wire import MAX_EVENT
from foldpoint.engine import keys
from foldpoint.engine.group import Append
from foldpoint.engine.log import ATTEMPTS, Log
from foldpoint.engine.view import View
from foldpoint.errors import Conflict, CorruptRecord

_NUMBERS = 1024
"""That others may take before a writer gives up. Each is one of their puts done: in a crowd, 64 in a row do happen."""
_AT_ONCE = 128
"""Events by one write: whoever made more of them together would keep the others waiting for long."""
_GIVE_WAY = 0.05  # seconds
_SUSPICIOUS = 1.0
"""Seconds; a put that took longer may have outlived a crash of the store."""
_SMALL = 128
"""Bytes. To compress an event below that would take a tenth of a put, and save some 40 bytes until it is sealed."""


def append(log: Log, one: Append) -> None:
    """Append an event, with those of other threads where one write can store them all; it is done then.

    One round trip where the view is fresh, two for a new stream.
    """
    if log.io.atomic and len(waiting := log.group.waiting()) > 1:
        _append_together(log, waiting)
    if not one.done:
        _append_alone(log, one)


def _append_together(log: Log, waiting: list[Append]) -> None:
    """As many as there is room for, in the window and in one write. The others are to be appended alone."""
    view = log.view
    if view is None or not log.is_fresh(view) or view.head.deleted or view.next not in view.head.slots:
        return
    log.view = None  # it holds from here on what may not come to be stored
    try:
        events, records = _records(log, view, waiting[:_AT_ONCE])
    except Exception:  # noqa: BLE001 - each has its own error where it is appended alone
        return
    if not log.io.create_all(records, view.head.record_ttl):
        return
    log.metrics.add(bytes_logged=sum(len(record) for _, record in records))
    fresh = log.is_fresh(view)
    log.view = view if fresh else None
    for one, event in zip(waiting, events, strict=False):
        found = view if fresh else _recheck(log, view, event.seq, event.payload)
        if found is not None:
            one.settle(found, event)


def _records(log: Log, view: View, waiting: list[Append]) -> tuple[list[Event], list[tuple[bytes, bytes]]]:
    """Events for those that the window has room for, and their records. The view holds them then."""
    events, records = [], []
    for one, seq in zip(waiting, range(view.next, view.head.slots.stop), strict=False):
        event, check = _encoded(log, one, view, seq)
        view.slice.add(event, check)
        view.last = seq
        records.append(_record(log, view, event, check))
        one.keep(view.slice, event)
        events.append(event)
    return events, records


def _append_alone(log: Log, one: Append) -> None:
    began = log.clock.monotonic()
    for _ in range(_NUMBERS):
        view = _begin(log, one.existing, one.ttl)
        seq = view.next
        if seq not in view.head.slots:
            _give_way(log, view)
            log.seal(until_room=True)
            continue
        try:
            event, check = _encoded(log, one, view, seq)
        except CorruptRecord as error:
            # What it is based on may have been moved with its epoch.
            log.recover(error)
            log.view = None
            continue
        if not _create(log, view, event, check):
            continue
        if not log.is_fresh(view):
            late = _recheck(log, view, seq, event.payload)
            if late is None:
                continue
            view = late
        if seq > view.last:
            view.slice.add(event, check)
            view.last = seq
        if log.clock.monotonic() - began > _SUSPICIOUS:
            log.recovery.put_again(view.head)
        if seq in view.slice.events:
            one.keep(view.slice, event)
        one.settle(view, event)
        return
    raise Conflict(f"thread {log.thread_id!r}: {_NUMBERS} sequence numbers were taken by others; call again")


def _encoded(log: Log, one: Append, view: View, seq: int) -> tuple[Event, bytes]:
    """The event, and its check."""
    payload = one.encode(seq, view.slice)
    if len(payload) > MAX_EVENT:
        raise ValueError(
            f"thread {log.thread_id!r}: {len(payload):,} bytes to be stored at once, at most "
            f"{MAX_EVENT:,} can be read again; keep what is that large outside the state"
        )
    event = unpack_event(seq, payload)
    return event, check_of(event, view.slice.check)


def _begin(log: Log, existing: bool, ttl: int | None) -> View:
    """A view of a live stream that may be acted upon; where there is no stream it is created."""
    view = log.view
    if view is None and not existing:
        view = log.create_stream(ttl)
    while view is None or not log.is_fresh(view) or view.head.deleted:
        view = log.trusted()
        if view is not None and not view.head.deleted:
            return view
        view = log.create_stream(ttl, view)
    return view


def _create(log: Log, view: View, event: Event, check: bytes) -> bool:
    """Whether the event stands at its number then."""
    key, record = _record(log, view, event, check)
    if log.io.create(key, record, view.head.record_ttl):
        log.metrics.add(bytes_logged=len(record))
        return True
    own = _is_own(log, view, event.seq, event.payload)
    if own:
        log.io.remember(key, view.head.record_ttl)
    return own


def _record(log: Log, view: View, event: Event, check: bytes) -> tuple[bytes, bytes]:
    """What is stored of an event: key and value."""
    key = keys.event(view.head.epoch, event.seq)
    return key, log.io.seal(key, EVENT, *_packed(log, view, event, check))


def _packed(log: Log, view: View, event: Event, check: bytes) -> tuple[int, bytes]:
    """(codec, content). It names at least the event right before it: should the store lose that, it is missed."""
    small = len(event.payload) < _SMALL
    preceding = view.preceding(event.seq, 1) if small else view.preceding(event.seq)
    context = context_from(reversed(preceding.values()))
    level = log.settings.compression_level
    codec, body = (0, event.payload) if small else deflate(event.payload, level, context)
    return codec, event_content(len(preceding), stored_check(check, context), body)


def _is_own(log: Log, view: View, seq: int, payload: bytes) -> bool:
    """The number was taken: take in what stands there and around it. True if it is the very event to be put."""
    try:
        log.reader.add_slots(view.slice, view.head.slots)
    except CorruptRecord as error:
        # Sealed and emptied meanwhile, by another process.
        log.recover(error)
        return _recheck(log, view, seq, payload) is not None
    view.last = max(view.last, max(view.slice.events, default=0))
    taken = view.slice.events.get(seq)
    if taken is None or taken.payload == FILLER_PAYLOAD:
        # Sealed without us, or fenced: what this view says is out of date.
        log.view = None
    return taken is not None and taken.payload == payload


def _recheck(log: Log, view: View, seq: int, payload: bytes) -> View | None:
    """A fresh view if the event is in the log under its number.

    None if that was sealed and emptied before the event arrived, if another event is there, or the epoch was left.
    """
    for _ in range(ATTEMPTS):
        fresh = log.load()
        if fresh is None or fresh.head.epoch != view.head.epoch:
            return None
        if seq > fresh.head.sealed:
            taken = fresh.slice.events.get(seq)
            return fresh if taken is not None and taken.payload == payload else None
        try:
            return fresh if fresh.slice.payload(seq) == payload else None
        except CorruptRecord as error:
            log.recover(error)
    raise Conflict(f"thread {log.thread_id!r}: its head kept changing while it was read; call again")


def _give_way(log: Log, view: View) -> None:
    """If the window was fenced, wait a moment for whoever leaves the epoch to swap the head.

    Sealing at once is as safe, but writers that never rest would make every swap of a rewriter fail.
    """
    last, until = view.slice.events.get(view.head.slots[-1]), time.monotonic() + _GIVE_WAY
    fenced = last is not None and last.payload == FILLER_PAYLOAD
    while fenced and time.monotonic() < until and not log.has_moved(view.revision):
        time.sleep(random.uniform(_GIVE_WAY / 50, _GIVE_WAY / 10))
