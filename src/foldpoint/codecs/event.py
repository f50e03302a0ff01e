"""The entries of a stream.

An event is a msgpack array whose first field is its kind. Other events are named by how many sequence numbers they lie
back, so that equal steps have equal bytes. Layout of the fields: `docs/FORMAT.md`.

Two phases: `unpack_event` reads what stands in the event alone (its kind, base and checkpoint id); `Fold` and
`fold_writes` need what it is based on. A checkpoint's state is folded apart from its header, so that listing and
filtering touch no value.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Any, NamedTuple

from foldpoint.codecs import delta as deltas
from foldpoint.codecs.envelope import CHECK_BYTES
from foldpoint.codecs.header import (
    EMPTY,
    HeaderFold,
    apply_labels,
    diff_header,
    diff_labels,
    names_of,
    pack_id,
    positions_of,
    unpack_id,
)
from foldpoint.codecs.maps import MAPS
from foldpoint.codecs.model import Carried, Checkpoint, Header, Scalar, Stored, Value, Version, Write
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.wire import LARGE, Malformed, crc32, pack, pack_pieces, unpack, whole
from foldpoint.codecs.zstd import compress, decompress

CHECKPOINT, WRITES, FILLER = 0, 1, 2

FILLER_PAYLOAD = b""

REFERENCE_BODY = 4096
"""Bodies shorter than this are left to the compression of the whole event."""
_REFERENCE_RATIO = 8
"""References are at most this many times as long as the body: looking through them costs time in proportion."""
_REFERENCE_GAIN = 8
"""A reference is kept if it makes the body this many times smaller; else better compression comes at sealing."""
_REFERENCE_LEVEL = 3
_SAMPLES, _SAMPLE_BYTES, _MISSING_SAMPLES = 4, 16, 1
"""Of so many places of a body, how many may stand nowhere else. With more that is new it gets not that much smaller."""

_LEAST_REFERRED, _MOST_CANDIDATES = 64, 256
"""Bytes of what is referred to; and how much of it one body is compared with."""
_MOST_HELD = 1 << 24
"""Bytes of what was read for the bodies of an event, and may serve for the next one."""

State = Mapping[str, Stored]
WritesAt = Callable[[int], list[Write]]
"""The writes of the event with a given sequence number."""


@dataclass(frozen=True, slots=True)
class Event:
    """An unpacked event. `base` is the sequence number of the checkpoint it is based on, None if on nothing.

    `checkpoint_id` is the checkpoint that this event is or that its writes belong to; None for a filler, and for
    writes that belong to their base. `source` is the payload, or what gives it.
    """

    seq: int
    kind: int
    base: int | None
    checkpoint_id: str | None
    source: bytes | Callable[[], bytes] = field(repr=False)
    unpacked: list[Any] | None = field(default=None, repr=False)

    @property
    def payload(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source()

    @property
    def fields(self) -> list[Any]:
        return unpack(self.payload) if self.unpacked is None else self.unpacked

    @property
    def size(self) -> int:
        """Bytes held here, about: the payload; where that is not, the values that were unpacked of it."""
        if isinstance(self.source, bytes):
            return len(self.source)
        values = _padded(self)[_CHANGED] if self.unpacked is not None else None
        return sum(len(delta[0]) for delta in (values or {}).values())

    def packed(self) -> Event:
        """The same event, in half the memory: its fields are unpacked again where they are asked for."""
        return Event(self.seq, self.kind, self.base, self.checkpoint_id, self.source)


@dataclass(frozen=True, slots=True)
class Folded:
    """A checkpoint without its state."""

    seq: int
    header: Header
    labels: dict[str, Scalar]
    metadata: Value | None
    carried: dict[str, Carried]


def unpack_event(seq: int, payload: bytes) -> Event:
    """Raises Malformed."""
    if payload == FILLER_PAYLOAD:
        return Event(seq, FILLER, None, None, payload, [])
    fields = unpack(payload)
    try:
        kind = fields[0]
        back, packed_id = fields[1], fields[2]
        if type(kind) is not int or kind not in (CHECKPOINT, WRITES) or type(back) is not int or not 0 <= back <= seq:
            raise Malformed(f"event of kind {kind!r}, based {back!r} back")
        checkpoint_id = None if packed_id is None else unpack_id(packed_id)
        if checkpoint_id is None and (kind == CHECKPOINT or not back):
            raise Malformed("event without a checkpoint id")
        return Event(seq, kind, seq - back if back else None, checkpoint_id, payload, fields)
    except (TypeError, IndexError, KeyError) as error:
        raise Malformed(f"not an event: {error!r}") from error


def check_of(event: Event, checks: Callable[[int], bytes]) -> bytes:
    """What tells later whether an event, and all that it builds upon, reads as it was written. Raises Malformed.

    checks: of the event at a number. A store that loses records may have another there by then than the one that this
    event builds upon.
    """
    return check_of_all(builds_on(event), checks, event.payload)


def check_of_all(seqs: Iterable[int], checks: Callable[[int], bytes], payload: bytes = b"") -> bytes:
    """What tells whether the events at these numbers are still the same ones, and a payload that builds upon them."""
    check = crc32(payload)
    for seq in seqs:
        check = crc32(checks(seq), check)
    return check.to_bytes(CHECK_BYTES, "big")


def builds_on(event: Event) -> list[int]:
    """The numbers of the events without which this one cannot be folded: its base, and writes that it refers to.

    Raises Malformed.
    """
    if event.kind == FILLER:
        return []
    fields = event.fields
    try:
        if event.kind == CHECKPOINT:
            changed = fields[_CHANGED] if len(fields) > _CHANGED else None
            references = [deltas.references_of(delta) for delta in changed.values()] if changed else []
        else:
            references = [entry[4] for entry in fields[5] if len(entry) > 4]
        back = [event.seq + one for some in references for one in some or () if type(one) is int and one < 0]
    except (TypeError, IndexError, AttributeError) as error:
        raise Malformed(f"not an event: {error!r}") from error
    return back if event.base is None else [event.base, *back]


def needs(event: Event) -> list[int]:
    """The numbers of the events that must be folded before this one, each once: as `builds_on`, but the base of writes
    only where they refer to what its channels hold. Raises Malformed.
    """
    numbers = list(dict.fromkeys(builds_on(event)))
    if event.kind == WRITES and event.base is not None:
        references = (one for entry in event.fields[5] if len(entry) > 4 for one in entry[4] or ())
        if all(type(one) is int and one < 0 for one in references):
            numbers.remove(event.base)
    return numbers


# -- checkpoints -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Base:
    """What a new event may refer to: a checkpoint, its state, and the writes logged for it so far.

    `state` and `writes` are functions because most events are read, and many written, without them.
    """

    folded: Folded
    state: Callable[[], State]
    writes: Callable[[], list[tuple[int, list[Write]]]] = list

    @property
    def channels(self) -> Channels:
        return Channels(names_of(self.folded.header.channel_versions), self.state)


class Channels(NamedTuple):
    """The channels of a base as events refer to them: their names by position, and what they hold."""

    names: Sequence[str]
    state: Callable[[], State]


def encode_checkpoint(seq: int, checkpoint: Checkpoint, base: Base | None) -> bytes:
    """The payload of `checkpoint` at sequence number `seq`. Raises ValueError for what the format cannot hold."""
    return bytes(_encode_checkpoint(seq, checkpoint, base))


def encode_whole(seq: int, checkpoint: Checkpoint) -> Rope:
    """As `encode_checkpoint`, based on nothing; what is large in the checkpoint's values is not copied."""
    return _encode_checkpoint(seq, checkpoint, None)


