"""What the Aerospike store adds to the contract: lost answers, lost nodes, a server's limits and its configuration."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import aerospike
import aerospike_server
import pytest
from aerospike_front import Proxy
from aerospike_server import Cluster, open_on, set_config

from foldpoint.engine.aerospike.client import BYTES_PER_MS
from foldpoint.engine.aerospike.store import PAGE, THREAD_HASH, AerospikeStore
from foldpoint.engine.records import HeadRecord
from foldpoint.errors import (
    StoreBusy,
    StoreMismatch,
    StoreUnavailable,
)


@pytest.fixture
def store() -> Iterator[AerospikeStore]:
    server = aerospike_server.target()
    prefix = aerospike_server.fresh_prefix()
    store = server.open(prefix)
    yield store
    store.close()
    server.drop(prefix)


def head(revision: int = 1, value: bytes = b"v", key: bytes = b"h", thread: bytes = b"t") -> HeadRecord:
    return HeadRecord(key=key, thread=thread, revision=revision, value=value)


def stored_ttls(store: AerospikeStore, cluster: Any, keys: list[tuple[str, bytes]]) -> list[int]:
    """What the server has as the time to live of (set, key)s, -1 for ever."""
    client = aerospike_server.raw_client(cluster.hosts)
    try:
        found = [client.exists((cluster.namespace, name, bytearray(key)))[1]["ttl"] for name, key in keys]
    finally:
        client.close()
    return [-1 if ttl == aerospike.TTL_NEVER_EXPIRE or ttl == 0xFFFFFFFF else ttl for ttl in found]


@pytest.mark.parametrize("how", ["cut", "silence"])
class TestLostAnswers:
    def test_a_create_whose_answer_was_lost_is_created(self, behind: AerospikeStore, proxy: Proxy, how: str) -> None:
        proxy.lose(1, how)
        assert behind.create([(b"k", b"v")], ttl=None) == [True]
        assert proxy.lost == 1
        assert behind.get_many([b"k"]) == [b"v"]
        assert behind.create([(b"k", b"v")], ttl=None) == [False]

    def test_a_batch_whose_answer_was_lost_tells_own_records_from_others(
        self, behind: AerospikeStore, proxy: Proxy, how: str
    ) -> None:
        behind.create([(b"b", b"another's")], ttl=None)
        proxy.lose(2, how)
        assert behind.create([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")], ttl=None) == [True, False, True]
        assert proxy.lost == 2
        assert behind.get_many([b"a", b"b", b"c"]) == [b"1", b"another's", b"3"]

    def test_a_create_on_a_taken_key_stays_false_when_the_answer_is_lost(
        self, behind: AerospikeStore, proxy: Proxy, how: str
    ) -> None:
        behind.create([(b"k", b"first")], ttl=None)
        proxy.lose(1, how)
        assert behind.create([(b"k", b"second")], ttl=None) == [False]
        assert proxy.lost == 1
        assert behind.get_many([b"k"]) == [b"first"]

    def test_the_answer_to_the_question_whose_it_is_may_be_lost_too(
        self, behind: AerospikeStore, proxy: Proxy, how: str
    ) -> None:
        proxy.lose(4, how)
        assert behind.create([(b"k", b"v")], ttl=None) == [True]
        assert proxy.lost == 4

    @pytest.mark.parametrize("expected", [None, 1])
    def test_a_swap_whose_answer_was_lost_has_swapped(
        self, behind: AerospikeStore, proxy: Proxy, how: str, expected: int | None
    ) -> None:
        if expected:
            behind.swap(head(1), expected=None, ttl=None)
        proxy.lose(1, how)
        assert behind.swap(head(2), expected=expected, ttl=None) is True
        assert proxy.lost == 1
        assert behind.get_head(b"h") == head(2)

    @pytest.mark.parametrize(("stored", "expected"), [(7, 1), (7, None), (None, 1)])
    def test_a_swap_that_lost_the_race_stays_false_when_the_answer_is_lost(
        self, behind: AerospikeStore, proxy: Proxy, how: str, stored: int | None, expected: int | None
    ) -> None:
        before = None if stored is None else head(stored)
        if before:
            behind.swap(before, expected=None, ttl=None)
        proxy.lose(1, how)
        assert behind.swap(head(2), expected=expected, ttl=None) is False
        assert proxy.lost == 1
        assert behind.get_head(b"h") == before

    def test_a_swap_of_the_same_revision_by_another_is_not_ours(
        self, behind: AerospikeStore, proxy: Proxy, how: str
    ) -> None:
        behind.swap(head(2, b"another's"), expected=None, ttl=None)
        proxy.lose(1, how)
        assert behind.swap(head(2, b"mine"), expected=1, ttl=None) is False
        assert behind.get_head(b"h") == head(2, b"another's")

    def test_reads_extends_and_removes_are_sent_again(self, behind: AerospikeStore, proxy: Proxy, how: str) -> None:
        behind.create([(b"a", b"1"), (b"b", b"2")], ttl=None)
        for call, answer in (
            (lambda: behind.get_many([b"a"]), [b"1"]),
            (lambda: behind.get_many([b"a", b"x"]), [b"1", None]),
            (lambda: behind.get_head(b"h"), None),
            (lambda: behind.extend([b"a", b"b"], ttl=60), None),
            (lambda: behind.remove_many([b"a", b"b"]), None),
        ):
            proxy.lose(1, how)
            assert call() == answer
            assert proxy.lost == 1
        assert behind.get_many([b"a", b"b"]) == [None, None]


class TestPausedServer:
    def test_writes_wait_for_a_server_that_stops_for_a_second(self, own: Callable[..., Cluster]) -> None:
        cluster = own()
        quick = {"total_timeout": 300}
        store = open_on(cluster, policies={"write": quick, "batch_write": quick})
        store.swap(head(1), expected=None, ttl=None)
        cluster.pause(0)
        waker = threading.Timer(1.0, cluster.resume, [0])
        waker.start()
        with ThreadPoolExecutor(3) as pool:
            single = pool.submit(store.create, [(b"k", b"v")], ttl=None)
            batch = pool.submit(store.create, [(b"%d" % n, b"v") for n in range(50)], ttl=None)
            swap = pool.submit(store.swap, head(2), expected=1, ttl=None)
            assert single.result() == [True]
            assert batch.result() == [True] * 50
            assert swap.result() is True
        assert store.get_head(b"h") == head(2)
        store.close()

    def test_an_error_comes_when_the_deadline_is_over_and_the_write_can_be_sent_again(
        self, own: Callable[..., Cluster]
    ) -> None:
        cluster = own()
        store = open_on(cluster, deadline=0.5, policies={"write": {"total_timeout": 200}})
        cluster.pause(0)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            store.swap(head(1), expected=None, ttl=None)
        assert time.monotonic() - began < 3
        cluster.resume(0)
        if not store.swap(head(1), expected=None, ttl=None):
            assert store.get_head(b"h") == head(1)  # the one that was given up arrived after all
        store.close()


class TestManyWriters:
    def test_sixty_four_threads_create_the_same_keys_and_each_has_one_winner(self, store: AerospikeStore) -> None:
        keys = [b"k%d" % n for n in range(100)]
        barrier = threading.Barrier(64)

        def work(writer: int) -> list[bool]:
            barrier.wait()
            batch = store.create([(key, b"%d" % writer) for key in keys[:50]], ttl=None)
            return batch + [store.create([(key, b"%d" % writer)], ttl=None)[0] for key in keys[50:]]

        with ThreadPoolExecutor(64) as pool:
            outcomes = list(pool.map(work, range(64)))
        stored = store.get_many(keys)
        for index, value in enumerate(stored):
            assert [b"%d" % writer for writer, outcome in enumerate(outcomes) if outcome[index]] == [value]

    def test_a_hot_head_gives_no_error(self, own: Callable[..., Cluster]) -> None:
        cluster = own(nodes=2, replication_factor=2)
        set_config(cluster, "transaction-pending-limit=1")
        store = open_on(cluster)
        store.swap(head(0), expected=None, ttl=None)

        def increment(who: int) -> None:
            while True:
                now = store.get_head(b"h")
                assert now is not None
                # Each with a value of its own: of an answer that was lost it is told by what is stored.
                if store.swap(replace(head(now.revision + 1), value=b"%d" % who), expected=now.revision, ttl=None):
                    return

        def refused() -> int:
            return sum(int(cluster.statistics(node, "namespace/test")["fail_key_busy"]) for node in (0, 1))

        swaps, deadline = 0, time.monotonic() + 60
        with ThreadPoolExecutor(64) as pool:
            while not refused():
                assert time.monotonic() < deadline
                list(pool.map(increment, range(swaps, swaps + 256)))
                swaps += 256
        last = store.get_head(b"h")
        assert last is not None
        assert last.revision >= swaps  # more if an answer was lost and another went on before that was seen
        store.close()

    def test_closing_while_others_write_ends_their_calls_cleanly(self) -> None:
        server = aerospike_server.target()
        for _ in range(5):
            prefix = aerospike_server.fresh_prefix()
            store = server.open(prefix)
            begun = threading.Barrier(17)

            def work(n: int, store: AerospikeStore = store, begun: threading.Barrier = begun) -> tuple[int, str]:
                begun.wait()
                for step in range(100_000):
                    try:
                        store.create([(b"%d.%d.%d" % (n, step, i), bytes(1000)) for i in range(20)], ttl=None)
                    except StoreUnavailable as error:
                        return step, str(error)
                return 0, "never ended"

            with ThreadPoolExecutor(16) as pool:
                futures = [pool.submit(work, n) for n in range(16)]
                begun.wait()
                time.sleep(0.05)
                store.close()
                ends = [future.result() for future in futures]
            assert sum(step for step, _ in ends) > 0
            assert all("closed" in why for _, why in ends)
            server.drop(prefix)


class TestKeysAndHeads:
    def test_the_scan_of_a_large_set_comes_in_pages_and_is_complete(self, store: AerospikeStore) -> None:
        keys = {b"\0%d" % n for n in range(PAGE * 3 + 7)}
        assert all(store.create([(key, b"v") for key in keys], ttl=None))
        found = list(store.keys())
        assert len(found) == len(keys)
        assert set(found) == keys
        shares = [set(store.keys(partition=(i, 5000))) for i in range(0, 5000, 617)]
        assert all(share <= keys for share in shares)

    def test_a_thread_of_any_length_is_found(self, store: AerospikeStore) -> None:
        threads = [b"L" * size for size in (0, 1, 2047, 2048, 5000, 100_000)]
        for n, thread in enumerate(threads):
            store.swap(head(key=b"h%d" % n, thread=thread), expected=None, ttl=None)
        for n, thread in enumerate(threads):
            assert [found.key for found in store.heads(thread)] == [b"h%d" % n]

    def test_a_thread_whose_hash_is_the_same_is_another(self, store: AerospikeStore) -> None:
        store.swap(head(key=b"mine", thread=b"t"), expected=None, ttl=None)
        store.swap(head(key=b"other", thread=b"u"), expected=None, ttl=None)
        server = aerospike_server.target()
        client = aerospike_server.raw_client(server.hosts)
        client.put(store._head_key(b"other"), {THREAD_HASH: client.get(store._head_key(b"mine"))[2][THREAD_HASH]})
        client.close()
        assert [found.key for found in store.heads(b"t")] == [b"mine"]

    def test_heads_of_a_thread_are_found_without_setup(self) -> None:
        server = aerospike_server.target()
        prefix = aerospike_server.fresh_prefix()
        with_none = aerospike_server.connect(server.hosts, server.namespace, prefix=prefix)
        for n in range(50):
            with_none.swap(head(key=b"h%d" % n), expected=None, ttl=None)
        assert len(list(with_none.heads(b"t"))) == 50
        with_none.close()
        server.drop(prefix)

    def test_a_record_that_something_else_wrote_is_named(self, store: AerospikeStore) -> None:
        server = aerospike_server.target()
        client = aerospike_server.raw_client(server.hosts)
        client.put((server.namespace, store._log_set, bytearray(b"k")), {"other": 1})
        client.close()
        for call in (lambda: store.get_many([b"k"]), lambda: store.get_many([b"k", b"l"]), lambda: list(store.keys())):
            with pytest.raises(StoreMismatch, match="not written by Foldpoint"):
                call()


class TestLargeRecords:
    def test_the_largest_state_in_parts_goes_in_one_call(self, store: AerospikeStore) -> None:
        part = store.capabilities.max_record
        records = [(b"p%02d" % n, bytes([n]) * part) for n in range(40)]
        assert store.create(records, ttl=None) == [True] * 40
        assert store.get_many([key for key, _ in records]) == [value for _, value in records]


class TestTimeToLive:
    def test_every_write_applies_the_ttl_that_it_states(self, own: Callable[..., Cluster]) -> None:
        cluster = own(extra=["default-ttl 1000"])
        store = open_on(cluster)
        names = store._log_set, store._head_set
        store.create([(b"one", b"v")], ttl=100)
        store.create([(b"a", b"v"), (b"b", b"v")], ttl=200)
        store.create([(b"one for ever", b"v")], ttl=None)
        store.create([(b"c", b"v"), (b"d", b"v")], ttl=None)
        store.swap(head(1), expected=None, ttl=300)
        stored = [(names[0], key) for key in (b"one", b"a", b"b", b"one for ever", b"c", b"d")] + [(names[1], b"h")]
        assert stored_ttls(store, cluster, stored) == pytest.approx([100, 200, 200, -1, -1, -1, 300], abs=2)
        store.swap(head(2), expected=1, ttl=None)
        store.extend([b"one", b"c"], heads=[b"h"], ttl=400)
        store.extend([b"a"], ttl=None)
        assert stored_ttls(store, cluster, stored) == pytest.approx([400, -1, 200, -1, 400, -1, 400], abs=2)
        store.swap(head(3), expected=2, ttl=None)
        assert stored_ttls(store, cluster, stored[-1:]) == [-1]
        store.close()

    def test_reading_extends_no_life_whatever_the_server_is_told(self, own: Callable[..., Cluster]) -> None:
        cluster = own(extra=["default-read-touch-ttl-pct 100"])
        store = open_on(cluster)
        store.create([(b"a", b"v"), (b"b", b"v")], ttl=1000)
        store.swap(head(1), expected=None, ttl=1000)
        store.get_many([b"a", b"b"])
        store.get_many([b"a"])
        store.get_head(b"h")
        assert list(store.heads())
        reads = cluster.statistics(0, f"namespace/{cluster.namespace}")
        assert {name: reads[name] for name in ("read_touch_success", "read_touch_skip")} == {
            "read_touch_success": "0",
            "read_touch_skip": "0",
        }
        store.close()

    def test_over_ten_years_is_the_callers_mistake(self, store: AerospikeStore) -> None:
        with pytest.raises(ValueError, match="10 years"):
            store.create([(b"k", b"v")], ttl=10 * 365 * 86_400 + 1)
        assert store.create([(b"k", b"v")], ttl=10 * 365 * 86_400) == [True]

    def test_where_nothing_expires_a_ttl_is_refused_before_anything_is_written(
        self, own: Callable[..., Cluster]
    ) -> None:
        cluster = own(nsup_period=0)
        store = open_on(cluster)
        assert store.capabilities.ttl is False
        with pytest.raises(StoreMismatch, match=r"nsup-period is 0.*nsup-period 120"):
            store.setup(ttl=True)
        assert "indexname" not in cluster.info(0, f"sindex/{cluster.namespace}")
        for call in (
            lambda: store.create([(b"k", b"v")], ttl=5),
            lambda: store.swap(head(1), expected=None, ttl=5),
            lambda: store.extend([b"k"], ttl=5),
        ):
            with pytest.raises(ValueError, match="nsup-period"):
                call()
        store.setup()
        assert store.create([(b"k", b"v")], ttl=None) == [True]
        store.close()


class TestConnecting:
    def test_a_wrong_namespace_names_those_that_are_there(self) -> None:
        server = aerospike_server.target()
        with pytest.raises(StoreMismatch, match=rf"no namespace 'absent'; it has .*{server.namespace}"):
            AerospikeStore.connect(server.hosts, "absent")

    def test_a_clients_owner_closes_it(self) -> None:
        server = aerospike_server.target()
        client = aerospike_server.raw_client(server.hosts)
        prefix = aerospike_server.fresh_prefix()
        store = AerospikeStore(client, server.namespace, prefix=prefix)
        store.close()
        assert client.is_connected()
        other = AerospikeStore(client, server.namespace, prefix=prefix)
        client.close()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="closed"):
            other.create([(b"k", b"v")], ttl=None)
        assert time.monotonic() - began < 1

    @pytest.mark.parametrize("prefix", ["", "x" * 41, "a;set=b", "a\nb", "a b", "\u00e4"])
    def test_a_prefix_that_gives_no_set_names_is_the_callers_mistake(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="prefix"):
            AerospikeStore(None, "test", prefix=prefix)

    def test_an_unknown_kind_of_policy_is_the_callers_mistake(self) -> None:
        with pytest.raises(ValueError, match="unknown policies"):
            AerospikeStore(None, "test", policies={"wirte": {}})


class TestConfiguration:
    def test_every_dangerous_setting_is_reported_with_its_remedy(
        self, own: Callable[..., Cluster], caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster = own(
            conflict_resolution="generation",
            extra=["default-ttl 3600", "max-record-size 128K", "disable-write-dup-res true"],
        )
        store = open_on(cluster)
        with caplog.at_level(logging.WARNING, logger="foldpoint"):
            findings = {finding.setting: finding for finding in store.setup(ttl=True)}
        remedies = {setting: finding.remedy for setting, finding in findings.items()}
        assert remedies.pop("storage-engine").startswith("storage-engine device")
        assert remedies == {
            "conflict-resolution-policy": "conflict-resolution-policy last-update-time",
            "disable-write-dup-res": "disable-write-dup-res false",
            "max-record-size": "max-record-size 1M",
            "replication-factor": "replication-factor 2",
            "default-ttl": "default-ttl 0",
        }
        assert findings["conflict-resolution-policy"].value == "generation"
        assert not any(finding.fatal for finding in findings.values())
        assert all(any(finding.danger in line for line in caplog.messages) for finding in findings.values())
        store.close()

    def test_a_sound_cluster_has_nothing_to_report(self, own: Callable[..., Cluster]) -> None:
        store = open_on(own(nodes=2, replication_factor=2, storage="device"))
        assert store.setup(ttl=True) == []
        store.close()

    def test_two_replicas_on_one_node_are_one(self, own: Callable[..., Cluster]) -> None:
        store = open_on(own(replication_factor=2, storage="device"))
        assert [finding.setting for finding in store.setup()] == ["effective_replication_factor"]
        store.close()

    def test_setup_again_is_quick_and_changes_nothing(self, store: AerospikeStore) -> None:
        before = store.setup()
        began = time.monotonic()
        assert store.setup() == before
        assert time.monotonic() - began < 1


class TestClusters:
    @pytest.mark.parametrize("fault", ["kill", "pause"])
    def test_no_acknowledged_create_is_lost_with_a_node(self, own: Callable[..., Cluster], fault: str) -> None:
        cluster = own(nodes=3, replication_factor=2)
        store = open_on(cluster)
        acknowledged: dict[bytes, bytes] = {}
        stop = threading.Event()

        def work(writer: int) -> int:
            step = 0
            while not stop.is_set():
                step += 1
                records = [(b"%d.%d.%d" % (writer, step, i), b"%d" % step) for i in range(1 if step % 2 else 4)]
                assert store.create(records, ttl=None) == [True] * len(records)
                acknowledged.update(records)
            return step

        with ThreadPoolExecutor(16) as pool:
            futures = [pool.submit(work, n) for n in range(16)]
            time.sleep(0.5)
            before = len(acknowledged)
            getattr(cluster, fault)(1)
            cluster.wait_formed(2, settled=False, among=[0, 2])
            time.sleep(1.5)
            after = len(acknowledged)
            stop.set()
            steps = [future.result() for future in futures]
        assert before > 0
        assert after > before
        assert min(steps) > 1
        if fault == "pause":
            cluster.resume(1)
            cluster.wait_formed(3)
        keys = list(acknowledged)
        values = store.get_many(keys)
        assert [key for key, value in zip(keys, values, strict=True) if value != acknowledged[key]] == []
        assert set(keys) <= set(store.keys())
        store.close()

    def test_a_scan_outlives_a_node_and_misses_nothing(self, own: Callable[..., Cluster]) -> None:
        cluster = own(nodes=3, replication_factor=2)
        store = open_on(cluster)
        keys = {b"k%d" % n for n in range(20_000)}
        assert all(store.create([(key, b"v") for key in keys], ttl=None))
        found = []
        scan = store.keys()
        for key in scan:
            if len(found) == 5 * PAGE:
                cluster.kill(1)
            found.append(key)
        assert set(found) == keys
        assert len(found) == len(keys)
        store.close()

    def test_it_is_settled_once_no_data_moves_and_otherwise_after_a_node_came_or_went(
        self, own: Callable[..., Cluster]
    ) -> None:
        """It waits for that, as any verb does for a failure to pass."""
        cluster = own(nodes=2, replication_factor=2)
        store, impatient = open_on(cluster, deadline=60.0), open_on(cluster, deadline=0.0)
        assert all(store.create([(b"k%d" % n, bytes(5000)) for n in range(10_000)], ttl=None))
        before = store.settled()
        assert store.settled() == before
        cluster.kill(1)
        cluster.wait_formed(1)
        alone = store.settled()
        assert alone != before
        cluster.nodes[1].start()
        cluster.wait_formed(2, settled=False)
        with pytest.raises(StoreBusy, match="data migrates"):
            impatient.settled()
        assert store.settled() == impatient.settled()
        assert store.settled() not in (before, alone)
        store.close()
        impatient.close()

    def test_heads_of_a_thread_are_found_after_a_node_is_lost(self, own: Callable[..., Cluster]) -> None:
        cluster = own(nodes=3, replication_factor=2)
        store = open_on(cluster)
        store.setup()
        for n in range(300):
            store.swap(head(key=b"h%d" % n, thread=b"t%d" % (n % 3)), expected=None, ttl=None)
        cluster.kill(0)
        assert len(list(store.heads(b"t1"))) == 100
        store.close()


class TestTheServersOfTheTests:
    def test_a_server_ends_with_the_process_that_started_it(self) -> None:
        aerospike_server.require_asd()
        code = (
            "import os, signal, aerospike_server as s\n"
            "c = s.start_server(); n = c.nodes[0]\n"
            "print(n.process.pid, n.folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=python_path())
        process, folder = done.stdout.split()
        assert done.returncode == -9
        deadline = time.monotonic() + 10
        while Path(folder).exists() or is_alive(process):
            assert time.monotonic() < deadline, f"asd {process} lives on"
            time.sleep(0.05)

    def test_a_variable_that_names_no_server_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(aerospike_server.ENVIRONMENT, "localhost")
        with pytest.raises(ValueError, match="host:port/namespace"):
            aerospike_server.from_environment()


def python_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def is_alive(process: str) -> bool:
    """A process that has ended, but that nobody has waited for, is not alive."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_large_value_passes_a_slow_link(behind: AerospikeStore, proxy: Proxy) -> None:
    """Of the speed that time-outs are made for: what is sent at once must be there while it may be applied."""
    records = [(b"part %d" % n, random.Random(n).randbytes(500_000)) for n in range(24)]
    proxy.rate = 1000 * BYTES_PER_MS
    try:
        assert behind.create(records, ttl=None) == [True] * len(records)
    finally:
        proxy.rate = None
    assert behind.get_many([key for key, _ in records]) == [value for _, value in records]
