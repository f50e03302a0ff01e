"""The client's side of the Aerospike store: connecting, policies, retries."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers import expressions
from aerospike_helpers.batch.records import BatchRecords, Write
from aerospike_helpers.operations import expression_operations
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from foldpoint.engine.aerospike.agreement import APPLIED_AT, Agreement, ServerClock
from foldpoint.engine.aerospike.errors import (
    BATCH_FAILED,
    CLUSTER_CHANGE,
    LATE,
    NO_ANSWER,
    NO_NODE,
    NODELESS,
    Refusal,
    translate,
)
from foldpoint.engine.forks import forks
from foldpoint.errors import StoreUnavailable

Policy: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[Sequence[bytes]], BatchRecords]
Note: TypeAlias = Callable[[Iterable["Answer"], bool], None]
R = TypeVar("R")

# A later attempt may succeed: time-out, cluster in change, hot key, device overload; then the client's own: no
# connections left, no node for the partition, connection lost, retries spent, too many errors of this node just now,
# no answer for one record of a batch.
TRANSIENT = frozenset({9, CLUSTER_CHANGE, 11, 14, 18, -7, NO_NODE, -10, -12, -14, NO_ANSWER}) | LATE
CONDITION = "if"  # what a change answers, if it was made
CLOSED = 11  # also what a client answers that its owner has closed
FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.25
LONGEST_CALL = 60.0
BYTES_PER_MS = 4 * 1024  # the slowest link for which a large batch gets time
BATCH_BYTES = 500 * BYTES_PER_MS  # a write may be applied for about a second after it was sent
BATCH_WRITES = 1000

# Milliseconds. A read leaves a silent node for a replica after socket_timeout; a write never repeats itself, because
# only the store knows whether what it then finds is its own.
DEFAULTS: Mapping[str, Policy] = {
    "read": {"total_timeout": 2000, "socket_timeout": 600, "max_retries": 2},
    "write": {"total_timeout": 1000},
    "batch_read": {"total_timeout": 10_000, "socket_timeout": 600, "max_retries": 2, "concurrent": True},
    "batch_write": {"total_timeout": 1000, "concurrent": True},
    "query": {
        "total_timeout": 30_000,
        "socket_timeout": 10_000,
        "max_retries": 15,
        "sleep_between_retries": 250,
    },
}
# All replicas, should data migrate; and a read extends no life, or heads would outlive what they lead to.
READING: Policy = {"read_mode_ap": aerospike.POLICY_READ_MODE_AP_ALL, "read_touch_ttl_percent": -1}
FIXED: Mapping[str, Policy] = {
    "read": READING,
    "write": {
        "max_retries": 0,
        "commit_level": aerospike.POLICY_COMMIT_LEVEL_ALL,
        "key": aerospike.POLICY_KEY_SEND,
        "gen": aerospike.POLICY_GEN_IGNORE,
    },
    "batch_read": READING,
    "batch_write": {"max_retries": 0},
    "query": {},
}


class Link:
    """A connected client, how it is used, how long its failures are borne, and which calls are under way.

    A context manager around each call: StoreUnavailable once closed.
    """

    def __init__(
        self, client: Any, namespace: str, policies: Mapping[str, Policy], deadline: float, *, owned: bool
    ) -> None:
        self.client = client
        self.agreement = Agreement(client, namespace)
        self.clock = ServerClock(client, namespace)
        self.policies = policies
        self._deadline = deadline
        self._owned = owned
        self._closed = False
        self._calls = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._pid = os.getpid()
        forks.renew_after(self)

    def after_fork_in_child(self) -> None:
        """The end of the client waits for threads that the child does not have: there it never ends."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.client))

    def __enter__(self) -> None:
        self.require_open()
        with self._lock:
            self._calls += 1
        if self._closed:  # meanwhile: looked at last, as `close` looks at the calls last
            self.__exit__()
            self.require_open()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._calls -= 1
            if self._closed:
                self._idle.notify_all()

    def require_open(self) -> None:
        if self._pid != os.getpid():  # the client's threads and connections are its parent's
            raise StoreUnavailable("the process was forked while the Aerospike store was open; open it after the fork")
        if self._closed:
            raise StoreUnavailable("the Aerospike store is closed; open a new one")

    def close(self) -> None:
        """Let the calls under way end, which try nothing again; then close a client of our own. Idempotent.

        Closing the client under a call would pull its memory away. Nothing happens in the child of a fork.
        """
        if self._pid != os.getpid():
            return
        with self._idle:
            if self._closed:
                return
            self._closed = True
            idle = self._idle.wait_for(lambda: self._calls == 0, LONGEST_CALL)
        if self._owned and idle:
            self.client.close()

    @property
    def connected(self) -> bool:
        """Whether the client knows any node. A node that was lost is forgotten after about a second."""
        return bool(self.client.is_connected())

    def is_transient(self, error: BaseException) -> bool:
        """Whether to try again."""
        code = getattr(error, "code", None)
        if self._closed:
            return False
        if self.connected:
            return code in TRANSIENT
        return code in (TRANSIENT | NODELESS) - {CLOSED}

    def agreed(self, attempt: Callable[[], R]) -> R:
        """As `persist`, of what reads or writes records: only while all nodes agree."""

        def in_agreement() -> R:
            self.agreement.require()
            try:
                return attempt()
            except client_errors.AerospikeError as error:
                if error.code in LATE:
                    self.clock.ask()
                raise

        return self.persist(in_agreement)

    def persist(self, attempt: Callable[[], R], is_transient: Callable[[BaseException], bool] | None = None) -> R:
        """Call until it succeeds, fails for good, or the deadline after its first failure is over."""
        again = is_transient or self.is_transient
        try:
            return attempt()
        except (client_errors.AerospikeError, Refusal) as error:
            if not again(error):
                raise
        return Retrying(
            retry=retry_if_exception(again),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
            stop=stop_after_delay(self._deadline),
            reraise=True,
        )(attempt)

    def write(self, writes: list[Write], size: int = 0) -> BatchRecords:
        """One batch; `size` in bytes lengthens the time-out."""
        policy = dict(self.policies["batch_write"])
        policy["total_timeout"] += size // BYTES_PER_MS
        batch = BatchRecords(writes)
        self.client.batch_write(batch, policy)
        return batch

    def create(self, key: Any, writes: list[Any], policy: Policy) -> None:
        """Create one record, in time. Tries once."""
        self.agreement.require()
        operations = [*writes, self.creates_in_time()]
        sent_at = time.monotonic_ns()
        _, _, bins = self.client.operate(key, operations, None, {**policy, "exists": aerospike.POLICY_EXISTS_CREATE})
        self.clock.learn(bins[APPLIED_AT], sent_at)

    def change(self, key: Any, operations: list[Any], policy: Policy, only: Any) -> bool:
        """Change one record, in time, if it is there and `only` holds; whether it was. Tries once."""
        self.agreement.require()
        condition = expressions.Cond(only, True, expressions.Unknown()).compile()
        checked = [expression_operations.expression_read(CONDITION, condition), *operations]
        timely = {**policy, "exists": aerospike.POLICY_EXISTS_UPDATE, "expressions": self.changes_in_time()}
        try:
            self.client.operate(key, checked, None, timely)
        except (client_errors.OpNotApplicable, client_errors.RecordNotFound):
            return False
        return True

    def creates_in_time(self) -> Any:
        """The operation to send with a create, or a batch of them, that is sent now."""
        return self.clock.creates_until(self.agreement.until)

    def changes_in_time(self) -> Any:
        """The filter to send with a change, or a batch of them, that is sent now."""
        return self.clock.changes_until(self.agreement.until)

    def settle(self, keys: Sequence[bytes], send: Send, accept: tuple[int, ...], note: Note | None = None) -> None:
        """Send `keys` until each is answered with a code in `accept`; repeat only those that were not.

        `note(answers, repeated)` hears an attempt's answers, and whether it is not the first attempt.
        """
        left = list(keys)
        repeated = False

        def attempt() -> None:
            nonlocal left, repeated
            again, repeated = repeated, True
            answers = read_answers(left, send(left))
            if note:
                note(answers, again)
            failed = [answer for answer in answers if answer.code not in accept]
            left = [answer.key for answer in failed]
            if any(answer.code in LATE for answer in failed):
                self.clock.ask()
            if failed:
                refusals = [Refusal(answer.code, f"record {answer.key.hex()}: {answer.text}") for answer in failed]
                raise next((refusal for refusal in refusals if not self.is_transient(refusal)), refusals[0])

        self.agreed(attempt)


