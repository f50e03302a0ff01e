"""The value of a stream's head: positions only, of constant size."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

from foldpoint.codecs.segment import MAX_INDEX, MAX_SEQ, SnapshotRef, pack_ref, unpack_ref
from foldpoint.codecs.wire import Malformed, pack, unpack, whole

LEVELS = 3
"""Segments are merged upward from level 1 to this one."""
_MAX_WINDOW = 1024
_MAX_SNAPSHOTS = (1 << 32) - 1
_MOST = (1 << 63) - 1
_EPOCH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Extent:
    """The records of an epoch up to a moment, as the last sequence number and counts: of snapshots, and of the segments
    of each level.
    """

    sealed: int = 0
    snapshots: int = 0
    segments: tuple[int, ...] = (0,) * LEVELS


@dataclass(frozen=True, slots=True)
class Level:
    """The merged segments of one level.

    count: how many were written; reach: how many segments of the level below they stand for. size: their bytes;
    replaced: the bytes of the segments they stand for.
    """

    count: int = 0
    reach: int = 0
    size: int = 0
    replaced: int = 0


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
    of level 1 were written, of `segment_bytes` bytes; merged: levels 2 and up. snapshots: numbers taken so far.
    snapshot: the one that latest is read from, of `snapshot_bytes` bytes (while there is none: what one would have
    weighed when that was last looked at); logged: bytes of segments since. kept / kept_logged: the last snapshot that
    stays for reading history, and bytes of segments since. cleaned: what is removed of superseded records; mark:
    what was superseded at `marked_at` and goes next. emptied: events up to this number have no content any more, and
    may still hold their numbers. ttl: seconds, as of `extended_at`. Times are seconds since 1970.
    """

    thread_id: str
    namespace: str
    epoch: bytes
    window: int
    deleted: bool = False
    sealed: int = 0
    segments: int = 0
    segment_bytes: int = 0
    merged: tuple[Level, ...] = (Level(),) * (LEVELS - 1)
    snapshots: int = 0
    snapshot: SnapshotRef | None = None
    snapshot_bytes: int = 0
    logged: int = 0
    kept: SnapshotRef | None = None
    kept_logged: int = 0
    cleaned: Extent = field(default_factory=Extent)
    mark: Extent = field(default_factory=Extent)
    marked_at: int = 0
    emptied: int = 0
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
        """Seconds that the head has to live as of `now`: 1.25 times the TTL after the last extension.

        Uses less than a quarter of the TTL after an extension extend nothing; so it lives for the TTL after those too.
        Where `now` says that it is over, or not begun, clocks differ: the head is there, so it lives from now on.
        """
        if self.ttl is None:
            return None
        longest = 1.25 * self.ttl
        left = self.extended_at + longest - now
        return ceil(left if 0 < left <= longest else longest)

    def outlasts(self, now: float) -> bool:
        """Whether the head is sure to be there at `now`, without looking."""
        return self.ttl is None or now < self.extended_at + self.ttl

    @property
    def extent(self) -> Extent:
        return Extent(self.sealed, self.snapshots, (self.segments, *(level.count for level in self.merged)))

    @property
    def superseded(self) -> Extent:
        """What nobody who reads this head needs: sealed events, earlier snapshots, segments that were merged."""
        merged = (*(level.reach for level in self.merged), 0)
        return Extent(self.sealed, self.snapshot.number - 1 if self.snapshot else 0, merged)

    @property
    def log_bytes(self) -> int:
        """Stored bytes of the sealed log."""
        return self.segment_bytes + sum(level.size - level.replaced for level in self.merged)


def _pack_extent(extent: Extent) -> list[Any]:
    return [extent.sealed, extent.snapshots, list(extent.segments)]


def _unpack_extent(fields: list[Any]) -> Extent:
    sealed, snapshots, segments = fields
    if len(segments) != LEVELS:
        raise Malformed(f"segments of {len(segments)} levels")
    counts = tuple(whole(count, MAX_INDEX) for count in segments)
    return Extent(whole(sealed, MAX_SEQ), whole(snapshots, _MAX_SNAPSHOTS), counts)


def _unpack_levels(fields: list[Any]) -> tuple[Level, ...]:
    if len(fields) != LEVELS - 1:
        raise Malformed(f"{len(fields)} merged levels")
    return tuple(
        Level(whole(count, MAX_INDEX), whole(reach, MAX_INDEX), whole(size, _MOST), whole(replaced, _MOST))
        for count, reach, size, replaced in fields
    )


def _unpack_dead(fields: list[Any]) -> DeadEpoch:
    epoch, cleaned, extent, since = fields
    return DeadEpoch(_epoch(epoch), _unpack_extent(cleaned), _unpack_extent(extent), whole(since, _MOST))


def _epoch(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != _EPOCH_BYTES:
        raise Malformed(f"epoch {value!r:.40}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Malformed(f"{value!r:.40} for a name")
    return value


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
            head.segment_bytes,
            [[level.count, level.reach, level.size, level.replaced] for level in head.merged],
            head.snapshots,
            pack_ref(head.snapshot),
            head.snapshot_bytes,
            head.logged,
            pack_ref(head.kept),
            head.kept_logged,
            _pack_extent(head.cleaned),
            _pack_extent(head.mark),
            head.marked_at,
            head.emptied,
            [[d.epoch, _pack_extent(d.cleaned), _pack_extent(d.extent), d.since] for d in head.dead],
            head.ttl,
            head.extended_at,
        ]
    )


def decode_head(data: bytes) -> Head:
    """Raises Malformed."""
    try:
        fields = unpack(data)
        thread_id, namespace, epoch, window, deleted, sealed, segments, segment_bytes, merged = fields[:9]
        snapshots, snapshot, snapshot_bytes, logged, kept, kept_logged = fields[9:15]
        cleaned, mark, marked_at, emptied, dead, ttl, extended_at = fields[15:]
        return Head(
            thread_id=_text(thread_id),
            namespace=_text(namespace),
            epoch=_epoch(epoch),
            window=whole(window, _MAX_WINDOW),
            deleted=bool(deleted),
            sealed=whole(sealed, MAX_SEQ),
            segments=whole(segments, MAX_INDEX),
            segment_bytes=whole(segment_bytes, _MOST),
            merged=_unpack_levels(merged),
            snapshots=whole(snapshots, _MAX_SNAPSHOTS),
            snapshot=unpack_ref(snapshot),
            snapshot_bytes=whole(snapshot_bytes, _MOST),
            logged=whole(logged, _MOST),
            kept=unpack_ref(kept),
            kept_logged=whole(kept_logged, _MOST),
            cleaned=_unpack_extent(cleaned),
            mark=_unpack_extent(mark),
            marked_at=whole(marked_at, _MOST),
            emptied=whole(emptied, MAX_SEQ),
            dead=tuple(map(_unpack_dead, dead)),
            ttl=None if ttl is None else whole(ttl, _MOST),
            extended_at=whole(extended_at, _MOST),
        )
    except (TypeError, ValueError, LookupError) as error:
        raise Malformed(f"not a head: {error!r}") from error
