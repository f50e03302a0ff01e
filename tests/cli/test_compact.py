"""The offline job and the sweep, as a person or cron runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from commands import HOSTILE, fill, lines_of, rows, run, start
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from foldpoint import FoldpointSaver
from foldpoint.compaction.job import SHARES, Journal


def streams(result: Result) -> dict[tuple[str, str], dict[str, Any]]:
    """The reports of the streams that were compacted."""
    return {(row["thread_id"], row["namespace"]): row for row in rows(result) if "namespace" in row}


def summary(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])["summary"]
    return found


def sealed(url: str) -> dict[str, int]:
    return {row["thread_id"]: row["sealed"] for row in rows(run("threads", "--url", url, "--json"))}


def kept(url: str, thread: str) -> int:
    with FoldpointSaver.from_conn_string(url) as saver:
        return len(list(saver.list({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})))


# -- what is compacted -------------------------------------------------------------------------------------------------


def test_it_seals_what_is_unsealed_and_only_once(url: str) -> None:
    result = run("compact", "--url", url, "--all", "--json")
    first = streams(result)
    assert first["user-1", ""]["events_sealed"] == 4
    assert first["user-1", "child|1"]["events_sealed"] == 5
    assert first["user-2", ""]["events_sealed"] == 3
    assert first["deleted", ""]["events_sealed"] == 0
    assert len(first) == 5
    assert summary(result)["streams"] == 5
    assert summary(result)["events_sealed"] == 14
    again = run("compact", "--url", url, "--all", "--json")
    assert [row["events_sealed"] for row in streams(again).values()] == [0] * 5
    assert summary(again)["bytes_written"] == 0
    (totals,) = rows(run("stats", "--url", url, "--json"))
    assert totals["sealed"] == 110


def test_several_processes_do_the_same_as_one(url: str) -> None:
    result = run("compact", "--url", url, "--all", "--workers", "3", "--json")
    assert len(streams(result)) == 5
    assert summary(result)["events_sealed"] == 14
    assert sealed(url) == {"user-1": 105, "user-2": 3, HOSTILE: 2}


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (["--thread", "user-2"], {"user-1": 96, "user-2": 3, HOSTILE: 0}),
        (["--prefix", "user-"], {"user-1": 105, "user-2": 3, HOSTILE: 0}),
        (["--prefix", "nobody"], {"user-1": 96, "user-2": 0, HOSTILE: 0}),
    ],
)
def test_one_thread_or_those_of_a_prefix_and_no_others(url: str, which: list[str], expected: dict[str, int]) -> None:
    assert run("compact", "--url", url, *which).exit_code == 0
    assert sealed(url) == expected


def test_a_subgraph_is_compacted_with_its_thread_even_where_the_root_is_missing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with FoldpointSaver.from_conn_string(url, compaction="off") as saver:
        for n in range(20):
            fill(saver, f"{n}", 2, "child|1")
            fill(saver, f"{n}", 2, "child|2")
    found = streams(run("compact", "--url", url, "--all", "--json"))
    assert sorted(found) == sorted((f"{n}", name) for n in range(20) for name in ("child|1", "child|2"))


def test_what_is_superseded_goes_when_the_grace_is_over(url: str, tmp_path: Path) -> None:
    before = (tmp_path / "store.db").stat().st_size
    result = run("compact", "--url", url, "--all", "--json", FOLDPOINT_GRACE="0")
    assert summary(result)["removed_records"] >= 100
    assert summary(result)["waiting"] == 0
    assert summary(result)["bytes_reclaimed"] > 0
    assert (tmp_path / "store.db").stat().st_size < before
    assert kept(url, "user-1") == 100


def test_for_people_it_ends_with_a_summary(url: str) -> None:
    shown = run("compact", "--url", url, "--all").stdout
    assert "events sealed" in shown
    assert "14" in shown


# -- retention ---------------------------------------------------------------------------------------------------------


def test_rules_on_the_command_line_drop_history(url: str) -> None:
    result = run("compact", "--url", url, "--thread", "user-1", "--keep-last", "7", "--json")
    assert streams(result)["user-1", ""]["checkpoints_dropped"] == 93
    assert kept(url, "user-1") == 7
    assert kept(url, "user-2") == 3


@pytest.mark.parametrize("by_setting", [False, True])
def test_rules_in_a_file_count_by_prefix(url: str, tmp_path: Path, by_setting: bool) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[default]\nkeep_last = 1\n[[threads]]\nprefix = "user-1"\nkeep_last = 50\n')
    if by_setting:
        result = run("compact", "--url", url, "--all", FOLDPOINT_POLICY=str(file))
    else:
        result = run("compact", "--url", url, "--all", "--policy", str(file))
    assert result.exit_code == 0
    assert (kept(url, "user-1"), kept(url, "user-2")) == (50, 1)


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(url: str, tmp_path: Path) -> None:
    before = (tmp_path / "store.db").read_bytes()
    shown = run("compact", "--url", url, "--all", "--keep-last", "2", "--dry-run").stdout
    assert "thread 'user-1'" in shown
    assert "drop 98 checkpoints" in shown
    result = run("compact", "--url", url, "--all", "--keep-last", "2", "--dry-run", "--json")
    assert "drop 98 checkpoints" in str(streams(result)["user-1", ""]["plan"])
    would = summary(result)
    assert would["bytes_removed"] > would["bytes_written"] > 0
    assert (tmp_path / "store.db").read_bytes() == before
    assert kept(url, "user-1") == 100


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "one of --thread T, --prefix P and --all"),
        (["--all", "--thread", "user-1"], 2, "one of --thread T, --prefix P and --all"),
        (["--all", "--policy", "p.toml", "--keep-last", "1"], 2, "either --policy FILE or single rules"),
        (["--all", "--policy", "missing.toml"], 1, "policy file missing.toml"),
        (["--all", "--keep-last", "0"], 1, "keep_last"),
        (["--all", "--keep-newer-than", "soon"], 1, "keep_newer_than"),
        (["--all", "--export-to", "sqlite:///a.db"], 1, "set purge_idle or purge_finished"),
        (["--all", "--rate", "fast"], 1, "rate: expected streams a second"),
        (["--all", "--workers", "0"], 2, "workers"),
        (["--thread", "t", "--resume", "r.json"], 2, "--resume is for"),
        (["--all", "--dry-run", "--resume", "r.json"], 2, "--resume is for"),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, arguments: list[str], code: int, said: str) -> None:
    result = run("compact", "--url", url, *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert sealed(url)["user-1"] == 96


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def damage(tmp_path: Path, thread: str) -> None:
    """Cut an event of a thread short."""
    with sqlite3.connect(tmp_path / "store.db") as database:
        (head,) = database.execute("SELECT value FROM heads WHERE thread = ?", (thread.encode(),)).fetchone()
        (key,) = (
            key
            for (key,) in database.execute("SELECT key FROM log WHERE substr(key, 17, 1) = x'65'")
            if key[:16] in head and key[17:] == (1).to_bytes(6, "big")
        )
        database.execute("UPDATE log SET value = x'0110' WHERE key = ?", (key,))
    database.close()


def test_a_thread_that_is_not_there_is_refused(url: str) -> None:
    result = run("compact", "--url", url, "--thread", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no thread 'nobody' in the store" in result.stderr


def test_a_policy_of_the_environment_is_named(url: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[default]\nkeep_last = 1\n")
    result = run("compact", "--url", url, "--all", "--dry-run", FOLDPOINT_POLICY=str(file))
    assert f"By the policy in {file} (FOLDPOINT_POLICY)" in result.stderr
    result = run("compact", "--url", url, "--all", "--dry-run", "--keep-last", "9", FOLDPOINT_POLICY=str(file))
    assert "policy in" not in result.stderr


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("archive", ["memory:", "banana"])
def test_threads_are_not_exported_to_what_does_not_last(url: str, archive: str, dry: list[str]) -> None:
    result = run("compact", "--url", url, "--all", "--purge-idle", "0s", "--export-to", archive, *dry)
    assert result.exit_code == 1
    assert "expected the URL of a store that lasts" in result.stderr
    assert len(rows(run("threads", "--url", url, "--json"))) == 3


def test_threads_are_not_exported_to_the_store_that_they_leave(url: str) -> None:
    result = run("compact", "--url", url, "--all", "--purge-idle", "0s", "--export-to", url)
    assert result.exit_code == 1
    assert "is the store that is worked on; give the URL of another one" in result.stderr
    assert len(rows(run("threads", "--url", url, "--json"))) == 3


@pytest.mark.parametrize("where", ["missing/job.json", "."])
def test_a_resume_file_that_cannot_be_written_is_refused_before_anything_is_done(
    url: str, tmp_path: Path, where: str
) -> None:
    before = sealed(url)
    result = run("compact", "--url", url, "--all", "--resume", str(tmp_path / where))
    assert result.exit_code == 1
    assert f"resume file {tmp_path / where}" in result.stderr
    assert sealed(url) == before


def test_reseal_wants_a_key(url: str) -> None:
    result = run("compact", "--url", url, "--all", "--reseal")
    assert result.exit_code == 2
    assert "LANGGRAPH_AES_KEY, which is not set" in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_thread_is_named_and_the_others_are_compacted(url: str, tmp_path: Path, workers: str) -> None:
    damage(tmp_path, "user-2")
    result = run("compact", "--url", url, "--all", "--workers", workers)
    assert result.exit_code == 2
    assert "thread 'user-2': record " in result.stderr
    assert "1 thread could not be compacted; 4 other streams were" in result.stderr
    assert sealed(url)["user-1"] == 105
    result = run("compact", "--url", url, "--all", "--json")
    assert result.exit_code == 2
    (failed,) = [json.loads(line) for line in result.stdout.splitlines() if "failure" in line]
    assert failed["thread_id"] == "user-2"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_head_holds_up_no_other_thread(url: str, tmp_path: Path, workers: str) -> None:
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("UPDATE heads SET value = substr(value, 1, length(value) - 3) WHERE thread = ?", (b"user-2",))
    database.close()
    result = run("compact", "--url", url, "--all", "--workers", workers, "--json")
    assert result.exit_code == 2
    told = [json.loads(line) for line in result.stdout.splitlines()]
    [(ill, why)] = [(row["thread_id"], row["failure"]) for row in told if row.get("failure")]
    assert ill == "user-2"
    assert "head: checksum does not match" in why
    assert told[-1]["summary"]["failed"] == 1
    assert told[-1]["summary"]["streams"] == len(told) - 2 > 1


def test_workers_that_cannot_open_a_store_end_the_command(url: str, tmp_path: Path) -> None:
    """The archive is opened where the workers are, not where this process is."""
    archive = f"sqlite:///{tmp_path}/no/such.db"
    result = run(
        "compact", "--url", url, "--all", "--workers", "2", "--json", "--purge-idle", "1s", "--export-to", archive
    )
    assert result.exit_code == 2
    assert "such.db" in result.stderr


def test_an_empty_prefix_is_not_taken_for_all_threads(url: str) -> None:
    result = run("compact", "--url", url, "--prefix", "", "--purge-idle", "1s")
    assert result.exit_code == 2
    assert "for all threads say --all" in result.stderr


def test_what_is_done_for_a_password_in_an_archive_shows_it_nowhere(url: str) -> None:
    archive = "aerospike://user:s3cret@127.0.0.1:1/archive"
    for more in (["--dry-run"], ["--dry-run", "--json"], ["--keep-last", "x"]):
        result = run("compact", "--url", url, "--all", "--purge-idle", "0s", "--export-to", archive, *more)
        assert "s3cret" not in result.output


def test_a_resume_file_that_cannot_be_written_any_more_ends_the_command_in_one_line(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    finish = Journal.finish

    def gone(journal: Journal, share: int) -> None:
        shutil.rmtree(tmp_path / "jobs", ignore_errors=True)
        finish(journal, share)

    monkeypatch.setattr(Journal, "finish", gone)
    result = run("compact", "--url", url, "--all", "--resume", str(tmp_path / "jobs" / "job.json"))
    assert result.exit_code == 1
    assert "job.json: No such file or directory; give another" in result.stderr


def test_an_encrypted_store_wants_its_key(tmp_path: Path) -> None:
    url, key = f"sqlite:///{tmp_path}/store.db", "0123456789abcdef"
    serde = EncryptedSerializer.from_pycryptodome_aes(key=key.encode())
    with FoldpointSaver.from_conn_string(url, serde=serde, compaction="off") as saver:
        fill(saver, "secret", 5)
    result = run("compact", "--url", url, "--all")
    assert result.exit_code == 2
    assert "encrypted" in result.stderr
    assert sealed(url) == {"secret": 0}
    assert run("compact", "--url", url, "--all", LANGGRAPH_AES_KEY=key).exit_code == 0
    assert sealed(url) == {"secret": 5}


# -- stopping and going on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_after_the_present_thread_and_the_next_run_goes_on(
    many: str, tmp_path: Path, workers: str, how: signal.Signals
) -> None:
    journal = tmp_path / "journal.json"
    command = ("compact", "--url", many, "--all", "--json", "--resume", str(journal))
    process = start(*command, "--workers", workers, "--rate", "40")
    lines = lines_of(process)
    for _ in range(10):
        next(lines)
    process.send_signal(how)
    *_, last = lines
    assert process.wait(30) == 128 + how
    assert process.stderr is not None
    assert "run the same command again" in process.stderr.read()
    assert last["summary"]["stopped"] == how.name
    done = last["summary"]["streams"]
    assert 10 <= done < 60
    assert 0 < len(json.loads(journal.read_text())["done"]) < SHARES
    rest = summary(run(*command))
    assert 60 - done <= rest["streams"] < 60
    assert not journal.exists()
    assert set(sealed(many).values()) == {2}


def test_a_second_signal_ends_it_at_once(many: str) -> None:
    process = start("compact", "--url", many, "--all", "--json", "--rate", "0.01")
    next(lines_of(process))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "stopping after the present thread" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 0


def test_workers_end_when_the_command_is_killed(many: str) -> None:
    process = start("compact", "--url", many, "--all", "--json", "--workers", "2", "--rate", "20")
    next(lines_of(process))
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    if not sys.platform.startswith("linux"):
        pytest.skip("looks in /proc")
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_a_resume_file_of_another_job_is_refused(many: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"
    journal.write_text(json.dumps({"job": {"url": "sqlite:///other.db"}, "done": [1]}))
    result = run("compact", "--url", many, "--all", "--resume", str(journal))
    assert result.exit_code == 1
    assert "of another job" in result.stderr
    journal.write_text("{")
    assert "is not one of Foldpoint" in run("compact", "--url", many, "--all", "--resume", str(journal)).stderr
    assert set(sealed(many).values()) == {0}


def test_it_runs_at_a_low_priority(many: str) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("looks in /proc")
    process = start("compact", "--url", many, "--all", "--json", "--workers", "2", "--rate", "20")
    next(lines_of(process))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for pid in (process.pid, *children(process.pid)):
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, own + 10)
    process.kill()
    process.wait()


# -- sweep -------------------------------------------------------------------------------------------------------------


def orphan(tmp_path: Path) -> None:
    """A record of an epoch that no head names."""
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("INSERT INTO log(key, value) VALUES (?, x'00')", (b"x" * 16 + b"e" + bytes(6),))
    database.close()


def test_a_sweep_removes_at_the_second_look(url: str, tmp_path: Path) -> None:
    orphan(tmp_path)
    (first,) = rows(run("sweep", "--url", url, "--json", FOLDPOINT_GRACE="0.1"))
    assert (first["removed"], first["waiting"]) == (0, 1)
    time.sleep(0.2)
    (dry,) = rows(run("sweep", "--url", url, "--json", "--dry-run", FOLDPOINT_GRACE="0.1"))
    (second,) = rows(run("sweep", "--url", url, "--json", FOLDPOINT_GRACE="0.1"))
    assert dry == second
    assert (second["removed"], second["waiting"]) == (1, 0)
    assert kept(url, "user-1") == 100


def test_a_sweep_tells_people_to_come_again(url: str, tmp_path: Path) -> None:
    assert "waiting" not in run("sweep", "--url", url).stderr
    orphan(tmp_path)
    result = run("sweep", "--url", url)
    assert "What is waiting goes with a sweep in 600 seconds or later." in result.stderr


def test_reseal_changes_the_key_of_a_store(tmp_path: Path) -> None:
    url, old, new = f"sqlite:///{tmp_path}/sealed.db", "o" * 16, "n" * 16
    with FoldpointSaver.from_conn_string(
        url, serde=EncryptedSerializer.from_pycryptodome_aes(key=old.encode())
    ) as saver:
        fill(saver, "user-1", 20)
    keys = {"LANGGRAPH_AES_KEY": new, "FOLDPOINT_PREVIOUS_AES_KEY": old, "FOLDPOINT_GRACE": "0"}
    result = run("compact", "--url", url, "--all", "--reseal", "--json", **keys)
    assert result.exit_code == 0, result.output
    assert (summary(result)["streams"], summary(result)["waiting"]) == (1, 0)
    assert run("verify", "--url", url, LANGGRAPH_AES_KEY=new).exit_code == 0
    for environment in ({"LANGGRAPH_AES_KEY": old}, {}):
        result = run("verify", "--url", url, "--repair", **environment)
        assert result.exit_code == 2
        assert "Checked 1 stream, 1 of them not to be opened: give the key that it was sealed with" in result.stderr
        assert "damaged:" not in result.stderr
    result = run("compact", "--url", url, "--all", LANGGRAPH_AES_KEY=new, FOLDPOINT_PREVIOUS_AES_KEY="short")
    assert result.exit_code == 1
    assert "FOLDPOINT_PREVIOUS_AES_KEY must be 16, 24 or 32 bytes long, and has 5" in result.stderr
    assert run("compact", "--url", url, "--all", "--reseal", "--dry-run").exit_code == 2