class Answer(NamedTuple):
    """What one record of a batch was answered with."""

    key: bytes
    code: int
    bins: Any
    text: str


def read_answers(keys: Sequence[bytes], batch: BatchRecords) -> list[Answer]:
    """The answer for each key.

    A batch that fails before it is sent, as where no node is known, leaves 0 in its records, or has none: that is no
    success. What the server stored or read has a generation.
    """
    whole = batch.result in (0, BATCH_FAILED)
    if len(batch.batch_records) != len(keys):
        return [Answer(key, NO_ANSWER if whole else batch.result, None, "no answer") for key in keys]
    answers = []
    for key, answer in zip(keys, batch.batch_records, strict=True):
        about, bins = answer.record[1:] if answer.record else ({"gen": 0}, None)
        silent = answer.result == NO_ANSWER or (answer.result == 0 and about["gen"] == 0)
        code = batch.result if silent and not whole else answer.result
        text = "no further detail" if not answer.message or "AEROSPIKE_OK" in answer.message else answer.message
        answers.append(Answer(key, code, bins, text))
    return answers


def chunks(records: Iterable[tuple[bytes, bytes]]) -> Iterator[dict[bytes, bytes]]:
    """The records in batches that are bounded in bytes and in number."""
    chunk: dict[bytes, bytes] = {}
    size = 0
    for key, value in records:
        if chunk and (size + len(value) > BATCH_BYTES or len(chunk) == BATCH_WRITES):
            yield chunk
            chunk, size = {}, 0
        chunk[key] = value
        size += len(value)
    if chunk:
        yield chunk