def _encode_checkpoint(seq: int, checkpoint: Checkpoint, base: Base | None) -> Rope:
    fields = _checkpoint_fields(seq, checkpoint, base)
    large = any(len(value.data) >= LARGE for value in checkpoint.channels.values())
    return pack_pieces(fields) if large else Rope(pack(fields))  # a long header holds thousands of things to look at


def _checkpoint_fields(seq: int, checkpoint: Checkpoint, base: Base | None) -> list[Any]:
    header = base.folded.header if base else EMPTY
    state: State = base.state() if base else {}
    coded = ((name, deltas.encode(state.get(name), value)) for name, value in checkpoint.channels.items())
    sources = _Sources(seq, base)
    changed = {name: sources.refer(delta, name) for name, delta in coded if delta is not None}
    removed = [name for name in state if name not in checkpoint.channels]
    positions = positions_of(checkpoint.header, [*changed, *removed])
    checkpoint_id, *rest = diff_header(header, checkpoint.header)
    carried = {
        name: [list(kept.seed) if kept.seed else None, [_pack_whole_write(write) for write in kept.writes]]
        for name, kept in checkpoint.carried.items()
    }
    fields = [
        CHECKPOINT,
        seq - base.folded.seq if base else 0,
        checkpoint_id,
        *rest,
        diff_labels(base.folded.labels if base else {}, checkpoint.labels),
        _diff_metadata(base.folded.metadata if base else None, checkpoint.metadata),
        {positions.get(name, name): delta for name, delta in changed.items()},
        [positions.get(name, name) for name in removed] or None,
        carried or None,
    ]
    while fields[-1] is None:
        fields.pop()
    return fields


