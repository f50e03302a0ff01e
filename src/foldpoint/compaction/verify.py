"""Checking every invariant of docs/DESIGN.md that stored records can show, and mending what can be told exactly.

Nothing is guessed: a span is written again from its segment, a segment from its events or from those that were merged,
a snapshot from the log that it stands for. What cannot be told from something else stays as it is and is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from foldpoint.codecs.envelope import EVENT, SEGMENT
from foldpoint.codecs.head import Head
from foldpoint.codecs.model import Value, Write
from foldpoint.codecs.segment import SnapshotRef, Span
from foldpoint.compaction.quarantine import Quarantined, quarantine
from foldpoint.engine import keys
from foldpoint.engine.engine import Engine
from foldpoint.engine.fold import Slice
from foldpoint.engine.inventory import event_keys
from foldpoint.engine.layout import Layout
from foldpoint.engine.log import Log
from foldpoint.engine.reading import read_head
from foldpoint.engine.records import HeadRecord, RecordStore
from foldpoint.engine.repair import restore
from foldpoint.engine.sealing import span_of
from foldpoint.errors import (
    Conflict,
    CorruptRecord,
    LostRecord,
    MisfitRecord,
    RecordError,
    SealedRecord,
    UnsupportedFormat,
)

_ATTEMPTS = 16
_MOST_FINDINGS = 1000
"""Of one stream's segments: a head may claim any number of them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    invariant: its number in docs/DESIGN.md. key: of the record, in hex. repaired: it is as it should be now.
    quarantined: the stream goes on without it. sealed: the record is whole, and another key opens it.
    """

    thread_id: str
    namespace: str
    invariant: int
    key: str
    problem: str
    repaired: bool = False
    quarantined: bool = False
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """What the check of one stream looked at, and what it found. quarantine: what came of that, where it was due."""

    thread_id: str
    namespace: str
    segments: int
    checkpoints: int
    findings: tuple[Finding, ...]
    quarantine: Quarantined | None = None

    @property
    def sound(self) -> bool:
        return all(finding.repaired or finding.quarantined for finding in self.findings)


def verify(
    engine: Engine, thread_id: str | None = None, *, repair: bool = False, into: RecordStore | None = None
) -> Iterator[Verified]:
    """Check each stream of a thread, or of all. Safe beside writers: a stream that moved meanwhile is looked at again.

    into: the quarantine, another store, for streams that cannot be repaired. Of a head that cannot be read nothing else
    tells what it said, nor, but of a thread's root, the namespace.
    """
    unread: list[Verified] = []
    for head in engine.heads(thread_id, unread=lambda whose, error: unread.append(_headless(whose, error))):
        yield verify_stream(engine, head.thread_id, head.namespace, repair=repair, into=into)
    yield from unread


def _headless(thread_id: str, error: RecordError) -> Verified:
    namespace = "" if error.key == keys.head(thread_id, "") else "?"
    return Verified(thread_id, namespace, 0, 0, (Finding(thread_id, namespace, 13, error.key.hex(), error.reason),))


def verify_stream(
    engine: Engine, thread_id: str, namespace: str, *, repair: bool = False, into: RecordStore | None = None
) -> Verified:
    """As `verify`, one stream. Raises Conflict if it was moved all the time."""
    verified = _verified(engine, thread_id, namespace, repair)
    if into is None or verified.sound:
        return verified
    done = quarantine(engine.reader(thread_id, namespace), into)
    if done.refused:
        return replace(verified, quarantine=done)
    with engine.log(thread_id, namespace) as shared:
        shared.join(None)  # writers of this process need not run into the fence
    after = _verified(engine, thread_id, namespace, repair)
    left = tuple(replace(finding, quarantined=not finding.repaired) for finding in verified.findings)
    return replace(after, findings=(*left, *after.findings), quarantine=done)


def _verified(engine: Engine, thread_id: str, namespace: str, repair: bool) -> Verified:
    log = engine.reader(thread_id, namespace)
    repaired: list[Finding] = []
    attempts = 0
    while attempts < _ATTEMPTS:
        record = engine.store.get_head(log.key)
        if record is None or (head := read_head(record)).deleted:
            return Verified(thread_id, namespace, 0, 0, ())
        check = _Check(log, record, head, repair)
        check.run()
        mended = [finding for finding in check.findings if finding.repaired]
        if {finding.key for finding in mended} - {finding.key for finding in repaired}:
            repaired += mended
            continue
        if mended:  # for the second time: what is written there does not read
            check.findings = [replace(finding, repaired=False) for finding in check.findings]
        now = engine.store.get_head(log.key)
        if not check.findings or (now is not None and now.revision == record.revision):
            findings = (*repaired, *check.findings)
            return Verified(thread_id, namespace, len(check.spans), len(check.checkpoints), findings)
        attempts += 1
    raise Conflict(f"thread {thread_id!r}: its log was moved all the time while it was checked; call again")


class _Check:
    """One look at one stream, which stops at the first kind of record of which it has mended some."""

    def __init__(self, log: Log, record: HeadRecord, head: Head, repair: bool) -> None:
        self._log = log
        self._revision = record.revision
        self._io = log.io
        self._reader = log.reader
        self._head = head
        self._repair = repair
        self._layout = Layout.of(head)
        self.findings: list[Finding] = []
        self.checkpoints: set[str] = set()
        self.spans: list[Span] = []
        """Newest first."""
        self._named: dict[Span, set[str]] = {}
        """The ids that segments were found to be about, of those that reach into the next older slice."""

    def run(self) -> None:
        self._positions()
        self._segments()
        if not self.findings:
            self._slices()
            self._tail()
            self._in_grace()

    def _note(self, invariant: int, key: bytes, problem: str, repaired: bool = False, sealed: bool = False) -> None:
        head = self._head
        finding = Finding(head.thread_id, head.namespace, invariant, key.hex(), problem, repaired, sealed=sealed)
        if finding not in self.findings:
            self.findings.append(finding)

    def _unread(self, error: RecordError, key: bytes, invariant: int = 13) -> None:
        """Note what could not be read of the record under `key`, and write that again if it can be told."""
        repaired = self._repair and not isinstance(error, UnsupportedFormat) and self._restored(key)
        self._note(invariant, error.key, error.reason, repaired, isinstance(error, SealedRecord))

    def _restored(self, key: bytes) -> bool:
        now = self._io.store.get_head(self._log.key)
        if now is None or now.revision != self._revision:
            return False  # what is missing was removed since, as nothing needs it: all is looked at again
        try:
            return restore(self._reader, self._head, key, replace=True)
        except RecordError as deeper:
            if deeper.key != key:
                self._unread(deeper, deeper.key)  # then it is this one's turn when all is looked at again
            return False

    def _positions(self) -> None:
        """The head's own numbers agree with one another."""
        head, ref = self._head, self._head.snapshot
        counts = [head.segments, *(level.count for level in head.merged)]
        wrong = {
            "more segments are merged than there are": any(
                level.reach > count for level, count in zip(head.merged, counts, strict=False)
            ),
            "its snapshot stands for more than is sealed": ref is not None and ref.covers > head.sealed,
            "the number of its snapshot was never taken": ref is not None and ref.number > head.snapshots,
            "more is removed than was superseded": head.cleaned.sealed > head.mark.sealed,
            "more is superseded than is sealed": max(head.mark.sealed, head.emptied) > head.sealed,
        }
        for problem in (problem for problem, is_so in wrong.items() if is_so):
            self._note(2, self._log.key, problem)

    def _segments(self) -> None:
        """Every segment is there, follows the one before it, and is described by the span beside it."""
        for position in reversed(range(len(self._layout))):
            try:
                [segment] = self._reader.segments(self._layout, [position])
            except RecordError as error:
                self._unread(error, self._layout.key(position))
                if len(self.findings) == _MOST_FINDINGS:
                    return
                continue
            self.spans.append(segment.span)
            self._span_record(position, segment.span)
        if len(self.spans) < len(self._layout) or not self.spans:
            return
        ends = [Span(self._head.sealed + 1, 0), *self.spans, Span(0, 0)]
        for below, (newer, older) in enumerate(pairwise(ends), start=1):
            if newer.first != older.last + 1:
                problem = f"number {newer.first} is sealed, and what goes before ends at {older.last}"
                key = self._layout.key(max(0, len(self._layout) - below))
                self._unread(CorruptRecord(key, problem), key, invariant=3)

    def _span_record(self, position: int, span: Span) -> None:
        key = self._layout.span_key(position)
        if key == self._layout.key(position):
            return
        try:
            if self._reader.span(self._layout, position) != span:
                self._unread(CorruptRecord(key, "says something else than its segment"), key, invariant=12)
        except RecordError as error:
            self._unread(error, key, invariant=12)

    def _slices(self) -> None:
        """The sealed log folds, from the newest slice to the oldest, and its snapshots say what it says."""
        head = self._head
        snapshots = [head.snapshot] if head.snapshot else []
        last = head.sealed
        while last > 0:
            try:
                slice_ = next(self._reader.before(self._layout, len(self._layout), last))
            except RecordError as error:
                self._unread(error, error.key)
                return
            self._fold(slice_)
            for ref in (ref for ref in snapshots if ref.covers > slice_.covers):
                self._compare(ref, slice_.until(ref.covers))
            snapshots = [ref for ref in snapshots if ref.covers <= slice_.covers]
            if start := self._start_of(last):
                snapshots.append(start)
            self._abouts(slice_, last)
            last = slice_.covers

    def _start_of(self, last: int) -> SnapshotRef | None:
        return next((span.start for span in self.spans if span.first <= last <= span.last), None)

    def _fold(self, slice_: Slice) -> None:
        """Every checkpoint has a header and a state, and the pending writes can be read."""
        for checkpoint_id, seq in slice_.checkpoints.items():
            try:
                slice_.folded(seq)
                slice_.state(seq)
                slice_.writes_events(checkpoint_id)
                self.checkpoints.add(checkpoint_id)
            except RecordError as error:
                self._note(13, error.key, error.reason)

    def _abouts(self, slice_: Slice, last: int) -> None:
        """Segments say rightly which ids they are about."""
        for span in self.spans:
            numbers = range(max(span.first, slice_.covers + 1), min(span.last, last) + 1)
            if numbers:
                ids = self._named.setdefault(span, set())
                ids |= {id_ for seq in numbers if (id_ := slice_.about(seq)) is not None}
            if numbers and numbers[0] == span.first:
                before = span_of(slice_, span.first, span.first, None).before
                late = tuple(sorted(id_ for id_ in self._named.pop(span) if id_ < before))
                if (before, late) != (span.before, span.late):
                    self._note(
                        12, self._log.key, f"the segment {span.first}..{span.last} is about other ids than it says"
                    )

    def _compare(self, ref: SnapshotRef, log: Slice) -> None:
        """A snapshot says what the log says that it stands for."""
        try:
            snapshot = self._reader.slice(self._layout, ref, [], 0, last=ref.covers)
            if _content(snapshot) != _content(log):
                self._note(11, keys.snapshot_parts(self._head.epoch, ref)[0], "says something else than the log")
        except RecordError as error:
            self._unread(error, error.key)

    def _tail(self) -> None:
        """What latest is read from can be read as readers do, and folds."""
        try:
            self._fold(self._reader.newest(self._head))
        except RecordError as error:
            self._note(13, error.key, error.reason)

    def _in_grace(self) -> None:
        """What is superseded and still there is undamaged: it is what a crash that loses something is mended from."""
        head = self._head
        for batch in event_keys(head.epoch, max(head.cleaned.sealed, head.emptied), head.sealed):
            self._intact(batch, EVENT)
        for level, (first, end) in enumerate(
            zip(head.cleaned.segments, head.superseded.segments, strict=True), start=1
        ):
            self._intact([keys.segment(head.epoch, index, level) for index in range(first, end)], SEGMENT)

    def _intact(self, wanted: Sequence[bytes], kind: int) -> None:
        try:
            for key, record in zip(wanted, self._io.read(wanted), strict=True):
                if record:
                    self._io.open(key, record, kind)
        except RecordError as error:
            if len(wanted) > 1:
                for key in wanted:
                    self._intact([key], kind)
            elif isinstance(error, MisfitRecord) or not isinstance(error, LostRecord):
                self._note(13, error.key, error.reason)


def _content(slice_: Slice) -> tuple[object, dict[str, Value], list[list[Write]], list[object]]:
    """What a snapshot of the slice has to tell."""
    waiting: list[object] = [(id_, slice_.writes_events(id_)) for id_ in slice_.orphans()]
    latest = slice_.latest()
    if latest is None:
        return None, {}, [], waiting
    folded = latest.folded
    told = (folded.seq, folded.header, folded.labels, folded.metadata, folded.carried)
    return told, latest.state(), latest.logged_writes(), waiting
