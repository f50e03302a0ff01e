"""Stores beside the one that is worked on: what threads are copied to before they are deleted, and quarantines."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from threading import Lock
from types import TracebackType

from foldpoint.engine.engine import Engine
from foldpoint.engine.records import RecordStore
from foldpoint.engine.url import LASTING, open_store, without_secrets

_PROBE = b"foldpoint probes"
"""Stands where other keys have their epoch."""


class Archives:
    """Opens each store once, when it is first asked for; sealed like `engine`. May be shared between threads.

    Closes the stores when its `with` block ends.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._opened: dict[str, Engine] = {}
        self._lock = Lock()

    def open(self, url: str) -> Engine:
        """Raises ValueError for a malformed URL, of a store that does not last, or of `engine`'s own store,
        StoreUnavailable where the store cannot be opened.
        """
        with self._lock:
            if url not in self._opened:
                self._opened[url] = self._engine.on(self._another(url))
            return self._opened[url]

    def _another(self, url: str) -> RecordStore:
        if not url.startswith(LASTING):
            raise ValueError(
                f"expected the URL of a store that lasts, {' or '.join(LASTING)}…, got {without_secrets(url)!r}"
            )
        with ExitStack() as unless_kept:
            store = unless_kept.enter_context(closing(open_store(url, self._engine.settings)))
            if is_same(self._engine.store, store):
                raise ValueError(f"{without_secrets(url)} is the store that is worked on; give the URL of another one")
            unless_kept.pop_all()
            return store

    def __enter__(self) -> Archives:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self._opened.values():
            engine.store.close()


def is_same(store: RecordStore, other: RecordStore) -> bool:
    """Whether both are one and the same, by whatever names. Leaves nothing in either."""
    key = _PROBE + os.urandom(16)
    other.create([(key, b"probe")], ttl=None)
    try:
        return store.get_many([key]) != [None]
    finally:
        other.remove_many([key])
