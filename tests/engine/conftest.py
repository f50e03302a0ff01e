"""Aerospike servers that a test may break, and one whose answers get lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import aerospike_server
import pytest
from aerospike_front import Proxy
from aerospike_server import Cluster, start_cluster, start_server

from foldpoint.engine.aerospike import AerospikeStore


@pytest.fixture(scope="module")
def lossy() -> Iterator[tuple[Cluster, Proxy]]:
    """A server that is reached through a proxy."""
    aerospike_server.require_asd()
    proxy = Proxy()
    server = start_server(access_port=proxy.port)
    proxy.server = server.hosts[0]
    yield server, proxy
    proxy.close()
    server.stop()


@pytest.fixture
def proxy(lossy: tuple[Cluster, Proxy]) -> Proxy:
    return lossy[1]


@pytest.fixture
def behind(proxy: Proxy) -> Iterator[AerospikeStore]:
    """A store whose answers the proxy can lose, and that waits only 300 ms for them."""
    hosts = [(aerospike_server.LOOPBACK, proxy.port)]
    quick = {"total_timeout": 300}
    store = aerospike_server.connect(
        hosts,
        aerospike_server.NAMESPACE,
        prefix=aerospike_server.fresh_prefix(),
        policies={"write": quick, "batch_write": quick},
    )
    store.setup()
    yield store
    proxy.lose(0, "cut")
    store.close()


@pytest.fixture
def own() -> Iterator[Callable[..., Cluster]]:
    """Starts servers that belong to the test alone."""
    aerospike_server.require_asd()
    started: list[Cluster] = []

    def start(**settings: Any) -> Cluster:
        nodes = settings.pop("nodes", 1)
        started.append(start_cluster(nodes, **settings) if nodes > 1 else start_server(**settings))
        return started[-1]

    yield start
    for cluster in started:
        cluster.stop()
