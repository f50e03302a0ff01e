"""What people with Docker, and the workflow, start is what the tests take for an Aerospike server."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aerospike_server
import pytest
import yaml

from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.engine.aerospike.config import examine
from reliability.cluster import Node, Place, free_bases, info

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "docker" / "aerospike.conf"


def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["aerospike"]
    return found


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    return found


@contextmanager
def started(text: str) -> Iterator[AerospikeStore]:
    """A store on a server with this configuration, in a folder and on ports of its own."""
    aerospike_server.require_asd()
    folder = Path(tempfile.mkdtemp(prefix="foldpoint-asd-"))
    [base] = free_bases(1)
    (folder / "smd").mkdir()
    text = text.replace("service {", f"service {{\nwork-directory {folder}\nproto-fd-max 2048", 1)
    text = text.replace("/opt/aerospike/data", str(folder)).replace("address any", "address 127.0.0.1")
    text = re.sub(r"\bport 300(\d)", lambda found: f"port {base + int(found[1])}", text)
    (folder / "asd.conf").write_text(f"{text}\nmod-lua {{\nuser-path {folder}\n}}\n")
    node = Node(folder, base, Place())
    node.start()
    try:
        with store_on(node) as store:
            yield store
    finally:
        node.end(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def store_on(node: Node) -> Iterator[AerospikeStore]:
    while True:
        assert node.running, node.why_it_died()
        try:
            assert info("127.0.0.1", node.base, "status") == "ok"
            break
        except OSError:
            time.sleep(0.05)
    store = aerospike_server.connect([("127.0.0.1", node.base)], "test")
    yield store
    store.close()


def test_the_mounted_configuration_starts_a_server_that_lacks_only_a_second_node() -> None:
    with started(CONFIGURATION.read_text()) as store:
        assert [finding.setting for finding in store.setup(ttl=True)] == ["replication-factor"]
        assert store.create([(b"k", b"v")], ttl=60) == [True]


def test_every_line_that_a_finding_asks_for_is_taken_by_the_server() -> None:
    everything_wrong = {
        "conflict-resolution-policy": "generation",
        "disable-write-dup-res": "true",
        "write-commit-level-override": "master",
        "read-consistency-level-override": "one",
        "nsup-period": "0",
        "max-record-size": "65536",
        "replication-factor": "1",
        "default-ttl": "60",
        "storage-engine.cold-start-empty": "true",
        "storage-engine.flush-max-ms": "0",
        "storage-engine.disable-odsync": "true",
        "storage-engine.evict-used-pct": "50",
        "evict-indexes-memory-pct": "50",
    }
    remedies = [finding.remedy for finding in examine([everything_wrong], ttl=True)]
    assert len(remedies) == len(everything_wrong)
    text = CONFIGURATION.read_text()
    for remedy in remedies:
        line, _, stanza = remedy.partition(" (in ")
        name = line.split()[0]
        text = re.sub(rf"(?m)^\s*{name} .*\n", "", text)
        opening = f"{stanza.rstrip(')')} device {{" if stanza else "namespace test {"
        text = text.replace(opening, f"{opening}\n\t\t{line}", 1)
        assert line in text
    with started(text) as store:
        assert [finding.setting for finding in store.setup(ttl=True)] == ["effective_replication_factor"]


def test_compose_mounts_the_configuration_where_the_server_is_told_to_look() -> None:
    mounted = dict(volume.split(":")[:2] for volume in service()["volumes"])
    assert mounted[f"./{CONFIGURATION.relative_to(ROOT)}"] == service()["command"][1]
    assert mounted["data"] in CONFIGURATION.read_text()


def test_compose_lets_in_this_machine_only() -> None:
    assert all(port.startswith("127.0.0.1:") for port in service()["ports"])


def test_the_workflow_runs_the_server_of_compose_and_every_python_that_is_supported() -> None:
    jobs = workflow()
    assert jobs["aerospike"]["services"]["aerospike"]["image"] == service()["image"]
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text()
    assert set(jobs["aerospike"]["strategy"]["matrix"]["python"]) <= set(pythons)


def test_the_workflow_runs_what_a_person_runs_by_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    commands = [step["run"] for job in workflow().values() for step in job["steps"] if "run" in step]
    assert sorted(commands) == ["make lint", "make test", "make test-aerospike"]
    assert {command.removeprefix("make ") for command in commands} <= set(targets)
    for name, value in workflow()["aerospike"]["env"].items():
        monkeypatch.setenv(name, value)
    assert aerospike_server.from_environment() == ("127.0.0.1", 3000, "test")
