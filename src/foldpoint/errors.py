"""Every error Foldpoint raises on its own account.

Caller mistakes (a missing thread_id, an unknown strategy, a malformed URL) are plain `ValueError`s.
Errors of the user's serializer pass through unchanged.
"""

from __future__ import annotations


class FoldpointError(Exception):
    """Base class of everything below."""


def said(error: FoldpointError) -> str:
    """What an error says, with its notes, in one line."""
    return "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])


class RecordError(FoldpointError):
    """A stored record cannot be used. `key` is the record's key, in hex in the message; a note names the thread."""

    def __init__(self, key: bytes, reason: str) -> None:
        super().__init__(f"record {key.hex()}: {reason}")
        self.key = key
        self.reason = reason


class CorruptRecord(RecordError):
    """The record is truncated, altered, at the wrong key, missing where the log needs it, or does not decrypt."""


class LostRecord(CorruptRecord):
    """The log needs a record that the store does not hold, and it cannot be restored from what it was made of."""


class MisfitRecord(LostRecord):
    """Something else stands in the place of a record that the store has lost.

    A sealer held up over a crash put it, or a server was killed while it wrote the record.
    """


class StrayRecord(CorruptRecord):
    """No head names the record and it does not fit the log: a crash took the heads and events that it was made with."""


class SealedRecord(CorruptRecord):
    """The record is whole, and was sealed with another key than the one given, with none, or altered by somebody."""


class UnsupportedFormat(RecordError):
    """The record was written by a newer (or foreign) format version; upgrade Foldpoint to read it."""


class StoreUnavailable(FoldpointError):
    """The store cannot serve requests now; what was stored before is intact and a later call may succeed."""


class StoreBusy(StoreUnavailable):
    """A lock or a hot record was held longer than the store's timeout."""


class StoreFull(StoreUnavailable):
    """No room is left for writing (disk or namespace)."""


class StoreReadOnly(StoreUnavailable):
    """The store may be read but not written."""


class StoreForbidden(StoreUnavailable):
    """The store refuses the user: unknown, with a wrong password, or without a role that the call needs."""


class StoreMismatch(StoreUnavailable):
    """What the URL points at is not a Foldpoint store (a foreign file, a wrong namespace, a newer schema)."""


class RecordTooBig(StoreUnavailable):
    """The server refused a record over its own size limit, although it fits the limit it reported."""


class Conflict(FoldpointError):
    """Another writer kept winning the race for a stream's head until the retries ran out; call again."""
