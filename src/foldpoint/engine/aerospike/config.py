"""What a namespace is configured with, and what of that endangers data. Reads only; changes nothing on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from foldpoint.engine.aerospike.errors import NO_ANSWER, NO_NODE, Refusal
from foldpoint.engine.records import Finding
from foldpoint.errors import StoreMismatch

KIB = 1024
LARGEST_PART = 512 * KIB
RECORD_OVERHEAD = KIB  # key, set and bin names, header: under 200 bytes on 8.1
SMALLEST_RECORD = 8 * KIB
CLOCK_SKEW_MS = 250

Settings = Mapping[str, str]


def read_settings(client: Any, namespace: str) -> list[Settings]:
    """Configuration and statistics of the namespace, one mapping a node.

    StoreMismatch when there is no such one; Refusal when a node does not answer.
    """
    _require_namespace(client, namespace)
    service, general = ask_pairs(client, "get-config:context=service"), ask_pairs(client, "statistics")
    own = ask_pairs(client, f"namespace/{namespace}")
    return [{**service.get(node, {}), **general.get(node, {}), **own[node]} for node in own]


def largest_value(nodes: Iterable[Settings]) -> int:
    """The largest value, in bytes, that every node takes, and at most 512 KiB."""
    return min(LARGEST_PART, min(_record_limit(node) for node in nodes) - RECORD_OVERHEAD)


def expires(nodes: Iterable[Settings]) -> bool:
    """Whether every node removes expired records."""
    return all(_number(node, "nsup-period") > 0 for node in nodes)


def examine(nodes: Iterable[Settings], *, ttl: bool) -> list[Finding]:
    """What endangers data on any node, each once; `ttl`: expiry was asked for."""
    found = [finding for node in nodes for rule in _RULES for finding in rule(node, ttl)]
    return list(dict.fromkeys(found))


def _ask(client: Any, command: str) -> dict[str, str]:
    """Each node's answer to an info command. Refusal where a node, or every node, gave none."""
    answers = client.info_all(command)
    if silent := [f"node {node}: {error}" for node, (error, _) in answers.items() if error]:
        raise Refusal(NO_ANSWER, f"info command {command!r}: {'; '.join(silent)}")
    if not answers:
        raise Refusal(NO_NODE, f"info command {command!r}: no answer")
    return {node: text.strip().split("\t")[-1] for node, (_, text) in answers.items()}


def ask_node(client: Any, node: str, command: str, milliseconds: int) -> str:
    """One node's answer to an info command; the client's error where it gives none in time."""
    return str(client.info_single_node(command, node, {"timeout": milliseconds})).strip().split("\t")[-1]


def ask_pairs(client: Any, command: str) -> dict[str, Settings]:
    """As pairs of names and values, one mapping a node. Refusal where a node, or every node, gave none."""
    answers = _ask(client, command)
    return {node: dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair) for node, text in answers.items()}


def _require_namespace(client: Any, namespace: str) -> None:
    known = {name for text in _ask(client, "namespaces").values() for name in text.split(";") if name}
    if namespace not in known:
        raise StoreMismatch(
            f"the server has no namespace {namespace!r}; it has {', '.join(sorted(known)) or 'none'}. "
            "Name one of these, or add a namespace to the server's configuration"
        )


def _number(node: Settings, name: str) -> int:
    """A count, a size in bytes or a period in seconds (the server reports these without units); 0 when absent."""
    text = node.get(name, "0")
    return int(text) if text.lstrip("-").isdigit() else 0


def _record_limit(node: Settings) -> int:
    """Servers before 7.1 report 0 for `max-record-size` and limit records to the write block."""
    return _number(node, "max-record-size") or _number(node, "storage-engine.write-block-size") or 1024 * KIB


def _line(name: str, value: str) -> str:
    """The line of the configuration file that sets what the server reports as `name`."""
    stanza, _, setting = name.rpartition(".")
    return f"{setting} {value}" + (f" (in {stanza})" if stanza else "")


def _conflict_resolution(node: Settings, ttl: bool) -> Iterable[Finding]:
    policy = node.get("conflict-resolution-policy", "last-update-time")
    if policy != "last-update-time" and node.get("strong-consistency") != "true":
        yield Finding(
            "conflict-resolution-policy",
            policy,
            "after a node was away, its old copy of a record can replace the newer one",
            "conflict-resolution-policy last-update-time",
        )


def _duplicate_resolution(node: Settings, ttl: bool) -> Iterable[Finding]:
    if node.get("disable-write-dup-res") == "true":
        yield Finding(
            "disable-write-dup-res",
            "true",
            "while data migrates, a record can be created over one that exists on another node",
            "disable-write-dup-res false",
        )


def _commit_level(node: Settings, ttl: bool) -> Iterable[Finding]:
    if node.get("write-commit-level-override") == "master":
        yield Finding(
            "write-commit-level-override",
            "master",
            "a write is acknowledged before its replica exists, and is lost with its node",
            "write-commit-level-override off",
        )


