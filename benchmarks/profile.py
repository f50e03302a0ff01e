"""Where the time of a put and of a resume goes, by part: `python -m benchmarks.profile`.

A conversation is run once, and what LangGraph asked of its saver is asked again of Foldpoint, call after call in one
thread: so the figures are of the saver alone. Of each part only its own time counts, not that of parts within it.
"""

from __future__ import annotations

import functools
import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from rich.console import Console
from rich.table import Table

from benchmarks.floor import FloorSaver
from benchmarks.job import thread
from demo.graph import MESSAGES_PER_TURN, build_graph
from demo.source import Source
from foldpoint import FoldpointSaver
from foldpoint.codecs import delta, envelope, event, header
from foldpoint.codecs.event import Fold
from foldpoint.engine import appending, engine, fold, io
from foldpoint.engine.reading import Reader
from foldpoint.langgraph_adapter import conversion
from foldpoint.langgraph_adapter.blocks import Memory
from foldpoint.langgraph_adapter.decoding import Decoder
from foldpoint.langgraph_adapter.encoding import Encoder

EXAMPLES = """
\b
Examples:
  python -m benchmarks.profile --trace airline.jsonl.gz
  python -m benchmarks.profile --url aerospike://127.0.0.1:3000/test --calls 200
"""

STORE, LOG, REST = "the store", "the log: numbers, views, snapshots", "the rest of the call"
PARTS: Sequence[tuple[str, Any, Sequence[str]]] = (
    ("see which messages changed", Memory, ("holds",)),
    ("serialize", Encoder, ("channel", "value")),
    ("deltas of the values", delta, ("encode",)),
    ("delta of the header", header, ("diff_map", "diff_labels")),
    ("delta of the header", event, ("diff_header", "diff_labels")),
    ("references", event._Sources, ("refer_body",)),
    ("pack the event", appending, ("unpack_event",)),
    ("pack the event", engine, ("encode_checkpoint", "encode_writes")),
    ("compress", envelope, ("compress",)),
    ("compress", event, ("compress",)),
    ("checksums and seals", io.RecordIO, ("seal", "open")),
    ("decompress", envelope, ("decompress",)),
    ("read the log's records", Reader, ("newest",)),
    ("fold", Fold, ("add", "folded")),
    ("fold", fold, ("fold_state", "fold_writes")),
    ("join the pieces of the values", fold.Slice, ("values",)),
    ("build the objects", Decoder, ("channel", "value")),
    ("arguments and results", conversion, ("to_checkpoint", "to_writes", "to_tuple")),
    (LOG, engine.Engine, ("put", "put_writes", "latest")),
)
_VERBS = ("create", "get_head", "get_many")


