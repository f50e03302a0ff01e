"""Whatever processes do at once, call by call, and whatever a crash of all nodes takes amid it: nothing is lost.

Writers, readers, compactors and others work on one thread, each call of the store interleaved with those of the others.
Calls fail, before they did anything, after, or in the middle; batches are no moments; processes are held up for long;
and crashes take the newest heads, and any of the segments and snapshots, but no event: processes that live on put those
again (`torture/node.py` is a model of a node that loses them too). All is compared with what was put, while it is.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest.mock import patch

from foldpoint import Engine, Settings
from foldpoint.codecs.model import Checkpoint, Header, Value, Write
from foldpoint.compaction import KeepLast, Retention, compact_thread, copy_thread, reseal_thread, rewrite_thread, sweep
from foldpoint.compaction import upkeep as do_upkeep
from foldpoint.compaction.verify import Verified, verify
from foldpoint.engine import appending, group, keys, recovery, repair
from foldpoint.engine import log as logs
from foldpoint.engine.fold import Entry
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.reading import read_head
from foldpoint.engine.records import Capabilities, HeadRecord
from foldpoint.errors import StoreUnavailable
from torture.clock import MovingClock
from torture.contents import TIME
from torture.faulty import VERBS, WRITES
from torture.node import DERIVED, tear
from torture.small import small_limits
from torture.turns import TurnLock, Turns

RUNS = 20
"""Of one seed."""
MIXES = (
    "wwx", "wwcx", "wwxr", "wcxr", "wwcxr", "wwwx", "wwsx", "wwcsx", "wwkx", "wwpx", "wyx", "wwcr", "wwpr", "wwcy",
)  # fmt: skip
"""Who is there: writers, readers, compactors, sweepers, pruners, one who seals anew or copies; x: crashes."""
THREAD = ("a", "")
_PIECES = ("create", "remove_many", "empty_many", "extend")


class Cluster(MemoryStore):
    """Whose crashes take, or tear, what was derived from events since its devices last took all."""

    def __init__(self, clock: MovingClock, max_record: int) -> None:
        super().__init__(max_record=max_record, clock=clock.now)
        self._crashes = 0
        self._heads_before: list[tuple[bytes, tuple[HeadRecord, float | None]]] = []
        self._young: dict[bytes, None] = {}

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, ordered=False)

    def incarnation(self) -> object:
        return self._crashes

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        created = super().create(records, ttl=ttl)
        made = (key for (key, _), new in zip(records, created, strict=True) if new)
        self._young |= dict.fromkeys(key for key in made if keys.kind_of(key) in DERIVED)
        return created

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        before = self._heads.get(head.key)
        swapped = super().swap(head, expected=expected, ttl=ttl)
        if swapped and before is not None:
            if read_head(head).epoch != read_head(before[0]).epoch:
                self.flush()  # what a rewrite has written, nothing else tells
            else:
                self._heads_before.append((head.key, before))
        return swapped

    def flush(self) -> None:
        """Let the devices take all."""
        self._heads_before.clear()
        self._young.clear()

    def crash(self, chance: random.Random) -> None:
        self._crashes += 1
        if self._heads_before:
            at = chance.randrange(len(self._heads_before)) if chance.random() < 0.6 else 0
            key, older = self._heads_before[at]
            if not self._announced_since(key, at):
                self._heads[key] = older
                share = chance.choice([0, 0, 0.3, 1])
                lost = [one for one in self._young if chance.random() < share]
                for one in (one for one in lost if keys.epoch_of(one) == read_head(older[0]).epoch):
                    self._lose(one, torn=chance.random() < 0.1)
        self.flush()

    def _lose(self, key: bytes, *, torn: bool) -> None:
        value, expires_at = self._log.get(key, (b"", None))
        if torn and value:
            self._log[key] = tear(value), expires_at
        else:
            super().remove_many([key])

    def _announced_since(self, key: bytes, at: int) -> bool:
        """Whether a head has named, or left, another epoch since, or removed what was superseded."""
        since = [read_head(older[0]) for one, older in self._heads_before[at:] if one == key]
        now = read_head(self._heads[key][0])
        return any((one.dead, one.cleaned) != (now.dead, now.cleaned) for one in since)


class Taken:
    """A store as one process sees it, whose calls are turns, and may fail. A swap comes right after what led to it."""

    def __init__(self, store: Cluster, turns: Turns, faults: float, chance: random.Random) -> None:
        self._store = store
        self._turns = turns
        self._faults = faults
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "incarnation":
            self._turns.pass_on()
        return partial(self._call, name, found) if name in VERBS else found

    def _call(self, name: str, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if name != "swap":
            self._turns.pass_on()
        if self._chance.random() < self._faults:
            if name in WRITES and self._chance.random() < 0.6:
                self._apply(name, verb, *args, **kwargs)
            raise StoreUnavailable(f"{name}: the connection is gone")
        if name in _PIECES and self._chance.random() < 0.15:
            return self._in_two(name, verb, *args, **kwargs)
        if name == "get_many" and self._chance.random() < 0.1:
            return self._read_in_two(verb, [*args[0]])
        return verb(*args, **kwargs)

    def _apply(self, name: str, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if name in _PIECES and self._chance.random() < 0.5:
            args = [one for one in args[0] if self._chance.random() < 0.5], *args[1:]
        verb(*args, **kwargs)

    def _in_two(self, name: str, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        wanted = [*args[0]]
        at = self._chance.randint(0, len(wanted))
        first = verb(wanted[:at], *args[1:], **kwargs)
        self._turns.pass_on()
        second = verb(wanted[at:], *args[1:], **kwargs)
        return first + second if name == "create" else None

    def _read_in_two(self, verb: Callable[..., list[bytes | None]], wanted: list[bytes]) -> list[bytes | None]:
        at, later_first = self._chance.randint(0, len(wanted)), self._chance.random() < 0.5
        first = verb(wanted[at:] if later_first else wanted[:at])
        self._turns.pass_on()
        second = verb(wanted[:at] if later_first else wanted[at:])
        return second + first if later_first else first + second


@dataclass
class Known:
    """What was put, by whom it was acknowledged when, and what pruning may have taken. Times are numbers of events."""

    time: int = 0
    put: dict[str, Checkpoint] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    writes: dict[tuple[str, str], list[Write]] = field(default_factory=dict)
    written: dict[tuple[str, str], int] = field(default_factory=dict)
    prunings: list[list[int]] = field(default_factory=list)
    """How many stayed, and when it ended; 0: not yet."""

    def tick(self) -> int:
        self.time += 1
        return self.time

    def may_be_gone(self, checkpoint_id: str) -> bool:
        for stayed, ended in self.prunings:
            until = ended or self.time + 1
            newer = [one for one, began in self.began.items() if one > checkpoint_id and began < until]
            if self.began[checkpoint_id] < until and len(newer) >= stayed:
                return True
        return False

    def check(self, entry: Entry, since: int, fetch: Callable[[Callable[[], Any]], Any]) -> None:
        """An entry is what was put, with all writes acknowledged before `since`, each task's wholly or not at all."""
        checkpoint_id = entry.folded.header.id
        assert repr(entry.folded.header) == repr(self.put[checkpoint_id].header)
        assert fetch(entry.state) == self.put[checkpoint_id].channels, f"another state of {checkpoint_id}"
        found = {(one.task_id, one.idx): one for one in fetch(entry.writes)}
        for (about, task), writes in self.writes.items():
            if about == checkpoint_id:
                there = [found.pop((one.task_id, one.idx), None) for one in writes]
                late = self.written.get((about, task), self.time) >= since
                assert there == writes or not any(there), f"half of the writes of {task} for {about}"
                assert there == writes or late or self.may_be_gone(about), f"writes of {task} for {about} are lost"
        assert not found, f"writes of nobody for {checkpoint_id}"


