"""The store in one SQLite file.

Reading order: `store` (the verbs), `file` (who may write when), `pool` (connections), `statements` (waiting for locks),
`schema`, `errors`.
"""

from foldpoint.engine.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
