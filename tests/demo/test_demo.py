"""`python -m demo`, run as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "turns", "messages", "checkpoints", "bytes_stored", "full_state_bytes", "times_smaller", "resume_ms",
    "put_ms_first", "put_ms_last", "continued_from_messages", "continued_to_messages", "forked_from_messages",
    "branch_messages", "history_checkpoints",
}  # fmt: skip


def demo(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_json_prints_the_figures_and_nothing_else() -> None:
    done = demo("--turns", "4", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures.keys() == KEYS
    assert (figures["turns"], figures["messages"], figures["checkpoints"]) == (4, 12, 16)
    assert (figures["continued_from_messages"], figures["continued_to_messages"]) == (12, 21)
    assert (figures["forked_from_messages"], figures["branch_messages"]) == (6, 12)
    assert figures["history_checkpoints"] == 16 + 12 + 7  # run, continued, forked
    assert figures["full_state_bytes"] > 0


def test_a_kept_thread_is_continued_and_not_overwritten(tmp_path: Path) -> None:
    db = tmp_path / "thread.db"
    assert demo("--turns", "2", "--db", db).returncode == 0
    again = demo("--turns", "2", "--db", db)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    continued = demo("--continue-from", db, "--turns", "1", "--json")
    assert continued.returncode == 0, continued.stderr
    figures = json.loads(continued.stdout)
    assert (figures["messages_found"], figures["messages_after"]) == (9, 12)


def test_a_thread_is_not_continued_with_another_script(tmp_path: Path) -> None:
    db = tmp_path / "thread.db"
    assert demo("--turns", "2", "--db", db).returncode == 0
    other = demo("--continue-from", db, "--seed", "2")
    assert other.returncode == 2
    assert "has another script" in other.stderr


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (["--trace", "missing.jsonl"], "Cannot read the trace"),
        (["--continue-from", "missing.db"], "There is no file missing.db"),
        (["--db", "missing/thread.db"], "make it first"),
        (["--db", "a.db", "--continue-from", "b.db"], "give only one"),
    ],
)
def test_an_error_says_what_to_do(args: list[str], advice: str) -> None:
    done = demo(*args)
    assert done.returncode == 2
    assert advice in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
