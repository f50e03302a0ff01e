"""What a fork of the process must not meet: open SQLite files, and locks held by threads that the child does not have.

A child would rely on locks of the file that it does not have, and wait for ever for those of threads.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Something with locks or threads of its own, which it makes anew in the child."""

    def after_fork_in_child(self) -> None: ...


class Closable(Renewable, Protocol):
    """Something that must not be open while the process forks, and what it does about it."""

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...


class Forks:
    """Sees to both, for as long as the objects live."""

    def __init__(self) -> None:
        self._files: WeakSet[Closable] = WeakSet()
        self._others: WeakSet[Renewable] = WeakSet()
        self._lock = threading.Lock()
        self._held: list[Closable] = []

    def close_for(self, file: Closable) -> None:
        with self._lock:
            self._files.add(file)

    def renew_after(self, one: Renewable) -> None:
        with self._lock:
            self._others.add(one)

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
        for one in (*self._held, *self._others):
            one.after_fork_in_child()
        self._release()

    def _release(self) -> None:
        self._held = []
        if self._lock.locked():
            self._lock.release()


forks = Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=forks.before, after_in_parent=forks.after_in_parent, after_in_child=forks.after_in_child)
