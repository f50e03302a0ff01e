"""Many writers on few threads, as `python -m reliability.crowd` does it at length."""

from __future__ import annotations

from pathlib import Path

import aerospike_server

from reliability.crowd import Crowd, Result, on_aerospike, on_sqlite


def nothing_is_amiss(result: Result, crowd: Crowd) -> bool:
    everything = result.acknowledged == crowd.writers * crowd.puts
    return everything and result.verdict.clean and result.findings == 0 and result.errors == {}


def test_processes_that_crowd_one_file_lose_and_double_nothing(tmp_path: Path) -> None:
    crowd = Crowd(writers=6, puts=60, threads=2)
    assert nothing_is_amiss(on_sqlite(crowd, tmp_path / "store.db"), crowd)


def test_threads_that_crowd_a_server_lose_and_double_nothing() -> None:
    aerospike_server.require_asd()
    server = aerospike_server.start_server()
    crowd = Crowd(writers=24, puts=20, threads=4)
    try:
        assert nothing_is_amiss(on_aerospike(crowd, server.hosts, server.namespace), crowd)
    finally:
        server.stop()