def _diff_metadata(old: Value | None, new: Value | None) -> Any:
    """nil: unchanged; false: none."""
    if new is None or new == old:
        return None if new == old else False
    return deltas.encode(Stored(old.type, Rope(old.data)) if old else None, new)


def _apply_metadata(old: Value | None, delta: Any) -> Value | None:
    if delta is None or delta is False:
        return old if delta is None else None
    stored = deltas.apply(Stored(old.type, Rope(old.data)) if old else None, delta, delta[0])
    return Value(stored.type, bytes(stored.data))


_HEADER = slice(2, 10)
_LABELS, _METADATA, _CHANGED, _REMOVED, _CARRIED, _END = 10, 11, 12, 13, 14, 15
_UNFIT = (TypeError, IndexError, KeyError, ValueError, AttributeError, OverflowError)
"""What fields of another shape than theirs raise where they are used."""


def _padded(event: Event) -> list[Any]:
    fields = event.fields
    return fields + [None] * (_END - len(fields))


class Fold:
    """What a chain of checkpoints adds up to, without their states: of all but the last only what others build upon."""

    def __init__(self, base: Folded | None) -> None:
        self._header = HeaderFold(base.header if base else EMPTY)
        self._labels = base.labels if base else {}
        self._metadata = base.metadata if base else None
        self._last: tuple[int, Any] = (0, None)

    def add(self, event: Event) -> None:
        """Take in the checkpoint that follows. Raises Malformed; then this is of no more use."""
        fields = _padded(event)
        try:
            self._header.add(fields[_HEADER])
            self._labels = apply_labels(self._labels, fields[_LABELS])
            self._metadata = _apply_metadata(self._metadata, fields[_METADATA])
            self._last = event.seq, fields[_CARRIED]
        except _UNFIT as error:
            raise Malformed(f"checkpoint event does not fold: {error!r}") from error

    @property
    def versions(self) -> Mapping[str, Version]:
        """The channel versions of the last checkpoint: by their order events name channels."""
        return self._header.versions

    def folded(self) -> Folded:
        """The last checkpoint. Raises Malformed."""
        seq, carried = self._last
        try:
            return Folded(
                seq,
                self._header.header(),
                self._labels,
                self._metadata,
                {
                    name: Carried(Value(*seed) if seed else None, tuple(_unpack_whole_write(w) for w in writes))
                    for name, (seed, writes) in (carried or {}).items()
                },
            )
        except _UNFIT as error:
            raise Malformed(f"checkpoint event does not fold: {error!r}") from error


