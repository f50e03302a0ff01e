"""Removing records that no head leads to.

They are left by rewriters and sealers that died before their swap, by writers that lost a race for a number when their
parts were stored already, by heads that expired, and by servers that bring removed records back when they start cold.

What goes wrong when a sweep is careless: whoever is at work writes its records first and names them in the head later.
So nothing goes that was not found unreachable by two looks, the grace apart; what a look found is a record in the store
itself. Time alone would not stop one who is held up for longer still, and can name its records any moment:

* A rewriter announces its new epoch in the head before it writes there. An epoch that no head names has no future.
* Before a stray snapshot is removed the head moves past its number, so that the swap that would name it fails.
* Before parts without a stub are removed, every number that their event may take is filled and sealed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from foldpoint.codecs.envelope import LOOK, deflate, open_record, seal
from foldpoint.codecs.head import Extent, Head
from foldpoint.codecs.wire import Malformed, pack, unpack
from foldpoint.engine import keys
from foldpoint.engine.engine import Engine
from foldpoint.engine.inventory import epoch_keys
from foldpoint.engine.reading import read_head
from foldpoint.errors import Conflict, RecordError, StoreBusy

logger = logging.getLogger("foldpoint")

_BATCH = 512
_SUSPECT_BYTES = 48
"""What one suspect takes in the record of a look, at most."""
_SNAPSHOT_BYTES, _TOKEN_BYTES = keys.EPOCH_BYTES + 5, keys.EPOCH_BYTES + 9
"""Of the prefixes that all records of one snapshot, or all parts of one large record, share."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did.

    records: log records in the store. removed: of these (in a dry run: would be). waiting: epochs, snapshots and large
    records that are unreachable, and go when a sweep finds them so again after the grace.
    """

    records: int
    removed: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one sweep found: prefixes of keys that nothing leads to, and since when (seconds since 1970) that is known.

    settled: the store's token at the time. When that changes, what was found before tells nothing.
    """

    at: float
    settled: bytes
    since: dict[bytes, float]


def sweep(engine: Engine, *, dry_run: bool = False, tick: Callable[[], object] = lambda: None) -> SweepReport:
    """Remove what has been unreachable for the grace, beside everybody who uses the store.

    Calls `tick` for each record. Raises StoreBusy when data begins to move between servers: what is left is removed
    next time.
    """
    return _Sweep(engine, dry_run, tick).run()


