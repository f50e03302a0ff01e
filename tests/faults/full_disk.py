"""A scene on a SQLite file whose disk is full from the k-th write on, until a call was refused: for every k.

A program of its own, as it needs a small file system or a limit on what its process may write:
`python -m faults.full_disk DISK DIRECTORY SCENE` prints how many cases there were, and how many were refused.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from faults.scenes import SCENES, Step, World, check, check_any, engine_on
from moving import MovingClock

from foldpoint import Engine
from foldpoint.compaction.verify import verify
from foldpoint.engine.sqlite import SqliteStore
from foldpoint.errors import StoreFull

WRITES = ("create", "create_all", "swap", "extend", "remove_many", "empty_many", "reclaim")


class Disk(Protocol):
    """Where a directory lies. room: bytes."""

    def fill(self, room: int) -> None:
        """Leave about so much for writing."""
        ...

    def free(self) -> None: ...


class SmallDisk:
    """A file system that a file of no use can fill: REQUIRES one that is small."""

    def __init__(self, directory: Path) -> None:
        self._ballast = directory / "ballast"

    def fill(self, room: int) -> None:
        with self._ballast.open("wb") as file:
            found = os.statvfs(self._ballast)
            os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize)
            file.truncate(max(0, file.seek(0, os.SEEK_END) - room))

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


class Limited:
    """Files of this process may not grow."""

    def __init__(self, directory: Path) -> None:
        self._growing = directory / "store.db-wal"
        _, self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, room: int) -> None:
        size = self._growing.stat().st_size if self._growing.exists() else 4096
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, self._hard))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))


DISKS: dict[str, Callable[[Path], Disk]] = {"small": SmallDisk, "limited": Limited}
ROOMS = {0: False, 6000: True}
"""With some room a transaction fails in the midst. Whether another process has the file open: only then it can be read
while there is no room for the index of its write-ahead log.
"""


class Filling:
    """A store whose disk is full when the k-th write comes. fired: whether it came."""

    def __init__(self, inner: SqliteStore, disk: Disk, at: int, room: int) -> None:
        self._inner = inner
        self._disk = disk
        self._left = at
        self._room = room
        self.fired = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._counted(found) if name in WRITES else found

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                self._disk.fill(self._room)
                self.fired = True
            self._left -= 1
            return call(*args, **kwargs)

        return counted


def play(scene: str, path: Path, disk: Disk, at: int, room: int) -> tuple[bool, int]:
    """Go through the scene, and on when there is room again: whether the disk was filled, how often it was noticed."""
    clock, refused = MovingClock(), 0
    store, other = SqliteStore(path, clock=clock.now), None
    if ROOMS[room]:
        other = SqliteStore(path, clock=clock.now)
    filling = Filling(store, disk, at, room)
    engine, world = engine_on(filling, clock), World()  # type: ignore[arg-type]
    try:
        for step in SCENES[scene](clock):
            try:
                step.do(engine)
            except StoreFull:
                refused += 1
                assert filling.fired
                if other is not None:
                    check_either(engine_on(other, clock), world, step)
                disk.free()
                step.do(engine)
                check(engine, step.change(world))
            world = step.change(world)
    finally:
        disk.free()
        store.close()
        if other is not None:
            other.close()
    store = SqliteStore(path, clock=clock.now)
    check(engine_on(store, clock), world)
    assert [one for one in verify(engine_on(store, clock)) if one.findings] == []
    store.close()
    for left in path.parent.iterdir():
        left.unlink()
    return filling.fired, refused


def check_either(looking: Engine, before: World, step: Step) -> None:
    """While the disk is full, another process that looks finds the step wholly done or not at all."""
    check_any(looking, step.outcomes(before))


def main(disk: str, directory: str, scene: str) -> None:
    cases = refusals = 0
    where = DISKS[disk](Path(directory))
    for room in ROOMS:
        for at in count():
            fired, refused = play(scene, Path(directory) / "store.db", where, at, room)
            if not fired:
                break
            cases += 1
            refusals += refused
    print(cases, refusals)


if __name__ == "__main__":
    main(*sys.argv[1:])
