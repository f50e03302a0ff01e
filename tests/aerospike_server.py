"""Aerospike servers for the tests.

`target()` is the server that tests share: the one named by FOLDPOINT_TEST_AEROSPIKE=host:port/namespace, or else a
private one, started once and stopped at exit. Tests that break their server start one of their own, as
`reliability.cluster` gives them.
"""

from __future__ import annotations

import atexit
import itertools
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
from aerospike import exception as client_errors

from foldpoint.engine.aerospike import AerospikeStore
from reliability.cluster import (
    LOOPBACK,
    NAMESPACE,
    Cluster,
    connect,
    free_bases,
    raw_client,
    start_cluster,
    start_server,
)

__all__ = ["LOOPBACK", "NAMESPACE", "Cluster", "connect", "free_bases", "raw_client", "start_cluster", "start_server"]

ENVIRONMENT = "FOLDPOINT_TEST_AEROSPIKE"
MISSING = f"no Aerospike: put `asd` on PATH or set {ENVIRONMENT}=host:port/namespace"
NO_ASD = "these tests break or configure their server: put `asd` on PATH"


@dataclass(frozen=True)
class Target:
    """A server that answers, and the namespace that tests may write to."""

    hosts: list[tuple[str, int]]
    namespace: str

    def open(self, prefix: str, **options: Any) -> AerospikeStore:
        """A store that is set up, with a client of its own."""
        store = connect(self.hosts, self.namespace, prefix=prefix, **options)
        store.setup()
        return store

    def drop(self, prefix: str) -> None:
        """Remove a prefix's records and index. The names of its sets stay: a namespace has room for 4,095."""
        client = raw_client(self.hosts)
        try:
            for name in ("log", "head"):
                client.truncate(self.namespace, f"{prefix}_{name}", 0)
            client.index_remove(self.namespace, f"{prefix}_thread")
        except client_errors.IndexNotFound:
            pass  # the test never set it up
        finally:
            client.close()


@lru_cache(maxsize=1)
def target() -> Target:
    """The server that tests share. Skips the test where there is none; a server that was named must answer."""
    named = from_environment()
    if named:
        host, port, namespace = named
        if refusal := why_silent(host, port):
            pytest.fail(f"{ENVIRONMENT} names {host}:{port}, which does not answer: {refusal}")
        return Target([(host, port)], namespace)
    require_asd()
    server = start_server()
    atexit.register(server.stop)
    raw_client(server.hosts).close()
    return Target(server.hosts, server.namespace)


@lru_cache(maxsize=1)
def why_silent(host: str, port: int) -> str:
    """Why the named server does not answer; empty where it does. Asked once, so that many tests fail fast."""
    try:
        raw_client([(host, port)]).close()
    except client_errors.AerospikeError as error:
        return str(error)
    return ""


def open_on(cluster: Cluster, **options: Any) -> AerospikeStore:
    """A store on a server of the test's own; `options` as for `AerospikeStore.connect`."""
    return connect(cluster.hosts, cluster.namespace, prefix=fresh_prefix(), **options)


def set_config(cluster: Cluster, line: str) -> None:
    """Change a setting of the namespace on every node."""
    for index in range(len(cluster.nodes)):
        answer = cluster.info(index, f"set-config:context=namespace;namespace={cluster.namespace};{line}")
        assert answer.lower() == "ok", answer


def require_asd() -> None:
    """Skip the test unless a private server can be started here."""
    if shutil.which("asd") is None:
        pytest.skip(NO_ASD if from_environment() else MISSING)


def say_if_skipped(reporter: Any) -> None:
    """One line, at the end of a run, for all tests that had no server. `reporter` is pytest's terminal reporter."""
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    for reason in (MISSING, NO_ASD):
        if skipped := sum(reason in text for text in reasons):
            reporter.write_line(f"{skipped} tests skipped: {reason}", yellow=True)


def from_environment() -> tuple[str, int, str] | None:
    """(host, port, namespace) of the server to test on, None when the variable is unset; ValueError when malformed."""
    value = os.environ.get(ENVIRONMENT)
    if not value:
        return None
    match = re.fullmatch(r"(.+):(\d+)/([^/]+)", value)
    if match is None:
        raise ValueError(f"{ENVIRONMENT} is {value!r}: give host:port/namespace")
    return match[1], int(match[2]), match[3]


def fresh_prefix() -> str:
    """A set prefix that no test is using; after a thousand the first comes again, its records dropped long ago."""
    return f"{_RUN}{next(_numbers) % 1000}"


_RUN = "t" + uuid.uuid4().hex[:8] + "x"
_numbers = itertools.count()
