"""The asynchronous form is the synchronous one in a bounded pool: the loop goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from building import chain, checkpoint, config, id_of, ids

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.engine.memory import MemoryStore
from foldpoint.langgraph_adapter import generate_checkpointer


class SlowStore(MemoryStore):
    """Each create takes its time; counts how many threads are at it."""

    threads: set[int] = set()  # noqa: RUF012

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        self.threads.add(threading.get_ident())
        time.sleep(0.05)
        return super().create(records, ttl=ttl)


async def test_a_slow_store_does_not_hold_up_the_loop_and_the_pool_is_bounded() -> None:
    async with FoldpointSaver(Engine(SlowStore(), Settings(io_threads=4))) as saver:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(saver.aput(config(f"t{n}"), checkpoint({"n": n}), {}, {}) for n in range(16)))
        ticking.cancel()
        assert ticks >= 10
        assert len(SlowStore.threads) <= 4


async def test_128_tasks_write_to_one_thread_at_once(saver: FoldpointSaver) -> None:
    where = await saver.aput(config(), checkpoint({"n": 0}), {}, {})
    await asyncio.gather(*(saver.aput_writes(where, [("n", n)], f"task-{n:03}") for n in range(128)))
    found = await saver.aget_tuple(where)
    assert found is not None
    assert found.pending_writes == [(f"task-{n:03}", "n", n) for n in range(128)]


async def test_every_asynchronous_call_does_what_its_twin_does(saver: FoldpointSaver) -> None:
    line = chain(saver, 4)
    found = await saver.aget_tuple(config())
    assert found == saver.get_tuple(config())
    listed = [one async for one in saver.alist(config(), limit=3)]
    assert listed == list(saver.list(config(), limit=3))
    await saver.acopy_thread("thread", "copy")
    await saver.aprune(["thread"], keep_last=2)
    assert ids(saver, config()) == [id_of(line[-1]), id_of(line[-2])]
    await saver.adelete_thread("thread")
    assert await saver.aget_tuple(config()) is None
    await saver.adelete_for_runs(["nothing"])
    assert len([one async for one in saver.alist(config("copy"))]) == 4


def test_one_saver_serves_several_loops_one_after_the_other(saver: FoldpointSaver) -> None:
    for n in range(3):
        asyncio.run(saver.aput(config(), checkpoint({"n": n}, n), {}, {}))
    assert len(ids(saver, config())) == 3


async def test_the_factory_may_be_entered_several_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_URL", f"sqlite:///{tmp_path}/a.db")
    async with AsyncExitStack() as stack:
        savers = [await stack.enter_async_context(generate_checkpointer()) for _ in range(3)]
        for n, saver in enumerate(savers):
            await saver.aput(config(), checkpoint({"n": n}, n), {}, {})
        assert [len(ids(saver, config())) for saver in savers] == [3, 3, 3]


def test_calling_it_after_closing_is_a_clear_error() -> None:
    saver = FoldpointSaver.from_conn_string("memory:")
    saver.close()
    saver.close()
    with pytest.raises(Exception, match="close"):
        saver.get_tuple(config())
