"""The asynchronous form is the synchronous one in a bounded pool: the loop goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from building import chain, checkpoint, config, id_of, ids, put
from counting import CountingStore
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.compaction import compact
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import StoreUnavailable
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


async def test_the_factory_opens_its_store_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_URL", f"sqlite:///{tmp_path}/a.db")
    connecting = []
    watching = True

    def watch(event: str, _: object) -> None:  # cannot be removed again
        if watching and event == "sqlite3.connect":
            connecting.append(threading.get_ident())

    sys.addaudithook(watch)
    async with generate_checkpointer() as saver:
        await saver.aput(config(), checkpoint({"n": 1}), {}, {})
        assert len([one async for one in saver.alist(config())]) == 1
    watching = False
    assert connecting
    assert threading.get_ident() not in connecting


async def test_the_factory_takes_every_setting_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"URL": f"sqlite:///{tmp_path}/a.db", "WINDOW": "16", "IO_THREADS": "3", "TTL": "60"}.items():
        monkeypatch.setenv(f"FOLDPOINT_{name}", value)
    async with generate_checkpointer() as saver:
        settings = saver.engine.settings
        assert (settings.window, settings.io_threads, settings.ttl) == (16, 3, 60)
    monkeypatch.setenv("FOLDPOINT_WINDOW", "many")
    with pytest.raises(ValueError, match="FOLDPOINT_WINDOW"):
        async with generate_checkpointer():
            pass


def test_several_loops_may_use_the_factory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_URL", f"sqlite:///{tmp_path}/a.db")

    async def work(number: int) -> None:
        async with generate_checkpointer() as saver:
            for step in range(10):
                await saver.aput(config(f"t{number % 2}"), checkpoint({"n": step}, step), {}, {})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: asyncio.run(work(number)), range(4)))
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a.db") as saver:
        assert [len(ids(saver, config(f"t{number}"))) for number in range(2)] == [20, 20]


async def test_alist_that_is_left_early_reads_a_bounded_number_of_records() -> None:
    store = CountingStore(MemoryStore())
    async with FoldpointSaver(Engine(store, Settings(window=8))) as saver:
        chain(saver, 600)
    async with FoldpointSaver(Engine(store, Settings(window=8))) as reader:
        assert list(compact(reader.engine))
        store.reset()
        async for found in reader.alist(config()):
            assert found.checkpoint["channel_values"] == {"n": 599}
            break
        assert store.round_trips <= 2


async def test_128_tasks_put_checkpoints_of_one_thread_at_once(saver: FoldpointSaver) -> None:
    made = [checkpoint({"n": n}, n) for n in range(128)]
    await asyncio.gather(*(saver.aput(config(), one, {}, {}) for one in made))
    found = [one async for one in saver.alist(config())]
    assert [one.checkpoint["id"] for one in found] == sorted((one["id"] for one in made), reverse=True)
    assert {one.checkpoint["channel_values"]["n"] for one in found} == set(range(128))


async def test_a_cancelled_put_leaves_the_saver_usable() -> None:
    async with FoldpointSaver(Engine(SlowStore(), Settings(io_threads=1))) as saver:
        first = asyncio.create_task(saver.aput(config(), checkpoint({"n": 1}), {}, {}))
        waiting = asyncio.create_task(saver.aput(config(), checkpoint({"n": 2}, 1), {}, {}))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await first
        last = await saver.aput(config(), checkpoint({"n": 3}, 2), {}, {})
        assert ids(saver, config()) == [id_of(last), id_of(first.result())]


def test_calling_it_after_closing_is_a_clear_error() -> None:
    saver = FoldpointSaver.from_conn_string("memory:")
    saver.close()
    saver.close()
    with pytest.raises(Exception, match="close"):
        saver.get_tuple(config())


async def test_a_clone_that_is_closed_closes_what_it_is_a_clone_of() -> None:
    """They have one store, and one pool."""
    saver = FoldpointSaver.from_conn_string("memory:")
    saver.with_allowlist([("a", "B")]).close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await saver.aget_tuple(config())


async def test_calls_after_the_end_say_that_it_is_over() -> None:
    saver = FoldpointSaver.from_conn_string("memory:")
    async with saver:
        await saver.aget_tuple(config())
    with pytest.raises(StoreUnavailable, match="closed"):
        await saver.aget_tuple(config())


async def test_the_server_s_key_encrypts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_URL", f"sqlite:///{tmp_path}/agents.db")
    monkeypatch.setenv("LANGGRAPH_AES_KEY", "0123456789abcdef")
    async with generate_checkpointer() as saver:
        put(saver, None, {"n": "a secret that nobody reads" * 3})
    assert b"a secret" not in (tmp_path / "agents.db").read_bytes()
    monkeypatch.setenv("LANGGRAPH_AES_KEY", "fedcba9876543210")
    monkeypatch.setenv("FOLDPOINT_PREVIOUS_AES_KEY", "0123456789abcdef")
    async with generate_checkpointer() as saver:
        assert len(ids(saver, config())) == 1


TENANT: ContextVar[str] = ContextVar("tenant")


class OfTenant(JsonPlusSerializer):
    """Asks who calls, as one with a key for each of them would."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return super().dumps_typed((TENANT.get(), obj))


async def test_a_serializer_is_called_in_the_context_of_its_caller() -> None:
    async def put_as(tenant: str) -> None:
        TENANT.set(tenant)
        made = checkpoint({"a": tenant}, 0)
        await saver.aput(config(tenant), made, {}, {})
        found = await saver.aget_tuple(config(tenant))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": [tenant, tenant]}
        assert [one.config async for one in saver.alist(config(tenant))] == [found.config]

    async with FoldpointSaver.from_conn_string("memory:", serde=OfTenant()) as saver:
        await asyncio.gather(*(put_as(f"t{n}") for n in range(20)))
