"""The client's side of the Aerospike store: connecting, policies, retries, and errors in Foldpoint's words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import islice
from typing import Any, TypeAlias, TypeVar, cast

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers.batch.records import BatchRecord, BatchRecords, Write
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from foldpoint.errors import (
    RecordTooBig,
    StoreBusy,
    StoreFull,
    StoreMismatch,
    StoreReadOnly,
    StoreUnavailable,
)

Policy: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[Sequence[bytes]], BatchRecords]
Note: TypeAlias = Callable[[Iterable[tuple[bytes, BatchRecord]], bool], None]
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

KEY_EXISTS, NOT_FOUND, NO_ANSWER, BATCH_FAILED = 5, 2, -15, -16

# A later attempt may succeed: time-out, cluster in change, hot key, device overload; then the client's own: no
# connections left, no node for the partition, connection lost, retries spent, too many errors of this node just now,
# no answer for one record of a batch.
TRANSIENT = frozenset({9, 7, 11, 14, 18, -7, -8, -10, -12, -14, NO_ANSWER})
FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.25
LONGEST_CALL = 60.0
BATCH_BYTES = 16 * 1024 * 1024
BATCH_WRITES = 1000
BYTES_PER_MS = 4 * 1024  # the slowest link for which a large batch gets time

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
FIXED: Mapping[str, Policy] = {
    "read": {"read_mode_ap": aerospike.POLICY_READ_MODE_AP_ALL},
    "write": {
        "max_retries": 0,
        "commit_level": aerospike.POLICY_COMMIT_LEVEL_ALL,
        "key": aerospike.POLICY_KEY_SEND,
    },
    "batch_read": {"read_mode_ap": aerospike.POLICY_READ_MODE_AP_ALL},
    "batch_write": {"max_retries": 0},
    "query": {},
}

_FAILURES: Mapping[int, tuple[type[StoreUnavailable], str]] = {
    4: (StoreUnavailable, "the server calls the request invalid; is it older than release 6.0?"),
    8: (StoreFull, "the namespace has stopped writes: it is full; add storage or nodes, or remove data"),
    11: (StoreUnavailable, "the cluster is not available, or the client was closed"),
    9: (StoreUnavailable, "no answer in time; is a node down or overloaded?"),
    13: (RecordTooBig, "the record is over the namespace's max-record-size; was that lowered? Reconnect, or raise it"),
    14: (StoreBusy, "the record is hot: too many writers at once; spread them, or raise transaction-pending-limit"),
    18: (StoreBusy, "the device cannot keep up; write less, add devices, or raise max-write-cache"),
    20: (StoreMismatch, "the server has no such namespace"),
    22: (StoreReadOnly, "the server forbids the write: a TTL with nsup-period 0, or a set's stop-writes limit"),
    51: (StoreUnavailable, "this server has no access control; leave out user and password"),
    52: (StoreUnavailable, "access control is off on this server; leave out user and password"),
    60: (StoreUnavailable, "the server does not know this user"),
    62: (StoreUnavailable, "wrong password"),
    63: (StoreUnavailable, "the password has expired; set a new one"),
    65: (StoreUnavailable, "wrong user or password"),
    80: (StoreUnavailable, "the server wants a user and a password"),
    81: (StoreReadOnly, "the user may not do this; grant the roles read-write and sindex-admin"),
    200: (StoreMismatch, "an index of this name is there for something else; choose another prefix"),
    203: (StoreUnavailable, "the thread index is still being built; try again later"),
    -9: (StoreUnavailable, "TLS failed; check the certificates and the TLS name"),
    -10: (StoreUnavailable, "the connection was refused or lost"),
}


class Refusal(Exception):
    """The code that one record of a batch was answered with; never leaves the store."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def translate(error: Exception, what: str) -> StoreUnavailable:
    """The client's (or one record's) error as ours; `what` says where it happened."""
    code = getattr(error, "code", None)
    text = str(getattr(error, "msg", None) or error)
    kind, cause = _FAILURES.get(code or 0, (StoreUnavailable, "the server or the client refused"))
    return kind(f"{what}: {cause} (Aerospike code {code}: {text})")


