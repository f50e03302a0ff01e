"""The benchmarks run, and count right. What they measure is asserted nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import compaction
from benchmarks.__main__ import main
from benchmarks.meter import TalliedStore
from benchmarks.places import Servers, stored_bytes
from benchmarks.profile import PARTS, REST, STORE
from benchmarks.results import Cell, Results
from benchmarks.savers import BY_NAME
from benchmarks.workloads import WORKLOADS
from foldpoint.engine.memory import MemoryStore

ROOT = Path(__file__).resolve().parents[2]


def bench(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--quick", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def benchmark(name: str, *args: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def only(*workloads: str) -> list[str]:
    return [option for name in workloads for option in ("--only", name)]


def test_each_saver_is_measured_on_each_workload(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench(
        *only("airline", "crowd_async"), "--savers", "in-memory", "--savers", "foldpoint-sqlite", "--json", file
    )
    assert done.returncode == 0, done.stderr
    cells = {(cell["workload"], cell["saver"]): cell for cell in json.loads(file.read_text())["cells"]}
    assert cells.keys() == {(w, s) for w in ("airline", "crowd_async") for s in ("in-memory", "foldpoint-sqlite")}
    theirs, ours = (cells["airline", saver]["figures"] for saver in ("in-memory", "foldpoint-sqlite"))
    assert theirs["checkpoints"] == ours["checkpoints"] == 24 * 4
    assert theirs["writes"] == ours["writes"] == 24 * 3
    assert cells["crowd_async", "foldpoint-sqlite"]["figures"]["checkpoints"] == 8 * 4  # eight threads, a turn each
    assert 0 < ours["compacted"] <= ours["stored"] < theirs["stored"]
    assert [sample["checkpoints"] for sample in ours["samples"]] == [48, 96]
    assert ours["samples"][-1]["resume"]["store_calls"] == 2
    assert "Foldpoint, SQLite" in done.stdout


def test_a_saver_that_fails_is_said_so_and_does_not_end_the_run(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench(*only("airline"), "--savers", "in-memory", "--timeout", "0.01", "--json", file)
    assert done.returncode == 0, done.stderr
    assert "airline: InMemorySaver fails: not done after 0.01 s" in done.stdout
    assert json.loads(file.read_text())["cells"][0]["figures"] is None


def test_what_cannot_be_measured_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("FOLDPOINT_TEST_AEROSPIKE", raising=False)
    done = CliRunner().invoke(main, [*only("airline"), "--savers", "foldpoint-aerospike"])
    assert done.exit_code == 1
    assert "Foldpoint, Aerospike is left out: no server: put `asd` on PATH, or give --aerospike" in done.stderr
    assert "no saver is left to measure" in done.stderr


def test_every_workload_says_what_it_is() -> None:
    done = CliRunner().invoke(main, ["--list"])
    assert done.exit_code == 0, done.output
    for name in (*WORKLOADS, *BY_NAME):
        assert any(line.startswith(f"{name} ") and len(line.split()) > 1 for line in done.stdout.splitlines())


def figures(put: float, **others: Any) -> dict[str, Any]:
    sample = {"put": {"median": put}, "dumps": {"median": put / 2}}
    return {"stored": 100, "wall_s": put, "samples": [sample, sample], **others}


def test_ratios_are_to_the_best_durable_peer() -> None:
    cells = [
        Cell("airline", "in-memory", figures(1.0)),
        Cell("airline", "sqlite", figures(8.0)),
        Cell("airline", "postgres", figures(4.0)),
        Cell("airline", "aerospike", None, "record too big"),
        Cell("airline", "foldpoint-sqlite", figures(2.0)),
    ]
    results = Results(cells)
    assert results.ratio("airline", "foldpoint-sqlite", "put") == 0.5
    assert results.ratio("airline", "foldpoint-sqlite", "put", ["sqlite"]) == 0.25
    assert results.ratio("airline", "aerospike", "put") is None
    assert results.ratio("crowd", "sqlite", "put") is None
    assert results.figure("airline", "sqlite", "put_beyond") == 4.0


def test_of_several_rounds_the_median_counts_and_a_failure_is_one_of_all() -> None:
    rounds = [Cell("airline", "sqlite", figures(put)) for put in (9.0, 1.0, 2.0)]
    assert Results(rounds).figure("airline", "sqlite", "put") == 2.0
    failed = Results([*rounds, Cell("airline", "sqlite", None, "disk full")])
    assert failed.figure("airline", "sqlite", "put") is None


def test_a_file_is_measured_whole() -> None:
    with Servers().fresh("sqlite") as place, BY_NAME["foldpoint-sqlite"].open(place) as saver:
        empty = stored_bytes(place)
        saver.engine.store.create([(b"key", bytes(1_000_000))], ttl=None)  # type: ignore[attr-defined]
        assert 1_000_000 <= stored_bytes(place) - empty < 1_100_000


def test_calls_of_a_store_are_counted_for_the_thread_that_makes_them() -> None:
    store = TalliedStore(MemoryStore())
    store.create([(b"a", b"1")], ttl=None)
    assert store.get_many([b"a", b"b"]) == [b"1", None]
    assert store.capabilities.ttl
    assert store.mine.calls == 2


def test_the_profile_tells_the_parts_of_each_call_and_the_floors() -> None:
    parts = json.loads(benchmark("profile", "--messages", "12", "--calls", "2", "--json"))
    assert parts.keys() == {"put", "put_writes", "latest", "latest, cold", "floors"}
    assert {part for kind in parts if kind != "floors" for part in parts[kind]} == {
        *(part for part, _, _ in PARTS),
        *(STORE, REST),
    }


def test_a_long_thread_is_put_read_and_compacted() -> None:
    told = benchmark("long_thread", "--checkpoints", "2000")
    assert "reading them all" in told


def test_the_job_is_killed_beside_writers_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ALONE", 1.0)
    monkeypatch.setattr(compaction, "PAUSE", 0.05)
    figures = compaction.measure(tmp_path, threads=20, count=12, live=2, kills=1, within=(0.1, 0.2), workers=1)
    assert (figures.lost, figures.writer_errors) == (0, 0)
    assert figures.long_threads.zstd_mb > 0
