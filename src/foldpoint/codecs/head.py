"""The value of a stream's head: positions only, of constant size."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from foldpoint.codecs.segment import SnapshotRef, pack_ref, unpack_ref
from foldpoint.codecs.wire import Malformed, pack, unpack


@dataclass(frozen=True, slots=True)
class Extent:
    """The records of an epoch up to a moment, as the last sequence number and the counts of the rest."""

    sealed: int = 0
    segments: int = 0
    snapshots: int = 0


@dataclass(frozen=True, slots=True)
class DeadEpoch:
    """An epoch that was left at `since` (seconds since 1970): its records up to `cleaned` are removed, the rest not."""

    epoch: bytes
    cleaned: Extent
    extent: Extent
    since: int


@dataclass(frozen=True, slots=True)
class Head:
    """Positions of one stream.

    window: how many sequence numbers after `sealed` may be taken; all readers and writers must agree on it, so it is
    fixed when an epoch begins. sealed: the last sequence number that lies in a segment; 0 if none. segments: how many
    were written. snapshots: numbers taken so far. snapshot: the one that latest is read from, of `snapshot_bytes`
    bytes; logged: bytes of segments since. kept / kept_logged: the last snapshot that stays for reading history, and
    bytes of segments since. cleaned: what is removed of superseded records; mark: what was superseded at `marked_at`
    and goes next. ttl: seconds, as of `extended_at`. Times are seconds since 1970.
    """

    thread_id: str
    namespace: str
    epoch: bytes
    window: int
    deleted: bool = False
    sealed: int = 0
    segments: int = 0
    snapshots: int = 0
    snapshot: SnapshotRef | None = None
    snapshot_bytes: int = 0
    logged: int = 0
    kept: SnapshotRef | None = None
    kept_logged: int = 0
    cleaned: Extent = field(default_factory=Extent)
    mark: Extent = field(default_factory=Extent)
    marked_at: int = 0
    dead: tuple[DeadEpoch, ...] = ()
    ttl: int | None = None
    extended_at: int = 0

    @property
    def slots(self) -> range:
        """The sequence numbers of the window."""
        return range(self.sealed + 1, self.sealed + self.window + 1)

    @property
    def record_ttl(self) -> int | None:
        """Seconds that records other than the head live: they must outlive it."""
        return None if self.ttl is None else 2 * self.ttl

    def expires_in(self, now: float) -> int | None:
        """Seconds that the head has to live as of `now`: 1.25 times the TTL after the last extension, whoever swaps it.

        Uses less than a quarter of the TTL after an extension extend nothing; so it lives for the TTL after those too.
        """
        return None if self.ttl is None else max(1, ceil(self.extended_at + 1.25 * self.ttl - now))

    def outlasts(self, now: float) -> bool:
        """Whether the head is sure to be there at `now`, without looking."""
        return self.ttl is None or now < self.extended_at + self.ttl

    @property
    def extent(self) -> Extent:
        return Extent(self.sealed, self.segments, self.snapshots)


def _pack_extent(extent: Extent) -> list[int]:
    return [extent.sealed, extent.segments, extent.snapshots]


def encode_head(head: Head) -> bytes:
    return pack(
        [
            head.thread_id,
            head.namespace,
            head.epoch,
            head.window,
            head.deleted,
            head.sealed,
            head.segments,
            head.snapshots,
            pack_ref(head.snapshot),
            head.snapshot_bytes,
            head.logged,
            pack_ref(head.kept),
            head.kept_logged,
            _pack_extent(head.cleaned),
            _pack_extent(head.mark),
            head.marked_at,
            [[d.epoch, _pack_extent(d.cleaned), _pack_extent(d.extent), d.since] for d in head.dead],
            head.ttl,
            head.extended_at,
        ]
    )


def decode_head(data: bytes) -> Head:
    """Raises Malformed."""
    try:
        fields = unpack(data)
        thread_id, namespace, epoch, window, deleted, sealed, segments, snapshots = fields[:8]
        snapshot, snapshot_bytes, logged, kept, kept_logged = fields[8:13]
        cleaned, mark, marked_at, dead, ttl, extended_at = fields[13:]
        return Head(
            thread_id=thread_id,
            namespace=namespace,
            epoch=epoch,
            window=window,
            deleted=deleted,
            sealed=sealed,
            segments=segments,
            snapshots=snapshots,
            snapshot=unpack_ref(snapshot),
            snapshot_bytes=snapshot_bytes,
            logged=logged,
            kept=unpack_ref(kept),
            kept_logged=kept_logged,
            cleaned=Extent(*cleaned),
            mark=Extent(*mark),
            marked_at=marked_at,
            dead=tuple(DeadEpoch(d[0], Extent(*d[1]), Extent(*d[2]), d[3]) for d in dead),
            ttl=ttl,
            extended_at=extended_at,
        )
    except (TypeError, ValueError, IndexError) as error:
        raise Malformed(f"not a head: {error!r}") from error
