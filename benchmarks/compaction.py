"""The offline job on many small threads: killed at random beside live writers, and how fast it is beside bare zstd.

First `foldpoint compact --all` runs on all threads while writers put into some of them, is killed at random times and
started again until it ends by itself; then every checkpoint is compared with what was put. Then the job runs once more
on the same threads alone, and zstd compresses the same bytes at the same levels.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest.mock import patch

import click
import msgpack
import zstandard
from rich.console import Console
from rich.table import Table

from demo.conversation import generate
from foldpoint import Engine, Settings
from foldpoint.codecs import envelope
from foldpoint.codecs.model import Checkpoint, Header, Value
from foldpoint.codecs.rope import Rope
from foldpoint.compaction import merge
from foldpoint.compaction.job import Job, Outcome
from foldpoint.engine import sealing
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.engine.url import open_store
from foldpoint.errors import FoldpointError

EXAMPLES = """
\b
Examples:
  python -m benchmarks.compaction --threads 1000 --kills 3 --writers 10     a minute
  python -m benchmarks.compaction --workers 2                               the whole, a quarter of an hour
"""
SAID = [{"role": type(message).__name__, "content": message.content} for message in islice(generate(seed=0), 500)]


def name(thread: int) -> str:
    return f"thread-{thread}"


def id_of(n: int) -> str:
    return str(uuid.UUID(int=(0x1EF << 116) + (n << 32)))


def checkpoint(thread: int, n: int) -> Checkpoint:
    """The n-th of a thread: a conversation of n + 1 messages, which begins somewhere else in each thread."""
    messages = [SAID[(thread * 7 + at) % len(SAID)] for at in range(n + 1)]
    header = Header(id_of(n), id_of(n - 1) if n else None, 4, "", {"messages": n + 1}, {"agent": {"messages": n}})
    return Checkpoint(header, {"messages": Value("msgpack", msgpack.packb(messages))}, {"step": n, "source": "loop"})


def fill(file: Path, threads: range, count: int) -> None:
    """Put `count` checkpoints into each thread, without waiting for the disk."""
    store = SqliteStore(file, synchronous="OFF")
    engine = Engine(store, Settings(cache_bytes=0))
    for thread in threads:
        for n in range(count):
            engine.put(name(thread), "", checkpoint(thread, n))
    store.close()


def lost(url: str, counts: dict[int, int]) -> list[str]:
    """What of each thread's so many checkpoints is missing or differs."""
    store = open_store(url)
    engine = Engine(store, Settings(cache_bytes=0))
    wrong = []
    for thread, count in counts.items():
        entries = {entry.folded.header.id: entry for entry in engine.history(name(thread), "")}
        for n in range(count):
            entry, put = entries.pop(id_of(n), None), checkpoint(thread, n)
            if entry is None or entry.state() != put.channels or entry.folded.header != put.header:
                wrong.append(f"{name(thread)}: checkpoint {n}")
        wrong += [f"{name(thread)}: {checkpoint_id} was never put" for checkpoint_id in entries]
    store.close()
    return wrong


# -- live writers ------------------------------------------------------------------------------------------------------


@dataclass
class Written:
    """What the writers did: how many checkpoints each thread has, the seconds of each put, and errors."""

    counts: dict[int, int]
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return round(1e3 * statistics.median(self.seconds), 3)