def copied(checkpoint: Checkpoint, base: Header = EMPTY) -> Checkpoint | None:
    """The same, sharing nothing that its caller may change but the values; None unless all of it is of builtin classes.

    Of these alone it is known that they are read as what they are: `folded_of` needs not look at what was stored.
    base: whose maps it may share, as nobody changes them; most of a large header is as in the checkpoint before.
    """
    old, updated = checkpoint.header, checkpoint.header.updated_channels
    versions, labels = MAPS.copied(old.channel_versions), MAPS.copied(checkpoint.labels)
    seen = MAPS.copied(old.versions_seen, base.versions_seen)
    ids = (old.id,) if old.parent is None else (old.id, old.parent)
    texts = chain(ids, (old.ts,), updated or (), checkpoint.channels)
    if versions is None or labels is None or seen is None or type(old.v) is not int or {*map(type, texts)} != {str}:
        return None
    updated = None if updated is None else [*updated]
    header = Header(old.id, old.parent, old.v, old.ts, versions, seen, updated, old.extra)
    return Checkpoint(header, checkpoint.channels, labels, checkpoint.metadata, dict(checkpoint.carried))


def check_names(checkpoint: Checkpoint) -> None:
    """Raises ValueError for a name that is no string.

    A number would be stored, and read back as a position: nothing that follows could be read.
    """
    header = checkpoint.header
    given: dict[str, Iterable[Any]] = {
        "channels": checkpoint.channels,
        "channel_versions": header.channel_versions,
        "updated_channels": header.updated_channels or (),
        "versions_seen": chain(header.versions_seen, *header.versions_seen.values()),
        "labels": checkpoint.labels,
    }
    for what, names in given.items():
        for name in names:
            if not isinstance(name, str):
                raise ValueError(f"{what}: names are strings, got {name!r}")


def folded_of(seq: int, checkpoint: Checkpoint) -> Folded:
    """What the event folds to that a `copied` checkpoint was stored as."""
    return Folded(seq, checkpoint.header, checkpoint.labels, checkpoint.metadata, checkpoint.carried)


def fold_state(event: Event, names: Sequence[str], base: Channels | None, writes_at: WritesAt) -> dict[str, Stored]:
    """The channels of a checkpoint. names: of its own, as `names_of` gives them. Raises Malformed."""
    fields = _padded(event)
    before: State = base.state() if base else {}
    state = dict(before)
    try:
        for name in fields[_REMOVED] or ():
            del state[names[name] if type(name) is int else name]
        for name, delta in (fields[_CHANGED] or {}).items():
            channel = names[name] if type(name) is int else name
            body = _body(delta[0], deltas.references_of(delta), event.seq, base, writes_at)
            state[channel] = deltas.apply(before.get(channel), delta, body)
    except (TypeError, IndexError, KeyError, AttributeError) as error:
        raise Malformed(f"state does not fold: {error!r}") from error
    return state


# -- writes ------------------------------------------------------------------------------------------------------------


def encode_writes(seq: int, checkpoint_id: str, writes: list[Write], base: Base | None) -> bytes:
    """The payload of one task's `writes`: all share task_id and task_path."""
    positions = positions_of(base.folded.header, [write.channel for write in writes]) if base else {}
    packed, sources = [], _Sources(seq, base)
    for at, write in enumerate(writes):
        type_ = None if write.value.type == deltas.DEFAULT_TYPE else write.value.type
        body, references = sources.refer_body(write.value.data, None)
        entry = [
            positions.get(write.channel, write.channel),
            body,
            None if write.idx == at else write.idx,
            type_,
            references,
        ]
        while entry[-1] is None:
            entry.pop()
        packed.append(entry)
    own_base = base is not None and base.folded.header.id == checkpoint_id
    return pack(
        [
            WRITES,
            seq - base.folded.seq if base else 0,
            None if own_base else pack_id(checkpoint_id),
            pack_id(writes[0].task_id),
            writes[0].task_path,
            packed,
        ]
    )


