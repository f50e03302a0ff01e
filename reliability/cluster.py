"""Aerospike nodes for one occasion: private `asd` processes, alone or as a cluster, and how to break them.

Each node has its own free ports and its own temporary folder. A guard process waits on a pipe from this one, so that
a node dies and its folder goes even when this process is killed outright.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aerospike
from aerospike import exception as client_errors

from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.errors import StoreUnavailable

LOOPBACK = "127.0.0.1"
NAMESPACE = "test"
START_TIMEOUT = 30.0
T = TypeVar("T")
HEARTBEATS: Mapping[str, Any] = {"heartbeat_ms": 150, "heartbeats_missed": 10}
"""The server's own; tests notice a lost node sooner."""
GUARD = 'read -r _; kill -9 "$0"; rm -rf "$1"'


@dataclass(frozen=True)
class Settings:
    """How the nodes are configured; sizes in the server's notation, times in seconds unless said otherwise."""

    replication_factor: int = 1
    conflict_resolution: str = "last-update-time"
    nsup_period: int = 1
    storage: str = "memory"  # or "device": a file that survives a restart
    memory: str = "512M"  # for the data of a node that stores in memory
    access_port: int | None = None  # what clients are told to connect to, when it is not the server itself
    heartbeat_ms: int = 50
    heartbeats_missed: int = 5  # then a node is taken for dead
    min_cluster_size: int = 1
    extra: Sequence[str] = ()  # further lines of the namespace


@dataclass(frozen=True)
class Place:
    """Where a node runs: its address for clients, that for other nodes, and the command that takes `asd` there."""

    address: str = LOOPBACK
    mesh_address: str = LOOPBACK
    command: tuple[str, ...] = ()


