"""The commands on a real file: tables for people, JSON for programs, one clear line where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from building import chain
from click.testing import CliRunner, Result

from foldpoint import FoldpointSaver
from foldpoint.cli import main


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/store.db"
    with FoldpointSaver.from_conn_string(url, window=8) as saver:
        chain(saver, 20, thread="alice")
        chain(saver, 3, thread="alice", namespace="child")
        chain(saver, 2, thread="bob")
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def rows(*arguments: str) -> list[dict[str, object]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_threads_are_listed_as_a_table_and_as_json(url: str) -> None:
    table = run("threads", "--url", url).output
    assert "alice" in table
    assert "bob" in table
    listed = rows("threads", "--url", url)
    assert [row["thread_id"] for row in listed] == ["alice", "bob"]
    assert listed[0]["namespaces"] == ["", "child"]
    assert [row["thread_id"] for row in rows("threads", "--url", url, "--prefix", "b")] == ["bob"]
    assert len(rows("threads", "--url", url, "--limit", "1")) == 1


def test_stats_sum_up(url: str) -> None:
    (row,) = rows("stats", "--url", url)
    assert row["threads"] == 2
    assert run("stats", "--url", url).exit_code == 0


def test_compact_seals_every_stream(url: str) -> None:
    reports = rows("compact", "--url", url, "--all")
    assert {(row["thread_id"], row["namespace"]) for row in reports} == {
        ("alice", ""),
        ("alice", "child"),
        ("bob", ""),
    }
    assert all(row["segments"] for row in reports)
    assert rows("compact", "--url", url, "--thread", "bob")


def test_the_url_may_come_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_URL", url)
    assert len(rows("threads")) == 2


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_bytes(b"this is not a database at all" * 200)
    for arguments in (
        ("threads", "--url", "nonsense"),
        ("threads", "--url", f"sqlite:///{tmp_path}/no.db"),
        ("stats", "--url", f"sqlite:///{tmp_path}/missing/store.db"),
    ):
        result = run(*arguments)
        assert result.exit_code != 0
        assert "Traceback" not in result.output
        assert "Error" in result.output


@pytest.mark.parametrize("command", ["threads", "stats", "compact"])
def test_help_has_an_example(command: str) -> None:
    assert f"foldpoint {command}" in run(command, "--help").output


def test_the_version_is_printed() -> None:
    assert run("--version").output.strip()
