"""Whether a call lets other threads have the interpreter."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_TURN = 0.5  # seconds


def lets_others_run(call: Callable[[], Any]) -> bool:
    """Whether another thread comes to work while `call` is called a few times: it does only if this one lets it."""
    counted, stop = [0], threading.Event()

    def work() -> None:
        while not stop.is_set():
            counted[0] += 1

    call()
    worker = threading.Thread(target=work)
    before = sys.getswitchinterval()
    worker.start()
    try:
        sys.setswitchinterval(_TURN)
        time.sleep(0)  # from here on none has its turn before that, unless this thread gives way
        seen = counted[0]
        for _ in range(20):
            call()
        return counted[0] > seen
    finally:
        sys.setswitchinterval(before)
        stop.set()
        worker.join()


def sometimes_lets_others_run(call: Callable[[], Any]) -> bool:
    """The same for a call that does: on a busy machine the other thread may not come to work in time."""
    return any(lets_others_run(call) for _ in range(50))
