"""A network for each node, so that a node can be cut off as by a pulled cable.

Linux network namespaces: this process lives in one, each node in one of its own. Two bridges join them: one for
clients, one for the nodes' heartbeats and replication. Nothing of it is seen outside, and it goes with the processes.
"""

from __future__ import annotations

import os
import subprocess
import sys

from reliability.cluster import Place

_INSIDE = "FOLDPOINT_RELIABILITY_NETWORK"
CLIENTS, MESH = "clients", "mesh"
_SUBNETS = {CLIENTS: "10.77.1", MESH: "10.77.2"}


class NetworkUnavailable(Exception):
    """This machine gives no network namespaces; the message says why."""


def inside() -> bool:
    """Whether this process is in a network of its own."""
    return bool(os.environ.get(_INSIDE))


def enter() -> None:
    """Start this program again in a network of its own, unless it is in one. Raises NetworkUnavailable."""
    if inside():
        return
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    try:
        _run(*command, "ip", "link", "add", CLIENTS, "type", "bridge")
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise NetworkUnavailable(
            f"network namespaces cannot be made here ({detail.strip()}); "
            "needs Linux with util-linux and iproute2, and root or unprivileged user namespaces"
        ) from error
    os.environ[_INSIDE] = "1"
    os.execvp(command[0], [*command, sys.executable, *sys.orig_argv[1:]])


class Network:
    """Places for nodes. A node's link to the clients and its link to the other nodes can be cut each on its own."""

    def __init__(self, nodes: int) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        self.places: list[Place] = []
        _ip("link", "set", "lo", "up")
        for bridge, subnet in _SUBNETS.items():
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        for index in range(nodes):
            self._add(index)

    def cut(self, node: int, bridge: str) -> None:
        """Take the node's link out of the bridge: what is sent either way goes nowhere, and nobody is told."""
        _ip("link", "set", f"{bridge}{node}", "nomaster")

    def mend(self, node: int, bridge: str) -> None:
        """Undo `cut`."""
        _ip("link", "set", f"{bridge}{node}", "master", bridge)

    def close(self) -> None:
        for holder in self._holders:
            holder.communicate()
        for bridge in _SUBNETS:
            _ip("link", "del", bridge)

    def _add(self, index: int) -> None:
        # It keeps the namespace while the node is down, and ends with its standard input, that is with this process.
        holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b".")
        holder.stdout.read(1)
        self._holders.append(holder)
        inside = ("nsenter", "--target", str(holder.pid), "--net")
        _run(*inside, "ip", "link", "set", "lo", "up")
        for bridge, subnet in _SUBNETS.items():
            _ip("link", "add", f"{bridge}{index}", "type", "veth", "peer", "name", bridge, "netns", str(holder.pid))
            _ip("link", "set", f"{bridge}{index}", "master", bridge, "up")
            _run(*inside, "ip", "addr", "add", f"{subnet}.{index + 1}/24", "dev", bridge)
            _run(*inside, "ip", "link", "set", bridge, "up")
        addresses = [f"{subnet}.{index + 1}" for subnet in _SUBNETS.values()]
        self.places.append(Place(addresses[0], addresses[1], inside))


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
