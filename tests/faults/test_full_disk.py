"""A disk that is full, at whichever write: what was stored stays, and work goes on when there is room."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
SCENES = ("a put that seals", "large values", "upkeep", "keep the last", "drop a run", "delete", "copy")


def command(disk: str, directory: Path, scene: str) -> list[str]:
    return [sys.executable, "-m", "faults.full_disk", disk, str(directory), scene]


def on_a_small_disk(directory: Path, scene: str) -> list[str]:
    """With a file system of 2 MB in the directory, which goes with the process."""
    mounted = f'mount -t tmpfs -o size=2m small "{directory}" && exec "$@"'
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", mounted, "sh", *command("small", directory, scene)]


def play(line: list[str]) -> tuple[int, int]:
    """How many cases there were, and in how many a call was refused."""
    path = ":".join([str(TESTS), str(TESTS / "engine"), *sys.path])
    done = subprocess.run(line, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    cases, refused = map(int, done.stdout.split())
    return cases, refused


def may_mount(directory: Path) -> bool:
    line = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "small", str(directory)]
    try:
        return subprocess.run(line, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def played(lines: list[list[str]]) -> tuple[int, int]:
    with ThreadPoolExecutor(4) as pool:
        cases, refused = zip(*pool.map(play, lines), strict=True)
    return sum(cases), sum(refused)


def directory(within: Path, scene: str) -> Path:
    made = within / scene
    made.mkdir()
    return made


def test_a_full_disk_at_every_write_loses_nothing_and_work_goes_on_when_there_is_room(tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("no file system can be mounted here: the test below stands for this one")
    cases, refused = played([on_a_small_disk(directory(tmp_path, scene), scene) for scene in SCENES])
    assert cases > 300
    assert refused > 0.9 * cases


def test_a_limit_on_files_at_every_write_loses_nothing_and_work_goes_on_without_it(tmp_path: Path) -> None:
    scenes = SCENES[:3]
    cases, refused = played([command("limited", directory(tmp_path, scene), scene) for scene in scenes])
    assert cases > 150
    assert refused > 0.9 * cases
