"""Reading back beyond the newest slice: one checkpoint by id, all of them newest first, or an ancestry.

Slices are read from the newest to the oldest, each only when it is needed. An event about an old checkpoint (a write
that came late, a checkpoint put again) may lie in a newer slice than the checkpoint, so those are gathered on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foldpoint.codecs.model import Carried, Value, Write
from foldpoint.engine.fold import Entry, Slice, merge_writes
from foldpoint.engine.reading import Reader
from foldpoint.engine.view import View


class History:
    """The checkpoints of a stream as of one view. Holds every slice it has read; not thread-safe."""

    def __init__(self, reader: Reader, view: View) -> None:
        self._source = _slices(reader, view)
        self._read: list[Slice] = []
        self._late_checkpoints: dict[str, tuple[Slice, int]] = {}
        self._late_writes: dict[str, list[tuple[int, Slice]]] = {}

    def find(self, checkpoint_id: str) -> Entry | None:
        """The checkpoint with this id, wherever it lies; None if there is none."""
        for slice_ in self._slices():
            if slice_.whole_from <= checkpoint_id:
                return self._entry(slice_, checkpoint_id)
        return None

    def entries(self, before: str | None = None) -> Iterator[Entry]:
        """Every checkpoint with an id below `before`, greatest first. Reads a slice when it comes to it."""
        bound = before
        for slice_ in self._slices():
            if bound is None or slice_.whole_from < bound:
                for checkpoint_id in sorted({*slice_.checkpoints, *self._late_checkpoints}, reverse=True):
                    if checkpoint_id >= slice_.whole_from and (bound is None or checkpoint_id < bound):
                        entry = self._entry(slice_, checkpoint_id)
                        if entry is not None:
                            yield entry
                bound = slice_.whole_from

    def ancestors(self, entry: Entry) -> Iterator[Entry]:
        """The parent, its parent and so on, as far as they are in the log."""
        parent = entry.folded.header.parent
        while parent is not None:
            found = self.find(parent)
            if found is None:
                return
            yield found
            parent = found.folded.header.parent

    def _slices(self) -> Iterator[Slice]:
        at = 0
        while True:
            if at == len(self._read):
                slice_ = next(self._source, None)
                if slice_ is None:
                    return
                self._gather(slice_)
                self._read.append(slice_)
            yield self._read[at]
            at += 1

    def _gather(self, slice_: Slice) -> None:
        """Note what this slice says of checkpoints that lie before it. `whole_from` falls from slice to slice."""
        for checkpoint_id, seq in slice_.checkpoints.items():
            if checkpoint_id < slice_.whole_from:
                self._late_checkpoints.setdefault(checkpoint_id, (slice_, seq))
        for checkpoint_id in slice_.writes_ids:
            if checkpoint_id < slice_.whole_from:
                places = self._late_writes.setdefault(checkpoint_id, [])
                places.extend((seq, slice_) for seq in slice_.writes_seqs(checkpoint_id))

    def _entry(self, slice_: Slice, checkpoint_id: str) -> Entry | None:
        """The checkpoint as `slice_`, to which its id belongs, and everything newer have it."""
        late = self._late_checkpoints.get(checkpoint_id)
        late_writes = self._late_writes.get(checkpoint_id, [])
        if late is None and not late_writes:
            return slice_.find(checkpoint_id)
        holder, seq = late or (slice_, slice_.checkpoints.get(checkpoint_id))
        if seq is None:
            return None
        places = [(at, slice_) for at in slice_.writes_seqs(checkpoint_id)] + late_writes

        def writes() -> list[list[Write]]:
            return [place.writes(at) for at, place in sorted(places, key=lambda pair: pair[0])]

        def state() -> dict[str, Value]:
            return holder.values(seq)

        return Entry(
            holder.folded(seq),
            writes,
            state,
            lambda name: holder.value(seq, name),
            lambda: set(holder.state(seq)),
        )


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
    for channel in channels:
        if channel not in result:
            kept = oldest.folded.carried.get(channel, Carried(None, ()))
            result[channel] = Carried(kept.seed, (*kept.writes, *reversed(collected[channel])))
    return result


def _slices(reader: Reader, view: View) -> Iterator[Slice]:
    """The stream's slices, newest first; the last one begins with the stream."""
    yield view.slice
    end = view.head.snapshot.segments if view.head.snapshot else 0
    while region := reader.region(view.head.epoch, end):
        slice_, end = region
        yield slice_
