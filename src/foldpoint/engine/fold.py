"""Folding a stretch of the log: pure, in memory, no I/O of its own.

A `Slice` holds consecutive events, beginning with those of a snapshot or with the first of the stream, and answers what
they add up to. It is the only place that knows in which order events count: the greatest checkpoint id is the latest;
of two events for one checkpoint id the later one wins; of two writes of one task at one index the first wins, unless
the index is negative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from foldpoint.codecs.event import (
    CHECKPOINT,
    FILLER,
    WRITES,
    Base,
    Channels,
    Event,
    Fold,
    Folded,
    builds_on,
    check_of_all,
    fold_state,
    fold_writes,
    is_plain,
    needs,
    unpack_event,
)
from foldpoint.codecs.header import EMPTY, names_of
from foldpoint.codecs.model import Header, Stored, Value, Version, Write
from foldpoint.codecs.wire import Malformed
from foldpoint.engine import keys
from foldpoint.errors import CorruptRecord

State = dict[str, Stored]

_RECENT_STATES = 4
REFERRED_WRITES = 64
"""So many events of writes, the last, are looked at for what an event repeats: of a thousand tasks each would look at
all that came before."""
_READ_BYTES = 32 << 20
"""So many bytes of writes that were read are remembered."""
_STATE_STRIDE = 32
"""While folding a chain every so many states are remembered, so that walking back refolds a bounded number."""
_SLICE_BYTES, _EVENT_BYTES = 5000, 500
"""What a slice with its stream, and an event beside its payload, take here, about."""


class Earlier(Protocol):
    """Answers for sequence numbers that a slice does not hold. May read the store."""

    def payload(self, seq: int) -> bytes: ...

    def folded(self, seq: int) -> Folded: ...

    def state(self, seq: int) -> State: ...

    def writes(self, seq: int) -> list[Write]: ...

    def check(self, seq: int) -> bytes: ...

    def fork(self) -> Earlier:
        """The same, for another thread."""
        ...


class Nothing:
    """For slices that begin with their stream: nothing comes before."""

    def __init__(self, epoch: bytes) -> None:
        self._epoch = epoch

    def _missing(self, seq: int) -> CorruptRecord:
        return CorruptRecord(keys.event(self._epoch, seq), "referred to, and not in the log")

    def payload(self, seq: int) -> bytes:
        raise self._missing(seq)

    def folded(self, seq: int) -> Folded:
        raise self._missing(seq)

    def state(self, seq: int) -> State:
        raise self._missing(seq)

    def writes(self, seq: int) -> list[Write]:
        raise self._missing(seq)

    def check(self, seq: int) -> bytes:
        raise self._missing(seq)

    def fork(self) -> Earlier:
        return self


@dataclass(frozen=True, slots=True)
class Entry:
    """A checkpoint read from the log. What is a function folds when it is called.

    logged_writes: its pending writes as they were logged, in order. state: all its channels. value: one of them.
    names: of its channels.
    """

    folded: Folded
    logged_writes: Callable[[], list[list[Write]]]
    state: Callable[[], dict[str, Value]]
    value: Callable[[str], Value | None]
    names: Callable[[], set[str]]

    def writes(self) -> list[Write]:
        """The pending writes, one per task and index, ordered by task path, task and index."""
        return merge_writes(self.logged_writes())


def merge_writes(logged: Iterable[list[Write]]) -> list[Write]:
    """A checkpoint's writes from those logged for it, in log order: one per task and index, in LangGraph's order."""
    kept: dict[tuple[str, int], Write] = {}
    for writes in logged:
        for write in writes:
            if write.idx < 0:
                kept[write.task_id, write.idx] = write
            else:
                kept.setdefault((write.task_id, write.idx), write)
    return sorted(kept.values(), key=lambda write: (write.task_path, write.task_id, write.idx))


class Known(NamedTuple):
    """What is remembered of the checkpoint that was put, or read as a whole, last. Not to be changed."""

    header: Header = EMPTY
    state: Mapping[str, Stored] = MappingProxyType({})


class _Folding:
    """Folds events in the order of their numbers, and lets go what no later one needs.

    Each of a thousand may need the one before: a call within a call would go too deep, and to hold them all would take
    a thousand times what one of them takes.
    """

    def __init__(self, slice_: Slice, needs: dict[int, list[int]]) -> None:
        """needs: of each number that is to be folded what that needs."""
        self.states: dict[int, State] = {}
        self.writes: dict[int, list[Write]] = {}
        self.passed: dict[int, State] = {}
        self.passed_writes: dict[int, list[Write]] = {}
        self._slice = slice_
        self._needs = needs
        self._left = Counter(chain.from_iterable(needs.values()))

    def run(self, *, walks_back: bool) -> None:
        """walks_back: what is let go is needed next; of a long way the last part of it, and now and then all."""
        for position, seq in enumerate(sorted(self._needs)):
            event = self._slice.events[seq]
            folded: Any = self._slice.fold(event, self.states, self.writes)
            (self.states if event.kind == CHECKPOINT else self.writes)[seq] = folded
            self._let_go(self._needs[seq])
            if walks_back and position % _STATE_STRIDE < _STATE_STRIDE - 1:
                continue
            if walks_back:
                self._slice.remember_folded(self.states, self.writes)
            self.passed.clear()
            self.passed_writes.clear()

    def _let_go(self, needed: list[int]) -> None:
        for one in needed:
            self._left[one] -= 1
            if not self._left[one] and one in self.states:
                self.passed[one] = self.states.pop(one)
            if not self._left[one] and one in self.writes:
                self.passed_writes[one] = self.writes.pop(one)


def _size(writes: list[Write]) -> int:
    return sum(len(write.value.data) for write in writes)


class Slice:
    """Events of a stream and what they fold to. Not thread-safe: its stream's lock guards it.

    `snapshot`: what it begins with. `covers`: up to this sequence number the events are the snapshot's, after it they
    are the log's own. `earlier`: where it asks for what lies before it.
    `whole_from`: every event about this or a greater checkpoint id is in the slice. `newest`: its greatest number.
    """

    def __init__(
        self,
        epoch: bytes,
        snapshot: Iterable[tuple[Event, bytes]] = (),
        *,
        covers: int = 0,
        earlier: Earlier | None = None,
        beside: int = 0,
    ) -> None:
        """snapshot: events and their checks. beside: bytes that the sources of these hold. Raises CorruptRecord."""
        self.epoch = epoch
        self.covers = covers
        self.events: dict[int, Event] = {}
        self.checkpoints: dict[str, int] = {}
        self.latest_id = ""
        self.newest = 0
        self.size = beside
        self._state_bytes = 0
        self.earlier = earlier or Nothing(epoch)
        self._writes_of: dict[str, list[int]] = {}
        self._folded: dict[int, Folded] = {}
        self._versions: dict[int, Mapping[str, Version]] = {}
        self._states: dict[int, State] = {}
        self.known = Known()
        self._recent: dict[int, State] = {}
        self._passed: dict[int, State] = {}
        """States on the way to the one folded last, for who walks back. Nobody was given these: no value is joined."""
        self._unpacked: list[int] = []
        self._writes: dict[int, list[Write]] = {}
        self._writes_bytes = 0
        self._read: dict[int, list[Write]] = {}
        self._read_bytes = 0
        self._passed_writes: dict[int, list[Write]] = {}
        self._checks: dict[int, bytes] = {}
        for event, check in snapshot:
            self.add(event, check)
        self.whole_from = self.latest_id

    def add_payload(self, seq: int, payload: bytes) -> None:
        """As `add`, of what is not unpacked yet. Raises CorruptRecord."""
        try:
            event = unpack_event(seq, payload)
        except Malformed as error:
            raise self._corrupt(seq, error) from error
        self.add(event)

    def add(self, event: Event, check: bytes | None = None) -> None:
        """Take in one more event; in any order, each sequence number once. check: its own, where it is known."""
        checkpoint_id = None if event.kind == FILLER else self._about(event)  # may read the store, and fail
        if checkpoint_id is None and event.kind != FILLER:
            raise CorruptRecord(keys.event(self.epoch, event.seq), "about no checkpoint")
        self.events[event.seq] = event
        if check is not None:
            self._checks[event.seq] = check
        self._unpacked.append(event.seq)
        self.newest = max(self.newest, event.seq)
        self.size += event.size
        if checkpoint_id is None:
            return
        if event.kind == CHECKPOINT:
            if self.checkpoints.get(checkpoint_id, 0) < event.seq:
                self.checkpoints[checkpoint_id] = event.seq
            self.latest_id = max(self.latest_id, checkpoint_id)
            return
        self._writes_of.setdefault(checkpoint_id, []).append(event.seq)

    def latest(self) -> Entry | None:
        if not self.checkpoints:
            return None
        if (seq := self.checkpoints[self.latest_id]) not in self._folded:
            self._fold(seq, between=False)
        return self.find(self.latest_id)

    def about(self, seq: int) -> str | None:
        """The checkpoint id that the event at `seq` is about, without folding a header; None for a filler."""
        event = self.events.get(seq)
        return self.folded(seq).header.id if event is None else self._about(event)

    def _about(self, event: Event) -> str | None:
        while event.checkpoint_id is None and event.base is not None:
            if (base := self.events.get(event.base)) is None:
                return self.folded(event.base).header.id
            event = base
        return event.checkpoint_id

    def check(self, seq: int) -> bytes:
        """Of the event at `seq` as it was logged, and of all that it builds upon."""
        checks, wanted = self._checks, [seq]
        while wanted:
            at = wanted.pop()
            if at in checks:
                continue
            event = self.events.get(at)
            if event is None:
                checks[at] = self.earlier.check(at)
                continue
            below = self._builds_on(event)
            if unknown := [one for one in below if one not in checks]:
                wanted += [at, *unknown]
            else:
                checks[at] = check_of_all(below, checks.__getitem__, event.payload)
        return checks[seq]

    def _builds_on(self, event: Event) -> list[int]:
        try:
            return builds_on(event)
        except Malformed as error:
            raise self._corrupt(event.seq, error) from error

    def until(self, last: int) -> Slice:
        """This slice without the events after `last`, which is not below `covers`."""
        if all(seq <= last for seq in self.events):
            return self
        kept = sorted(seq for seq in self.events if seq <= last)
        start = ((self.events[seq], self.check(seq)) for seq in kept if seq <= self.covers)
        shorter = Slice(self.epoch, start, covers=self.covers, earlier=self.earlier)
        for seq in kept:
            if seq > self.covers:
                shorter.add(self.events[seq])
        shorter.learn(self)
        return shorter

    def learn(self, other: Slice) -> None:
        """Take over what another slice of the same log knows of the checkpoints of this one."""
        for seq in self.checkpoints.values():
            if seq in other._folded:
                self._folded[seq] = other._folded[seq]
            if seq in other._states:
                self._states[seq] = other._states[seq]
        self.known = other.known

    def remember(self, other: Slice) -> None:
        """Take over what another slice of the stream has remembered of the latest, where the same events stand here."""
        latest = other.checkpoints.get(other.latest_id)
        if latest is not None and self._is_same(other, latest):
            self.put_state(latest, other.state(latest))
        for seq, writes in other._writes.items():
            if seq not in self._writes and self._is_same(other, seq):
                self.put_writes(seq, writes)
        self.known = other.known

    def _is_same(self, other: Slice, seq: int) -> bool:
        return seq in self.events and self.check(seq) == other.check(seq)

    @property
    def writes_ids(self) -> Iterable[str]:
        """The checkpoint ids that writes in this slice belong to."""
        return self._writes_of.keys()

    def find(self, checkpoint_id: str) -> Entry | None:
        seq = self.checkpoints.get(checkpoint_id)
        if seq is None:
            return None
        logged = self.writes_seqs(checkpoint_id)  # by now: of what comes later, some may not come to be stored
        return Entry(
            self.folded(seq),
            lambda: [self.writes(one) for one in logged],
            lambda: self.values(seq),
            lambda name: self.value(seq, name),
            lambda: set(self.state(seq)),
        )

    def values(self, seq: int) -> dict[str, Value]:
        self.know(seq)
        return {name: Value(stored.type, bytes(stored.data)) for name, stored in self.state(seq).items()}

    def know(self, seq: int) -> Known:
        """Remember the checkpoint at a number as the last one."""
        self.known = Known(self.folded(seq).header, self.state(seq))
        return self.known

    def value(self, seq: int, channel: str) -> Value | None:
        stored = self.state(seq).get(channel)
        return Value(stored.type, bytes(stored.data)) if stored else None

    def writes_seqs(self, checkpoint_id: str) -> list[int]:
        """The sequence numbers of the writes of a checkpoint, ascending."""
        return sorted(self._writes_of.get(checkpoint_id, ()))

    def writes_events(self, checkpoint_id: str, most: int = 0) -> list[tuple[int, list[Write]]]:
        """The writes of a checkpoint as they were logged, ascending. most: only the last so many, if it is not 0."""
        return [(seq, self.writes(seq)) for seq in self.writes_seqs(checkpoint_id)[-most:]]

    def orphans(self) -> list[str]:
        """Checkpoint ids above the latest (any, if there is none) that have writes and no checkpoint yet, ascending."""
        return sorted(id_ for id_ in self._writes_of if id_ >= self.latest_id and id_ not in self.checkpoints)

    def base_for(self, parent: str | None) -> Base | None:
        """What a child of `parent` is based on: the parent where the slice holds it, else the latest checkpoint.

        So that reading the latest never needs what lies before the slice.
        """
        if not self.checkpoints:
            return None
        return self.base(self.checkpoints.get(parent or "") or self.checkpoints[self.latest_id])

    def base_of(self, checkpoint_id: str) -> Base | None:
        """What writes for a checkpoint are based on: the checkpoint where the slice holds it, else the latest one.

        Writes often come before their checkpoint, and repeat what the one before it held.
        """
        base = self.base_for(checkpoint_id)
        if base is None or base.folded.header.id == checkpoint_id:
            return base
        return replace(base, writes=lambda: base.writes() + self.writes_events(checkpoint_id, REFERRED_WRITES))

    def fork(self) -> Slice:
        """Another slice with the same events and memory, to be changed on its own, also by another thread."""
        twin = Slice.__new__(Slice)
        twin.__dict__.update({name: copy(value) for name, value in self.__dict__.items()})
        twin._writes_of = {checkpoint_id: list(seqs) for checkpoint_id, seqs in self._writes_of.items()}
        twin.earlier = self.earlier.fork()
        return twin

    def base(self, seq: int) -> Base:
        """What a new event may be based on. `seq` names a checkpoint in this slice."""
        folded = self.folded(seq)
        return Base(folded, lambda: self.state(seq), lambda: self.writes_events(folded.header.id, REFERRED_WRITES))

    def folded(self, seq: int) -> Folded:
        if seq not in self._folded:
            self._fold(seq, between=True)
        return self._folded[seq]

    def _fold(self, seq: int, *, between: bool) -> None:
        """Remember what the checkpoint at `seq` folds to; `between`: and those on the way there, for who walks back."""
        chain: list[Event] = []
        at: int | None = seq
        while at is not None and at not in self._folded:
            event = self.events.get(at)
            if event is None:
                self._folded[at] = self.earlier.folded(at)
                break
            chain.append(self._checkpoint(event))
            at = event.base
        fold = Fold(None if at is None else self._folded[at])
        for event in reversed(chain):
            try:
                fold.add(event)
                if between or event.seq == seq:
                    self._folded[event.seq] = fold.folded()
            except Malformed as error:
                raise self._corrupt(event.seq, error) from error
            self._versions[event.seq] = fold.versions

    def _names(self, seq: int) -> list[str]:
        """The channels of the checkpoint at `seq` as events name them by position."""
        versions = self._versions.get(seq)
        return names_of(self.folded(seq).header.channel_versions if versions is None else versions)

    def state(self, seq: int) -> State:
        """The channels of the checkpoint at `seq`. The dict is shared: do not change it."""
        if (known := self._states.get(seq)) is not None:
            return known
        state = self._known_state(seq)
        if state is None and seq not in self.events:
            state = self._states[seq] = self.earlier.state(seq)
            return state
        if state is None:
            self._checkpoint(self.events[seq])
            state = self._folded_to(seq).states[seq]
        self._passed.pop(seq, None)
        self._recent.pop(seq, None)
        self._recent[seq] = state
        while len(self._recent) > _RECENT_STATES:
            del self._recent[next(iter(self._recent))]
        return state

    def _known_state(self, seq: int) -> State | None:
        return self._states.get(seq, self._recent.get(seq, self._passed.get(seq)))

    def put_state(self, seq: int, state: State) -> None:
        """Remember a state that the caller knows, instead of folding it again."""
        self._states[seq] = state
        self._state_bytes = sum(len(stored.data) for stored in state.values())

    @property
    def memory(self) -> int:
        """Bytes held, about: payloads, the last remembered state, writes that were just put, and what holds them."""
        held = _SLICE_BYTES + _EVENT_BYTES * len(self.events)
        return held + self.size + self._state_bytes + self._writes_bytes + self._read_bytes

    def forget_states(self, *keep: int) -> None:
        """Drop remembered states and writes, and what else can be made of payloads again, but for `keep`."""
        known = {seq: self._known_state(seq) for seq in keep}
        self._states = {seq: state for seq, state in known.items() if state is not None}
        self._recent.clear()
        self._passed.clear()
        self._passed_writes.clear()
        self._read = {seq: writes for seq, writes in self._read.items() if keep and self._is_needed(seq)}
        self._read_bytes = sum(map(_size, self._read.values()))
        self._writes = {seq: writes for seq, writes in self._writes.items() if keep and self._is_needed(seq)}
        self._writes_bytes = sum(len(write.value.data) for writes in self._writes.values() for write in writes)
        for seq in self._unpacked:
            if seq not in keep:
                event = self.events[seq]
                self.events[seq] = packed = event.packed()
                if not isinstance(event.source, bytes):
                    self.size += packed.size - event.size
        self._unpacked = [*keep]

    def _is_needed(self, seq: int) -> bool:
        """Whether the next event may repeat what the writes at a number hold."""
        event = self.events.get(seq)
        return event is not None and (self._about(event) or "") >= self.latest_id

    def put_writes(self, seq: int, writes: list[Write]) -> None:
        """Remember the writes at a number, until states are forgotten, if it is known that they fold to the same."""
        if all(map(is_plain, writes)):
            self._writes[seq] = writes
            self._writes_bytes += sum(len(write.value.data) for write in writes)

    def put_folded(self, folded: Folded) -> None:
        """Remember what the checkpoint at a number folds to, instead of folding it."""
        self._folded[folded.seq] = folded

    def forget_headers(self, keep: int) -> None:
        """Drop what was folded of checkpoints but of `keep`, and of its base, from which it can be folded."""
        wanted = (keep, self.events[keep].base)
        self._folded = {seq: self._folded[seq] for seq in wanted if seq is not None and seq in self._folded}
        self._versions.clear()

    def payload(self, seq: int) -> bytes:
        """The payload as it was logged (a snapshot's is another), b"" for a filler."""
        event = self.events.get(seq)
        if event is None or seq <= self.covers:
            return self.earlier.payload(seq)
        return event.payload

    def writes(self, seq: int) -> list[Write]:
        if (known := self._writes.get(seq, self._read.get(seq))) is not None:
            return known
        if seq not in self.events:
            return self.earlier.writes(seq)
        if (found := self._passed_writes.pop(seq, None)) is None:
            self._writes_event(self.events[seq])
            found = self._folded_to(seq).writes[seq]
        self._read[seq] = found
        self._read_bytes += _size(found)
        while self._read_bytes > _READ_BYTES and len(self._read) > 1:
            self._read_bytes -= _size(self._read.pop(next(iter(self._read))))
        return found

    def _known_writes(self, seq: int) -> list[Write] | None:
        return self._writes.get(seq, self._read.get(seq, self._passed_writes.get(seq)))

    def _folded_to(self, seq: int) -> _Folding:
        """With what the event at a number folds to, which is not known yet."""
        needs = self._unknown(seq)
        folding = _Folding(self, needs)
        # Who reads the latest is not going to walk back.
        folding.run(walks_back=(self.about(seq) or "") < self.latest_id)
        kinds = {self.events[one].kind for one in needs}
        if CHECKPOINT in kinds:
            self._passed = folding.passed
        if WRITES in kinds:
            self._passed_writes = folding.passed_writes
        return folding

    def _unknown(self, seq: int) -> dict[int, list[int]]:
        """What has to be folded, with what each needs, so that the event at a number is."""
        found: dict[int, list[int]] = {}
        wanted = [seq]
        while wanted:
            at = wanted.pop()
            if at not in found and (event := self.events.get(at)) is not None and not self._is_known(event):
                wanted += found.setdefault(at, self._needs(event))
        return found

    def fold(self, event: Event, states: Mapping[int, State], writes: Mapping[int, list[Write]]) -> State | list[Write]:
        """What an event folds to, from what is given and what is known."""

        def writes_of(at: int) -> list[Write]:
            return writes[at] if at in writes else self.writes(at)

        def state() -> State:
            assert event.base is not None
            return states[event.base] if event.base in states else self.state(event.base)

        base = None if event.base is None else Channels(self._names(event.base), state)
        try:
            if event.kind == CHECKPOINT:
                return fold_state(event, self._names(event.seq), base, writes_of)
            return fold_writes(self._writes_event(event), base, writes_of)
        except Malformed as error:
            raise self._corrupt(event.seq, error) from error

    def remember_folded(self, states: Mapping[int, State], writes: Mapping[int, list[Write]]) -> None:
        self._states |= states
        self._writes |= writes
        self._writes_bytes += sum(map(_size, writes.values()))

    def _is_known(self, event: Event) -> bool:
        known = self._known_state if event.kind == CHECKPOINT else self._known_writes
        return known(event.seq) is not None

    def _needs(self, event: Event) -> list[int]:
        try:
            before = needs(event)
        except Malformed as error:
            raise self._corrupt(event.seq, error) from error
        for found in (self.events[one] for one in before if one in self.events):
            (self._checkpoint if found.seq == event.base else self._writes_event)(found)
        return before

    def _writes_event(self, event: Event) -> Event:
        if event.kind != WRITES:
            raise CorruptRecord(keys.event(self.epoch, event.seq), "referred to as writes, and is something else")
        return event

    def _checkpoint(self, event: Event) -> Event:
        if event.kind != CHECKPOINT:
            raise CorruptRecord(keys.event(self.epoch, event.seq), "referred to as a checkpoint, and is something else")
        return event

    def _corrupt(self, seq: int, error: Malformed) -> CorruptRecord:
        """Damage that folding finds is the event's."""
        return CorruptRecord(keys.event(self.epoch, seq), str(error))
