"""The checkpointer: `graph.compile(checkpointer=FoldpointSaver...)`.

Synchronous methods do the work; the asynchronous ones run them in a bounded pool of the saver's own, so that the event
loop is never blocked and the loop's default executor never filled.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice, repeat
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from foldpoint.compaction import (
    DropAll,
    DropRuns,
    Policy,
    Schedule,
    copy_thread,
    due_from,
    over_after,
    rewrite_thread,
    upkeep_at,
)
from foldpoint.engine.engine import Engine
from foldpoint.engine.fold import Entry
from foldpoint.engine.forks import forks
from foldpoint.engine.records import Finding
from foldpoint.engine.url import open_store
from foldpoint.errors import StoreUnavailable
from foldpoint.langgraph_adapter import arguments, conversion
from foldpoint.langgraph_adapter.blocks import Memory
from foldpoint.langgraph_adapter.decoding import Decoder
from foldpoint.langgraph_adapter.encoding import Encoder
from foldpoint.langgraph_adapter.ttl import Lifetime
from foldpoint.settings import Where, load_settings

if TYPE_CHECKING:
    import aerospike

P = ParamSpec("P")
T = TypeVar("T")
_Found = tuple[Any, str, Entry]  # thread id, namespace, checkpoint


class FoldpointSaver(BaseCheckpointSaver[Any]):
    """LangGraph checkpoints in a log of deltas.

    engine: where to store; or client, namespace and prefix: a connected Aerospike client, which is yours to close, and
    where its sets are; the settings are then those of the environment. serde: LangGraph's serializer; with an
    `EncryptedSerializer` its inner serializer makes the values and its cipher seals whole records.
    ttl: {"default_ttl": minutes, "refresh_on_read": bool}; a thread expires whole, between 1 and 1.25 times the TTL
    after its last use, and up to two seconds later, as stores count in seconds. compaction: where this saver's streams
    are sealed and cleaned, as `Settings.compaction`.

        with FoldpointSaver.from_conn_string("sqlite:///agents.db") as saver:
            graph = builder.compile(checkpointer=saver)
    """

    @overload
    def __init__(
        self,
        engine: Engine,
        *,
        serde: SerializerProtocol | None = None,
        ttl: Mapping[str, Any] | None = None,
        compaction: Where | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        client: aerospike.Client,
        namespace: str,
        prefix: str = "fp",
        serde: SerializerProtocol | None = None,
        ttl: Mapping[str, Any] | None = None,
        compaction: Where | None = None,
    ) -> None: ...

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        client: aerospike.Client | None = None,
        namespace: str | None = None,
        prefix: str = "fp",
        serde: SerializerProtocol | None = None,
        ttl: Mapping[str, Any] | None = None,
        compaction: Where | None = None,
    ) -> None:
        arguments.require_serializer(serde)
        self._owns_store = engine is None
        engine = arguments.engine_of(engine, client, namespace, prefix)
        self._plain_engine = engine
        self._engine = engine
        self._serde: SerializerProtocol = JsonPlusSerializer()
        self._lifetime = Lifetime.parse(ttl, engine.settings.ttl)
        self._upkeep = upkeep_at(compaction or engine.settings.compaction)
        self.after_fork_in_child()
        forks.renew_after(self)
        self._schedule: Schedule | None = None
        self._closed = Event()
        super().__init__(serde=serde)
        self._schedule = Schedule.configured(self._engine)

    @classmethod
    def from_conn_string(
        cls,
        url: str,
        *,
        serde: SerializerProtocol | None = None,
        ttl: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """A saver on the store of `url`, which it closes when its `with` or `async with` block ends.

        url: memory:, sqlite:///file.db, or aerospike://host:3000/namespace?prefix=fp. settings: fields of `Settings`.
        Raises ValueError for a malformed URL or setting, StoreUnavailable where the store cannot be opened.
        """
        chosen = load_settings(url=url, **settings)
        store = open_store(chosen.url, chosen)
        try:
            saver = cls(Engine(store, chosen), serde=serde, ttl=ttl)
        except BaseException:
            store.close()
            raise
        saver._owns_store = True
        return saver

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def close(self) -> None:
        """Stop background work, and close the store unless it was given. Idempotent."""
        self._closed.set()
        if self._schedule is not None:
            self._schedule.close()
        self._upkeep.close()
        self._pool.shutdown(wait=True)
        if self._owns_store:
            self._plain_engine.store.close()

    def setup(self) -> list[Finding]:
        """Make the store ready, and tell, also in the log, which settings of its server endanger data. Idempotent.

        A store works without; but here a TTL that the server would refuse is an error (StoreMismatch) before the first
        write.
        """
        return self._plain_engine.store.setup(ttl=self._lifetime.seconds is not None)

    async def asetup(self) -> list[Finding]:
        """As `setup`."""
        return await self._async(self.setup)

    def after_fork_in_child(self) -> None:
        """A saver on SQLite may be used on both sides; its parent does what is scheduled."""
        self._pool = ThreadPoolExecutor(self._plain_engine.settings.io_threads, thread_name_prefix="foldpoint-io")

    @property
    def engine(self) -> Engine:
        """The engine that this saver's records are sealed and read with."""
        return self._engine

    def stats(self) -> dict[str, float]:
        """What this saver did since it was made: puts, bytes logged beside those of full states, seals, compactions.

        The same is counted, for the whole process, through the OpenTelemetry API.
        """
        return self._engine.metrics.as_dict()

    # -- serializer ----------------------------------------------------------------------------------------------------

    @property
    def serde(self) -> SerializerProtocol:
        """LangGraph's serializer; may be replaced, also by an `EncryptedSerializer`."""
        return self._serde

    @serde.setter
    def serde(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        values, settings = serde, self._plain_engine.settings
        if isinstance(serde, EncryptedSerializer):
            values = serde.serde
            if self._engine.io.cipher is not serde.cipher:
                self._engine = self._plain_engine.with_cipher(serde.cipher)
        else:
            self._engine = self._plain_engine
        memory = Memory(settings.cache_bytes // 2)
        self._encoder = Encoder(values, memory, fast=settings.fast_encoding)
        self._decoder = Decoder(values, memory, fast=settings.fast_decoding)
        if self._schedule is not None:
            self._schedule.engine = self._engine

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """A shallow clone with a wider msgpack allowlist, on the same store; closing it closes this one."""
        clone = super().with_allowlist(extra_allowlist)
        assert isinstance(clone, type(self))
        forks.renew_after(clone)
        return clone

    # -- writing -------------------------------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint with all its channel values; durable when it returns.

        A channel that has the version that it has in the parent, and no new one, has the parent's value: LangGraph puts
        beside the steps that follow, which may have changed what the channel holds by now.
        """
        thread_id, namespace = stream = arguments.stream_of(config)
        parent = self._engine.known(*stream, arguments.checkpoint_of(config))
        stored = conversion.to_checkpoint(self._encoder, stream, config, checkpoint, metadata, new_versions, parent)
        tail = self._engine.put(thread_id, namespace, stored, ttl=self._lifetime.seconds)
        self._after_write(thread_id, namespace, tail)
        return conversion.to_config(config["configurable"]["thread_id"], namespace, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store a task's pending writes; idempotent by task and position, special writes replace."""
        thread_id, namespace = arguments.stream_of(config)
        checkpoint_id = arguments.checkpoint_of(config)
        if not checkpoint_id:
            raise ValueError("put_writes needs config['configurable']['checkpoint_id']: the checkpoint they belong to")
        if not isinstance(task_id, str) or not isinstance(task_path, str):
            raise ValueError(f"task_id, task_path: expected texts, got {task_id!r}, {task_path!r}")
        if not writes:
            return
        stored = conversion.to_writes(self._encoder, writes, task_id, task_path)
        tail = self._engine.put_writes(thread_id, namespace, checkpoint_id, stored, ttl=self._lifetime.seconds)
        self._after_write(thread_id, namespace, tail)

    def _after_write(self, thread_id: str, namespace: str, tail: int) -> None:
        if tail >= due_from(self._engine):
            self._upkeep.request(self._engine, thread_id, namespace)

    # -- reading -------------------------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, the latest if it names none."""
        thread_id, namespace = arguments.stream_of(config)
        checkpoint_id = arguments.checkpoint_of(config)
        started = time.perf_counter()
        if checkpoint_id:
            entry = self._engine.find(thread_id, namespace, checkpoint_id)
        else:
            entry = self._engine.latest(thread_id, namespace)
        if entry is None:
            return None
        if self._lifetime.refresh_on_read:
            self._engine.refresh(thread_id, self._lifetime.seconds)
        found = self._tuple(config["configurable"]["thread_id"], namespace, entry)
        if not checkpoint_id:
            self._engine.metrics.resumed(time.perf_counter() - started)
        return found

    def _tuple(self, thread_id: Any, namespace: str, entry: Entry) -> CheckpointTuple:
        return conversion.to_tuple(self._decoder, thread_id, namespace, entry.folded, entry.state(), entry.writes())

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints that match, newest first within a thread; lazily.

        Without a namespace in `config` all of the thread's, without a config all threads', one after the other.
        filter: metadata keys and the values they must equal.
        """
        found = (
            (thread_id, namespace, entry)
            for thread_id, namespace, entry in self._entries(config, before)
            if not filter or conversion.matches(self._decoder, entry.folded, filter)
        )
        arguments.require_limit(limit)
        for thread_id, namespace, entry in islice(found, limit):
            yield self._tuple(thread_id, namespace, entry)

    def _entries(self, config: RunnableConfig | None, before: RunnableConfig | None) -> Iterator[_Found]:
        bound = arguments.bound_of(before)
        if config is None:
            for thread in self._engine.threads():
                yield from self._thread_entries(thread.thread_id, thread.namespaces, bound)
            return
        thread_id, _ = arguments.stream_of(config)
        given = config["configurable"]
        namespace = given.get("checkpoint_ns")
        namespaces = self._engine.namespaces(thread_id) if namespace is None else [namespace]
        checkpoint_id = arguments.checkpoint_of(config)
        if checkpoint_id:
            for name in namespaces:
                entry = self._engine.find(thread_id, name, checkpoint_id)
                if entry is not None and (bound is None or checkpoint_id < bound):
                    yield given["thread_id"], name, entry
            return
        for _, name, entry in self._thread_entries(thread_id, namespaces, bound):
            yield given["thread_id"], name, entry

    def _thread_entries(self, thread_id: str, namespaces: Sequence[str], bound: str | None) -> Iterator[_Found]:
        streams = [
            zip(repeat(thread_id), repeat(namespace), self._engine.history(thread_id, namespace, bound))
            for namespace in namespaces
        ]
        if len(streams) == 1:
            return streams[0]
        return heapq.merge(*streams, key=lambda found: found[2].folded.header.id, reverse=True)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Per channel the writes of the ancestors and the value they start from, in one pass over the log."""
        if not channels:
            return {}
        thread_id, namespace = arguments.stream_of(config)
        found = self._engine.channel_history(thread_id, namespace, arguments.checkpoint_of(config), list(channels))
        result: dict[str, DeltaChannelHistory] = {}
        for channel in channels:
            history: DeltaChannelHistory = {"writes": []}
            if found is not None:
                history["writes"] = conversion.from_writes(self._decoder, found[channel].writes)
                if (seed := found[channel].seed) is not None:
                    history["seed"] = self._decoder.value(seed)
            result[channel] = history
        return result

    # -- threads -------------------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Delete every checkpoint and write of a thread.

        Its records leave a SQLite file at once, other stores when the grace is over.
        """
        self._rewrite(arguments.thread_of(thread_id), DropAll())

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints, with their writes, whose metadata has one of these run ids. Reads every thread."""
        wanted = frozenset(arguments.several("run_ids", run_ids))
        if not wanted:
            return
        for thread in self._engine.threads():
            self._rewrite(thread.thread_id, DropRuns(wanted))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy every checkpoint and write; what the target already has stays. Without a source nothing is copied."""
        copy_thread(
            self._engine,
            arguments.thread_of(source_thread_id),
            arguments.thread_of(target_thread_id),
            ttl=self._lifetime.seconds,
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest", keep_last: int | None = None) -> None:
        """Drop old checkpoints of these threads, per namespace.

        strategy: 'keep_latest', or 'delete' (also spelled 'delete_all') for everything; `keep_last`: keep that many
        instead of one. What the kept checkpoints' DeltaChannels need of the dropped ones is carried along. What is
        dropped leaves the store when the grace is over, if this saver lives on or one uses the thread then, else with
        the next `foldpoint compact`.
        """
        policy = arguments.policy_of(strategy, keep_last)
        for thread_id in arguments.several("thread_ids", thread_ids):
            self._rewrite(arguments.thread_of(thread_id), policy)

    def _rewrite(self, thread_id: str, policy: Policy) -> None:
        namespaces = self._engine.namespaces(thread_id)
        rewrite_thread(self._engine, thread_id, policy)
        for namespace in namespaces:
            self._upkeep.request(self._engine, thread_id, namespace, delay=over_after(self._engine.settings.grace))

    # -- versions ------------------------------------------------------------------------------------------------------

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Integers; a thread whose versions are another saver's strings ("000…2.0.123") goes on in their form."""
        if current is None:
            return 1
        if isinstance(current, str):
            number, _, rest = current.partition(".")
            following = str(int(number) + 1).zfill(len(number))
            return f"{following}.{rest}" if rest else following
        return current + 1

    # -- the same, asynchronously --------------------------------------------------------------------------------------

    async def _async(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed.is_set():
            raise StoreUnavailable("the saver was closed; open another one")
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(call, *args, **kwargs))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await self._async(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`: fetched in growing batches, so that the first comes soon and many come fast."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        size = 1
        while batch := await self._async(_take, found, size):
            for item in batch:
                yield item
            size = min(size * 2, 64)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await self._async(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await self._async(self.put_writes, config, writes, task_id, task_path)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await self._async(self.get_delta_channel_history, config=config, channels=channels)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._async(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._async(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await self._async(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(
        self, thread_ids: Sequence[str], *, strategy: str = "keep_latest", keep_last: int | None = None
    ) -> None:
        """As `prune`."""
        await self._async(self.prune, thread_ids, strategy=strategy, keep_last=keep_last)


def _take(found: Iterator[T], size: int) -> list[T]:
    return [*islice(found, size)]