def write(url: str, counts: dict[int, int], pause: float, begun: Event, stop: Event) -> Written:
    """Until told to stop, put into each thread, with a pause between two puts: in a thread of Python for each."""
    store = open_store(url)
    engine, written = Engine(store, Settings()), Written(dict(counts))

    def work(thread: int) -> None:
        stop.wait(random.uniform(0, pause))
        while not stop.is_set():
            put = checkpoint(thread, written.counts[thread])
            started = time.perf_counter()
            try:
                engine.put(name(thread), "", put)
            except FoldpointError as error:
                written.errors.append(f"{name(thread)}: {error}")
                return
            written.seconds.append(time.perf_counter() - started)
            written.counts[thread] += 1
            begun.set()
            stop.wait(pause)

    workers = [threading.Thread(target=work, args=(thread,)) for thread in counts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store.close()
    return written


@contextmanager
def writers(url: str, counts: dict[int, int], pause: float) -> Iterator[Callable[[], Written]]:
    """Writers in a process of their own that put while the block runs; call what it gives to stop and hear of them."""
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(1, mp_context=context) as pool:
        begun, stop = manager.Event(), manager.Event()
        done = pool.submit(write, url, counts, pause, begun, stop)  # type: ignore[arg-type]
        begun.wait(60)

        def end() -> Written:
            stop.set()
            return done.result()

        try:
            yield end
        finally:
            stop.set()


# -- the job -----------------------------------------------------------------------------------------------------------


def start_job(url: str, *options: str) -> subprocess.Popen[bytes]:
    program = "from foldpoint.cli import main; main()"
    command = [sys.executable, "-c", program, "compact", "--all", "--url", url, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def killed_and_restarted(url: str, kills: int, within: Sequence[float], *options: str) -> None:
    """Run the job; kill it with all its workers at random times, and start it again until it ends by itself.

    within: seconds (from, to) after each start.
    """
    for _ in range(kills):
        job = start_job(url, *options)
        try:
            job.wait(random.uniform(*within))
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        else:
            raise click.ClickException("the job ended before it was killed: take more threads, or shorter times")
    job = start_job(url, *options)
    if job.wait() != 0:
        raise click.ClickException(f"the job ended with code {job.returncode}")


def unsealed(url: str, threads: range) -> int:
    """How many threads were never sealed."""
    store = open_store(url)
    sealed = {head.thread_id for head in Engine(store).heads() if head.sealed}
    store.close()
    return len({name(thread) for thread in threads} - sealed)


# -- the rate ----------------------------------------------------------------------------------------------------------


@dataclass
class Rate:
    """What the job does a second on one core. mb: of what it gives to zstd; zstd_mb: what zstd alone does of that."""

    events: float
    mb: float
    zstd_mb: float


def rate(file: Path) -> Rate:
    """The job in this process, and bare zstd on the bytes that the job compressed, by processor seconds."""
    given: list[tuple[bytes | Rope, int]] = []

    def noted(payload: bytes | Rope, level: int, context: bytes = b"") -> tuple[int, bytes]:
        given.append((payload, level))
        return envelope.deflate(payload, level, context)

    store = SqliteStore(file)
    with patch.object(sealing, "deflate", noted), patch.object(merge, "deflate", noted):
        started, events = time.process_time(), 0
        for message in Job().run(Engine(store, Settings()), range(Job().shares), lambda seconds: False):
            if isinstance(message, Outcome) and message.report is not None:
                events += message.report.events_sealed
        seconds = time.process_time() - started
    store.close()
    payloads = [(bytes(payload), level) for payload, level in given]
    size = sum(len(payload) for payload, _ in payloads)
    compressors = {level: zstandard.ZstdCompressor(level=level) for _, level in payloads}
    started = time.process_time()
    for payload, level in payloads:
        compressors[level].compress(payload)
    bare = time.process_time() - started
    return Rate(round(events / seconds), round(size / seconds / 1e6, 2), round(size / bare / 1e6, 2))


# -- together ----------------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """put_ms: medians of the live writers' puts, alone and beside the job; lost: checkpoints that are not as put."""

    threads: int
    kills: int
    job_seconds: float
    put_ms_alone: float
    put_ms_beside: float
    puts_beside: int
    writer_errors: int
    lost: int
    short_threads: Rate
    long_threads: Rate


def measure(
    folder: Path, threads: int, count: int, live: int, kills: int, within: Sequence[float], workers: int
) -> Figures:
    file, short, long = folder / "store.db", folder / "short.db", folder / "long.db"
    url = f"sqlite:///{file}"
    every, written_to = range(threads), dict.fromkeys(random.Random(0).sample(range(threads), live), count)
    say(f"putting {threads * count:,} checkpoints into {threads:,} threads")
    fill(file, every, count)
    fill(short, range(min(threads, 1000)), count)
    fill(long, range(5), LONG)
    say(f"{live} writers alone")
    with writers(url, written_to, PAUSE) as end:
        time.sleep(ALONE)
        alone = end()
    say(f"{live} writers beside the job, which is killed {kills} times")
    started = time.monotonic()
    with writers(url, alone.counts, PAUSE) as end:
        killed_and_restarted(url, kills, within, "--workers", str(workers), "--resume", str(folder / "resume.json"))
        seconds = time.monotonic() - started
        beside = end()
    say("comparing every checkpoint")
    wrong = lost(url, dict.fromkeys(every, count) | beside.counts)
    for line in [*alone.errors, *beside.errors, *wrong[:20]]:
        say(line)
    say("the job alone, and zstd")
    return Figures(
        threads=threads,
        kills=kills,
        job_seconds=round(seconds, 1),
        put_ms_alone=alone.median_ms,
        put_ms_beside=beside.median_ms,
        puts_beside=len(beside.seconds),
        writer_errors=len(alone.errors) + len(beside.errors),
        lost=len(wrong) + unsealed(url, every),
        short_threads=rate(short),
        long_threads=rate(long),
    )


PAUSE = 0.5
"""Seconds between two puts of a writer, about: what an agent thinks."""
ALONE = 15.0
LONG = 1000
"""Checkpoints of a long thread."""


def say(line: str) -> None:
    click.echo(line, err=True)


@click.command(help=__doc__, epilog=EXAMPLES)
@click.option("--threads", default=10_000, show_default=True, help="How many threads there are.")
@click.option("--checkpoints", default=12, show_default=True, help="How many each has.")
@click.option("--writers", "live", default=50, show_default=True, help="Into how many threads is put meanwhile.")
@click.option("--kills", default=10, show_default=True, help="How often the job is killed.")
@click.option("--within", nargs=2, type=float, default=(2.0, 8.0), show_default=True, help="Seconds after its start.")
@click.option("--workers", default=1, show_default=True, help="Processes of the job.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(
    threads: int, checkpoints: int, live: int, kills: int, within: tuple[float, float], workers: int, as_json: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), threads, checkpoints, live, kills, within, workers)
    if as_json:
        click.echo(json.dumps(asdict(figures)))
    else:
        table = Table(show_header=False)
        for key, value in asdict(figures).items():
            found = value.items() if isinstance(value, dict) else [("", value)]
            for what, number in found:
                table.add_row(f"{key} {what}".replace("_", " "), f"{number:,}")
        Console().print(table)
    raise SystemExit(1 if figures.lost or figures.writer_errors else 0)


if __name__ == "__main__":
    main()
