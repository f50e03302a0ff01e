"""What of a namespace's configuration endangers data, and the line that changes it."""

from __future__ import annotations

import pytest

from foldpoint.engine.aerospike.config import LARGEST_PART, RECORD_OVERHEAD, examine, expires, largest_value

# As a node of a sound cluster reports itself.
SOUND = {
    "conflict-resolution-policy": "last-update-time",
    "strong-consistency": "false",
    "disable-write-dup-res": "false",
    "write-commit-level-override": "off",
    "read-consistency-level-override": "off",
    "nsup-period": "120",
    "default-ttl": "0",
    "max-record-size": "1048576",
    "replication-factor": "2",
    "effective_replication_factor": "2",
    "storage-engine": "device",
    "storage-engine.file[0]": "/data",
    "storage-engine.cold-start-empty": "false",
    "storage-engine.flush-max-ms": "1000",
    "storage-engine.disable-odsync": "false",
    "storage-engine.evict-used-pct": "0",
    "evict-indexes-memory-pct": "0",
    "stop_writes": "false",
    "clock_skew_stop_writes": "false",
    "cluster_clock_skew_ms": "3",
    "cluster_size": "5",
    "min-cluster-size": "3",
}


def test_a_sound_node_has_nothing_to_report() -> None:
    assert examine([SOUND, SOUND], ttl=True) == []


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("conflict-resolution-policy", "generation", "conflict-resolution-policy last-update-time"),
        ("disable-write-dup-res", "true", "disable-write-dup-res false"),
        ("write-commit-level-override", "master", "write-commit-level-override off"),
        ("read-consistency-level-override", "one", "read-consistency-level-override off"),
        ("max-record-size", "65536", "max-record-size 1M"),
        ("replication-factor", "1", "replication-factor 2"),
        ("effective_replication_factor", "1", "add a node to the cluster"),
        ("default-ttl", "3600", "default-ttl 0"),
        ("storage-engine.cold-start-empty", "true", "cold-start-empty false (in storage-engine)"),
        ("storage-engine.flush-max-ms", "0", "flush-max-ms 1000 (in storage-engine)"),
        ("storage-engine.disable-odsync", "true", "disable-odsync false (in storage-engine)"),
        ("stop_writes", "true", "free space, add nodes or set the clocks"),
        ("clock_skew_stop_writes", "true", "free space, add nodes or set the clocks"),
        ("cluster_clock_skew_ms", "250", "keep the nodes' clocks together with NTP"),
        ("min-cluster-size", "2", "min-cluster-size 3 (in service)"),
    ],
)
def test_a_setting_that_endangers_data_is_reported_once_with_what_to_do(setting: str, value: str, remedy: str) -> None:
    node = {**SOUND, setting: value}
    [finding] = examine([SOUND, node, node], ttl=False)
    assert (finding.setting, finding.value, finding.remedy) == (setting, value, remedy)
    assert not finding.fatal
    assert str(finding) == f"{setting} is {value}: {finding.danger}. To change it: {remedy}"


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("nsup-period", "0", "nsup-period 120"),
        ("storage-engine.evict-used-pct", "60", "evict-used-pct 0 (in storage-engine)"),
        ("evict-indexes-memory-pct", "60", "evict-indexes-memory-pct 0"),
    ],
)
def test_what_matters_to_a_ttl_is_reported_where_there_is_one(setting: str, value: str, remedy: str) -> None:
    node = {**SOUND, setting: value}
    assert examine([node], ttl=False) == []
    [finding] = examine([node], ttl=True)
    assert (finding.setting, finding.remedy, finding.fatal) == (setting, remedy, setting == "nsup-period")


def test_memory_without_a_file_is_reported() -> None:
    memory = {**SOUND, "storage-engine": "memory"}
    assert examine([memory], ttl=False) == []
    del memory["storage-engine.file[0]"]
    assert [finding.setting for finding in examine([memory], ttl=False)] == ["storage-engine"]


def test_a_namespace_with_strong_consistency_resolves_conflicts_by_itself() -> None:
    loose = {"conflict-resolution-policy": "generation", "min-cluster-size": "1"}
    assert examine([{**SOUND, "strong-consistency": "true", **loose}], ttl=False) == []


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_one_of_two_nodes_may_go_on_alone(nodes: str) -> None:
    assert examine([{**SOUND, "cluster_size": nodes, "min-cluster-size": "1"}], ttl=False) == []


def test_clocks_that_nearly_agree_are_no_danger() -> None:
    assert examine([{**SOUND, "cluster_clock_skew_ms": "249"}], ttl=False) == []


@pytest.mark.parametrize(("limit", "fatal"), [(8 * 1024 - 1, True), (8 * 1024, False), (513 * 1024 - 1, False)])
def test_a_record_size_that_fits_nothing_is_fatal(limit: int, fatal: bool) -> None:
    [finding] = examine([{**SOUND, "max-record-size": str(limit)}], ttl=False)
    assert finding.fatal is fatal
    assert examine([{**SOUND, "max-record-size": str(513 * 1024)}], ttl=False) == []


def test_the_smallest_limit_of_the_nodes_counts() -> None:
    small = {**SOUND, "max-record-size": "65536"}
    assert largest_value([SOUND]) == LARGEST_PART
    assert largest_value([SOUND, small]) == 65536 - RECORD_OVERHEAD
    assert (
        largest_value([{"max-record-size": "0", "storage-engine.write-block-size": "131072"}])
        == 131072 - RECORD_OVERHEAD
    )
    assert expires([SOUND])
    assert not expires([SOUND, {**SOUND, "nsup-period": "0"}])
