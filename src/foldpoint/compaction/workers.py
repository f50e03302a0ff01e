"""A job done by several processes. Compression leaves Python's lock, but most of the work does not.

Each worker does a share, says so, and is given the next. What it is told while it works can only be to stop; it stops
too when the process that started it is gone.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from foldpoint.compaction.job import Job, Outcome, ShareDone
from foldpoint.engine.engine import Engine
from foldpoint.errors import FoldpointError, StoreUnavailable

Opened = Callable[[], AbstractContextManager[Engine]]

_PATIENCE = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a worker gave up; refused: for a mistake of the caller."""

    reason: str
    refused: bool


def run_in_processes(
    job: Job, opened: Opened, workers: int, shares: Iterable[int], stopped: Callable[[], bool]
) -> Iterator[Outcome | ShareDone]:
    """As `Job.run`, in so many processes. `opened` can be pickled and gives each worker an engine of its own.

    The job's rate is divided among the workers. When `stopped` says so, each worker stops after its present thread.
    """
    crew = _Crew(shares)
    try:
        for _ in range(workers):
            crew.hire(job, opened)
        while crew:
            if stopped():
                crew.dismiss()
            yield from crew.listen()
    finally:
        crew.close()


class _Crew:
    """The workers, by their end of a pipe each."""

    def __init__(self, shares: Iterable[int]) -> None:
        self._shares = deque(shares)
        self._links: dict[Connection, BaseProcess] = {}
        self._dismissed = False

    def __len__(self) -> int:
        return len(self._links)

    def hire(self, job: Job, opened: Opened) -> None:
        if not self._shares:
            return
        context = get_context("spawn")  # a fork would share connections
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, job, opened), daemon=True)
        process.start()
        there.close()
        self._links[here] = process
        with suppress(BrokenPipeError):  # it is gone, as the next to be received from it tells
            here.send(self._shares.popleft())

    def dismiss(self) -> None:
        """Tell all to stop after their present thread."""
        if not self._dismissed:
            self._dismissed = True
            for link in self._links:
                with suppress(BrokenPipeError):
                    link.send(None)

    def listen(self) -> Iterator[Outcome | ShareDone]:
        """What was said within a short while."""
        for link in connection.wait(list(self._links), _PATIENCE):
            assert isinstance(link, Connection)
            try:
                message = link.recv()
            except (EOFError, ConnectionResetError):
                self._leave(link)
                continue
            if isinstance(message, _Failed):
                raise (ValueError if message.refused else StoreUnavailable)(message.reason)
            yield message
            if isinstance(message, ShareDone) and not self._dismissed:
                with suppress(BrokenPipeError):  # it is gone, as the next to be received from it tells
                    link.send(self._shares.popleft() if self._shares else None)

    def _leave(self, link: Connection) -> None:
        process = self._links.pop(link)
        process.join()
        link.close()
        if process.exitcode != 0:
            raise StoreUnavailable(f"a worker process ended with code {process.exitcode}; run the job again to go on")

    def close(self) -> None:
        """End all, those that work after their present thread."""
        for link in self._links:
            link.close()
        for process in self._links.values():
            process.join()


def _serve(link: Connection, job: Job, opened: Opened) -> None:
    """A worker's life."""
    for sent_to_all in (signal.SIGINT, signal.SIGTERM):  # the process that started this one says when to stop
        signal.signal(sent_to_all, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            with opened() as engine:
                while (share := link.recv()) is not None:
                    for message in job.run(engine, [share], link.poll):
                        link.send(message)
        except (FoldpointError, ValueError) as error:
            link.send(_Failed(str(error), refused=isinstance(error, ValueError)))
