"""Where threads are copied to before they are deleted: stores beside the one that is compacted."""

from __future__ import annotations

from threading import Lock
from types import TracebackType

from foldpoint.engine.engine import Engine
from foldpoint.engine.url import open_store


class Archives:
    """Opens each store once, when it is first asked for; sealed like `engine`. May be shared between threads.

    Closes the stores when its `with` block ends.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._opened: dict[str, Engine] = {}
        self._lock = Lock()

    def open(self, url: str) -> Engine:
        """Raises ValueError for a malformed URL, StoreUnavailable where the store cannot be opened."""
        with self._lock:
            if url not in self._opened:
                self._opened[url] = self._engine.on(open_store(url, self._engine.settings))
            return self._opened[url]

    def __enter__(self) -> Archives:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self._opened.values():
            engine.store.close()
