"""Reading back beyond the newest slice: one checkpoint by id, all of them newest first or oldest first, an ancestry.

An event about an old checkpoint (a write that came late, a checkpoint put again) may lie in a newer segment than the
checkpoint. Each segment says which such ids it has, so what is about one id is found without reading the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from foldpoint.codecs.model import Carried, Value, Write
from foldpoint.codecs.segment import Span
from foldpoint.engine import keys
from foldpoint.engine.fold import Entry, Slice, merge_writes
from foldpoint.engine.layout import Layout
from foldpoint.engine.reading import Reader
from foldpoint.engine.view import View
from foldpoint.errors import CorruptRecord

_SLICES_HELD = 4


@dataclass
class _Late:
    """What slices say of checkpoints before them."""

    checkpoints: dict[str, tuple[int, Slice]] = field(default_factory=dict)
    writes: dict[str, dict[int, Slice]] = field(default_factory=dict)

    def gather(self, slice_: Slice, below: str) -> None:
        """Take in what a slice says of ids below `below`. A number that lies in two slices counts once."""
        for checkpoint_id, seq in slice_.checkpoints.items():
            if checkpoint_id < below:
                known = self.checkpoints.setdefault(checkpoint_id, (seq, slice_))
                if known[0] < seq:
                    self.checkpoints[checkpoint_id] = (seq, slice_)
        for checkpoint_id in slice_.writes_ids:
            if checkpoint_id < below:
                places = self.writes.setdefault(checkpoint_id, {})
                places.update(dict.fromkeys(slice_.writes_seqs(checkpoint_id), slice_))

    def entry(self, slice_: Slice, checkpoint_id: str) -> Entry | None:
        """The checkpoint as `slice_`, to which its id belongs, and what was gathered have it."""
        late = self.checkpoints.get(checkpoint_id)
        if late is None and checkpoint_id not in self.writes:
            return slice_.find(checkpoint_id)
        seq, holder = late or (slice_.checkpoints.get(checkpoint_id), slice_)
        if seq is None:
            return None

        def state() -> dict[str, Value]:
            return holder.values(seq)

        return Entry(
            holder.folded(seq),
            lambda: self.logged(slice_, checkpoint_id),
            state,
            lambda name: holder.value(seq, name),
            lambda: set(holder.state(seq)),
        )

    def logged(self, slice_: Slice, checkpoint_id: str) -> list[list[Write]]:
        """The writes of a checkpoint, whether it is there or not, in log order."""
        places = {**dict.fromkeys(slice_.writes_seqs(checkpoint_id), slice_), **self.writes.get(checkpoint_id, {})}
        return [place.writes(at) for at, place in sorted(places.items(), key=lambda pair: pair[0])]


class History:
    """The checkpoints of a stream as of one view. Holds a few slices at a time; not thread-safe.

    Segments may be merged, and removed, while it is read: then it goes on where they lie by now.
    """

    def __init__(self, reader: Reader, view: View) -> None:
        self._reader = reader
        self._newest = view.slice
        self._carried: dict[str, dict[str, Carried]] | None = None
        self._segments = view.head.snapshot.segments if view.head.snapshot else 0
        self._covers = view.head.snapshot.covers if view.head.snapshot else 0
        self._begin(Layout.of(view.head))

    def _begin(self, layout: Layout) -> None:
        self._layout = layout
        self._end = layout.after(self._segments) if self._segments else 0
        self._unread = self._reader.spans(layout, self._end)
        self._spans: list[Span] = []
        """Newest first, as far as they were needed; their `before` falls. That of number n lies n + 1 from the end."""
        self._late: dict[str, list[int]] = {}
        self._slices: OrderedDict[int, Slice] = OrderedDict()

    def _follow(self, layout: Layout) -> bool:
        """Begin again if the segments lie elsewhere than in `layout` by now. Call it when one is missing."""
        if self._layout is not layout:
            return True
        now = self._reader.moved(layout)
        if now is not None:
            self._begin(now)
        return now is not None

    def carried_by_parent(self) -> dict[str, dict[str, Carried]]:
        """What checkpoints carry along, by the parent that was dropped. Reads all of them, once."""
        if self._carried is None:
            found: dict[str, dict[str, Carried]] = {}
            for folded in (entry.folded for entry in self.entries()):
                if folded.carried and folded.header.parent is not None:
                    found[folded.header.parent] = {**folded.carried, **found.get(folded.header.parent, {})}
            self._carried = found
        return self._carried

    def find(self, checkpoint_id: str) -> Entry | None:
        """The checkpoint with this id, wherever it lies; None if there is none. Two round trips but in rare cases."""
        if self._newest.whole_from <= checkpoint_id:
            return self._newest.find(checkpoint_id)
        while True:
            layout = self._layout
            try:
                return self._find(checkpoint_id)
            except CorruptRecord:
                if not self._follow(layout):
                    raise

    def _find(self, checkpoint_id: str) -> Entry | None:
        while (not self._spans or self._spans[-1].before > checkpoint_id) and self._read_span():
            pass
        at = bisect_left(self._spans, True, key=lambda span: span.before <= checkpoint_id)
        if at == len(self._spans):
            raise self._astray(1)
        late = self._gathered(newer for newer in self._late.get(checkpoint_id, ()) if newer < at)
        return late.entry(self._slice(at), checkpoint_id)

    def entries(self, before: str | None = None) -> Iterator[Entry]:
        """Every checkpoint with an id below `before`, greatest first. Reads a slice when it comes to it."""
        while True:
            layout = self._layout
            try:
                for entry in self._entries(before):
                    yield entry
                    before = entry.folded.header.id
                return
            except CorruptRecord:
                if not self._follow(layout):
                    raise

    def _entries(self, before: str | None) -> Iterator[Entry]:
        late, bound = _Late(), before
        for slice_ in chain([self._newest], self._reader.before(self._layout, self._end, self._covers)):
            if bound is None or slice_.whole_from < bound:
                yield from self._between(late, slice_, slice_.whole_from, bound, reverse=True)
                bound = slice_.whole_from
            late.gather(slice_, slice_.whole_from)

    def early(self, above: str = "") -> Iterator[tuple[str, list[list[Write]]]]:
        """Writes whose checkpoint is not in the log, as they were logged: by id, greatest first, down to `above`."""
        told: str | None = None
        while True:
            layout = self._layout
            try:
                for checkpoint_id, logged in self._early(above):
                    if told is None or checkpoint_id < told:
                        yield checkpoint_id, logged
                        told = checkpoint_id
                return
            except CorruptRecord:
                if not self._follow(layout):
                    raise

    def _early(self, above: str) -> Iterator[tuple[str, list[list[Write]]]]:
        late, bound = _Late(), None
        for slice_ in chain([self._newest], self._reader.before(self._layout, self._end, self._covers)):
            if bound is None or slice_.whole_from < bound:
                waiting = {*slice_.writes_ids, *late.writes} - {*slice_.checkpoints, *late.checkpoints}
                low = max(slice_.whole_from, above)
                ids = (id_ for id_ in waiting if low <= id_ and (bound is None or id_ < bound))
                for checkpoint_id in sorted(ids, reverse=True):
                    yield checkpoint_id, late.logged(slice_, checkpoint_id)
                bound = slice_.whole_from
            if bound <= above:
                return
            late.gather(slice_, slice_.whole_from)

    def oldest_first(self, since: str = "") -> Iterator[Entry]:
        """Every checkpoint from the id `since` on, smallest id first. Reads what lies before that only to fold it."""
        told: str | None = None
        while True:
            layout = self._layout
            try:
                for entry in self._oldest_first(since if told is None else told):
                    if told is None or entry.folded.header.id > told:
                        yield entry
                        told = entry.folded.header.id
                if self._layout is layout:
                    return
            except CorruptRecord:
                if not self._follow(layout):
                    raise

    def _oldest_first(self, since: str) -> Iterator[Entry]:
        low = self._newest.whole_from
        while low > since and self._read_span():
            low = self._spans[-1].before
        bounds = [self._newest.whole_from, *(span.before for span in self._spans)]
        layout = self._layout
        for at in reversed(range(len(self._spans))):
            if self._layout is not layout:
                return  # somebody found that it has moved
            low, high = max(since, bounds[at + 1]), bounds[at]
            if low < high:
                held = [newer for id_, newer in self._late.items() if low <= id_ < high]
                late = self._gathered(newer for newer in sorted({*chain(*held)}) if newer < at)
                yield from self._between(late, self._slice(at), low, high, reverse=False)
        yield from self._between(_Late(), self._newest, max(since, self._newest.whole_from), None, reverse=False)

    def ancestors(self, entry: Entry) -> Iterator[Entry]:
        """The parent, its parent and so on, as far as they are in the log."""
        parent = entry.folded.header.parent
        while parent is not None:
            found = self.find(parent)
            if found is None:
                return
            yield found
            parent = found.folded.header.parent

    def _between(self, late: _Late, slice_: Slice, low: str, high: str | None, *, reverse: bool) -> Iterator[Entry]:
        """The checkpoints with low <= id < high."""
        ids = (id_ for id_ in {*slice_.checkpoints, *late.checkpoints} if low <= id_ and (high is None or id_ < high))
        for checkpoint_id in sorted(ids, reverse=reverse):
            entry = late.entry(slice_, checkpoint_id)
            if entry is not None:
                yield entry

    def _read_span(self) -> bool:
        """Take in one more span; False when there are no more."""
        found = next(self._unread, None)
        if found is None:
            return False
        for checkpoint_id in found.late:
            self._late.setdefault(checkpoint_id, []).append(len(self._spans))
        self._spans.append(found)
        return True

    def _astray(self, seq: int) -> CorruptRecord:
        """Spans that do not reach down to a number that they say follows something."""
        return CorruptRecord(keys.event(self._layout.epoch, seq), "in no segment, as their spans say")

    def _gathered(self, newer: Iterable[int]) -> _Late:
        late = _Late()
        late.gather(self._newest, self._newest.whole_from)
        for at in newer:
            late.gather(self._slice(at), self._spans[at].before)
        return late

    def _slice(self, at: int) -> Slice:
        """The slice that the span at `at` is folded in; those that fold from the same snapshot share one."""
        start = self._spans[at].start
        while at > 0 and self._spans[at - 1].start == start:
            at -= 1
        slice_ = self._slices.pop(at, None) or self._read_slice(at)
        self._slices[at] = slice_
        if len(self._slices) > _SLICES_HELD:
            self._slices.popitem(last=False)
        return slice_

    def _read_slice(self, at: int) -> Slice:
        span, oldest = self._spans[at], at
        while self._spans[oldest].first > span.folds_from:
            oldest += 1
            if oldest == len(self._spans) and not self._read_span():
                raise self._astray(span.folds_from)
        positions = range(self._end - 1 - oldest, self._end - at)
        return self._reader.stretch(self._layout, positions, span)


def channel_history(history: History, target: Entry, channels: Sequence[str]) -> dict[str, Carried]:
    """Per channel: its value at the nearest ancestor that stores one, and the ancestors' writes since, oldest first.

    The target's own value and writes do not count. What a dropped ancestry held stands in `carried`.
    """
    collected: dict[str, list[Write]] = {channel: [] for channel in channels}
    result: dict[str, Carried] = {}
    oldest = target
    for ancestor in history.ancestors(target):
        if len(result) == len(collected):
            break
        oldest = ancestor
        for write in reversed(merge_writes(ancestor.logged_writes())):
            if write.channel in collected and write.channel not in result:
                collected[write.channel].append(write)
        for channel in channels:
            if channel not in result and (value := ancestor.value(channel)) is not None:
                result[channel] = Carried(value, tuple(reversed(collected[channel])))
    carried = oldest.folded.carried
    if len(result) < len(collected) and not carried and oldest.folded.header.parent is not None:
        # A copy of a kept checkpoint: LangGraph puts it beside that, upon the parent that was dropped.
        carried = history.carried_by_parent().get(oldest.folded.header.parent, carried)
    for channel in channels:
        if channel not in result:
            kept = carried.get(channel, Carried(None, ()))
            result[channel] = Carried(kept.seed, (*kept.writes, *reversed(collected[channel])))
    return result
