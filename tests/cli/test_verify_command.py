"""`foldpoint verify` as a person runs it; what it finds is told in tests/compaction."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import fill, rows, run

from foldpoint import FoldpointSaver


@pytest.mark.parametrize(
    ("threads", "said"), [((), "Checked 4 streams"), (("--thread", "user-2"), "Checked 1 stream,")], ids=["all", "one"]
)
def test_it_says_how_many_streams_it_looked_at(url: str, threads: tuple[str, ...], said: str) -> None:
    result = run("verify", "--url", url, *threads)
    assert result.exit_code == 0, result.output
    assert said in result.stderr


def test_what_cannot_be_repaired_goes_into_quarantine_if_that_is_asked_for(damaged: str, tmp_path: Path) -> None:
    lost = f"sqlite:///{tmp_path}/lost.db"
    assert run("verify", "--url", damaged, "--repair").exit_code == 2
    result = run("verify", "--url", damaged, "--repair", "--quarantine", lost)
    assert result.exit_code == 0, result.output
    assert "thread 'ill', namespace '' goes on with 3 checkpoints" in result.stdout
    assert "lost with the numbers: 4 to 5" in result.stdout
    assert run("verify", "--url", damaged).exit_code == 0
    assert run("verify", "--url", lost).exit_code == 2
    with FoldpointSaver.from_conn_string(damaged) as saver:
        fill(saver, "ill", 8)
        assert len(list(saver.list({"configurable": {"thread_id": "ill"}}))) == 8


def test_programs_are_told_too(damaged: str, tmp_path: Path) -> None:
    told = rows(run("verify", "--url", damaged, "--repair", "--quarantine", f"sqlite:///{tmp_path}/lost.db", "--json"))
    [ill] = [one for one in told if one["findings"]]
    assert ill["quarantine"] == {
        "refused": "",
        "checkpoints": 3,
        "left_out": [],
        "without_writes": [],
        "unread": [[4, 5]],
    }
    assert [one["quarantined"] for one in ill["findings"]] == [True]


def test_what_stays_as_it_is_is_said_and_is_no_success(damaged: str, tmp_path: Path) -> None:
    lost = f"sqlite:///{tmp_path}/lost.db"
    with FoldpointSaver.from_conn_string(lost) as saver:
        fill(saver, "ill", 1)
    result = run("verify", "--url", damaged, "--repair", "--quarantine", lost)
    assert result.exit_code == 2
    assert "thread 'ill', namespace '' stays as it is: the quarantine holds it as it once was" in result.stderr


def test_a_quarantine_that_does_not_outlive_the_command_is_refused(damaged: str) -> None:
    result = run("verify", "--url", damaged, "--repair", "--quarantine", "memory:")
    assert result.exit_code == 1
    assert "expected the URL of a store that lasts" in result.stderr
    assert run("verify", "--url", damaged).exit_code == 2


def test_quarantine_needs_repair(damaged: str, tmp_path: Path) -> None:
    result = run("verify", "--url", damaged, "--quarantine", f"sqlite:///{tmp_path}/lost.db")
    assert result.exit_code == 2
    assert "give --repair too" in result.stderr
    assert not (tmp_path / "lost.db").exists()


def test_what_stays_damaged_is_counted_and_what_to_do_is_said(damaged: str) -> None:
    result = run("verify", "--url", damaged)
    assert result.exit_code == 2
    assert "Checked 2 streams, 1 of them damaged: try --repair" in result.stderr
    result = run("verify", "--url", damaged, "--repair")
    assert "1 of them damaged: what stays so is put out of the way by --quarantine URL" in result.stderr


def test_a_thread_that_is_not_there_is_refused_and_makes_no_quarantine(damaged: str, tmp_path: Path) -> None:
    lost = tmp_path / "lost.db"
    result = run("verify", "--url", damaged, "--thread", "i11", "--repair", "--quarantine", f"sqlite:///{lost}")
    assert result.exit_code == 1
    assert "there is no thread 'i11' in the store" in result.stderr
    assert not lost.exists()


def test_a_store_is_not_its_own_quarantine(damaged: str) -> None:
    result = run("verify", "--url", damaged, "--repair", "--quarantine", damaged)
    assert result.exit_code == 1
    assert "give the URL of another one" in result.stderr


def test_the_age_of_others_is_told_beside_a_damaged_thread(damaged: str) -> None:
    result = run("threads", "--url", damaged, "--age", "--json")
    assert [row["thread_id"] for row in rows(result)] == ["ill", "well"]
    assert "foldpoint verify --thread ill`" in result.stderr
    assert run("stats", "--url", damaged, "--age").exit_code == 0
