"""Children of this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; the child's process id. It exits with 1 if `work` raises."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended_well(child: int) -> None:
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("a child hung")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
