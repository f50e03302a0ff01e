"""A saver is used on both sides of a fork, as by a server that loads before it forks its workers."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from building import chain, config, id_of, ids, put
from forking import ended_well, forked
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from foldpoint import FoldpointSaver

WINDOW, DUE = 16, 12


@pytest.mark.parametrize("url", ["sqlite", "memory:"])
def test_children_go_on_whatever_the_parents_threads_do_when_it_forks(url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/agents.db" if url == "sqlite" else url
    stop = threading.Event()

    with FoldpointSaver.from_conn_string(url, window=WINDOW) as saver, ThreadPoolExecutor(3) as pool:

        def write(name: str) -> int:
            where = None
            for n in count():
                if stop.is_set():
                    return n
                where = put(saver, where, {"n": n}, step=n, thread=name)
            raise AssertionError

        def work(n: int) -> None:
            for name in ("busy 0", f"child {n}"):
                where = put(saver, None, {"n": n}, thread=name)
                assert id_of(where) in ids(saver, config(name))
            assert asyncio.run(saver.aget_tuple(config(f"child {n}"))) is not None
            assert saver.stats()["puts"] > 1

        writers = [pool.submit(write, f"busy {n}") for n in range(3)]
        children = []
        for n in range(20):
            time.sleep(0.005 * n)
            children.append(forked(lambda n=n: work(n)))  # type: ignore[misc]
        try:
            for child in children:
                ended_well(child)
        finally:
            stop.set()
        written = [writer.result() for writer in writers]
        for n, wrote in enumerate(written):
            children_too = 20 if url.startswith("sqlite") and n == 0 else 0
            assert len(ids(saver, config(f"busy {n}"))) == wrote + children_too


def test_the_upkeep_of_what_a_child_puts_is_done_in_the_child(tmp_path: Path) -> None:
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/agents.db", window=WINDOW) as saver:
        chain(saver, DUE, thread="parent's")  # starts the thread

        def work() -> None:
            chain(saver, DUE, thread="child's")
            deadline = time.monotonic() + 30
            while not next(saver.engine.heads("child's")).sealed:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            saver.close()

        ended_well(forked(work))


def test_a_clone_with_a_wider_allowlist_goes_on_in_a_child_too(tmp_path: Path) -> None:
    """As `compile` makes one where msgpack is strict."""
    strict = JsonPlusSerializer(allowed_msgpack_modules=[("c", "D")])
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/agents.db", serde=strict) as saver:
        clone = saver.with_allowlist([("a", "B")])
        assert clone is not saver
        put(saver, None, {"n": 1})
        assert asyncio.run(clone.aget_tuple(config())) is not None
        time.sleep(0.1)  # its thread waits for more

        def work() -> None:
            assert asyncio.run(clone.aget_tuple(config())) is not None

        ended_well(forked(work))
