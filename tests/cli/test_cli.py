"""What a person at a terminal sees of a store, and what a script reads of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import CHECKPOINT, HOSTILE, fill, rows, run
from rich.console import Console

from foldpoint import FoldpointSaver
from foldpoint.cli import COMMANDS, output

# -- threads -----------------------------------------------------------------------------------------------------------


def test_threads_lists_what_there_is_as_a_table(url: str) -> None:
    result = run("threads", "--url", url, COLUMNS="200")
    assert result.exit_code == 0
    assert re.search(r"user-1 .*\(root\), child\|1 ", result.stdout)
    assert "user-2" in result.stdout
    assert "deleted" not in result.stdout


def test_threads_prints_an_object_a_line(url: str) -> None:
    found = rows(run("threads", "--url", url, "--json"))
    assert [row["thread_id"] for row in found] == sorted(["user-1", "user-2", HOSTILE])
    first = next(row for row in found if row["thread_id"] == "user-1")
    assert first["namespaces"] == ["", "child|1"]
    assert first["sealed"] == 96
    assert first["segments"] == 6


def test_the_bytes_of_a_thread_are_those_of_its_records(url: str, tmp_path: Path) -> None:
    run("compact", "--url", url, "--all", FOLDPOINT_GRACE="0")
    found = rows(run("threads", "--url", url, "--json"))
    with sqlite3.connect(tmp_path / "store.db") as database:
        size = (
            "length(CASE WHEN typeof(value) = 'integer' THEN (SELECT body FROM large WHERE id = value) ELSE value END)"
        )
        kinds = dict(database.execute(f"SELECT hex(substr(key, 17, 1)), sum({size}) FROM log GROUP BY 1").fetchall())
    database.close()
    assert sum(row["log_bytes"] for row in found) == kinds["73"] > 0
    assert sum(row["snapshot_bytes"] for row in found) <= kinds.get("70", 0) + kinds.get("6B", 0)


@pytest.fixture
def aged(tmp_path: Path) -> str:
    """A store with a thread of 40 days, one of 3 hours, and one that tells no time."""
    url = f"sqlite:///{tmp_path}/aged.db"
    with FoldpointSaver.from_conn_string(url) as saver:
        for thread, age in (("old", timedelta(days=40)), ("young", timedelta(hours=3)), ("timeless", None)):
            made = {**CHECKPOINT, "id": thread, "ts": (datetime.now(UTC) - age).isoformat() if age else ""}
            saver.put({"configurable": {"thread_id": thread, "checkpoint_ns": ""}}, made, {}, {})  # type: ignore[arg-type]
    return url


def test_threads_tells_ages_when_asked(aged: str) -> None:
    found = {row["thread_id"]: row for row in rows(run("threads", "--url", aged, "--age", "--json"))}
    assert found["old"]["age_seconds"] == pytest.approx(40 * 86_400, abs=300)
    made = datetime.fromisoformat(found["young"]["last_checkpoint"])
    assert datetime.now(UTC) - made == pytest.approx(timedelta(hours=3), abs=timedelta(minutes=5))
    assert found["timeless"]["last_checkpoint"] is None
    shown = run("threads", "--url", aged, "--age").stdout
    assert re.search(r"old .* 40 d ", shown)
    assert re.search(r"young .* 3 h ", shown)
    assert re.search(r"timeless .* \? ", shown)


def test_stats_counts_threads_by_age_when_asked(aged: str) -> None:
    (totals,) = rows(run("stats", "--url", aged, "--age", "--json"))
    ages = {name: count for name, count in totals.items() if name.startswith("older")}
    assert ages == {"older_than_1d": 1, "older_than_7d": 1, "older_than_30d": 1, "older_than_90d": 0}


def test_threads_takes_a_prefix_and_a_limit(url: str) -> None:
    assert [row["thread_id"] for row in rows(run("threads", "--url", url, "--prefix", "user-", "--json"))] == [
        "user-1",
        "user-2",
    ]
    assert len(rows(run("threads", "--url", url, "--prefix", "user-", "--limit", "1", "--json"))) == 1
    assert rows(run("threads", "--url", url, "--prefix", "nobody", "--json")) == []


def test_a_stored_name_cannot_play_with_the_terminal(url: str) -> None:
    shown = run("threads", "--url", url, COLUMNS="200").stdout
    assert "\x1b" not in shown
    assert r"[red]x[/red]\x1b[31m\n\ud800" in shown


# -- stats -------------------------------------------------------------------------------------------------------------


def test_stats_adds_up_the_threads(url: str) -> None:
    each = rows(run("threads", "--url", url, "--json"))
    (totals,) = rows(run("stats", "--url", url, "--json"))
    assert totals["threads"] == 3
    assert totals["namespaces"] == 4
    for key in ("sealed", "segments", "log_bytes", "snapshot_bytes"):
        assert totals[key] == sum(row[key] for row in each)
    assert "96" in run("stats", "--url", url).stdout


def test_stats_of_one_thread(url: str) -> None:
    (totals,) = rows(run("stats", "--url", url, "--thread", "user-2", "--json"))
    assert (totals["threads"], totals["namespaces"], totals["sealed"]) == (1, 1, 0)


@pytest.mark.parametrize("thread", ["user", "user-10", "deleted", ""])
def test_stats_of_a_thread_that_is_not_there_says_so(url: str, thread: str) -> None:
    result = run("stats", "--url", url, "--thread", thread)
    assert result.exit_code == 1
    assert f"no thread {thread!r}" in result.stderr


# -- all commands ------------------------------------------------------------------------------------------------------


def without_summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Which holds the time that was taken."""
    return [row for row in found if "summary" not in row]