class Scene:
    """One history, from a seed."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.clock = MovingClock()
        self.large = self.chance.random() < 0.4
        self.store = Cluster(self.clock, self.chance.choice([200, 300, 1000]) if self.large else 1 << 20)
        self.turns = Turns(self.chance, self.clock)
        self.faults = self.chance.choice([0, 0, 0.004, 0.02])
        self.settings = Settings(
            window=self.chance.choice([2, 2, 3, 4, 8]),
            segment_level=1,
            snapshot_ratio=self.chance.choice([0.1, 1.0]),
            grace=600,
            compaction="off",
            cache_bytes=self.chance.choice([0, 1 << 28]),
        )
        self.known = Known()
        self.made = 0
        self.body = self.chance.randbytes(150)

    def engine(self) -> Engine:
        store: Any = Taken(self.store, self.turns, self.faults, self.chance)
        return Engine(store, self.settings, clock=self.clock)

    def play(self, mix: str) -> int:
        """How many turns it took."""
        roles: dict[str, Callable[[Engine], None]] = {
            "w": self.write, "r": self.read, "c": self.compact, "s": self.sweep, "k": self.seal_anew,
            "p": self.prune, "y": self.copy, "x": self.crash,
        }  # fmt: skip
        shared = self.engine()
        for number, role in enumerate(mix):
            engine = shared if role in "wr" and self.chance.random() < 0.3 else self.engine()
            self.turns.begin(f"{role}{number}", partial(roles[role], engine))
        turns = self.turns.run()
        self.check_all()
        do_upkeep(self.fresh(), *THREAD, idle=True)
        self.check_all()
        for _ in range(2 if self.damaged() else 0):
            # Torn records stay among what is superseded until that has been marked, and the grace is over.
            self.clock.advance(self.settings.grace + 1)
            do_upkeep(self.fresh(), *THREAD, idle=True)
        assert not (damaged := self.damaged()), damaged
        return turns

    def damaged(self) -> list[Verified]:
        """What cannot be repaired."""
        return [one for one in verify(self.fresh(), repair=True) if not one.sound]

    def fresh(self) -> Engine:
        """A process that knows nothing yet, when all is over."""
        return Engine(self.store, self.settings, clock=self.clock)

    def check_all(self) -> None:
        """Everything is found."""
        engine, now = self.fresh(), self.known.tick()
        there = [entry.folded.header.id for entry in engine.history(*THREAD)]
        for checkpoint_id in self.known.acknowledged:
            entry = engine.find(*THREAD, checkpoint_id)
            assert (entry is not None) == (checkpoint_id in there), f"{checkpoint_id} is found or listed, not both"
            assert entry is not None or self.known.may_be_gone(checkpoint_id), f"{checkpoint_id} is lost"
            if entry is not None:
                self.known.check(entry, now, lambda call: call())
        if there:
            latest = engine.latest(*THREAD)
            assert latest is not None
            assert latest.folded.header.id == there[0]

    def again(self, call: Callable[[], Any]) -> Any:
        """As a caller does whom a fault has met."""
        while True:
            try:
                return call()
            except StoreUnavailable:
                continue

    # -- who is there --------------------------------------------------------------------------------------------------

    def write(self, engine: Engine) -> None:
        parent: str | None = None
        for _ in range(self.chance.randint(4, 14)):
            if self.chance.random() < 0.3:
                latest = self.again(lambda: engine.latest(*THREAD))
                parent = latest.folded.header.id if latest else None
            checkpoint = self.checkpoint(parent)
            parent = checkpoint.header.id
            self.known.put[parent], self.known.began[parent] = checkpoint, self.known.tick()
            if self.chance.random() < 0.6:
                early = self.repeating() if self.chance.random() < 0.7 else bytes(checkpoint.channels["noise"].data)
                self.put_writes(engine, parent, [early])
            self.again(partial(engine.put, *THREAD, checkpoint))
            self.known.acknowledged[parent] = self.known.tick()
            for _ in range(self.chance.choice([0, 0, 1, 2])):
                about = self.chance.choice([*self.known.acknowledged][-4:])
                self.put_writes(engine, about, [bytes(checkpoint.channels["noise"].data), b"x" * 30])

    def put_writes(self, engine: Engine, checkpoint_id: str, bodies: list[bytes]) -> None:
        self.made += 1
        task = f"task {self.made}"
        writes = [Write(task, idx, "noise", Value("bytes", body), "") for idx, body in enumerate(bodies)]
        self.known.writes[checkpoint_id, task] = writes
        self.again(lambda: engine.put_writes(*THREAD, checkpoint_id, writes))
        self.known.written[checkpoint_id, task] = self.known.tick()

    def checkpoint(self, parent: str | None) -> Checkpoint:
        self.made += 1
        number = self.made
        back = self.chance.choice([0, 0, 0, 3]) if number > 5 else 0
        size = self.chance.choice([10, 10, 60, 400 if self.large else 100])
        channels = {
            "list": Value("bytes", b"".join(b"%05d," % one for one in range(number))),
            "noise": Value("bytes", self.repeating() if self.chance.random() < 0.6 else self.chance.randbytes(size)),
        }
        header = Header(_id(number - back, number), parent, 2, TIME, dict.fromkeys(channels, number), {}, None, None)
        return Checkpoint(header, channels, {"step": number}, None)

    def repeating(self) -> bytes:
        """A body like others, of which some are referred to."""
        body = bytearray(self.body)
        body[self.chance.randrange(len(body))] = self.chance.randrange(256)
        if self.chance.random() < 0.5:
            self.body = bytes(body)
        return self.body

    def read(self, engine: Engine) -> None:
        for _ in range(self.chance.randint(4, 14)):
            since = self.known.tick()
            before = [*self.known.acknowledged]
            kind = self.chance.choice(["latest", "find", "history"])
            if kind == "latest" or not before:
                self.read_latest(engine, before, since)
            elif kind == "find":
                wanted = self.chance.choice(before)
                entry = self.again(partial(engine.find, *THREAD, wanted))
                assert entry is not None or self.known.may_be_gone(wanted), f"{wanted} is not found"
                if entry is not None:
                    self.known.check(entry, since, self.again)
            else:
                entries = self.again(lambda: [*engine.history(*THREAD)])
                ids = [entry.folded.header.id for entry in entries]
                assert ids == sorted(set(ids), reverse=True)
                missing = [one for one in before if one not in ids and not self.known.may_be_gone(one)]
                assert not missing, f"the history lacks {missing}"
                for entry in entries:
                    self.known.check(entry, since, self.again)

    def read_latest(self, engine: Engine, before: list[str], since: int) -> None:
        stay = [one for one in before if not self.known.may_be_gone(one)]
        entry = self.again(lambda: engine.latest(*THREAD))
        if entry is None:
            assert not stay, "nothing is there"
            return
        assert not stay or entry.folded.header.id >= max(stay), "the latest is older"
        self.known.check(entry, since, self.again)

    def compact(self, engine: Engine) -> None:
        for _ in range(self.chance.randint(1, 4)):
            idle = self.chance.random() < 0.7
            self.again(lambda: do_upkeep(engine, *THREAD, idle=idle))  # noqa: B023 - called before it changes

    def sweep(self, engine: Engine) -> None:
        for _ in range(self.chance.randint(1, 4)):
            self.again(lambda: sweep(engine))

    def seal_anew(self, engine: Engine) -> None:
        for _ in range(self.chance.randint(1, 4)):
            self.again(lambda: [*reseal_thread(engine, THREAD[0])])

    def prune(self, engine: Engine) -> None:
        for _ in range(self.chance.randint(1, 4)):
            count = self.chance.randint(1, 4)
            pruning = [count, 0]
            self.known.prunings.append(pruning)
            if self.chance.random() < 0.5:
                self.again(partial(rewrite_thread, engine, THREAD[0], KeepLast(count)))
            else:
                self.again(lambda: [*compact_thread(engine, THREAD[0], Retention(keep_last=count))])  # noqa: B023
            pruning[1] = self.known.tick()

    def copy(self, engine: Engine) -> None:
        """Into another thread: what was there before is there then."""
        for _ in range(self.chance.randint(1, 4)):
            checkpoints, written = [*self.known.acknowledged], [*self.known.written]
            self.again(lambda: copy_thread(engine, THREAD[0], "copy"))
            for checkpoint_id in checkpoints:
                entry = self.again(partial(engine.find, "copy", "", checkpoint_id))
                assert entry is not None, f"the copy lacks {checkpoint_id}"
                assert self.again(entry.state) == self.known.put[checkpoint_id].channels
                tasks = {one.task_id for one in self.again(entry.writes)}
                assert {task for about, task in written if about == checkpoint_id} <= tasks, "the copy lacks writes"

    def crash(self, engine: Engine) -> None:
        """Now and then the devices take all; once all nodes die."""
        for _ in range(self.chance.randint(1, 24)):
            for _ in range(self.chance.choice([5, 20, 60, 150])):
                self.turns.pass_on()
            if self.chance.random() < 0.5:
                self.store.crash(self.chance)
                return
            self.store.flush()


def play(number: int, *, runs: int = RUNS) -> int:
    """Play the runs of a seed. AssertionError, or what was raised, with a note that says which."""
    for run in range(runs):
        mix = MIXES[(number * runs + run) % len(MIXES)]
        seed = f"{number}.{run}"
        try:
            with small_limits(), repeatable(random.Random(seed)):
                Scene(seed).play(mix)
        except Exception as error:
            error.add_note(f"run {run} of seed {number}: {mix}")
            raise
    return runs


@contextmanager
def repeatable(chance: random.Random) -> Iterator[None]:
    """Names and revisions that a seed says, locks that pass turns on, no waiting in real time, and no log."""
    with ExitStack() as stack:
        for module, name, instead in (
            (keys, "new_epoch", partial(chance.randbytes, keys.EPOCH_BYTES)),
            (keys, "new_token", partial(chance.randbytes, 8)),
            (logs, "random", chance),
            (logs, "RLock", TurnLock),
            (appending, "_GIVE_WAY", 0),
            (group, "PATIENCE", 0),
            (recovery, "_PAUSE", 0),
            (repair, "_PAUSE", 0),
            (logging.getLogger("foldpoint"), "disabled", True),  # it tells of every record that is restored
        ):
            stack.enter_context(patch.object(module, name, instead))
        yield


def _id(moment: int, number: int) -> str:
    """Of version 6, which order by their moment."""
    return str(uuid.UUID(int=(0x1EF << 116) + (max(moment, 1) << 40) + number))
