"""Nothing is asked of nodes that may not agree, and no write is applied late, so that no key gets two records."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from aerospike_server import Cluster, connect

from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.engine.records import HeadRecord
from foldpoint.errors import StoreUnavailable

TRUSTED_FOR_A_WHILE = 24  # heartbeats missed: nodes that agree are believed for 0.4 s
CHANGES: dict[str, Callable[[AerospikeStore], object]] = {
    "create": lambda store: store.create([(b"new", b"v")], ttl=None),
    "create many": lambda store: store.create([(b"new", b"v"), (b"other", b"w")], ttl=None),
    "swap in": lambda store: store.swap(head(b"new", 1), expected=None, ttl=None),
    "swap": lambda store: store.swap(head(b"h", 2), expected=1, ttl=None),
    "extend": lambda store: store.extend([b"k"], heads=[b"h"], ttl=3600),
    "remove": lambda store: store.remove_many([b"k"]),
    "empty": lambda store: store.empty_many([b"k"]),
}
READS: dict[str, Callable[[AerospikeStore], object]] = {
    "get": lambda store: store.get_many([b"k"]),
    "heads": lambda store: list(store.heads()),
}


def head(key: bytes, revision: int) -> HeadRecord:
    return HeadRecord(key=key, thread=b"t", revision=revision, value=b"v")


def content(store: AerospikeStore) -> list[object]:
    """Every record of the test, and how often it was written."""
    names = [*map(store._log_key, (b"k", b"new", b"other")), *map(store._head_key, (b"h", b"new"))]
    written = [(store._client.exists(name)[1] or {}).get("gen") for name in names]
    return [*written, store.get_many([b"k", b"new", b"other"]), store.get_head(b"h"), store.get_head(b"new")]


def two_stores(cluster: Cluster) -> tuple[AerospikeStore, AerospikeStore]:
    """On the same records: one that gives up at once, and one that waits."""
    hasty, patient = (
        connect(cluster.hosts, cluster.namespace, prefix="agreement", deadline=seconds) for seconds in (0.001, 10.0)
    )
    hasty.create([(b"k", b"v")], ttl=3600)
    hasty.swap(head(b"h", 1), expected=None, ttl=3600)
    return hasty, patient


@pytest.mark.parametrize("name", CHANGES)
class TestLateWrites:
    def test_a_write_that_waited_in_a_paused_node_is_not_applied_when_the_node_goes_on(
        self, name: str, own: Callable[..., Cluster]
    ) -> None:
        cluster = own(heartbeats_missed=TRUSTED_FOR_A_WHILE)
        hasty, patient = two_stores(cluster)
        before = content(patient)
        cluster.pause(0)
        with pytest.raises(StoreUnavailable):
            CHANGES[name](hasty)
        time.sleep(0.2)
        cluster.resume(0)
        time.sleep(0.2)
        assert content(patient) == before
        hasty.close()
        patient.close()

    def test_a_write_is_done_although_the_clocks_of_the_servers_went_ahead(
        self, name: str, own: Callable[..., Cluster]
    ) -> None:
        hasty, store = two_stores(own())
        hasty.close()
        before = content(store)
        store._link.clock.learn(applied_at=0, sent_at=time.monotonic_ns())
        CHANGES[name](store)
        assert content(store) != before
        store.close()


class TestAgreement:
    def test_while_a_node_does_not_answer_nothing_is_asked_of_the_others(self, own: Callable[..., Cluster]) -> None:
        cluster = own(nodes=2, replication_factor=2, heartbeats_missed=150)
        hasty, patient = two_stores(cluster)
        before = content(patient)
        cluster.pause(1)
        time.sleep(2.6)  # a third of the time after which the other node goes on alone
        for call in (CHANGES["create"], CHANGES["swap"], *READS.values()):
            with pytest.raises(StoreUnavailable, match=r"cut off|no answer in time"):
                call(hasty)
        cluster.resume(1)
        assert content(patient) == before
        hasty.close()
        patient.close()

    def test_a_node_that_was_silent_for_long_and_is_back_is_not_trusted_until_the_others_had_time_to_leave_it_out(
        self, own: Callable[..., Cluster]
    ) -> None:
        cluster = own(heartbeats_missed=TRUSTED_FOR_A_WHILE)
        hasty, patient = two_stores(cluster)
        cluster.pause(0)
        time.sleep(1.3)
        with pytest.raises(StoreUnavailable):
            hasty.get_head(b"h")
        cluster.resume(0)
        with pytest.raises(StoreUnavailable, match="was away, and may be left out yet"):
            hasty.get_head(b"h")
        time.sleep(2 * 1.2)
        assert hasty.get_head(b"h") == patient.get_head(b"h") == head(b"h", 1)
        hasty.close()
        patient.close()

    def test_nodes_that_are_in_no_cluster_and_serve_nothing_do_not_count(self, own: Callable[..., Cluster]) -> None:
        cluster = own(nodes=2, replication_factor=2, min_cluster_size=2)
        cluster.kill(1)
        until = time.monotonic() + 60
        while cluster.statistics(0, f"namespace/{cluster.namespace}")["ns_cluster_size"] != "0":
            assert time.monotonic() < until
            time.sleep(0.1)
        store = connect(cluster.hosts[:1], cluster.namespace, deadline=0.001)
        with pytest.raises(StoreUnavailable, match=r"no node serves this part of the data.*one cluster: .*None"):
            store.get_head(b"h")
        store.close()
