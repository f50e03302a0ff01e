"""Reading everything back and comparing it with what was acknowledged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from langgraph.checkpoint.base import CheckpointTuple

from foldpoint import FoldpointSaver
from foldpoint.errors import FoldpointError
from reliability.workload import Step, Writer, channel_values, config, message

EXAMPLES = 5


@dataclass
class Verdict:
    """Counts of checkpoints, but for `lost_writes`, which counts acknowledged pending writes.

    lost: acknowledged, and not there. unreadable: acknowledged, and reading it raises. wrong: there with other values,
    another parent or other writes than were put. doubled: listed more than once. stale: threads whose latest
    checkpoint is not the greatest acknowledged. `examples`: some of each, in words.
    """

    lost: int = 0
    unreadable: int = 0
    wrong: int = 0
    doubled: int = 0
    lost_writes: int = 0
    stale: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, kind: str, text: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.show(kind, text)

    def show(self, kind: str, text: str) -> None:
        if sum(example.startswith(f"{kind}: ") for example in self.examples) < EXAMPLES:
            self.examples.append(f"{kind}: {text}")

    @property
    def clean(self) -> bool:
        return not any(value for name, value in asdict(self).items() if name != "examples")


def check(saver: FoldpointSaver, writers: Sequence[Writer], verdict: Verdict) -> None:
    """Compare what the store holds of one thread with what its `writers` were told. `saver` has read nothing yet."""
    thread_id = writers[0].thread_id
    known = {id_: (writer, step) for writer in writers for id_, step in writer.steps.items()}
    found, unreadable = _read(saver, thread_id, known, verdict)
    for id_, (writer, step) in known.items():
        if id_ in found:
            _compare(found[id_], writer, step, verdict)
        elif step.acknowledged and id_ not in unreadable:
            verdict.note("lost", f"step {step.number} of {writer.name} on {thread_id!r}")
    for id_ in found.keys() - known.keys():
        verdict.note("wrong", f"checkpoint {id_} of {thread_id!r} was never put")
    acknowledged = [id_ for id_, (_, step) in known.items() if step.acknowledged]
    try:
        latest = saver.get_tuple(config(thread_id))
    except FoldpointError as error:
        verdict.note("stale", f"the latest of {thread_id!r} cannot be read: {error}")
        return
    if acknowledged and (latest is None or latest.checkpoint["id"] < max(acknowledged)):
        verdict.note("stale", f"the latest of {thread_id!r} is not the greatest acknowledged")


def _read(
    saver: FoldpointSaver, thread_id: str, known: dict[str, tuple[Writer, Step]], verdict: Verdict
) -> tuple[dict[str, CheckpointTuple], set[str]]:
    """Every checkpoint of the thread by id, listed or, where the list breaks off, each asked for; ids that raise."""
    listed: list[CheckpointTuple] = []
    unreadable: set[str] = set()
    broken = False
    try:
        listed.extend(saver.list(config(thread_id)))
    except FoldpointError as error:
        broken = True
        verdict.show("listing", f"{thread_id!r}: {error}")
    for id_, times in Counter(found.checkpoint["id"] for found in listed).items():
        if times > 1:
            verdict.note("doubled", f"checkpoint {id_} of {thread_id!r} is listed {times} times")
    found = {entry.checkpoint["id"]: entry for entry in listed}
    for id_, (writer, step) in known.items() if broken else ():
        try:
            if id_ not in found and (entry := saver.get_tuple(config(thread_id, id_))):
                found[id_] = entry
        except FoldpointError as error:
            if step.acknowledged:
                verdict.note("unreadable", f"step {step.number} of {writer.name} on {thread_id!r}: {error}")
                unreadable.add(id_)
    return found, unreadable


def _compare(found: CheckpointTuple, writer: Writer, step: Step, verdict: Verdict) -> None:
    where = f"step {step.number} of {writer.name} on {writer.thread_id!r}"
    if found.checkpoint["channel_values"] != channel_values(writer.name, step.number):
        verdict.note("wrong", f"{where}: values")
    parent = found.parent_config["configurable"]["checkpoint_id"] if found.parent_config else None
    if parent != step.parent:
        verdict.note("wrong", f"{where}: parent")
    pending = {task: (channel, value) for task, channel, value in found.pending_writes or ()}
    for task, written in pending.items():
        if written != ("messages", message(task, step.number)):
            verdict.note("wrong", f"{where}: write of {task}")
    for task in step.writes:
        if task not in pending:
            verdict.note("lost_writes", f"{where}: {task}")