CALLS = [["threads"], ["stats"], ["compact", "--all"], ["sweep"]]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_an_empty_store_is_no_error(empty: str, call: list[str]) -> None:
    assert run(*call, "--url", empty).exit_code == 0
    found = without_summary(rows(run(*call, "--url", empty, "--json")))
    assert found == [] or set(found[0].values()) == {0}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_the_url_may_come_from_the_environment(url: str, call: list[str]) -> None:
    run("compact", "--all", "--url", url)
    by_variable, by_option = run(*call, "--json", FOLDPOINT_URL=url), run(*call, "--json", "--url", url)
    assert without_summary(rows(by_variable)) == without_summary(rows(by_option)) != []


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("redis://host", 1, "expected memory:, sqlite:///file.db, or aerospike://"),
        ("", 1, "expected"),
        ("sqlite:///{folder}/mistyped.db", 2, "there is no such file"),
        ("sqlite:///{folder}/text.db", 2, "not a SQLite database"),
        ("sqlite:///{folder}/foreign.db", 2, "foreign.db"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_on_stderr(
    tmp_path: Path, call: list[str], url: str, code: int, said: str
) -> None:
    (tmp_path / "text.db").write_text("no database " * 200)
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE checkpoints (thread_id TEXT)")
    foreign.close()
    result = run(*call, "--url", url.format(folder=tmp_path))
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_wrong_setting_names_its_variable(url: str) -> None:
    result = run("threads", "--url", url, FOLDPOINT_WINDOW="x", FOLDPOINT_GRACE="-1")
    assert result.exit_code == 1
    assert "FOLDPOINT_WINDOW" in result.stderr
    assert "FOLDPOINT_GRACE" in result.stderr


def test_a_damaged_head_is_named_with_its_thread_and_hides_no_other_thread(url: str, tmp_path: Path) -> None:
    threads = [row["thread_id"] for row in rows(run("threads", "--url", url, "--json"))]
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("UPDATE heads SET value = substr(value, 1, length(value) - 3) WHERE thread = ?", (b"user-2",))
    database.close()
    for command in ("threads", "stats"):
        result = run(command, "--url", url, "--json")
        assert result.exit_code == 2
        assert re.match(r"record [0-9a-f]{40}: head: checksum .*; thread 'user-2': ", result.stderr)
        assert "Error: left out a stream whose head cannot be read" in result.stderr
        told = [json.loads(line) for line in result.stdout.splitlines()]
        if command == "threads":
            assert [row["thread_id"] for row in told] == [thread for thread in threads if thread != "user-2"]
        else:
            assert told[0]["threads"] == len(threads) - 1
    result = run("verify", "--url", url, "--json")
    assert result.exit_code == 2
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["thread_id"] for row in told} == {*threads}
    [(ill, [finding])] = [(row["thread_id"], row["findings"]) for row in told if row["findings"]]
    assert (ill, finding["invariant"]) == ("user-2", 13)
    result = run("sweep", "--url", url)
    assert result.exit_code == 2
    assert "thread 'user-2'" in result.stderr
    result = run("stats", "--url", url, "--thread", "user-2")
    assert result.exit_code == 2
    assert "there is no thread" not in result.stderr


