"""One run: writers write, a fault is injected and healed, and then everything is read back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from foldpoint import Engine, FoldpointSaver
from foldpoint.compaction import compact
from foldpoint.errors import CorruptRecord
from foldpoint.settings import Settings
from reliability import cluster as servers
from reliability.check import Verdict, check
from reliability.cluster import Cluster, Place
from reliability.faults import Fault
from reliability.network import Network
from reliability.workload import Writer, make_writers, working

NODES = 3
_STEAL = 7
_TOLD = 10
HEALED_WITHIN = 300.0  # seconds


@dataclass(frozen=True)
class Plan:
    """Times in seconds. `shared`: of the `threads`, how many write two to a thread, through different savers."""

    seconds: float = 30.0
    threads: int = 32
    shared: int = 0
    window: int = 16
    grace: float = 10.0
    min_cluster_size: int = 1
    namespace_lines: Sequence[str] = ()

    @property
    def fault_at(self) -> float:
        return self.seconds / 6


@dataclass
class Result:
    """Figures of one run. Times in seconds; `failover`: from the fault until the other nodes were a cluster again.

    errors: by kind, how often a caller saw it; told: the first ones, whole. longest_trouble: the longest that calls for
    one write failed before one succeeded. stolen: of the processors' time, what other guests of the host took, 0 to 1:
    much of it makes everything wait. `after`: the check again, after everything was sealed and superseded records were
    removed.
    """

    fault: str
    run: int
    node: int
    acknowledged: int = 0
    acknowledged_writes: int = 0
    failover: float | None = None
    rejoined: float | None = None
    longest_wait: float = 0.0
    longest_trouble: float = 0.0
    stolen: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    segments: int = 0
    found: Verdict = field(default_factory=Verdict)
    after: Verdict = field(default_factory=Verdict)


Say = Callable[[str], None]


def run(fault: Fault, number: int, plan: Plan, network: Network | None, say: Say) -> Result:
    """One run of `fault`; `number` chooses the node. `say` hears what is going on."""
    result = Result(fault.name, number, number % NODES)
    say("starting three nodes")
    with _cluster(plan, network) as cluster:
        with ExitStack() as stack:
            savers = [stack.enter_context(_saver(cluster, plan)) for _ in range(2)]
            savers[0].engine.store.setup()
            writers = make_writers(savers, plan.threads, plan.shared)
            with working(writers), _stolen(result):
                _break_and_heal(cluster, network, fault, plan, result, say)
        say("waiting for the cluster to heal")
        cluster.wait_formed(NODES, seconds=HEALED_WITHIN)
        _count(result, writers)
        for verdict, what in ((result.found, "as it is"), (result.after, "after compaction")):
            say(f"reading {result.acknowledged:,} checkpoints back {what}")
            with _saver(cluster, plan) as fresh:
                if what != "as it is":
                    result.segments = _compact(fresh.engine, writers)
                _check_all(fresh, writers, verdict)
    return result


@contextmanager
def _cluster(plan: Plan, network: Network | None) -> Iterator[Cluster]:
    cluster = Cluster(
        network.places if network else [Place()] * NODES,
        servers.Settings(
            replication_factor=2,
            storage="device",
            nsup_period=120,
            min_cluster_size=plan.min_cluster_size,
            extra=plan.namespace_lines,
            **servers.HEARTBEATS,
        ),
    )
    try:
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def _saver(cluster: Cluster, plan: Plan) -> Iterator[FoldpointSaver]:
    """A saver with a client of its own that knows nothing yet."""
    store = servers.connect(cluster.hosts, cluster.namespace)
    try:
        with FoldpointSaver(Engine(store, Settings(window=plan.window, grace=plan.grace))) as saver:
            yield saver
    finally:
        store.close()


def _break_and_heal(
    cluster: Cluster, network: Network | None, fault: Fault, plan: Plan, result: Result, say: Say
) -> None:
    began = time.monotonic()
    say("writing")
    time.sleep(plan.fault_at)
    others = [index for index in range(NODES) if index != result.node]
    say(f"{fault.name}: node {result.node}")
    fault.inject(cluster, network, result.node)
    injected = time.monotonic()
    with _timing(cluster, NODES - 1, others if fault.leaves else [], fault.seconds) as failover:
        _sleep_until(injected + fault.seconds)
    result.failover = failover.seconds
    say("healing")
    fault.heal(cluster, network, result.node)
    rest = max(began + plan.seconds, time.monotonic() + plan.seconds / 6)
    with _timing(cluster, NODES, others, rest - time.monotonic()) as rejoined:
        say("writing on")
        _sleep_until(rest)
    result.rejoined = rejoined.seconds


@contextmanager
def _stolen(result: Result) -> Iterator[None]:
    before = _ticks()
    yield
    passed = [after - earlier for after, earlier in zip(_ticks(), before, strict=True)]
    result.stolen = passed[_STEAL] / max(1, sum(passed))


def _ticks() -> list[int]:
    """Of all processors since the machine started, by what they did (proc_stat(5)), but for guests, counted twice."""
    return [*map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])]


@dataclass
class _Timing:
    seconds: float | None = None


@contextmanager
def _timing(cluster: Cluster, size: int, among: Sequence[int], limit: float) -> Iterator[_Timing]:
    """How long from here, in the block, until the nodes `among` are a cluster of `size`; None: they were not."""
    timing, began = _Timing(), time.monotonic()

    def watch() -> None:
        try:
            cluster.wait_formed(size, settled=False, among=among, seconds=max(0, limit - 0.1))
        except TimeoutError:
            return
        timing.seconds = time.monotonic() - began

    watcher = threading.Thread(target=watch)
    if among:
        watcher.start()
    try:
        yield timing
    finally:
        if among:
            watcher.join()


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _count(result: Result, writers: Sequence[Writer]) -> None:
    result.acknowledged = sum(writer.puts for writer in writers)
    result.acknowledged_writes = sum(writer.writes for writer in writers)
    result.longest_wait = max(writer.longest_wait for writer in writers)
    result.longest_trouble = max(writer.longest_trouble for writer in writers)
    kinds = (error.split(": ", 1)[0] for writer in writers for error in writer.errors)
    result.errors = dict(Counter(kinds))
    result.told = [error for writer in writers for error in writer.errors][:_TOLD]


def _compact(engine: Engine, writers: Sequence[Writer]) -> int:
    """Compact each thread; how many segments they have then. A damaged thread stays as it is: the check will say so."""
    segments = 0
    for thread_id in sorted({writer.thread_id for writer in writers}):
        with suppress(CorruptRecord):
            segments += sum(report.segments for report in compact(engine, thread_id, grace=0))
    return segments


def _check_all(saver: FoldpointSaver, writers: Sequence[Writer], verdict: Verdict) -> None:
    for _, together in groupby(writers, key=lambda writer: writer.thread_id):
        check(saver, list(together), verdict)