class Profile:
    """Seconds of each part's own, by call. Only of the thread that made it.

    looking: seconds that it takes the caller of a watched function that it is watched; they are no part's.
    """

    def __init__(self, looking: float = 0.0) -> None:
        self._looking = looking
        self._thread = threading.get_ident()
        self._inner: list[float] = []
        self._seen = 0
        self._parts: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, list[dict[str, float]]] = defaultdict(list)

    def watch(self, owner: Any, name: str, part: str) -> None:
        setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - started
                self._parts[part] += seconds - self._inner.pop()
                self._seen += 1
                if self._inner:
                    self._inner[-1] += seconds + self._looking

        return timed

    @contextmanager
    def call(self, kind: str) -> Iterator[None]:
        self._parts, self._seen = defaultdict(float), 0
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started - self._seen * self._looking
        self._parts[REST] = seconds - sum(self._parts.values())
        self.calls[kind].append(self._parts)

    @classmethod
    def calibrated(cls) -> Profile:
        """One that knows what it takes to look."""
        trial, repeats = cls(), 10_000
        watched = trial._timed(lambda: None, REST)
        with trial.call("trial"):
            trial._inner.append(0.0)
            started = time.perf_counter()
            for _ in range(repeats):
                watched()
            seconds = time.perf_counter() - started
        return cls((seconds - trial._inner.pop()) / repeats)

    def means(self, kind: str, last: int) -> dict[str, float]:
        """Microseconds by part, of the middle half of the `last` calls of this kind."""
        calls = sorted(self.calls[kind][-last:], key=lambda parts: sum(parts.values()))
        middle = calls[len(calls) // 4 : -(len(calls) // 4) or None]
        parts = {part for call in middle for part in call}
        found = {part: 1e6 * statistics.fmean(call.get(part, 0.0) for call in middle) for part in parts}
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def _note(calls: list[tuple[str, tuple[Any, ...]]], saver: FloorSaver, name: str) -> None:
    """Note in `calls` with what this method of the saver is called. Lists of a checkpoint will have grown by then."""
    method = getattr(saver, name)

    def noted(config: RunnableConfig, stored: Any, *rest: Any) -> Any:
        kept = stored
        if name == "put":
            values = stored["channel_values"]
            values = {channel: [*value] if type(value) is list else value for channel, value in values.items()}
            kept = {**stored, "channel_values": values}
        calls.append((name, (config, kept, *rest)))
        return method(config, stored, *rest)

    setattr(saver, name, noted)


def _recorded(source: Source, messages: int) -> list[tuple[str, tuple[Any, ...]]]:
    script, saver = source.script(messages), FloorSaver()
    calls: list[tuple[str, tuple[Any, ...]]] = []
    for name in ("put", "put_writes"):
        _note(calls, saver, name)
    graph = build_graph(script, saver)
    for message in script[::MESSAGES_PER_TURN]:
        graph.invoke({"messages": [message]}, thread(0), durability="sync")
    return calls


def _floors(saver: FoldpointSaver, state: dict[str, Any]) -> dict[str, float]:
    """Microseconds of what the parts cannot do without, or what others do instead."""
    serde = JsonPlusSerializer()
    packed = serde.dumps_typed(state)
    store, keys = saver.engine.store, iter(range(1 << 30))

    def create() -> None:
        store.create([(b"floor".ljust(20) + next(keys).to_bytes(5, "big"), b"x" * 200)], ttl=None)

    return {
        "the serializer, whole state": _median(lambda: serde.dumps_typed(state)),
        "the deserializer, whole state": _median(lambda: serde.loads_typed(packed)),
        "msgpack alone, unpacking the state and its messages' fields": _median(lambda: _unpacked(packed[1])),
        "the store, creating a record of 200 bytes, again and again": _median(create),
        "the store, creating a record of 200 bytes, after 2 ms of other work": _median(create, before=_work),
        "the store, reading one record": _median(lambda: store.get_many([b"floor".ljust(20) + bytes(5)])),
    }


def _unpacked(data: bytes) -> Any:
    return ormsgpack.unpackb(data, ext_hook=lambda _, packed: _unpacked(packed))


def _work() -> None:
    """As long as a put encodes. A server's thread that nobody asks sleeps by then, and is to be woken."""
    until = time.perf_counter() + 0.002
    while time.perf_counter() < until:
        pass


def _median(call: Callable[[], object], repeats: int = 101, before: Callable[[], object] = lambda: None) -> float:
    seconds = []
    for _ in range(repeats):
        before()
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1e6 * statistics.median(seconds)


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="The store.  [default: a new SQLite file]")
@click.option("--trace", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="A conversation as JSON lines, instead of a generated one.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Seed of the generated conversation.")
@click.option("--messages", default=900, show_default=True, help="How long the conversation is; a multiple of three.")
@click.option("--calls", default=100, show_default=True, help="The figures are of so many calls, the last.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def main(url: str | None, trace: Path | None, seed: int, messages: int, calls: int, as_json: bool) -> None:
    """Print the microseconds of each part of a put, of pending writes and of reading the latest."""
    with TemporaryDirectory() as folder:
        found = measure(url or f"sqlite:///{folder}/profile.db", Source(trace, seed), messages, calls)
    if as_json:
        click.echo(json.dumps(found))
        return
    for title, parts in found.items():
        table = Table("part", "µs", "share", title=title)
        total = sum(parts.values())
        for part, micros in parts.items():
            table.add_row(part, f"{micros:,.0f}", "" if title == "floors" else f"{micros / total:.0%}")
        if title != "floors":
            beyond = sum(parts.get(part, 0) for part in (STORE, LOG, REST))
            table.add_row("all", f"{total:,.0f}", "100%")
            table.add_row("beyond encoding and decoding", f"{beyond:,.0f}", f"{beyond / total:.0%}")
        Console().print(table)


def measure(url: str, source: Source, messages: int, calls: int) -> dict[str, dict[str, float]]:
    """Microseconds by part, by kind of call, and the floors."""
    asked, profile = _recorded(source, messages), Profile.calibrated()
    for part, owner, names in PARTS:
        for name in names:
            profile.watch(owner, name, part)
    with FoldpointSaver.from_conn_string(url) as saver:
        for verb in _VERBS:
            profile.watch(saver.engine.store, verb, STORE)
        for kind, args in asked:
            with profile.call(kind):
                getattr(saver, kind)(*args)
        latest = thread(0)
        latest["configurable"]["checkpoint_ns"] = ""
        for _ in range(calls):
            found = None  # freeing what was read is not the saver's time
            with profile.call("latest"):
                found = saver.get_tuple(latest)
        for _ in range(calls):
            found = None
            with FoldpointSaver(saver.engine.on(saver.engine.store)) as fresh, profile.call("latest, cold"):
                found = fresh.get_tuple(latest)
        assert found is not None
        parts = {kind: profile.means(kind, calls) for kind in ("put", "put_writes", "latest", "latest, cold")}
        state = next(args[1]["channel_values"] for kind, args in reversed(asked) if kind == "put")
        return {**parts, "floors": _floors(saver, state)}


if __name__ == "__main__":
    main()
