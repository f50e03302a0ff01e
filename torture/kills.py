"""Writers and compactors killed at random moments: afterwards every acknowledged checkpoint is there, and equal.

A writer says in a file what was acknowledged, a compactor works until it is killed. On Aerospike nodes of the cluster
are killed, paused and cut off meanwhile.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from langgraph.checkpoint.base import CheckpointTuple

from foldpoint import Engine, FoldpointSaver
from foldpoint.compaction import compact, sweep
from foldpoint.compaction.verify import verify
from foldpoint.engine.url import open_store
from foldpoint.errors import FoldpointError
from foldpoint.settings import Settings
from reliability.cluster import HEARTBEATS, Cluster, Place
from reliability.cluster import Settings as NodeSettings
from reliability.faults import FAULTS
from reliability.network import Network, inside
from reliability.workload import channel_values, config, make_checkpoint, message

NODES, THREADS = 3, 3
SETTINGS = Settings(window=8, grace=2.0)
"""A grace that passes between two kills."""
LARGE = 1_200_000
"""Bytes of a value that no server takes in one record."""
_PAUSE = 0.02
_STORE_SECONDS = 120.0  # a cluster whose nodes come back is waited for
Say = Callable[[str], None]
Role = Callable[[str, int, Path], None]
T = TypeVar("T")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torture.kills"])


# -- the processes that are killed -------------------------------------------------------------------------------------


def write(url: str, number: int, out: Path) -> None:
    """Put checkpoints and writes for ever, into threads that others share; tell of each that was acknowledged.

    Every second checkpoint has writes, and the next one is put beside them, as LangGraph does.
    """
    name = f"w{number}"

    def tell(*words: object) -> None:
        print(*words, sep="\t", flush=True, file=said)

    with (
        out.open("w") as said,
        FoldpointSaver(Engine(_patiently(lambda: open_store(url, SETTINGS)), SETTINGS)) as saver,
        ThreadPoolExecutor(1) as beside,
    ):
        step, thread, parents = 0, "", dict[str, str | None]()
        writing: Future[None] | None = None
        while True:
            thread = thread if writing else f"thread {random.randrange(THREADS)}"
            checkpoint, parent = make_checkpoint(name, step), parents.get(thread)
            checkpoint["channel_values"] = _values(name, step)
            metadata = {"source": "loop", "writer": name, "number": step}
            tell("trying", checkpoint["id"], thread, name, step, parent)
            _patiently(
                lambda: saver.put(config(thread, parent), checkpoint, metadata, checkpoint["channel_versions"])  # type: ignore[arg-type] # noqa: B023
            )
            tell("put", checkpoint["id"])
            if writing is not None:
                writing.result()
                tell("wrote", parents[thread])
                writing = None
            parents[thread] = checkpoint["id"]
            if step % 2:
                where, written = config(thread, checkpoint["id"]), [("messages", message(name, step))]
                writing = beside.submit(_patiently, partial(saver.put_writes, where, written, name))
            step += 1


def _values(writer: str, number: int) -> dict[str, Any]:
    large = {"large": random.Random(f"{writer}/{number}").randbytes(LARGE)} if number % 20 == 10 else {}
    return channel_values(writer, number) | large


def tidy(url: str, number: int, out: Path) -> None:
    """Compact and sweep for ever."""
    engine = Engine(_patiently(lambda: open_store(url, SETTINGS)), SETTINGS)
    while True:
        with suppress(FoldpointError):
            list(compact(engine))
            sweep(engine)
        time.sleep(_PAUSE * random.random())


def _patiently(call: Callable[[], T]) -> T:
    """Call again while the store cannot be used."""
    until = time.monotonic() + _STORE_SECONDS
    while True:
        try:
            return call()
        except FoldpointError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


# -- killing them ------------------------------------------------------------------------------------------------------


@dataclass
class Put:
    """A checkpoint that a writer tried to put, and whether it heard that it, and its write, were."""

    thread: str
    name: str
    number: int
    parent: str | None
    acknowledged: bool = False
    written: bool = False


@dataclass
class Process:
    """One that runs until it is killed, and what it said."""

    role: Role
    process: BaseProcess
    out: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@dataclass
class Killed:
    """kills: of processes; faults: of nodes. puts: by checkpoint id. wrong: what was found, in words."""

    kills: int = 0
    faults: int = 0
    puts: dict[str, Put] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        return sum(put.acknowledged for put in self.puts.values())


def start(role: Role, url: str, number: int, folder: Path) -> Process:
    out = folder / str(number)
    process = _CONTEXT.Process(target=role, args=(url, number, out), daemon=True)
    process.start()
    return Process(role, process, out)


def kill_often(
    url: str,
    kills: int,
    seed: int,
    folder: Path,
    say: Say,
    disturb: Callable[[random.Random], None] = lambda chance: None,
) -> Killed:
    """Keep two writers and a compactor running, kill one of them so many times, and read everything back.

    disturb: called before each kill.
    """
    chance, found = random.Random(seed), Killed()
    processes = [start(role, url, number, folder) for number, role in enumerate((write, write, tidy))]
    try:
        for number in range(3, 3 + kills):
            time.sleep(chance.uniform(0.1, 0.9))
            disturb(chance)
            victim = processes.pop(chance.randrange(len(processes)))
            if not victim.process.is_alive():
                found.wrong.append(f"the {victim.role.__name__} process ended by itself: {victim.process.exitcode}")
            victim.kill()
            _hear(victim.out, found)
            found.kills += 1
            processes.append(start(victim.role, url, number, folder))
            if found.kills % 25 == 0:
                say(f"{found.kills} kills, {found.acknowledged:,} checkpoints acknowledged")
    finally:
        for process in processes:
            process.kill()
            _hear(process.out, found)
    return found


def _hear(out: Path, found: Killed) -> None:
    """Take in what a writer said; its last line may be cut off."""
    for line in (out.read_text() if out.exists() else "").split("\n")[:-1]:
        word, *rest = line.split("\t")
        if word == "trying":
            id_, thread, name, number, parent = rest
            found.puts[id_] = Put(thread, name, int(number), None if parent == "None" else parent)
        elif word == "put":
            found.puts[rest[0]].acknowledged = True
        else:
            found.puts[rest[0]].written = True
    out.unlink(missing_ok=True)


def read_back(url: str, found: Killed) -> None:
    """Compare what is there with what was acknowledged, and verify; before and after compaction."""
    store = open_store(url, SETTINGS)
    try:
        for when in ("", ", compacted"):
            engine = Engine(store, SETTINGS)
            if when:
                list(compact(engine, grace=0))
            _compare(FoldpointSaver(engine, compaction="off"), found, when)
            for one in verify(engine):
                found.wrong += [f"verify{when}: {finding}" for finding in one.findings]
    finally:
        store.close()


def _compare(saver: FoldpointSaver, found: Killed, when: str) -> None:
    listed: dict[str, CheckpointTuple] = {}
    for number in range(THREADS):
        entries = list(saver.list(config(f"thread {number}")))
        ids = [entry.checkpoint["id"] for entry in entries]
        if ids != sorted({*ids}, reverse=True):
            found.wrong.append(f"thread {number}{when}: doubled, or out of order")
        latest = saver.get_tuple(config(f"thread {number}"))
        if entries and (latest is None or latest.checkpoint["id"] != ids[0]):
            found.wrong.append(f"thread {number}{when}: latest is not the first of the list")
        listed |= dict(zip(ids, entries, strict=True))
    for id_ in listed.keys() - found.puts.keys():
        found.wrong.append(f"checkpoint {id_}{when}: was never put")
    for id_, put in found.puts.items():
        entry = listed.get(id_)
        if entry is None:
            if put.acknowledged:
                found.wrong.append(f"checkpoint {id_} of {put.thread!r}{when}: lost")
            continue
        parent = entry.parent_config["configurable"]["checkpoint_id"] if entry.parent_config else None
        if entry.checkpoint["channel_values"] != _values(put.name, put.number) or parent != put.parent:
            found.wrong.append(f"checkpoint {id_} of {put.thread!r}{when}: differs")
        writes = entry.pending_writes or []
        if any(write != (put.name, "messages", message(put.name, put.number)) for write in writes) or (
            put.written and not writes
        ):
            found.wrong.append(f"checkpoint {id_} of {put.thread!r}{when}: writes differ: {writes!r:.100}")


# -- on a file, and on nodes that fail meanwhile -----------------------------------------------------------------------


def on_sqlite(folder: Path, kills: int, seed: int, say: Say) -> Killed:
    url = f"sqlite:///{folder}/store.db"
    found = kill_often(url, kills, seed, folder, say)
    read_back(url, found)
    return found


def on_aerospike(folder: Path, kills: int, seed: int, say: Say, *, split: bool = False) -> Killed:
    """Three nodes, of which one at a time is killed, paused or, where this machine has networks for them, cut off.

    split: or cut off from the other nodes alone.
    """
    network = Network(NODES) if inside() else None
    cuts = ("isolate", "split") if split else ("isolate",)
    nodes = NodeSettings(
        replication_factor=2,
        storage="device",
        nsup_period=120,
        min_cluster_size=2,
        **HEARTBEATS,
    )
    cluster = Cluster(network.places if network else [Place()] * NODES, nodes)
    try:
        hosts = ",".join(f"{host}:{port}" for host, port in cluster.hosts)
        url = f"aerospike://{hosts}/{cluster.namespace}?prefix=fp"
        _patiently(lambda: open_store(url, SETTINGS).setup())
        trouble = _Trouble(cluster, network, ("kill", "pause", *(cuts if network else ())))
        found = kill_often(url, kills, seed, folder, say, trouble)
        trouble.heal()
        cluster.wait_formed(NODES, seconds=_STORE_SECONDS)
        found.faults = trouble.faults
        read_back(url, found)
        return found
    finally:
        cluster.stop()
        if network:
            network.close()


class _Trouble:
    """Every eighth time it is called a node fails, and is well again four calls later, with its copies of all records:
    a second node that fails before takes the only ones there are.
    """

    def __init__(self, cluster: Cluster, network: Network | None, faults: Sequence[str]) -> None:
        self._cluster = cluster
        self._network = network
        self._choices = [FAULTS[name] for name in faults]
        self._calls = 0
        self._mend: Callable[[], None] | None = None
        self.faults = 0

    def __call__(self, chance: random.Random) -> None:
        self._calls += 1
        if self._calls % 8 == 4:
            fault, node = chance.choice(self._choices), chance.randrange(NODES)
            fault.inject(self._cluster, self._network, node)
            self._mend = partial(fault.heal, self._cluster, self._network, node)
            self.faults += 1
        elif self._calls % 8 == 0:
            self.heal()

    def heal(self) -> None:
        if self._mend is not None:
            self._mend()
            self._mend = None
            self._cluster.wait_formed(NODES, seconds=_STORE_SECONDS)
