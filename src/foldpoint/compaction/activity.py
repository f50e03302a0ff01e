"""Whether a whole thread is over, from what its newest checkpoints say. Pure.

Nothing is deserialized and no graph is known, so this knows less than LangGraph does. Where it is not sure, a thread
is not over.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from foldpoint.codecs.header import id_micros
from foldpoint.codecs.model import Header, Version, Write
from foldpoint.compaction.policy import Retention
from foldpoint.compaction.selection import made_at
from foldpoint.engine.fold import Entry
from foldpoint.engine.view import View

_RESUME = "__resume__"
_START = "__start__"
_TASKS = "__pregel_tasks"
_EMPTY_LIST = b"\x90"
_FIRST_KNOWN = 4
"""The checkpoint version from which on triggers have the names that are looked for here."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one stream of a thread stands. used_at: by its latest checkpoint, or what was answered to its interrupt;
    None if that is not known.
    """

    used_at: float | None
    finished: bool

    @classmethod
    def of(cls, view: View) -> Standing:
        latest = view.slice.latest()
        if latest is not None:
            return cls(_used_at(view, latest.folded.header), is_finished(latest))
        waiting = view.slice.orphans()  # checkpoints that have only writes
        times = [id_micros(checkpoint_id) / 1e6 for checkpoint_id in waiting]
        return cls(max([view.head.extended_at, *times]) if all(times) else None, finished=not waiting)


def _used_at(view: View, latest: Header) -> float | None:
    """Once an interrupt was answered the run goes on, and may have put no checkpoint yet. When that was is not logged,
    but it was before that part of the log was marked as superseded.
    """
    made = made_at(latest)
    answers = [seq for seq, writes in view.slice.writes_events(latest.id) if any(map(_is_answer, writes))]
    if made is None or not answers:
        return made
    return max(made, view.head.marked_at) if max(answers) <= view.head.mark.sealed else None


def overdue(retention: Retention, root: Standing | None, streams: Collection[Standing], now: float) -> str | None:
    """Why a thread is to be deleted; None if it stays. root: None where the thread's root is deleted already."""
    known = [stream.used_at for stream in streams if stream.used_at is not None]
    if not known or len(known) < len(streams):
        return None
    idle = now - max(known)
    if retention.purge_idle is not None and idle > retention.purge_idle.total_seconds():
        return f"idle for {idle / 86_400:.1f} days"
    finished = root is None or root.finished
    if finished and retention.purge_finished is not None and idle > retention.purge_finished.total_seconds():
        return f"finished {idle / 86_400:.1f} days ago"
    return None


def _is_answer(write: Write) -> bool:
    return write.channel == _RESUME


def is_finished(root: Entry) -> bool:
    """Whether a StateGraph has no next task after its root's latest checkpoint.

    It has none if no Send waits in `__pregel_tasks`, no write is pending but an answer that came too late, and of the
    channels that trigger nodes none is both stored and newer than its node has seen. Which those are is known of a
    StateGraph alone: it has a node `__start__`, and its nodes are triggered by `__start__`, `branch:to:NODE` and
    `join:…:NODE`. A stored join may be empty; it triggers nothing unless the last step updated it.
    """
    header = root.folded.header
    if header.v < _FIRST_KNOWN or _START not in header.versions_seen or not all(map(_is_answer, root.writes())):
        return False
    sends = root.value(_TASKS)
    if sends is not None and sends.data != _EMPTY_LIST:
        return False
    return not any(_may_trigger(header, channel) for channel in root.names())


def _may_trigger(header: Header, channel: str) -> bool:
    if channel == _START:
        node = _START
    elif channel.startswith(("branch:to:", "join:")):
        node = channel.rpartition(":")[2]
    else:
        return False
    if channel.startswith("join:") and header.updated_channels and channel not in header.updated_channels:
        return False
    seen = header.versions_seen.get(node, {}).get(channel)
    version = header.channel_versions.get(channel)
    return seen is None or version is None or not _at_most(version, seen)


def _at_most(version: Version, seen: Version) -> bool:
    """False too for versions that do not compare."""
    if isinstance(version, str) and isinstance(seen, str):
        return version <= seen
    return not isinstance(version, str) and not isinstance(seen, str) and version <= seen
