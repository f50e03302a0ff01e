"""Compacting a whole store beside live traffic, share by share.

Doing a share again is harmless and does little, so a job that was killed is simply started again; a `Journal` spares it
the shares that were done.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foldpoint.compaction.archives import Archives
from foldpoint.compaction.plan import Plan
from foldpoint.compaction.policy import Policies
from foldpoint.compaction.run import CompactionReport
from foldpoint.compaction.threads import compact_thread, rehearse, reseal_thread
from foldpoint.engine import keys
from foldpoint.engine.engine import Engine
from foldpoint.errors import Conflict, RecordError, said

SHARES = 64
"""Of a store's threads: enough that workers end at about the same time, and that little is done twice after a kill."""

Wait = Callable[[float], bool]
"""Waits so many seconds, shorter if the job is to stop; whether it is."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a job may go: on average so many streams, or bytes written and removed, a second.

    >>> Rate.parse("4MB")
    Rate(amount=4000000.0, of='bytes')
    """

    amount: float
    of: str

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From "20" (streams), "500kB", "4MB" or "1.5MiB". Raises ValueError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|kB|KiB|MB|MiB)?", text.strip(), re.ASCII)
        if found is None or float(found[1]) == 0:
            raise ValueError(f"rate: expected streams a second, such as 20, or bytes, such as 500kB, got {text!r}")
        amount, unit = float(found[1]), found[2]
        return cls(amount * _BYTES[unit], "bytes") if unit else cls(amount, "streams")

    def seconds(self, report: CompactionReport) -> float:
        """What one stream may take."""
        cost = report.bytes_written + report.bytes_removed if self.of == "bytes" else 1
        return cost / self.amount

    def split(self, ways: int) -> Rate:
        """The rate of each of so many workers."""
        return Rate(self.amount / ways, self.of)


_BYTES = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 1 << 20}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one stream: what was done (in a dry run: would be, as planned), or why its thread could not be compacted.

    resealed: that is all that was done so far.
    """

    thread_id: str
    report: CompactionReport | None = None
    plan: Plan | None = None
    failure: str = ""
    resealed: bool = False


@dataclass(frozen=True, slots=True)
class ShareDone:
    """All threads of a share were seen to."""

    share: int


@dataclass(frozen=True, slots=True)
class Job:
    """What to compact and how. Can be pickled. thread_id, prefix: only this thread, or those whose id begins so.

    reseal: write every record again first, as for `reseal_thread`.
    """

    policies: Policies = field(default_factory=Policies)
    thread_id: str | None = None
    prefix: str = ""
    rate: Rate | None = None
    dry_run: bool = False
    reseal: bool = False

    @property
    def shares(self) -> int:
        return SHARES if self.thread_id is None else 1

    def streams(self, engine: Engine, partition: tuple[int, int] = (0, 1)) -> Iterator[tuple[str, bytes]]:
        """Those that this is about: their thread, and the key of their head, whether that can be read or not."""
        thread = None if self.thread_id is None else keys.text(self.thread_id)
        for record in engine.store.heads(thread, partition=partition):
            thread_id = keys.untext(record.thread)
            if thread_id.startswith(self.prefix):
                yield thread_id, record.key

    def run(self, engine: Engine, shares: Iterable[int], wait: Wait) -> Iterator[Outcome | ShareDone]:
        """Do the shares one after the other; a thread that fails holds up no other.

        Stops after a thread when `wait`, which is asked after each, says so. Raises StoreUnavailable when the store
        cannot serve it, ValueError for a store to export to that cannot be.
        """
        due = time.monotonic()
        with Archives(engine) as archives:
            if not self.dry_run:
                for url in self.policies.exports:
                    archives.open(url)  # before anything is done: it may be mistyped
            for share in shares:
                for thread_id in self._threads(engine, (share, self.shares)):
                    due = max(due, time.monotonic())
                    for outcome in self._compact(engine, thread_id, archives):
                        yield outcome
                        due += self.rate.seconds(outcome.report) if self.rate and outcome.report else 0
                    if wait(max(0.0, due - time.monotonic())):
                        return
                yield ShareDone(share)

    def _threads(self, engine: Engine, partition: tuple[int, int]) -> Iterator[str]:
        """A thread is in the share of its root's head; where there is none, of the smallest key of its heads."""
        for thread_id, key in self.streams(engine, partition):
            if key == keys.head(thread_id, "") or _is_first(engine, thread_id, key):
                yield thread_id

    def _compact(self, engine: Engine, thread_id: str, archives: Archives) -> Iterator[Outcome]:
        retention = self.policies.of(thread_id)
        try:
            if self.dry_run:
                for plan, report in rehearse(engine, thread_id, retention):
                    yield Outcome(thread_id, report, plan)
                return
            if self.reseal:
                for report in reseal_thread(engine, thread_id):
                    yield Outcome(thread_id, report, resealed=True)
            for report in compact_thread(engine, thread_id, retention, archives=archives):
                yield Outcome(thread_id, report)
        except (Conflict, RecordError) as error:
            yield Outcome(thread_id, failure=said(error))


def _is_first(engine: Engine, thread_id: str, key: bytes) -> bool:
    if engine.store.get_head(keys.head(thread_id, "")) is not None:
        return False
    return key == min((record.key for record in engine.store.heads(keys.text(thread_id))), default=key)


class Journal:
    """Which shares of a job are done, in a file; it goes when all are. job: what makes it this job and no other.

    Of that only a digest is stored: a URL may hold a password.
    """

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        """Raises ValueError if the file is something else, of another job, or cannot be written."""
        self._path = path
        named = json.dumps({**job, "shares": SHARES}, sort_keys=True).encode()
        self._job = hashlib.blake2b(named, digest_size=16).hexdigest()
        self._done: list[int] = []
        with self._usable():
            with suppress(FileNotFoundError):
                self._read()
            self._write()

    @property
    def remaining(self) -> list[int]:
        return [share for share in range(SHARES) if share not in self._done]

    def finish(self, share: int) -> None:
        """Note that a share is done: when this returns, a killed job will not do it again. Raises as `__init__`."""
        self._done.append(share)
        with self._usable():
            if self.remaining:
                self._write()
            else:
                self._path.unlink(missing_ok=True)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(f"resume file {self._path}: {error.strerror or error}; give another") from error

    def _write(self) -> None:
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump({"job": self._job, "done": self._done}, file)
        os.replace(beside, self._path)

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8")
        try:
            found = json.loads(text)
            job, self._done = found["job"], [int(share) for share in found["done"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"resume file {self._path} is not one of Foldpoint ({error!r}); give another, or remove it"
            ) from error
        if job != self._job:
            raise ValueError(f"resume file {self._path} is of another job (store, prefix or policy); give another")
