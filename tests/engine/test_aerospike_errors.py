"""Whatever Aerospike refuses or loses is a typed error that says why and what to do, and is never taken for success."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import aerospike_server
import pytest
from aerospike_front import UNKNOWN_USER, WRONG_PASSWORD, Gate, Proxy
from aerospike_server import Cluster, open_on, set_config
from checkpoints import numbered, numbers

from foldpoint import Engine, Settings
from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.engine.aerospike.client import TRANSIENT
from foldpoint.engine.aerospike.errors import FAILURES
from foldpoint.engine.records import HeadRecord
from foldpoint.errors import (
    RecordTooBig,
    StoreBusy,
    StoreForbidden,
    StoreFull,
    StoreMismatch,
    StoreReadOnly,
    StoreUnavailable,
)

Verb = Callable[[AerospikeStore], object]


def head(revision: int = 1) -> HeadRecord:
    return HeadRecord(key=b"h", thread=b"t", revision=revision, value=b"v")


ONE_RECORD: dict[str, Verb] = {
    "create": lambda store: store.create([(b"k", b"v")], ttl=None),
    "get": lambda store: store.get_many([b"k"]),
    "get a head": lambda store: store.get_head(b"h"),
    "swap": lambda store: store.swap(head(2), expected=1, ttl=None),
    "swap in": lambda store: store.swap(head(), expected=None, ttl=None),
}
MANY: dict[str, Verb] = {
    "create many": lambda store: store.create([(b"k", b"v"), (b"l", b"w")], ttl=None),
    "get many": lambda store: store.get_many([b"k", b"l"]),
    "extend": lambda store: store.extend([b"k"], heads=[b"h"], ttl=60),
    "remove": lambda store: store.remove_many([b"k"]),
    "empty": lambda store: store.empty_many([b"k"]),
    "keys": lambda store: list(store.keys()),
    "heads": lambda store: list(store.heads()),
    "heads of a thread": lambda store: list(store.heads(b"t")),
    "settled": lambda store: store.settled(),
    "setup": lambda store: store.setup(),
}


class TestNoServer:
    def test_a_store_whose_servers_are_gone_acknowledges_nothing(self, own: Callable[..., Cluster]) -> None:
        cluster = own()
        store = open_on(cluster, deadline=0.1)
        cluster.kill(0)
        for call in (*ONE_RECORD.values(), *MANY.values()):
            with pytest.raises(StoreUnavailable, match=r"reachable from here\?|node down or overloaded\?"):
                call(store)
        while store._link.connected:
            time.sleep(0.05)
        for call in (*ONE_RECORD.values(), *MANY.values()):
            with pytest.raises(StoreUnavailable, match=r"are (the|enough) servers up and reachable from here\?"):
                call(store)
        store.close()

    def test_writes_wait_for_a_server_that_was_forgotten_and_comes_back(self, own: Callable[..., Cluster]) -> None:
        cluster = own()
        store = open_on(cluster)
        cluster.kill(0)
        while store._link.connected:
            time.sleep(0.05)
        again = threading.Timer(0.5, cluster.nodes[0].start)
        again.start()
        assert store.create([(b"a", b"1"), (b"b", b"2")], ttl=None) == [True, True]
        assert store.get_many([b"a", b"b"]) == [b"1", b"2"]
        again.join()
        store.close()

    def test_a_server_that_cannot_be_reached_is_named(self) -> None:
        aerospike_server.target()
        [port] = aerospike_server.free_bases(1)
        with pytest.raises(
            StoreUnavailable, match=f"no connection to Aerospike at 127.0.0.1:{port} .* reachable from here"
        ):
            AerospikeStore.connect([(aerospike_server.LOOPBACK, port)], "test")


class TestRefusals:
    @pytest.fixture
    def hasty(self, proxy: Proxy) -> Iterator[AerospikeStore]:
        """A store that gives up after 0.02 s, and whose answers the proxy can change."""
        hosts = [(aerospike_server.LOOPBACK, proxy.port)]
        store = aerospike_server.connect(
            hosts, aerospike_server.NAMESPACE, prefix=aerospike_server.fresh_prefix(), deadline=0.02
        )
        yield store
        proxy.refuse(0)
        store.close()

    @pytest.mark.parametrize(
        ("code", "kind", "advice"),
        [
            (81, StoreForbidden, "grant it the roles read-write and sindex-admin"),
            (80, StoreForbidden, "wants a user and a password"),
            (8, StoreFull, "add storage or nodes, or raise its stop-writes limits"),
            (13, RecordTooBig, "max-record-size"),
            (14, StoreBusy, "hot: .* raise transaction-pending-limit"),
            (18, StoreBusy, "add devices, or raise max-write-cache"),
            (20, StoreMismatch, "no such namespace"),
            (22, StoreReadOnly, "nsup-period"),
            (9, StoreUnavailable, "node down or overloaded"),
            (11, StoreUnavailable, "cluster is not available"),
        ],
    )
    def test_a_refusal_is_typed_says_what_to_do_and_changes_nothing_that_is_read(
        self, hasty: AerospikeStore, proxy: Proxy, code: int, kind: type[StoreUnavailable], advice: str
    ) -> None:
        hasty.swap(head(), expected=None, ttl=None)
        for name, call in (*ONE_RECORD.items(), ("create many", MANY["create many"])):
            proxy.refuse(code)
            with pytest.raises(kind, match=rf"namespace 'test' .*{advice}.*\(Aerospike code {code}") as caught:
                call(hasty)
            assert type(caught.value) is kind, name
        proxy.refuse(0)
        assert hasty.get_many([b"x"]) == [None]

    def test_whatever_is_tried_again_has_a_cause_and_advice_when_it_is_given_up(self) -> None:
        assert set(FAILURES) >= TRANSIENT

    def test_a_hot_head_that_stays_hot_is_busy(self, own: Callable[..., Cluster]) -> None:
        """A write waits for a replica that is paused; of those behind it on the same head, one waits too."""
        cluster = own(nodes=2, replication_factor=2, heartbeats_missed=100)
        set_config(cluster, "transaction-pending-limit=1")
        store = open_on(cluster, deadline=0.001)
        keys_on_both_nodes = [bytes([i]) for i in range(32)]
        store.swap(head(), expected=None, ttl=None)  # so that the nodes are known to agree, for a moment
        cluster.pause(1)

        def swap(key: bytes) -> Exception | None:
            try:
                store.swap(HeadRecord(key=key, thread=b"t", revision=1, value=b"v"), expected=None, ttl=None)
            except StoreUnavailable as error:
                return error
            return None

        with ThreadPoolExecutor(4 * len(keys_on_both_nodes)) as pool:
            refused = list(pool.map(swap, 4 * keys_on_both_nodes))
        busy = [error for error in refused if isinstance(error, StoreBusy)]
        assert "the record is hot" in str(busy[0])
        store.close()


class TestAccess:
    """A Community server has no access control; a gate in front of it plays the part."""

    def test_who_may_not_come_in_is_told(self, own: Callable[..., Cluster]) -> None:
        gate = Gate(users={"anna": None})
        gate.server = own(access_port=gate.port).hosts[0]
        hosts = [(aerospike_server.LOOPBACK, gate.port)]
        aerospike_server.connect(hosts, "test", user="anna", password="right").close()
        for user, password, code in (("otto", "right", UNKNOWN_USER), ("anna", "wrong", WRONG_PASSWORD)):
            with pytest.raises(StoreForbidden, match=rf"no connection .*\(Aerospike code {code}"):
                AerospikeStore.connect(hosts, "test", user=user, password=password)
        gate.close()

    def test_a_user_where_there_is_no_access_control_is_told(self, own: Callable[..., Cluster]) -> None:
        cluster = own()
        open_on(cluster).close()
        with pytest.raises(StoreUnavailable, match="leave out user and password"):
            AerospikeStore.connect(cluster.hosts, "test", user="u", password="p")


class TestLimits:
    def test_a_record_over_the_limit_that_was_lowered_meanwhile_is_refused_and_not_retried(
        self, own: Callable[..., Cluster]
    ) -> None:
        cluster = own()
        store = open_on(cluster)
        engine = Engine(store, Settings())
        engine.put("t", "", numbered(0))
        set_config(cluster, "max-record-size=65536")
        for records in ([(b"k", bytes(100_000))], [(b"k", bytes(100_000)), (b"l", b"small")]):
            with pytest.raises(RecordTooBig, match="max-record-size"):
                store.create(records, ttl=None)
        assert store.get_many([b"k"]) == [None]
        large = numbered(1, noise=random.Random(0).randbytes(100_000))
        with pytest.raises(RecordTooBig, match="max-record-size"):
            engine.put("t", "", large)
        again = open_on(cluster)
        assert again.capabilities.max_record < 65536
        assert again.create([(b"k" * 64, bytes(again.capabilities.max_record))], ttl=None) == [True]
        set_config(cluster, "max-record-size=1048576")
        for reader in (engine, Engine(store, Settings())):
            assert numbers(reader) == [0]
        engine.put("t", "", large)
        assert numbers(engine) == [1, 0]
        again.close()
        store.close()

    def test_a_full_namespace_says_so_is_still_read(self, own: Callable[..., Cluster]) -> None:
        cluster = own()
        store = open_on(cluster)
        engine = Engine(store, Settings())
        engine.put("t", "", numbered(0))
        set_config(cluster, "stop-writes-sys-memory-pct=1")
        wait_for_statistic(cluster, "stop_writes", "true")
        for call in (ONE_RECORD["create"], ONE_RECORD["swap in"], MANY["create many"]):
            with pytest.raises(StoreFull, match="add storage or nodes, or raise its stop-writes limits"):
                call(store)
        with pytest.raises(StoreFull):
            engine.put("t", "", numbered(1, noise=random.Random(0).randbytes(2_000_000)))
        assert "stop_writes" in [finding.setting for finding in store.setup()]
        for reader in (engine, Engine(store, Settings())):
            assert numbers(reader) == [0]
        store.close()

    def test_a_write_that_the_server_forbids_is_named(self, own: Callable[..., Cluster]) -> None:
        cluster = own()
        store = open_on(cluster)
        set_config(cluster, "nsup-period=0")
        with pytest.raises(StoreReadOnly, match="nsup-period"):
            store.create([(b"k", b"v")], ttl=5)
        store.close()


def wait_for_statistic(cluster: Cluster, name: str, wanted: str) -> None:
    """The server looks at its limits every ten seconds."""
    while cluster.statistics(0, f"namespace/{cluster.namespace}")[name] != wanted:
        time.sleep(0.1)