@pytest.mark.parametrize("call", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_ends_with_examples_that_can_be_run(
    call: list[str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("retention.toml").write_text("default.keep_last = 20")
    result = run(*call, "--help")
    assert result.exit_code == 0
    _, _, examples = result.stdout.partition("Examples:\n")
    lines = [line.strip().partition(" | ")[0] for line in examples.splitlines() if line.strip()]
    assert len(lines) >= 2
    for line in lines:
        arguments = shlex.split(line)[shlex.split(line).index("foldpoint") + 1 :]
        if "--url" in arguments:
            arguments[arguments.index("--url") + 1] = url
        if "--into" in arguments:
            arguments[arguments.index("--into") + 1] = f"sqlite:///{tmp_path}/into.db"
        result = run(*arguments, FOLDPOINT_URL=url)
        assert result.exit_code in (0, 1), result.output
        assert result.exit_code == 0 or "no thread" in result.stderr


def test_an_unknown_command_is_refused() -> None:
    assert run("explode").exit_code == 2
    assert run("explode", "--help").exit_code == 2


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r".*\b\d+\.\d+\.\d+\S*\n", run("--version").stdout)


def test_what_a_program_reads_is_not_folded(tmp_path: Path) -> None:
    thread = "8c4de9a2-" * 20
    with FoldpointSaver.from_conn_string(f"sqlite:///{tmp_path}/a.db") as saver:
        fill(saver, thread, 1)
    assert thread in run("threads", "--url", f"sqlite:///{tmp_path}/a.db", "--age", COLUMNS="40").stdout


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(url: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("foldpoint.cli.threads.open_engine", interrupted)
    result = run("threads")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def written_to(file: int, *arguments: str) -> tuple[int, str]:
    """How a command ends, and what it says, if that is where its output goes."""
    command = [sys.executable, "-m", "foldpoint", *arguments]
    done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    os.close(file)
    return done.returncode, done.stderr


def test_a_reader_who_has_seen_enough_ends_the_command_as_it_ends_others(url: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert written_to(writing, "threads", "--json", "--url", url) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("call", [["threads", "--json"], ["--help"], ["--version"]], ids=str)
def test_output_that_cannot_be_written_is_one_line(url: str, call: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_URL", url)
    said = "Error: the output cannot be written: No space left on device\n"
    assert written_to(os.open("/dev/full", os.O_WRONLY), *call) == (2, said)


def test_what_the_terminal_cannot_spell_hides_no_thread(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with FoldpointSaver.from_conn_string(url) as saver:
        fill(saver, "\u65e5", 1)
        fill(saver, "plain", 1)
    command = [sys.executable, "-m", "foldpoint", "threads", "--url", url]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert r"\u65e5" in done.stdout
    assert "plain" in done.stdout


def test_one_row_that_is_wider_than_the_terminal_stands_upright(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "Console", partial(Console, width=60, force_terminal=True))
    told = run("stats", "--url", url).stdout
    assert len([line for line in told.splitlines() if "snapshot bytes" in line]) == 1
    assert len(told.splitlines()) > 8
