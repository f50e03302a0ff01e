"""Aerospike servers that a test may break, or that lose answers; and Hypothesis profiles.

FOLDPOINT_HYPOTHESIS_PROFILE=torture looks at many more examples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import aerospike_server
import pytest
from aerospike_front import Proxy
from aerospike_server import Cluster, start_cluster, start_server
from hypothesis import HealthCheck, Phase, settings

from foldpoint.engine.aerospike import AerospikeStore

_ALLOWED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

# Shrinking a long history takes minutes: the torture profile does it, the normal one prints how to repeat the failure.
_QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("normal", phases=_QUICK, deadline=None, max_examples=100, suppress_health_check=_ALLOWED)
settings.register_profile("torture", deadline=None, max_examples=5000, suppress_health_check=_ALLOWED)
settings.load_profile(os.environ.get("FOLDPOINT_HYPOTHESIS_PROFILE", "normal"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    aerospike_server.say_if_skipped(terminalreporter)


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