def fold_writes(event: Event, base: Channels | None, writes_at: WritesAt) -> list[Write]:
    """Raises Malformed."""
    try:
        _, _, _, task_id, task_path, packed = event.fields
        names = base.names if base else ()
        writes = []
        for at, entry in enumerate(packed):
            name, packed_body, idx, type_, references = entry + [None] * (5 - len(entry))
            body = _body(packed_body, references, event.seq, base, writes_at)
            value = Value(deltas.DEFAULT_TYPE if type_ is None else type_, body)
            channel = names[name] if type(name) is int else name
            writes.append(_checked(Write(unpack_id(task_id), at if idx is None else idx, channel, value, task_path)))
        return writes
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise Malformed(f"writes do not fold: {error!r}") from error


def _pack_whole_write(write: Write) -> list[Any]:
    return [pack_id(write.task_id), write.idx, write.channel, list(write.value), write.task_path]


def _unpack_whole_write(packed: list[Any]) -> Write:
    task_id, idx, channel, value, task_path = packed
    return _checked(Write(unpack_id(task_id), idx, channel, Value(*value), task_path))


def _checked(write: Write) -> Write:
    if not is_plain(write):
        raise Malformed("write whose index, channel, value or path is something else")
    return write


def is_plain(write: Write) -> bool:
    """Whether it holds nothing but what is read as what it was when it was stored."""
    value = write.value
    texts = {type(write.task_id), type(write.channel), type(value.type), type(write.task_path)}
    return texts == {str} and type(write.idx) is int and type(value.data) is bytes


# -- references: bytes that stand elsewhere in the base ----------------------------------------------------------------