class _Sweep:
    def __init__(self, engine: Engine, dry_run: bool, tick: Callable[[], object]) -> None:
        self._engine = engine
        self._store = engine.store
        self._dry_run = dry_run
        self._tick = tick
        self._settled = self._store.settled()
        self._looks: list[bytes] = []
        self._suspects: set[bytes] = set()
        self._holders: dict[bytes, Head] = {}
        self._records = 0
        self._removed = 0

    def run(self) -> SweepReport:
        self._remove(self._examine())
        suspects = self._confirm()
        known, now = self._last_look(), self._engine.clock.now()
        since = {prefix: known.get(prefix, now) for prefix in suspects}
        over = {prefix for prefix in suspects if now - since[prefix] >= self._engine.settings.grace}
        if not self._dry_run:
            over = self._fence(over)
        if over:
            stored = self._store.keys()
            self._remove(key for key in stored if not over.isdisjoint(_prefixes(key)))
        waiting = {prefix: first for prefix, first in since.items() if prefix not in over}
        if not self._dry_run:
            self._note(Look(now, self._settled, waiting))
            if self._removed:
                self._store.reclaim()
        return SweepReport(self._records, self._removed, len(waiting))

    # -- looking -------------------------------------------------------------------------------------------------------

    def _examine(self) -> Iterator[bytes]:
        """The keys of records that their head says are removed: they came back. Notes looks and suspects on the way."""
        reach = {head.epoch: (head.cleaned, head.snapshots) for head in self._engine.all_heads()}
        stored = self._store.keys()
        for key in stored:
            self._tick()
            self._records += 1
            epoch = keys.epoch_of(key)
            if epoch == keys.LOOKS:
                self._looks.append(key)
            elif epoch not in reach:
                self._suspects.add(epoch)
            else:
                cleaned, snapshots = reach[epoch]
                if _is_within(key, cleaned):
                    yield key
                elif _snapshot_number(key) > snapshots or keys.kind_of(key) == b"b":
                    self._suspects.add(_prefixes(key)[-1])

    def _confirm(self) -> set[bytes]:
        """Those of the suspects that the heads, as they are after all keys were read, do not lead to."""
        confirmed = {prefix for prefix in self._suspects if len(prefix) == keys.EPOCH_BYTES}
        inside: dict[bytes, set[bytes]] = {}
        for prefix in self._suspects - confirmed:
            inside.setdefault(keys.epoch_of(prefix), set()).add(prefix)
        for head in self._engine.all_heads():
            confirmed -= {head.epoch, *(dead.epoch for dead in head.dead)}
            if found := self._unreachable(head, inside.get(head.epoch, set())):
                self._holders[head.epoch] = head
                confirmed |= found
        return confirmed

    def _unreachable(self, head: Head, suspects: set[bytes]) -> set[bytes]:
        """Those of the suspects in the head's epoch that it does not lead to."""
        strays = {prefix for prefix in suspects if _snapshot_number(prefix) > head.snapshots}
        parts = {prefix for prefix in suspects if keys.kind_of(prefix) == b"b"}
        return strays | (parts - self._parts_in_use(head) if parts else set())

    def _parts_in_use(self, head: Head) -> set[bytes]:
        """The prefixes of the parts that a stub names, of all records that the head leads to or soon may."""
        extent = replace(
            head.extent, sealed=head.slots[-1], segments=tuple(count + 1 for count in head.extent.segments)
        )
        batches = epoch_keys(self._engine.io, head.epoch, head.cleaned, extent)
        return {_prefixes(key)[-1] for batch in batches for key in batch if keys.kind_of(key) == b"b"}

    # -- fencing -------------------------------------------------------------------------------------------------------

    def _fence(self, over: set[bytes]) -> set[bytes]:
        """Those of `over` that nobody, however long held up, can make reachable any more."""
        safe = {prefix for prefix in over if len(prefix) == keys.EPOCH_BYTES}
        for epoch, head in self._holders.items():
            inside = {prefix for prefix in over - safe if keys.epoch_of(prefix) == epoch}
            parts = {prefix for prefix in inside if keys.kind_of(prefix) == b"b"}
            try:
                safe |= self._pass_over(head, inside - parts)
                safe |= self._seal_window(head, parts)
            except (Conflict, RecordError) as error:
                # Busy, damaged or sealed with a key that this engine lacks: nothing of it is removed.
                logger.warning("sweep passes over thread %r, namespace %r: %s", head.thread_id, head.namespace, error)
        return safe

    def _pass_over(self, held: Head, strays: set[bytes]) -> set[bytes]:
        """Move the head past the numbers of stray snapshots."""
        log = self._engine.reader(held.thread_id, held.namespace)
        record = self._store.get_head(log.key)
        if record is None or not strays:
            return set()
        head = read_head(record)
        beyond = {prefix for prefix in strays if _snapshot_number(prefix) > head.snapshots}
        if head.epoch != held.epoch or not beyond:
            return set()
        passed = replace(head, snapshots=max(map(_snapshot_number, beyond)))
        return beyond if log.swap(passed, record.revision) else set()

    def _seal_window(self, held: Head, parts: set[bytes]) -> set[bytes]:
        """Fill and seal every number that an event may still take."""
        log = self._engine.reader(held.thread_id, held.namespace)
        view = log.load() if parts else None
        if view is None or view.head.epoch != held.epoch:
            return set()
        last = view.head.slots[-1]
        log.fill(view, last)
        log.seal()
        view = log.load()
        if view is None or view.head.epoch != held.epoch or view.head.sealed < last:
            return set()
        return parts - self._parts_in_use(view.head)

    # -- what was seen when --------------------------------------------------------------------------------------------

    def _last_look(self) -> dict[bytes, float]:
        """Since when each prefix was unreachable at every look."""
        records = zip(self._looks, self._store.get_many(self._looks), strict=True)
        looks = [look for key, record in records if record is not None and (look := _read_look(key, record))]
        last = max(looks, key=lambda look: look.at, default=None)
        return last.since if last is not None and last.settled == self._settled else {}

    def _note(self, look: Look) -> None:
        """Store the look in place of all earlier ones. What does not fit begins anew next time."""
        if look.since:
            fitting = sorted(look.since.items(), key=lambda item: item[1])
            fitting = fitting[: self._store.capabilities.max_record // _SUSPECT_BYTES]
            key = keys.look(keys.new_token())
            codec, body = deflate(pack([look.at, look.settled, fitting]), self._engine.settings.segment_level)
            self._store.create([(key, seal(key, LOOK, codec, body))], ttl=None)
        self._store.remove_many(self._looks)

    def _remove(self, doomed: Iterator[bytes]) -> None:
        while batch := [*islice(doomed, _BATCH)]:
            if not self._dry_run:
                if self._store.settled() != self._settled:
                    raise StoreBusy("data moved between servers during the sweep; sweep again")
                self._store.remove_many(batch)
            self._removed += len(batch)


def _read_look(key: bytes, record: bytes) -> Look | None:
    """None if it is damaged: then nothing is known to be unreachable yet."""
    try:
        at, settled, since = unpack(open_record(key, record, kinds=(LOOK,)).inflate())
        return Look(at, settled, dict(since))
    except (Malformed, TypeError, ValueError) as error:
        logger.warning("sweep begins anew: record %s: %s", key.hex(), error)
        return None


def _prefixes(key: bytes) -> tuple[bytes, ...]:
    """What it is removed with: its epoch, and what all records of its snapshot, or all parts of its record, share."""
    epoch = keys.epoch_of(key)
    if keys.is_snapshot(key):
        return epoch, key[:_SNAPSHOT_BYTES]
    return (epoch, key[:_TOKEN_BYTES]) if keys.kind_of(key) == b"b" else (epoch,)


def _snapshot_number(key: bytes) -> int:
    """0 if it is no snapshot's."""
    number = key[keys.EPOCH_BYTES + 1 : _SNAPSHOT_BYTES]
    return int.from_bytes(number, "big") if keys.is_snapshot(key) else 0


def _is_within(key: bytes, removed: Extent) -> bool:
    """Whether it is one of the superseded records of an extent."""
    kind, rest = keys.kind_of(key), key[keys.EPOCH_BYTES + 1 :]
    if kind == b"e":
        return int.from_bytes(rest, "big") <= removed.sealed
    if kind == b"p":
        return _snapshot_number(key) <= removed.snapshots
    if kind in (b"s", b"i") and 1 <= rest[0] <= len(removed.segments):
        return int.from_bytes(rest[1:], "big") < removed.segments[rest[0] - 1]
    return False
