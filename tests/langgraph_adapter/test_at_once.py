"""Many at once on one thread: what was acknowledged is there, and what is read is whole."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest
from building import checkpoint, config, id_of, ids, put
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from stores import SHARED, Harness

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import compact

WORKERS = 8


def all_at_once(*work: Callable[[], None]) -> None:
    """Run each in a thread of its own, starting together; raises the first error."""
    together = threading.Barrier(len(work))

    def begin(one: Callable[[], None]) -> None:
        together.wait()
        one()

    with ThreadPoolExecutor(len(work)) as pool:
        started: list[Future[None]] = [pool.submit(begin, one) for one in work]
        for done in as_completed(started):
            done.result()


@pytest.fixture(params=["one saver", "several savers"])
def savers(harness: Harness, backend: str, request: pytest.FixtureRequest) -> Iterator[list[FoldpointSaver]]:
    """For each worker a saver: the same, or each its own, on a store object of its own where a backend can."""
    own = backend in SHARED
    count = 1 if request.param == "one saver" else WORKERS
    stores = [harness.open() for _ in range(count if own else 1)]
    made = [FoldpointSaver(Engine(stores[n % len(stores)], Settings(window=8))) for n in range(count)]
    yield [made[n % count] for n in range(WORKERS)]
    for saver in made:
        saver.close()


def test_what_was_acknowledged_is_there(savers: list[FoldpointSaver]) -> None:
    made: dict[str, Any] = {}

    def work(number: int) -> None:
        saver, parent = savers[number], None
        for step in range(10):
            values = {"own": [number] * step, f"only {number}": step, "same": "x" * 200}
            parent = put(saver, parent, values, step=step, worker=number)
            made[id_of(parent)] = (values, [(f"task-{number}", "own", step)])
            saver.put_writes(parent, [("own", step)], f"task-{number}")

    all_at_once(*(lambda number=number: work(number) for number in range(WORKERS)))  # type: ignore[misc]
    for saver in {id(saver): saver for saver in savers}.values():
        found = list(saver.list(config()))
        assert [one.checkpoint["id"] for one in found] == sorted(made, reverse=True)
        assert all((one.checkpoint["channel_values"], one.pending_writes) == made[id_of(one.config)] for one in found)
    assert len(list(savers[0].list(config(), filter={"worker": 3}))) == 10


def test_readers_see_only_whole_checkpoints_while_others_write_prune_and_compact(
    savers: list[FoldpointSaver],
) -> None:
    over = threading.Event()
    mine: list[list[str]] = [[], []]

    def write(number: int) -> None:
        parent = None
        try:
            for step in range(40):
                values = {"all": [f"{number} {n}" for n in range(step)], "step": step}
                parent = put(savers[number], parent, values, step=step)
                mine[number].append(id_of(parent))
        finally:
            over.set()

    def read(number: int) -> None:
        while not over.is_set():
            for found in savers[number].list(config(), limit=5):
                values = found.checkpoint["channel_values"]
                assert len(values["all"]) == values["step"] == (found.metadata or {})["step"]
            latest = savers[number].get_tuple(config())
            if latest is not None:
                again = savers[number].get_tuple(latest.config)
                assert again is None or again.checkpoint == latest.checkpoint

    def care() -> None:
        while not over.is_set():
            savers[4].prune(["thread"], keep_last=20)
            for report in compact(savers[5].engine, "thread"):
                assert report.thread_id == "thread"
            savers[4].copy_thread("thread", "copy")

    all_at_once(lambda: write(0), lambda: write(1), lambda: read(2), lambda: read(3), care)
    left, newest = set(ids(savers[6], config())), sorted(mine[0] + mine[1], reverse=True)
    assert set(newest[:20]) <= left <= set(newest)


def test_deleting_while_others_write_loses_nothing_that_was_put_afterwards(savers: list[FoldpointSaver]) -> None:
    after: list[str] = []
    deleted = threading.Event()

    def write(number: int) -> None:
        for step in range(40):
            was = deleted.is_set()
            where = put(savers[number], None, {"n": step}, step=step)
            if was:
                after.append(id_of(where))

    def delete() -> None:
        for _ in range(5):
            savers[7].delete_thread("thread")
        deleted.set()

    all_at_once(*(lambda number=number: write(number) for number in range(4)), delete)  # type: ignore[misc]
    assert set(after) <= set(ids(savers[6], config()))


def test_savers_with_and_without_an_allowlist_work_on_one_thread(saver: FoldpointSaver) -> None:
    saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    clones = [saver.with_allowlist([("some.module", f"Class{n}")]) for n in range(4)]
    made = [checkpoint({"n": n}, n) for n in range(40)]
    all_at_once(
        *(
            lambda at=at: [clones[at].put(config(), one, {}, {}) for one in made[at::4]] and None  # type: ignore[misc]
            for at in range(4)
        )
    )
    for one in (saver, *clones):
        assert ids(one, config()) == sorted((each["id"] for each in made), reverse=True)


WRITER = """
    import random, sys
    from langgraph.checkpoint.base.id import uuid6
    from foldpoint import FoldpointSaver

    url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print("ready", flush=True)
    sys.stdin.readline()
    with FoldpointSaver.from_conn_string(url, window=8) as saver:
        where = {"configurable": {"thread_id": "thread", "checkpoint_ns": ""}}
        for step in range(count):
            made = {"v": 2, "id": str(uuid6()), "ts": "", "channel_values": {"by": name, "all": [name] * step},
                    "channel_versions": {"all": step}, "versions_seen": {}, "updated_channels": None}
            where = saver.put(where, made, {"by": name, "step": step}, {})
            saver.put_writes(where, [("all", step)], f"task-{name}")
            if step % 10 == 9 and name == "a":
                saver.prune(["other"])
            print(made["id"], flush=True)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), url]
    running = [
        subprocess.Popen([*command, name, "40"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]
    assert [process.stdout.readline() for process in running if process.stdout] == ["ready\n"] * 3
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    acknowledged = [line for process in running for line in process.communicate()[0].split()]
    assert [process.returncode for process in running] == [0, 0, 0]
    with FoldpointSaver.from_conn_string(url) as saver:
        found = list(saver.list(config()))
        assert [one.checkpoint["id"] for one in found] == sorted(acknowledged, reverse=True)
        assert len(found) == 120
        for one in found:
            values, metadata = one.checkpoint["channel_values"], dict(one.metadata)
            assert values == {"by": metadata["by"], "all": [metadata["by"]] * metadata["step"]}
            assert one.pending_writes == [(f"task-{metadata['by']}", "all", metadata["step"])]


def test_a_process_that_is_killed_leaves_what_it_acknowledged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    acknowledged: list[str] = []
    for name in ("a", "b", "c"):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), url, name, "100000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        wanted = random.Random(name).randint(20, 60)
        acknowledged += [process.stdout.readline().strip() for _ in range(wanted)]
        process.kill()
        acknowledged += process.stdout.read().split("\n")[:-1]
        process.wait()
    with FoldpointSaver.from_conn_string(url) as saver:
        found = list(saver.list(config()))
        assert set(acknowledged) <= {one.checkpoint["id"] for one in found}
        # Of each process at most the put that was under way may be there too.
        assert len(found) <= len(acknowledged) + 3
        assert all(len(one.checkpoint["channel_values"]["all"]) == dict(one.metadata)["step"] for one in found)