class _Sources:
    """What the bodies of one event are compared with: looked at once for all of them, if one is large enough."""

    def __init__(self, seq: int, base: Base | None) -> None:
        self._seq = seq
        self._base = base
        self._contents: dict[int | str, bytes] = {}

    def refer(self, delta: list[Any], channel: str) -> list[Any]:
        body, references = self.refer_body(delta[0], channel)
        return delta if references is None else deltas.with_references(delta, body, references)

    def refer_body(self, data: bytes | Rope, channel: str | None) -> tuple[Any, list[Any] | None]:
        """(data, None), or (a frame or where to copy it from, what that refers to) where it gets much smaller."""
        if self._base is None or len(data) < REFERENCE_BODY:
            return data, None
        body = bytes(data)
        if (copy := self._find_copy(body)) is not None:
            return copy
        repeated = self._repeated(body, channel)
        if not repeated:
            return body, None
        frame = compress(body, _REFERENCE_LEVEL, b"".join(repeated.values()))
        if len(frame) * _REFERENCE_GAIN > len(body):
            return body, None
        return frame, [*repeated]

    @cached_property
    def _state(self) -> State:
        return self._base.state() if self._base else {}

    @cached_property
    def _positions(self) -> dict[str, int]:
        return positions_of(self._base.folded.header, self._state) if self._base else {}

    @cached_property
    def _by_size(self) -> list[tuple[int, str]]:
        """The channels, smallest first."""
        return sorted((len(stored.data), name) for name, stored in self._state.items())

    @cached_property
    def _writes(self) -> dict[int, list[Write]]:
        """By number, the last ones first."""
        return dict(reversed([*self._base.writes()])) if self._base else {}

    @cached_property
    def _logged(self) -> list[tuple[int, int, list[tuple[int, bytes]]]]:
        """The numbers of those, how many bytes each has, and its bodies that are large, with where they begin."""
        found = []
        for at, writes in self._writes.items():
            size, large = 0, []
            for data in (write.value.data for write in writes):
                if len(data) >= REFERENCE_BODY:
                    large.append((size, data))
                size += len(data)
            found.append((at, size, large))
        return found

    def _find_copy(self, body: bytes) -> tuple[list[int], list[Any]] | None:
        """([where, how many bytes], what that refers to): a task's write becomes the channel's value, or is it."""
        if (name := self._channel_of(body)) is not None:
            return [0, len(body)], [self._positions.get(name, name)]
        budget, beginning = len(body) * _REFERENCE_RATIO, body[:_SAMPLE_BYTES]
        for at, size, large in self._logged:
            budget -= size
            if budget < 0:
                return None
            for before, data in large:
                start = data.find(beginning)
                if start >= 0 and not data.startswith(body, start):
                    start = data.find(body, start)  # takes much longer to begin
                if start >= 0:
                    return [before + start, len(body)], [at - self._seq]
        return None

    def _channel_of(self, body: bytes) -> str | None:
        """A channel that holds just these bytes."""
        wanted, first = Rope(body), bisect_left(self._by_size, (len(body), ""))
        for size, name in islice(self._by_size, first, None):
            if size > len(body):
                return None
            if self._state[name].data.equals(wanted):
                return name
        return None

    def _repeated(self, body: bytes, channel: str | None) -> dict[int | str, bytes]:
        """References and what they refer to, if samples of the body stand there; the best comes last, next to the body.

        To compress a body against what it does not repeat would take longer than all else of a put.
        """
        candidates = self._candidates(len(body), channel)
        if sum(map(len, self._contents.values())) > _MOST_HELD:
            self._contents.clear()
        holding = set()
        missing = 0
        for at in range(len(body) // (2 * _SAMPLES), len(body), len(body) // _SAMPLES):
            sample = body[at : at + _SAMPLE_BYTES]
            # From behind: what is repeated is mostly new itself.
            found = next((one for one in candidates if self._content(one).rfind(sample) >= 0), None)
            missing += found is None
            if missing > _MISSING_SAMPLES:
                return {}
            holding.add(found)
        found_in = sum(len(self._content(one)) for one in holding if one is not None)
        if found_in * _REFERENCE_GAIN < len(body) * (_REFERENCE_GAIN - 1):
            holding.update(candidates)  # it is made of more pieces than there are samples
        return {one: self._content(one) for one in reversed(candidates) if one in holding}

    def _content(self, reference: int | str) -> bytes:
        if reference not in self._contents:
            channels = self._base.channels if self._base else None
            self._contents[reference] = _context([reference], self._seq, channels, self._writes.__getitem__)
        return self._contents[reference]

    def _candidates(self, size: int, channel: str | None) -> list[int | str]:
        """What a body may refer to within the budget: the channel's old value, the writes logged last, other channels.

        The best comes first.
        """
        budget = size * _REFERENCE_RATIO
        wanted: list[tuple[int | str, int]] = [(at - self._seq, length) for at, length, _ in self._logged]
        if channel is not None and channel in self._state:
            wanted.insert(0, (self._positions.get(channel, channel), len(self._state[channel].data)))
        chosen: list[int | str] = []
        for reference, length in wanted:
            if _LEAST_REFERRED <= length <= budget:
                budget -= length
                chosen.append(reference)
        for length, name in islice(self._by_size, bisect_left(self._by_size, (_LEAST_REFERRED, "")), None):
            if length > budget or len(chosen) >= _MOST_CANDIDATES:
                break
            if name != channel:
                budget -= length
                chosen.append(self._positions.get(name, name))
        return chosen


def _body(body: Any, references: Any, seq: int, base: Channels | None, writes_at: WritesAt) -> bytes:
    if references is None:
        return body  # type: ignore[no-any-return]
    context = _context(references, seq, base, writes_at)
    if type(body) is not list:
        return decompress(body, context)
    start = whole(body[0], len(context))
    return context[start : start + whole(body[1], len(context) - start)]


def _context(references: Iterable[Any], seq: int, base: Channels | None, writes_at: WritesAt) -> bytes:
    parts: list[bytes] = []
    for reference in references:
        if type(reference) is int and reference < 0:
            parts.append(_data(writes_at(seq + reference)))
        elif base is None:
            raise Malformed("a reference to a channel, and no base")
        else:
            channel = base.names[reference] if type(reference) is int else reference
            parts.append(bytes(base.state()[channel].data))
    return b"".join(parts)


def _data(writes: Iterable[Write]) -> bytes:
    return b"".join(write.value.data for write in writes)
