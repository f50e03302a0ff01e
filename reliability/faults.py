"""What is done to a cluster of three nodes while it is written to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reliability.cluster import Cluster
from reliability.network import CLIENTS, MESH, Network

Act = Callable[[Cluster, "Network | None", int], None]


@dataclass(frozen=True)
class Fault:
    """`seconds`: how long it lasts. `leaves`: how many of the three nodes go on."""

    name: str
    summary: str
    seconds: float
    inject: Act
    heal: Act
    leaves: int = 2
    needs_network: bool = False


def _kill(cluster: Cluster, network: Network | None, node: int) -> None:
    cluster.kill(node)


def _start(cluster: Cluster, network: Network | None, node: int) -> None:
    cluster.nodes[node].start()


def _start_empty(cluster: Cluster, network: Network | None, node: int) -> None:
    cluster.nodes[node].wipe()
    cluster.nodes[node].start()


def _pause(cluster: Cluster, network: Network | None, node: int) -> None:
    cluster.pause(node)


def _resume(cluster: Cluster, network: Network | None, node: int) -> None:
    cluster.resume(node)


def _cut(*bridges: str) -> Act:
    def cut(cluster: Cluster, network: Network | None, node: int) -> None:
        assert network is not None
        for bridge in bridges:
            network.cut(node, bridge)

    return cut


def _mend(*bridges: str) -> Act:
    def mend(cluster: Cluster, network: Network | None, node: int) -> None:
        assert network is not None
        for bridge in bridges:
            network.mend(node, bridge)

    return mend


def _kill_all(cluster: Cluster, network: Network | None, node: int) -> None:
    for index in range(len(cluster.nodes)):
        cluster.nodes[index].strike()
    for index in range(len(cluster.nodes)):
        cluster.kill(index)


def _start_all(cluster: Cluster, network: Network | None, node: int) -> None:
    for index in range(len(cluster.nodes)):
        cluster.nodes[index].start()


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", "SIGKILL, started again with what its device holds", 10, _kill, _start),
        Fault("kill-empty", "SIGKILL, started again with an empty device", 10, _kill, _start_empty),
        Fault("pause", "SIGSTOP for longer than the fail-over", 8, _pause, _resume),
        Fault("blink", "SIGSTOP for about as long as the fail-over", 2.5, _pause, _resume),
        Fault(
            "isolate",
            "cut off from the other nodes and from clients",
            10,
            _cut(MESH, CLIENTS),
            _mend(MESH, CLIENTS),
            needs_network=True,
        ),
        Fault(
            "split", "cut off from the other nodes; clients reach it", 10, _cut(MESH), _mend(MESH), needs_network=True
        ),
        Fault(
            "power",
            "all nodes SIGKILLed at once, started again with what their devices hold",
            1,
            _kill_all,
            _start_all,
            leaves=0,
        ),
    )
}
