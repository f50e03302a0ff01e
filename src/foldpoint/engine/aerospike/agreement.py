"""What keeps two nodes from taking two records under one key.

A cluster that lost sight of a node, as one that was paused, goes on without it. Once that node is back it takes writes,
and answers reads, as if nothing had happened, until it notices; of two records under one key the older is lost then,
although both were acknowledged. So nothing is asked of nodes that have not all named one cluster lately, and a write
may be applied until one of them can have been left out since: one that waited in a paused node, or on the way to it, is
refused.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

from aerospike import exception as client_errors
from aerospike_helpers import expressions
from aerospike_helpers.operations import expression_operations

from foldpoint.engine.aerospike.config import ask_node, ask_pairs
from foldpoint.engine.aerospike.errors import CLUSTER_CHANGE, DROPPED, INVALID, NO_NODE, Refusal

APPLIED_AT = "at"
_SHARE = 6
"""Nodes are asked again after this share of the time after which the others leave out a silent one."""
_ANSWER_MS = 500
_EPOCH = 1_262_304_000
"""Unix time of the server's year zero, 2010."""
_NANOSECONDS = 1_000_000_000
_QUICK = 50_000_000
"""Nanoseconds; what a slower write answers says less of the time."""
_GOOD_FOR = 60 * _NANOSECONDS


