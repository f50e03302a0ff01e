"""An exception that comes from outside, at any line, leaves nothing half known: the process lives on and goes on right.

Ctrl-C in a notebook, a time limit of a worker, or no memory left are such.
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import itertools
import linecache
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from checkpoints import id_of, numbered, numbers, write

import foldpoint
from foldpoint import Engine, Settings
from foldpoint.compaction.verify import verify
from foldpoint.engine.memory import MemoryStore

PACKAGE = os.path.dirname(foldpoint.__file__)
SETTINGS = Settings(window=8, compaction="off", snapshot_ratio=0.1)
BLOCKS = ("with ", "try:", "finally:", "except", "yield", "@")
"""Of these an interpreter goes on at least as far as to the end of the block."""

LOOPS = {dis.opmap["JUMP_BACKWARD"], dis.opmap["FOR_ITER"]}
"""Python 3.12 and later forget which blocks they are in if a trace function raises there; a signal does not do that."""


def interrupted(call: Callable[[], object], after: int, *, anywhere: bool = False) -> bool:
    """Whether the call was still under way when so many lines of the package had been executed.

    anywhere: calls and returns count too, and those of contextlib.
    """
    left = after

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE) and not (anywhere and path == contextlib.__file__):
            return None
        line = linecache.getline(path, frame.f_lineno).strip()
        goes_round = frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] in LOOPS
        if (anywhere or event == "line") and not line.startswith(BLOCKS) and not goes_round:
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def threads_of_two() -> tuple[MemoryStore, Engine, Engine]:
    """A store, and two engines that know its thread: one of them not yet its last write and checkpoint."""
    store = MemoryStore(max_record=600)
    one, other = Engine(store, SETTINGS), Engine(store, SETTINGS)
    for n in range(20):
        one.put("t", "", numbered(n))
    other.latest("t", "")
    one.put_writes("t", "", id_of(19), [write(1, "acknowledged")])
    one.put("t", "", numbered(20, 19))
    one.put_writes("t", "", id_of(20), [write(2, "acknowledged")])
    return store, one, other


def writes_of(engine: Engine, n: int) -> list[str]:
    entry = engine.find("t", "", id_of(n))
    assert entry is not None
    return [one.task_id for one in entry.writes()]


def test_what_a_broken_off_read_or_put_knew_is_read_again() -> None:
    calls: dict[str, Callable[[Engine], object]] = {
        "latest": lambda engine: engine.latest("t", ""),
        "put": lambda engine: engine.put("t", "", numbered(21, 20)),
        "put_writes": lambda engine: engine.put_writes("t", "", id_of(20), [write(3, "again")]),
        "find": lambda engine: engine.find("t", "", id_of(3)),
    }
    for name, call in calls.items():
        after = 1
        while True:
            store, _, other = threads_of_two()
            expected = writes_of(Engine(store, SETTINGS), 19)
            if not interrupted(lambda: call(other), after):  # noqa: B023
                break
            if name == "put":
                call(other)
            assert writes_of(other, 19) == expected, (name, after)
            assert set(writes_of(Engine(store, SETTINGS), 20)) <= set(writes_of(other, 20)), (name, after)
            with other.log("t", "") as log:
                log.seal()
            for reader in (other, Engine(store, SETTINGS)):
                assert numbers(reader)[-21:] == [*reversed(range(21))], (name, after)
                assert writes_of(reader, 19) == expected, (name, after)
            assert all(not verified.findings for verified in verify(Engine(store, SETTINGS))), (name, after)
            after += 7
        assert after > 50


def test_whoever_is_interrupted_leaves_no_lock_behind() -> None:
    """Also right after it was taken, and where the standard library's own lines are broken off."""
    for after in itertools.count(1):
        engine = Engine(MemoryStore(), SETTINGS)
        engine.put("t", "", numbered(0))
        if not interrupted(lambda: engine.put("t", "", numbered(1)), after, anywhere=True):  # noqa: B023
            break
        reading = threading.Thread(target=engine.latest, args=("t", ""), daemon=True)
        reading.start()
        reading.join(60)
        assert not reading.is_alive(), after
    assert after > 100


def test_whoever_is_interrupted_while_waiting_for_a_stream_holds_up_nobody() -> None:
    """As by a time limit that a thread has: it has the lock by then, and does not know yet."""

    class TimeLimit(BaseException):
        pass

    engine = Engine(MemoryStore(), SETTINGS)
    engine.put("t", "", numbered(0))
    over, go_on = threading.Event(), threading.Event()

    def put() -> None:
        try:
            engine.put("t", "", numbered(1))
        except TimeLimit:
            over.set()
            go_on.wait(60)  # with what was raised, and all that it leads to

    waiting = threading.Thread(target=put, daemon=True)
    with engine.log("t", "") as log:
        waiting.start()
        while not log.group.waiting():
            time.sleep(0.001)
        time.sleep(0.05)
        assert waiting.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(waiting.ident), ctypes.py_object(TimeLimit))
    assert over.wait(60)
    reading = threading.Thread(target=engine.latest, args=("t", ""), daemon=True)
    reading.start()
    reading.join(10)
    assert not reading.is_alive()
    go_on.set()
    assert numbers(engine) == [0]
