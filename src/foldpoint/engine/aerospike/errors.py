"""The errors of Aerospike's server and client in Foldpoint's words: what it means, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from aerospike import exception as client_errors

from foldpoint.errors import (
    RecordTooBig,
    StoreBusy,
    StoreForbidden,
    StoreFull,
    StoreMismatch,
    StoreReadOnly,
    StoreUnavailable,
)

F = TypeVar("F", bound=Callable[..., Any])

INVALID, CLUSTER_CHANGE = 4, 7
DROPPED = -2  # what is asked of a node that the client does not know any more
LATE = frozenset({26, 27})  # what a write is answered with that came after its time
KEY_EXISTS, NOT_FOUND, NO_NODE, NO_ANSWER, BATCH_FAILED = 5, 2, -8, -15, -16

TOO_LATE = "the write came too late to its node; are the clocks of all nodes alike, and the link fast enough?"

FAILURES: Mapping[int, tuple[type[StoreUnavailable], str]] = {
    INVALID: (StoreUnavailable, "the server calls the request invalid; is it older than release 6.0?"),
    CLUSTER_CHANGE: (StoreUnavailable, "nodes come, go or are cut off; try again when the cluster is whole"),
    8: (
        StoreFull,
        "the namespace has stopped writes: it is full; add storage or nodes, or raise its stop-writes "
        "limits for as long as it takes to delete",
    ),
    9: (StoreUnavailable, "no answer in time; is a node down or overloaded?"),
    11: (StoreUnavailable, "the cluster is not available, or the client was closed"),
    13: (RecordTooBig, "the record is over the namespace's max-record-size; was that lowered? Reconnect, or raise it"),
    14: (StoreBusy, "the record is hot: too many writers at once; spread them, or raise transaction-pending-limit"),
    18: (StoreBusy, "the device cannot keep up; write less, add devices, or raise max-write-cache"),
    20: (StoreMismatch, "the server has no such namespace"),
    22: (
        StoreReadOnly,
        "the server forbids the write: a TTL with nsup-period 0, a set's stop-writes limit, or clocks of "
        "nodes that differ too much",
    ),
    26: (StoreUnavailable, TOO_LATE),
    27: (StoreUnavailable, TOO_LATE),
    51: (StoreUnavailable, "this server has no access control; leave out user and password"),
    52: (StoreUnavailable, "access control is off on this server; leave out user and password"),
    60: (StoreForbidden, "the server does not know this user"),
    62: (StoreForbidden, "wrong password"),
    63: (StoreForbidden, "the password has expired; set a new one"),
    65: (StoreForbidden, "wrong user or password"),
    80: (StoreForbidden, "the server wants a user and a password"),
    81: (StoreForbidden, "the user may not do this; grant it the roles read-write and sindex-admin"),
    82: (StoreForbidden, "the user may not connect from this address; change the allowlist of its roles"),
    200: (StoreMismatch, "an index of this name is there for something else; choose another prefix"),
    203: (StoreUnavailable, "the thread index is still being built; try again later"),
    -1: (StoreUnavailable, "the client could not connect or do this; are all servers up and reachable from here?"),
    -7: (StoreBusy, "all connections are in use; raise max_conns_per_node, or make fewer calls at once"),
    NO_NODE: (StoreUnavailable, "no node serves this part of the data; are enough servers up and reachable from here?"),
    -9: (StoreUnavailable, "TLS failed; check the certificates and the TLS name"),
    -10: (StoreUnavailable, "the connection was refused or lost; is the server up and reachable from here?"),
    -12: (StoreBusy, "too many errors of this node just now; the client spares it for a moment"),
    -14: (StoreUnavailable, "several attempts failed; is a node down or overloaded?"),
    NO_ANSWER: (StoreUnavailable, "no answer for this record; is a node down or overloaded?"),
}
UNKNOWN = (StoreUnavailable, "the server or the client refused")

# What calls are answered with, beside NO_NODE, while the client knows no node at all.
NODELESS = frozenset({1, -1, DROPPED})
NODELESS_CAUSE = "no node answers; are the servers up and reachable from here?"


class Refusal(Exception):
    """The code that one record of a batch was answered with; never leaves the store."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def translate(error: Exception, what: str, *, connected: bool = True) -> StoreUnavailable:
    """The client's (or one record's) error as ours.

    `what` says where it happened; `connected`: whether the client knows any node.
    """
    code = getattr(error, "code", None)
    text = str(getattr(error, "msg", None) or error)
    kind, cause = FAILURES.get(code or 0, UNKNOWN)
    if not connected and code in NODELESS:
        kind, cause = StoreUnavailable, NODELESS_CAUSE
    return kind(f"{what}: {cause} (Aerospike code {code}: {text})")


def verb(method: F) -> F:
    """Guard a store's method: it runs only while the store's `_link` is open, and raises nothing of the client's."""

    @wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._link:
            try:
                return method(self, *args, **kwargs)
            except (client_errors.AerospikeError, Refusal) as error:
                what = f"{self} {method.__name__.strip('_').replace('_', ' ')}"
                raise translate(error, what, connected=self._link.connected) from error

    return cast(F, guarded)
