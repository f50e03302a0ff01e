"""Processes in one thread each, of which one goes on at a time, from one call of the store to the next."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from torture.clock import MovingClock

_MOST = 60_000
_HELD_UP = (20, 100, 400)
"""So many turns of others a process waits that is held up."""
_SECONDS = (1, 1, 5, 12)
_LONGEST = 50
"""Seconds that pass in a run: less than those after which a process reads anew what it knows."""


class _Ended(BaseException):
    """Ends the threads of a run that has failed."""


class Turns:
    """Chance says who is next, who is held up for long, and when time passes."""

    now: ClassVar[Turns | None] = None
    """Those of the run that is under way."""

    def __init__(self, chance: random.Random, clock: MovingClock) -> None:
        self._chance = chance
        self._clock = clock
        self._end = clock.seconds + _LONGEST
        self._processes: list[_Process] = []
        self._back = threading.Semaphore(0)
        self._ending = False

    def begin(self, name: str, work: Callable[[], object]) -> None:
        """A process, that does nothing before it gets a turn."""
        self._processes.append(_Process(name, work, self))

    def run(self) -> int:
        """Until all have ended; how many turns that took. Raises what ended one of them early."""
        Turns.now = self
        try:
            return self._run()
        finally:
            self._ending = True
            Turns.now = None
            for process in self._processes:
                process.go.release()

    def _run(self) -> int:
        last = None
        for turn in range(_MOST):
            alive = [process for process in self._processes if not process.ended]
            if not alive:
                return turn
            last = self._next(alive, last)
            last.go.release()
            self._back.acquire()
            if last.error is not None:
                raise AssertionError(f"{last.name}, in turn {turn}: {last.error}") from last.error
        raise AssertionError("they hold each other up")

    def _next(self, alive: list[_Process], last: _Process | None) -> _Process:
        ready = [process for process in alive if process.held_up <= 0] or alive
        for process in alive:
            process.held_up -= 1
        following = last if last is not None and last in ready and self._one_in(2) else self._chance.choice(ready)
        if self._one_in(100):
            following.held_up = self._chance.choice(_HELD_UP)
        if self._one_in(500) and self._clock.seconds < self._end:
            self._clock.advance(self._chance.choice(_SECONDS))
        return following

    def _one_in(self, number: int) -> bool:
        return self._chance.random() * number < 1

    def pass_on(self) -> None:
        """Give the turn away; returns when it comes back."""
        mine = next((one for one in self._processes if one.thread is threading.current_thread()), None)
        if mine is None:
            return  # whoever looks at the store when all is over
        self._back.release()
        mine.wait()

    def give_back(self) -> None:
        self._back.release()

    @property
    def ending(self) -> bool:
        return self._ending


class _Process:
    def __init__(self, name: str, work: Callable[[], object], turns: Turns) -> None:
        self.name = name
        self.go = threading.Semaphore(0)
        self.held_up = 0
        self.ended = False
        self.error: BaseException | None = None
        self._work = work
        self._turns = turns
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def wait(self) -> None:
        self.go.acquire()
        if self._turns.ending:
            raise _Ended

    def _run(self) -> None:
        try:
            self.wait()
            self._work()
        except _Ended:
            return
        except BaseException as error:  # noqa: BLE001 - it ends the run
            self.error = error
        self.ended = True
        self._turns.give_back()


class TurnLock:
    """What threads of one process wait for, by passing their turns on: in place of a log's lock."""

    def __init__(self) -> None:
        self._owner: int | None = None
        self._depth = 0

    def acquire(self) -> bool:
        me = threading.get_ident()
        while self._owner not in (None, me):
            assert Turns.now is not None
            Turns.now.pass_on()
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()
