"""Calls that append to one stream at the same moment, so that one write can store what they append."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from foldpoint import Engine

_PATIENCE = 60.0  # seconds


def together(engine: Engine, thread_id: str, namespace: str, *calls: Callable[[Engine], object]) -> list[Future[Any]]:
    """Make the calls, each an append to the stream, in this order; one of them then finds all others waiting.

    Returns when all are done, with what came of each.
    """
    results: list[Future[Any]] = []
    threads: list[threading.Thread] = []
    with engine.log(thread_id, namespace) as log:
        for call in calls:
            results.append(Future())
            threads.append(threading.Thread(target=_run, args=(results[-1], call, engine), daemon=True))
            threads[-1].start()
            until = time.monotonic() + _PATIENCE
            while len(log.group.waiting()) < len(threads) and not results[-1].done():
                assert time.monotonic() < until, "it does not come to append anything"
                time.sleep(0.0001)
    for one in threads:
        one.join()
    return results


def _run(result: Future[Any], call: Callable[[Engine], object], engine: Engine) -> None:
    try:
        result.set_result(call(engine))
    except BaseException as error:  # noqa: BLE001 - it goes to whoever made the calls
        result.set_exception(error)