class Agreement:
    """Whether all nodes that the client knows, and that serve anything, are in one cluster. Thread-safe."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._silence = 0.0
        self._nodes: object = None
        self._held_at = -math.inf
        self._cluster: str | None = None
        self._whole_since: float | None = None
        self._refused: tuple[float, int, str] | None = None
        self._lock = Lock()

    @property
    def until(self) -> float:
        """Until then, in monotonic seconds, none of them can have been left out by the others."""
        return self._held_at + self._silence

    def require(self) -> None:
        """Raises Refusal unless they agreed lately. Asks each node where that is not known, once for all threads."""
        if self._holds():
            return
        came = time.monotonic()
        with self._lock:
            if self._holds() or self._held_at >= came:
                return
            if self._refused and self._refused[0] >= came:
                raise Refusal(*self._refused[1:])
            self._ask()

    def known(self) -> str | None:
        """The key of the cluster that all nodes were in lately, another whenever one joins or leaves; None: unknown."""
        return self._cluster if self._is_young() else None

    def cluster(self) -> str | None:
        """The same, asked for where it is not known. Raises as `require`."""
        self.require()
        return self._cluster

    def _holds(self) -> bool:
        return self._is_young() and self._client.get_node_names() == self._nodes

    def _is_young(self) -> bool:
        return time.monotonic() < self._held_at + self._silence / _SHARE

    def _ask(self) -> None:
        began, nodes = time.monotonic(), self._client.get_node_names()
        try:
            cluster = self._named_by_all([node["node_name"] for node in nodes])
            if self._refused and began > self._held_at + self._silence:
                self._wait_out(cluster, began)
        except Refusal as refusal:
            self._refused = began, refusal.code, str(refusal)
            raise
        self._cluster, self._nodes, self._held_at = cluster, nodes, began  # the last says that the others hold
        self._whole_since = self._refused = None

    def _named_by_all(self, nodes: Sequence[str]) -> str:
        """The key of the cluster, which changes whenever a node joins or leaves."""
        try:
            self._silence = self._silence or self._heartbeats()
            named = {node: self._named_by(node) for node in nodes}
            keys = {key for key in named.values() if key is not None}
            if len(keys) == 1:
                return keys.pop()
            code, why = (CLUSTER_CHANGE if keys else NO_NODE), str(named)
        except (client_errors.AerospikeError, Refusal) as error:
            # The client says of a node that it has dropped just now that the question was wrong.
            code = CLUSTER_CHANGE if error.code in (None, 0, DROPPED) else error.code
            why = str(getattr(error, "msg", None) or error)
        self._whole_since = None
        raise Refusal(code, f"not all nodes say that they are in one cluster: {why}")

    def _named_by(self, node: str) -> str | None:
        """None for a node that is in no cluster and serves nothing, as one does that was cut off and has noticed."""
        try:
            return ask_node(self._client, node, "cluster-stable:ignore-migrations=true", _ANSWER_MS)
        except client_errors.ClusterChangeError:
            about = ask_node(self._client, node, f"namespace/{self._namespace}", _ANSWER_MS)
            if "ns_cluster_size=0;" in about:
                return None
            raise

    def _heartbeats(self) -> float:
        """The time, in seconds, after which a silent node counts as lost; where a server does not say, its default."""
        nodes = ask_pairs(self._client, "get-config:context=network").values()
        beats = [(node.get("heartbeat.interval", "150"), node.get("heartbeat.timeout", "10")) for node in nodes]
        return min(int(interval) * int(missed) for interval, missed in beats) / 1000

    def _wait_out(self, cluster: str, now: float) -> None:
        """Raises Refusal while a node that was away, and is back, may still be left out by the others.

        They name another cluster when they do, which takes them up to twice as long as it had to be away.
        """
        self._cluster = self._cluster or cluster
        self._whole_since = self._whole_since or now
        if cluster == self._cluster and now < self._whole_since + 2 * self._silence:
            raise Refusal(CLUSTER_CHANGE, "a node was away, and may be left out yet")


class ServerClock:
    """What time it is on the nodes, at the latest. Thread-safe."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._ahead = 0
        self._known_at: int | None = None
        self._is_rough = True
        self._basis = object()  # another when the time is known from somewhere else, not only anew
        self._made: tuple[Any, Any] = None, None
        self._lock = Lock()

    def ask(self) -> None:
        """Each node, for its time in whole seconds. Raises Refusal, or the client's error."""
        nodes = ask_pairs(self._client, f"namespace/{self._namespace}").values()
        if not all("current_time" in node for node in nodes):
            raise Refusal(INVALID, "a node does not tell its time")
        latest = _EPOCH + max(int(node["current_time"]) for node in nodes) + 1
        with self._lock:
            self._known_at = time.monotonic_ns()
            self._ahead = latest * _NANOSECONDS - self._known_at
            self._is_rough, self._basis = True, object()

    def learn(self, applied_at: int, sent_at: int) -> None:
        """applied_at: what a write has answered. sent_at: monotonic nanoseconds before it was sent."""
        now = time.monotonic_ns()
        if now - sent_at >= _QUICK:
            return
        with self._lock:
            self._ahead, self._known_at = applied_at - sent_at, now
            if self._is_rough:
                self._is_rough, self._basis = False, object()

    def creates_until(self, until: float) -> Any:
        """The operation that makes a create fail on a node that comes to it after `until`, in monotonic seconds.

        It answers, as `APPLIED_AT`, when the record was created: its time is set before the operations on it.
        It is made once for each `until`: clocks do not drift apart that quickly.
        """
        made_for, operation = self._made
        wanted = until, self._basis
        if made_for != wanted:
            now = expressions.LastUpdateTime()
            at = expressions.Cond(expressions.LE(now, self._at(until)), now, expressions.Unknown())
            operation = expression_operations.expression_read(APPLIED_AT, at.compile())
            self._made = wanted, operation
        return operation

    def changes_until(self, until: float) -> Any:
        """The same for a change of a record, as a filter on what is there.

        Hazard: a record that was written while a clock was ahead has a time to come, and tells nothing of the present.
        """
        last, since = expressions.LastUpdateTime(), expressions.SinceUpdateTime()
        now = expressions.Add(last, expressions.Mul(since, 1_000_000))
        return expressions.Or(expressions.Eq(since, 0), expressions.LE(now, self._at(until))).compile()

    def _at(self, until: float) -> int:
        if self._known_at is None or time.monotonic_ns() - self._known_at > _GOOD_FOR:
            self.ask()
        return int(until * _NANOSECONDS) + self._ahead