@dataclass
class Node:
    """One `asd`. `base` is its service port; the next three are fabric, heartbeat and admin."""

    folder: Path
    base: int
    place: Place
    process: subprocess.Popen[bytes] | None = None
    guard: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        errors = self.folder / "stderr"
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*self.place.command, "asd", "--config-file", str(self.folder / "asd.conf"), "--foreground"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        self.guard = subprocess.Popen(
            ["sh", "-c", GUARD, str(self.process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def strike(self) -> None:
        """SIGKILL, without waiting for it."""
        assert self.process is not None, "not running"
        self.process.kill()

    def end(self, how: signal.Signals) -> None:
        """End the process and wait until it is gone. The guard goes first, lest it kills a reused process id."""
        if self.guard:
            self.guard.kill()
            self.guard.communicate()
            self.guard = None
        if self.process:
            if self.running:
                self.process.send_signal(how)
                if how is not signal.SIGKILL:
                    self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def wipe(self) -> None:
        """Empty the device of a node that is not running."""
        (self.folder / "data").unlink(missing_ok=True)

    def why_it_died(self) -> str:
        text = (self.folder / "stderr").read_text(errors="replace")
        return "; ".join(re.findall(r"(?:CRITICAL|FAILED)[^\n]*", text)[:5]) or text[-500:]


class Cluster:
    """Running nodes with one namespace, `test`. A node is named by its index. `places`: one a node."""

    namespace = NAMESPACE

    def __init__(self, places: Sequence[Place], settings: Settings) -> None:
        self.settings = settings
        self.nodes: list[Node] = []
        self._start_on_free_ports(places)

    @property
    def hosts(self) -> list[tuple[str, int]]:
        return [(node.place.address, node.base) for node in self.nodes]

    def kill(self, index: int) -> None:
        """SIGKILL: what had not reached the other nodes or the file is lost."""
        self.nodes[index].end(signal.SIGKILL)

    def pause(self, index: int) -> None:
        """SIGSTOP: the node keeps its connections and answers nothing. Returns when it has stopped."""
        process = self.nodes[index].process
        assert process is not None, f"node {index} is not running"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    def resume(self, index: int) -> None:
        process = self.nodes[index].process
        assert process is not None, f"node {index} is not running"
        process.send_signal(signal.SIGCONT)

    def restart(self, index: int) -> None:
        """Start a node that was killed or stopped, on its own ports and folder; waits until it has all its data."""
        self.nodes[index].start()
        self.wait_formed(sum(node.running for node in self.nodes))

    def info(self, index: int, command: str) -> str:
        """The node's answer to an info command; OSError when it does not answer."""
        node = self.nodes[index]
        return info(node.place.address, node.base, command)

    def statistics(self, index: int, command: str = "statistics") -> dict[str, str]:
        pairs = self.info(index, command).split(";")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def wait_formed(
        self, size: int, *, settled: bool = True, among: Sequence[int] | None = None, seconds: float = START_TIMEOUT
    ) -> None:
        """Wait until the running nodes (or those `among`) see `size` nodes and, if `settled`, nothing migrates."""
        indexes = [i for i, node in enumerate(self.nodes) if node.running] if among is None else among
        wanted = {"cluster_size": str(size), "cluster_integrity": "true"}
        if settled:
            wanted["migrate_partitions_remaining"] = "0"
        self._wait(lambda: self._unlike(wanted, indexes), f"a cluster of {size}", seconds)

    def clear(self) -> None:
        """Drop every record of the namespace."""
        index = next(i for i, node in enumerate(self.nodes) if node.running)
        answer = self.info(index, f"truncate-namespace:namespace={NAMESPACE}")
        assert answer.lower() == "ok", answer

    def stop(self) -> None:
        for node in self.nodes:
            node.end(signal.SIGKILL)
            shutil.rmtree(node.folder, ignore_errors=True)

    def _start_on_free_ports(self, places: Sequence[Place]) -> None:
        for attempt in range(5):
            self.nodes = [
                Node(Path(tempfile.mkdtemp(prefix="foldpoint-asd-")), base, place)
                for base, place in zip(free_bases(len(places)), places, strict=True)
            ]
            try:
                for node in self.nodes:
                    write_config(node, self.nodes, self.settings)
                    node.start()
                self.wait_formed(len(places))
                return
            except PortTaken:
                self.stop()
                if attempt == 4:
                    raise
            except BaseException:
                self.stop()
                raise

    def _unlike(self, wanted: dict[str, str], indexes: Sequence[int]) -> str:
        """How the nodes' statistics differ from those wanted; empty when they do not."""
        found = {i: self.statistics(i) for i in indexes}
        return " ".join(
            f"node {i}: {name}={stats.get(name)}"
            for i, stats in found.items()
            for name, value in wanted.items()
            if stats.get(name) != value
        )

    def _wait(self, missing: Callable[[], str], what: str, seconds: float = START_TIMEOUT) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if not (reason := missing()):
                    return
            except OSError as error:
                reason = str(error)
            self._require_alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"asd: no {what} after {seconds} s: {reason}")
            time.sleep(0.03)

    def _require_alive(self) -> None:
        for node in self.nodes:
            if node.process is not None and not node.running:
                why = node.why_it_died()
                raise PortTaken(why) if "in use" in why.lower() else RuntimeError(f"asd did not start: {why}")


class PortTaken(RuntimeError):
    """Another process took a port between the look and the start."""


def start_cluster(nodes: int = 3, replication_factor: int = 2, **settings: object) -> Cluster:
    """A running cluster on loopback; `settings` are fields of `Settings`. The caller calls `stop()`."""
    return Cluster([Place()] * nodes, Settings(replication_factor=replication_factor, **settings))  # type: ignore[arg-type]


def start_server(**settings: object) -> Cluster:
    """A cluster of one node with replication factor 1 unless told otherwise."""
    return Cluster([Place()], Settings(**settings))  # type: ignore[arg-type]


def connect(hosts: Sequence[tuple[str, int]], namespace: str, **options: Any) -> AerospikeStore:
    """As `AerospikeStore.connect`, but patient: a server that has just started refuses clients for a moment."""
    return _patiently(lambda: AerospikeStore.connect(hosts, namespace, **options), StoreUnavailable)


def raw_client(hosts: Sequence[tuple[str, int]]) -> Any:
    """The bare client, to look at what the store did. The caller closes it."""
    return _patiently(lambda: aerospike.client({"hosts": list(hosts)}), client_errors.AerospikeError)


def _patiently(attempt: Callable[[], T], error: type[Exception], seconds: float = 3.0) -> T:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.03)


def free_bases(count: int) -> list[int]:
    """First ports of `count` blocks of four free ones, below the range that outgoing connections use."""
    found: list[int] = []
    while len(found) < count:
        base = random.randrange(15000, 32000, 4)
        if base not in found and all(_is_free(base + offset) for offset in range(4)):
            found.append(base)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def write_config(node: Node, nodes: Sequence[Node], settings: Settings) -> None:
    (node.folder / "smd").mkdir(exist_ok=True)
    (node.folder / "usr/udf/lua").mkdir(parents=True, exist_ok=True)
    here, mesh = node.place.address, node.place.mesh_address
    seeds = "".join(f"mesh-seed-address-port {peer.place.mesh_address} {peer.base + 2}\n" for peer in nodes)
    engines = {
        "memory": f"storage-engine memory {{\ndata-size {settings.memory}\n}}\n",
        "device": f"storage-engine device {{\nfile {node.folder}/data\nfilesize 4G\n}}\n",
    }
    access = f"access-port {settings.access_port}\n" if settings.access_port else ""
    extra = "".join(f"{line}\n" for line in settings.extra)
    (node.folder / "asd.conf").write_text(
        f"service {{\nrun-as-daemon false\nproto-fd-max 2048\nmigrate-threads 4\nwork-directory {node.folder}\n"
        f"cluster-name foldpoint-test-{nodes[0].base}\nmin-cluster-size {settings.min_cluster_size}\n}}\n"
        f"logging {{\nfile {node.folder}/log {{\ncontext any info\n}}\n}}\n"
        f"mod-lua {{\nuser-path {node.folder}/usr/udf/lua\n}}\n"
        "network {\n"
        f"service {{\naddress {here}\nport {node.base}\naccess-address {here}\n{access}}}\n"
        f"fabric {{\naddress {mesh}\nport {node.base + 1}\n}}\n"
        f"heartbeat {{\nmode mesh\naddress {mesh}\nport {node.base + 2}\n{seeds}"
        f"interval {settings.heartbeat_ms}\ntimeout {settings.heartbeats_missed}\nconnect-timeout-ms 50\n}}\n"
        f"admin {{\naddress {LOOPBACK}\nport {node.base + 3}\n}}\n"
        "}\n"
        f"namespace {NAMESPACE} {{\nreplication-factor {settings.replication_factor}\n"
        f"conflict-resolution-policy {settings.conflict_resolution}\nnsup-period {settings.nsup_period}\n"
        f"migrate-sleep 0\n{extra}{engines[settings.storage]}}}\n"
    )


def info(host: str, port: int, command: str, timeout: float = 2.0) -> str:
    """One info command over a connection of its own, so that it works before a client can connect."""
    body = (command + "\n").encode()
    with socket.create_connection((host, port), timeout) as connection:
        connection.sendall(struct.pack(">Q", (2 << 56) | (1 << 48) | len(body)) + body)
        (header,) = struct.unpack(">Q", _receive(connection, 8))
        answer = _receive(connection, header & ((1 << 48) - 1)).decode()
    return answer.strip().split("\t")[-1]


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (chunk := connection.recv(size - len(data))):
            raise OSError("the server closed the connection")
        data += chunk
    return data
