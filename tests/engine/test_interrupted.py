"""An exception that comes from outside, at any line, leaves nothing half known: the process lives on and goes on right.

Ctrl-C in a notebook, a time limit of a worker, or no memory left are such.
"""

from __future__ import annotations

import linecache
import os
import sys
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


def interrupted(call: Callable[[], object], after: int) -> bool:
    """Whether the call was still under way when so many lines of the package had been executed."""
    left = after

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not line.startswith(BLOCKS):
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
