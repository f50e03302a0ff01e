"""Time that tests move, and stores that do something at a chosen moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from foldpoint.engine.records import HeadRecord, RecordStore
from torture.clock import MovingClock

__all__ = ["Interrupted", "MovingClock"]


class Interrupted:
    """Delegates to `inner`, and calls `before[verb]` or `after[verb]` around the next call of a verb, once."""

    def __init__(self, inner: RecordStore) -> None:
        self._inner = inner
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}
        self.deny_swap = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._around(name):
                return found(*args, **kwargs)

        return call

    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        with self._around("create"):
            return self._inner.create(records, ttl=ttl)

    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        """With `deny_swap` the next one is stored, and the answer is that of a second try after a lost answer."""
        with self._around("swap"):
            stored = self._inner.swap(head, expected=expected, ttl=ttl)
        denied, self.deny_swap = self.deny_swap, False
        return stored and not denied

    @contextmanager
    def _around(self, verb: str) -> Iterator[None]:
        if action := self.before.pop(verb, None):
            action()
        yield
        if action := self.after.pop(verb, None):
            action()
