"""No SQLite file is open while the process forks: a child would rely on locks that it does not have."""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Something that must not be open while the process forks, and what it does about it."""

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


class Forks:
    """Sees to it that no file of ours is open in SQLite while this process forks."""

    def __init__(self) -> None:
        self._files: WeakSet[Forked] = WeakSet()
        self._lock = threading.Lock()
        self._held: list[Forked] = []

    def watch(self, file: Forked) -> None:
        with self._lock:
            self._files.add(file)

    def before(self) -> None:
        self._lock.acquire()  # until the fork is over: forks in two threads take their turns
        for file in list(self._files):
            self._held.append(file)
            file.before_fork()

    def after_in_parent(self) -> None:
        for file in self._held:
            file.after_fork_in_parent()
        self._release()

    def after_in_child(self) -> None:
        for file in self._held:
            file.after_fork_in_child()
        self._release()

    def _release(self) -> None:
        self._held = []
        if self._lock.locked():
            self._lock.release()


forks = Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=forks.before, after_in_parent=forks.after_in_parent, after_in_child=forks.after_in_child)