def _read_level(node: Settings, ttl: bool) -> Iterable[Finding]:
    if node.get("read-consistency-level-override") == "one":
        yield Finding(
            "read-consistency-level-override",
            "one",
            "while data migrates, a record that exists can read as missing",
            "read-consistency-level-override off",
        )


def _expiry(node: Settings, ttl: bool) -> Iterable[Finding]:
    if _number(node, "nsup-period") == 0 and ttl:
        yield Finding(
            "nsup-period", "0", "the server refuses records that expire (code 22)", "nsup-period 120", fatal=True
        )


def _record_size(node: Settings, ttl: bool) -> Iterable[Finding]:
    limit = _record_limit(node)
    if limit < LARGEST_PART + RECORD_OVERHEAD:
        fatal = limit < SMALLEST_RECORD
        danger = "no event fits" if fatal else "large states are cut into more and smaller records"
        yield Finding("max-record-size", str(limit), danger, "max-record-size 1M", fatal)


def _replication(node: Settings, ttl: bool) -> Iterable[Finding]:
    wanted = node.get("replication-factor", "1")
    if wanted == "1":
        yield Finding(
            "replication-factor", wanted, "a lost node loses the records that it holds", "replication-factor 2"
        )
    elif node.get("effective_replication_factor") == "1":
        yield Finding(
            "effective_replication_factor",
            "1",
            f"the cluster has too few nodes for replication-factor {wanted}; a lost node loses its records",
            "add a node to the cluster",
        )


def _persistence(node: Settings, ttl: bool) -> Iterable[Finding]:
    backed = any(name.startswith(("storage-engine.file[", "storage-engine.device[")) for name in node)
    if node.get("storage-engine") == "memory" and not backed:
        yield Finding(
            "storage-engine",
            "memory",
            "nothing is on disk; all is gone when the nodes that hold a record stop",
            "storage-engine device, with a file and a filesize",
        )


def _device(node: Settings, ttl: bool) -> Iterable[Finding]:
    for name, bad, good, danger in (
        ("cold-start-empty", "true", "false", "a node that restarts throws away what it holds"),
        ("flush-max-ms", "0", "1000", "what was acknowledged stays in memory until a whole block is full"),
        ("disable-odsync", "true", "false", "what was written to the device can be lost with the power"),
    ):
        name = f"storage-engine.{name}"
        if node.get(name) == bad:
            yield Finding(name, bad, danger, _line(name, good))


def _default_ttl(node: Settings, ttl: bool) -> Iterable[Finding]:
    if _number(node, "default-ttl") > 0:
        yield Finding(
            "default-ttl",
            node["default-ttl"],
            "records that another tool copies or restores into this namespace expire (Foldpoint's own writes do not)",
            "default-ttl 0",
        )


def _eviction(node: Settings, ttl: bool) -> Iterable[Finding]:
    for name in ("storage-engine.evict-used-pct", "evict-indexes-memory-pct", "evict-sys-memory-pct"):
        if ttl and _number(node, name) > 0:
            yield Finding(name, node[name], "records with a TTL are removed before it has passed", _line(name, "0"))


def _stop_writes(node: Settings, ttl: bool) -> Iterable[Finding]:
    for name in ("stop_writes", "clock_skew_stop_writes"):
        if node.get(name) == "true":
            cause = "the clocks differ too much" if name.startswith("clock") else "storage or memory is full"
            yield Finding(
                name, "true", f"the namespace refuses writes: {cause}", "free space, add nodes or set the clocks"
            )


def _clock(node: Settings, ttl: bool) -> Iterable[Finding]:
    if _number(node, "cluster_clock_skew_ms") >= CLOCK_SKEW_MS:
        yield Finding(
            "cluster_clock_skew_ms",
            node["cluster_clock_skew_ms"],
            "last-update-time compares clocks; the older copy of a head can win after a fail-over",
            "keep the nodes' clocks together with NTP",
        )


def _minority(node: Settings, ttl: bool) -> Iterable[Finding]:
    nodes = _number(node, "cluster_size")
    alone = node.get("strong-consistency") != "true" and _number(node, "min-cluster-size") * 2 <= nodes
    if nodes > 2 and alone:
        yield Finding(
            "min-cluster-size",
            node.get("min-cluster-size", "1"),
            "a node that is cut off from the others and not from its clients goes on alone; what it and the others take"
            " under one key are two records, and one is lost",
            f"min-cluster-size {nodes // 2 + 1} (in service)",
        )


_RULES: tuple[Callable[[Settings, bool], Iterable[Finding]], ...] = (
    _conflict_resolution,
    _duplicate_resolution,
    _commit_level,
    _read_level,
    _expiry,
    _record_size,
    _replication,
    _persistence,
    _device,
    _default_ttl,
    _eviction,
    _stop_writes,
    _clock,
    _minority,
)
