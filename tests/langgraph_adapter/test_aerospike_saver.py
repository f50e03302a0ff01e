"""Savers on Aerospike: on a client that is there already, set up, crowded, and cut off in the middle."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import aerospike_server
import pytest
from aerospike_front import Proxy
from aerospike_server import Cluster, open_on, set_config
from building import checkpoint, config, id_of, ids, put
from forking import ended_well, forked

from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import StoreMismatch, StoreUnavailable

TASKS = 128


class TestClient:
    @pytest.fixture
    def client(self) -> Iterator[Any]:
        client = aerospike_server.raw_client(aerospike_server.target().hosts)
        yield client
        client.close()

    def test_a_connected_client_is_used_and_stays_open(self, client: Any) -> None:
        server, prefix = aerospike_server.target(), aerospike_server.fresh_prefix()
        with FoldpointSaver(client=client, namespace=server.namespace, prefix=prefix) as saver:
            where = put(saver, None, {"a": 1})
        with pytest.raises(StoreUnavailable, match="closed"):
            saver.get_tuple(config())
        assert client.is_connected()
        with FoldpointSaver(client=client, namespace=server.namespace, prefix=prefix, ttl={"default_ttl": 1}) as saver:
            assert ids(saver, config()) == [id_of(where)]
        assert client.is_connected()
        server.drop(prefix)

    def test_a_child_is_told_to_open_the_store_after_the_fork(self, client: Any) -> None:
        server, prefix = aerospike_server.target(), aerospike_server.fresh_prefix()
        with FoldpointSaver(client=client, namespace=server.namespace, prefix=prefix) as saver:
            where = put(saver, None, {"n": 1})

            def work() -> None:
                with pytest.raises(StoreUnavailable, match="open it after the fork"):
                    saver.get_tuple(config())
                saver.close()

            ended_well(forked(work))
            assert ids(saver, config()) == [id_of(where)]
        server.drop(prefix)

    def test_a_child_goes_on_with_other_stores(self, client: Any) -> None:
        server, prefix = aerospike_server.target(), aerospike_server.fresh_prefix()
        others = [FoldpointSaver(Engine(MemoryStore())) for _ in range(5)]
        with FoldpointSaver(client=client, namespace=server.namespace, prefix=prefix):

            def work() -> None:
                for saver in (*others, FoldpointSaver(Engine(MemoryStore()))):
                    where = put(saver, None, {"n": 1})
                    found = asyncio.run(saver.aget_tuple(config()))
                    assert found is not None
                    assert found.config == where

            ended_well(forked(work))
        server.drop(prefix)

    @pytest.mark.parametrize(
        "end",
        [
            "sys.exit()",
            "store.close(); sys.exit()",
            "del store; gc.collect(); os._exit(0)",
            "store = AerospikeStore.connect(HOSTS, NAMESPACE); gc.collect(); store.close()",
        ],
    )
    def test_a_child_ends_well_whatever_becomes_of_its_parents_store(self, end: str) -> None:
        """The client's own end would wait there for threads that the child does not have."""
        server = aerospike_server.target()
        script = f"""
            import gc, os, signal, sys
            from foldpoint.engine.aerospike import AerospikeStore
            HOSTS, NAMESPACE = {server.hosts!r}, {server.namespace!r}
            store = AerospikeStore.connect(HOSTS, NAMESPACE)
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                {end}
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            store.get_many([b"x"])
            store.close()
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=30)

    def test_its_settings_are_those_of_the_environment(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOLDPOINT_WINDOW", "7")
        with FoldpointSaver(client=client, namespace=aerospike_server.target().namespace) as saver:
            assert saver.engine.settings.window == 7

    def test_a_namespace_that_is_not_there_is_refused_at_once(self, client: Any) -> None:
        with pytest.raises(StoreMismatch, match="no namespace 'absent'; it has"):
            FoldpointSaver(client=client, namespace="absent")

    def test_an_engine_or_a_client_with_a_namespace_and_nothing_else(self, client: Any) -> None:
        engine = Engine(MemoryStore())
        wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), {}),
            ((client,), {}),
            ((), {"client": client}),
            ((), {"namespace": "test"}),
            ((engine,), {"client": client, "namespace": "test"}),
            ((engine,), {"namespace": "test"}),
        ]
        for given, named in wrong:
            with pytest.raises(ValueError, match=r"either an engine, or client= and namespace= .*from_conn_string"):
                FoldpointSaver(*given, **named)


class TestSetup:
    def test_every_danger_is_told_and_logged_as_often_as_it_is_asked_for(
        self, own: Callable[..., Cluster], caplog: pytest.LogCaptureFixture
    ) -> None:
        store = open_on(own(conflict_resolution="generation"))
        with FoldpointSaver(Engine(store)) as saver, caplog.at_level(logging.WARNING, logger="foldpoint"):
            found = saver.setup()
            assert {finding.setting: finding.remedy for finding in found} == {
                "conflict-resolution-policy": "conflict-resolution-policy last-update-time",
                "replication-factor": "replication-factor 2",
                "storage-engine": "storage-engine device, with a file and a filesize",
            }
            assert all(any(str(finding) in line for line in caplog.messages) for finding in found)
            assert asyncio.run(saver.asetup()) == found
        store.close()

    def test_a_ttl_that_the_server_refuses_is_an_error_before_anything_is_written(
        self, own: Callable[..., Cluster]
    ) -> None:
        cluster = own(nsup_period=0)
        store = open_on(cluster)
        with FoldpointSaver(Engine(store), ttl={"default_ttl": 1}) as saver:
            with pytest.raises(StoreMismatch, match=r"nsup-period is 0: .* nsup-period 120"):
                saver.setup()
            with pytest.raises(ValueError, match="set nsup-period in the server's configuration"):
                put(saver)
        assert cluster.statistics(0, "namespace/test")["objects"] == "0"
        with FoldpointSaver(Engine(store)) as saver:
            saver.setup()
            put(saver)
        store.close()

    def test_other_stores_have_nothing_to_tell(self) -> None:
        with FoldpointSaver.from_conn_string("memory:") as saver:
            assert saver.setup() == []


class TestCrowds:
    """All on one thread of a cluster with two replicas, where a record that is being written refuses others."""

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls) -> Iterator[Cluster]:
        aerospike_server.require_asd()
        cluster = aerospike_server.start_cluster(2, 2)
        set_config(cluster, "transaction-pending-limit=1")
        yield cluster
        cluster.stop()

    @pytest.fixture
    def savers(self, cluster: Cluster) -> Iterator[Callable[[int], list[FoldpointSaver]]]:
        """That many savers, each as in a process of its own, but for the connections."""
        with ExitStack() as stack:
            store = open_on(cluster)
            stack.callback(store.close)

            def make(count: int) -> list[FoldpointSaver]:
                return [stack.enter_context(FoldpointSaver(Engine(store, Settings()))) for _ in range(count)]

            yield make

    @pytest.mark.parametrize("count", [1, TASKS])
    def test_many_tasks_put_their_writes_at_once_and_none_sees_an_error(
        self, savers: Callable[[int], list[FoldpointSaver]], count: int
    ) -> None:
        made = savers(count)
        where = put(made[0], None, {"a": 1})
        with ThreadPoolExecutor(TASKS) as pool:
            list(pool.map(lambda n: made[n % count].put_writes(where, [("a", n)], f"task-{n:03}"), range(TASKS)))
        assert_all_there(made[-1], where)

    async def test_and_asynchronously(self, savers: Callable[[int], list[FoldpointSaver]]) -> None:
        [saver] = savers(1)
        where = put(saver, None, {"a": 1})
        await asyncio.gather(*(saver.aput_writes(where, [("a", n)], f"task-{n:03}") for n in range(TASKS)))
        assert_all_there(saver, where)


def assert_all_there(saver: FoldpointSaver, where: Any) -> None:
    found = saver.get_tuple(where)
    assert found is not None
    assert found.pending_writes == [(f"task-{n:03}", "a", n) for n in range(TASKS)]


class TestCutOff:
    """A first put, puts in parts, writes, and seals, cut off after so many requests; once the line is back each call
    that failed is made again.
    """

    def test_wherever_the_connection_breaks_nothing_half_written_is_visible(self, proxy: Proxy) -> None:
        requests = 0
        while self.is_cut_off(proxy, requests):
            requests += 1
        assert requests > 15

    def is_cut_off(self, proxy: Proxy, requests: int) -> bool:
        hosts = [(aerospike_server.LOOPBACK, proxy.port)]
        store = aerospike_server.connect(hosts, "test", prefix=aerospike_server.fresh_prefix(), deadline=0.005)
        large = random.Random(0).randbytes(600_000)
        expected: dict[str, Any] = {}
        failed = False
        with FoldpointSaver(Engine(store, Settings(window=3)), compaction="off") as saver:
            proxy.hang_up_after(requests)
            for step in range(4):
                made = checkpoint({"step": step, "large": large if step % 2 else b""}, step)
                where = config(checkpoint_id=made["id"])
                for call, after in (
                    (lambda made=made: saver.put(config(), made, {}, {}), (made["channel_values"], [])),
                    (
                        lambda where=where, step=step: saver.put_writes(where, [("a", step)], "task"),
                        (made["channel_values"], [("task", "a", step)]),
                    ),
                ):
                    before, expected = expected, {**expected, made["id"]: after}
                    try:
                        call()
                    except StoreUnavailable:
                        failed = True
                        proxy.hang_up_after(None)
                        assert visible(store) in (before, expected)
                        call()
            proxy.hang_up_after(None)
            assert visible(store) == expected
        store.close()
        return failed


def visible(store: AerospikeStore) -> dict[str, Any]:
    """What a saver that knows nothing yet reads: of each checkpoint its values and its writes."""
    with FoldpointSaver(Engine(store)) as reader:
        return {
            one.checkpoint["id"]: (one.checkpoint["channel_values"], one.pending_writes)
            for one in reader.list(config())
        }