def verb(method: F) -> F:
    """Guard a store's method: it runs only while the store's `_link` is open, and raises nothing of the client's."""

    @wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._link:
            try:
                return method(self, *args, **kwargs)
            except (client_errors.AerospikeError, Refusal) as error:
                raise translate(error, f"{self} {method.__name__.strip('_')}") from error

    return cast(F, guarded)


class Link:
    """A connected client, how it is used, how long its failures are borne, and which calls are under way.

    A context manager around each call: StoreUnavailable once closed.
    """

    def __init__(self, client: Any, policies: Mapping[str, Policy], deadline: float, *, owned: bool) -> None:
        self.client = client
        self.policies = policies
        self._deadline = deadline
        self._owned = owned
        self._closed = False
        self._calls = 0
        self._idle = threading.Condition()

    def __enter__(self) -> None:
        with self._idle:
            self.require_open()
            self._calls += 1

    def __exit__(self, *error: object) -> None:
        with self._idle:
            self._calls -= 1
            if self._closed:
                self._idle.notify_all()

    def require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the Aerospike store is closed; open a new one")

    def close(self) -> None:
        """Let the calls under way end, which try nothing again; then close a client of our own. Idempotent.

        Closing the client under a call would pull its memory away.
        """
        with self._idle:
            if self._closed:
                return
            self._closed = True
            idle = self._idle.wait_for(lambda: self._calls == 0, LONGEST_CALL)
        if self._owned and idle:
            self.client.close()

    def is_transient(self, error: BaseException) -> bool:
        """Whether to try again. A client that its owner has closed answers 11 as well, for ever."""
        code = getattr(error, "code", None)
        return code in TRANSIENT and not self._closed and (code != 11 or self.client.is_connected())

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

    def settle(self, keys: Sequence[bytes], send: Send, accept: tuple[int, ...], note: Note | None = None) -> None:
        """Send `keys` until each is answered with a code in `accept`; repeat only those that were not.

        `note((key, answer)..., repeated)` hears an attempt's answers, and whether it is not the first attempt.
        """
        left = list(keys)
        repeated = False

        def attempt() -> None:
            nonlocal left, repeated
            again, repeated = repeated, True
            batch = send(left)
            answers = list(zip(left, batch.batch_records, strict=True))
            if note:
                note(answers, again)
            failed = {
                key: _refusal(key, answer, batch.result) for key, answer in answers if answer.result not in accept
            }
            left = list(failed)
            if failed:
                raise next((r for r in failed.values() if not self.is_transient(r)), next(iter(failed.values())))

        self.persist(attempt)


def _refusal(key: bytes, answer: BatchRecord, batch_result: int) -> Refusal:
    """Why a record of a batch failed; the batch knows more where the record got no answer of its own."""
    silent = answer.result == NO_ANSWER and batch_result not in (0, BATCH_FAILED)
    code = batch_result if silent else answer.result
    return Refusal(code, f"record {key.hex()}: {answer.message or 'no further detail'}")


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
        raise translate(error, f"Aerospike at {describe(hosts)} cannot be reached") from error


def describe(hosts: Sequence[tuple[str, int] | tuple[str, int, str]]) -> str:
    return ", ".join(f"{host[0]}:{host[1]}" for host in hosts)


def merge_policies(overrides: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Policy]:
    """The defaults with a caller's `overrides`; what correctness rests on stays. ValueError for an unknown kind."""
    unknown = set(overrides or {}) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown policies {sorted(unknown)}; give any of {sorted(DEFAULTS)}")
    return {kind: {**base, **(overrides or {}).get(kind, {}), **FIXED[kind]} for kind, base in DEFAULTS.items()}