def pieces(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The items in lists that one batch takes."""
    iterator = iter(items)
    while piece := list(islice(iterator, BATCH_WRITES)):
        yield piece


def connect(
    hosts: Sequence[tuple[str, int] | tuple[str, int, str]],
    *,
    user: str | None = None,
    password: str | None = None,
    tls: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """A connected client. `hosts` are (name, port) or (name, port, TLS name); `config` adds to the client's own."""
    settings: dict[str, Any] = {"max_conns_per_node": 300, "tend_interval": 250, **(config or {}), "hosts": list(hosts)}
    if tls is not None:
        settings["tls"] = {"enable": True, **tls}
    if user is not None:
        settings |= {"user": user, "password": password or ""}
    try:
        return aerospike.client(settings)
    except client_errors.AerospikeError as error:
        how = "without TLS" if tls is None else "over TLS (are the certificates and the TLS name right?)"
        raise translate(error, f"no connection to Aerospike at {describe(hosts)} {how}") from error


def describe(hosts: Sequence[tuple[str, int] | tuple[str, int, str]]) -> str:
    return ", ".join(f"{host[0]}:{host[1]}" for host in hosts)


def merge_policies(overrides: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Policy]:
    """The defaults with a caller's `overrides`; what correctness rests on stays. ValueError for an unknown kind."""
    unknown = set(overrides or {}) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown policies {sorted(unknown)}; give any of {sorted(DEFAULTS)}")
    return {kind: {**base, **(overrides or {}).get(kind, {}), **FIXED[kind]} for kind, base in DEFAULTS.items()}
