"""Nothing is asked of nodes that may not agree, and no write is applied late, so that no key gets two records."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from aerospike.exception import ClusterChangeError, ParamError
from aerospike_server import Cluster, connect

from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.engine.aerospike.agreement import Agreement
from foldpoint.engine.aerospike.client import TRANSIENT
from foldpoint.engine.aerospike.errors import Refusal
from foldpoint.engine.records import HeadRecord
from foldpoint.errors import StoreUnavailable

TRUSTED_FOR_A_WHILE = 24  # heartbeats missed: nodes that agree are believed for 0.2 s
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


def test_how_a_create_is_told_its_time_is_made_again_only_when_nodes_are_asked_and_when_they_tell_better(
    own: Callable[..., Cluster],
) -> None:
    hasty, store = two_stores(own())
    hasty.close()
    clock, until = store._link.clock, time.monotonic() + 60
    clock.ask()
    told = [clock.creates_until(until)]
    assert clock.creates_until(until) is told[0]
    for _ in range(2):  # the second is known from the same, a little later
        clock.learn(applied_at=time.time_ns(), sent_at=time.monotonic_ns())
        told.append(clock.creates_until(until))
    clock.ask()
    told.append(clock.creates_until(until))
    assert [told[0] is told[1], told[1] is told[2], told[2] is told[3]] == [False, True, False]
    assert clock.creates_until(until + 1) is not told[3]
    store.close()


class TestAgreement:
    def test_while_a_node_does_not_answer_nothing_is_asked_of_the_others(self, own: Callable[..., Cluster]) -> None:
        cluster = own(nodes=2, replication_factor=2, heartbeats_missed=300)
        hasty, patient = two_stores(cluster)
        before = content(patient)
        cluster.pause(1)
        time.sleep(2.6)  # a sixth of the time after which the other node may go on alone
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


CUT_OFF, LEAVING = "in no cluster, and serves nothing", "in no cluster, and serves as before"
DROPPED = "not known to the client any more, since just now"


class Saying:
    """A client of nodes that say this: the cluster they are in, or that they are in none."""

    def __init__(self, *said: str) -> None:
        self.said = {f"node {number}": one for number, one in enumerate(said)}

    def get_node_names(self) -> list[dict[str, str]]:
        return [{"node_name": node} for node in self.said]

    def info_all(self, command: str) -> dict[str, tuple[None, str]]:
        return dict.fromkeys(self.said, (None, f"{command}\theartbeat.interval=150;heartbeat.timeout=10\n"))

    def info_single_node(self, command: str, node: str, policy: object) -> str:
        said = self.said[node]
        if command.startswith("namespace/"):
            return f"{command}\tobjects=1;ns_cluster_size={0 if said == CUT_OFF else 3};unavailable_partitions=0\n"
        if said == DROPPED:
            raise ParamError(-2, f"Could not get node with name {node}.")
        if said in (CUT_OFF, LEAVING):
            raise ClusterChangeError(7, "unstable cluster")
        return f"{command}\t{said}\n"


class TestWhatNodesSay:
    def test_one_cluster_is_agreement_and_who_serves_nothing_does_not_count(self) -> None:
        Agreement(Saying("A", "A", "A"), "test").require()
        Agreement(Saying("A", "A", CUT_OFF), "test").require()

    @pytest.mark.parametrize(
        "said", [("A", "A", "B"), ("A", "A", LEAVING), (LEAVING,), (CUT_OFF, CUT_OFF), (DROPPED, "A"), ()]
    )
    def test_anything_else_is_none(self, said: tuple[str, ...]) -> None:
        with pytest.raises(Refusal) as refused:
            Agreement(Saying(*said), "test").require()
        assert refused.value.code in TRANSIENT
