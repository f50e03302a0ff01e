"""What the demo does with a thread: run it, measure it, continue it elsewhere, fork it, read all of it back.

Each step opens the store anew, as another process would.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig

from demo.graph import (
    CHECKPOINTS_PER_TURN,
    MESSAGES_PER_TURN,
    Graph,
    Script,
    build_graph,
    message_counts,
    messages_of,
    run_turns,
)
from demo.measure import Costs, MeasuredSaver
from demo.source import Source
from foldpoint import FoldpointSaver
from foldpoint.compaction import compact

THREAD_ID = "conversation"
THREAD: RunnableConfig = {"configurable": {"thread_id": THREAD_ID}}
FORK_ID = "fork"  # of the question that a fork puts in the place of the script's
CONTINUED_TURNS = 3
FORKED_TURNS = 2  # no more than CONTINUED_TURNS, so that the script is long enough
RESUMES = 7


class DemoFailed(click.ClickException):
    """A thread did not read back as it was written."""


@dataclass(frozen=True)
class Continued:
    """What another process found in the thread, and how far it took it."""

    pid: int
    messages_found: int
    messages_after: int


@dataclass(frozen=True)
class Forked:
    """Where a thread was forked, and what is said on the new branch, from its beginning."""

    after_messages: int
    branch: Script


def store_url(db: Path) -> str:
    return f"sqlite:///{db}"


def stored_bytes(db: Path) -> int:
    """The size of the database file and of its write-ahead log, if one is left."""
    return sum(path.stat().st_size for path in (db, Path(f"{db}-wal")) if path.exists())


def run(db: Path, script: Script, turns: int, on_turn: Callable[[], None]) -> Costs:
    """A new thread of `turns` turns."""
    with MeasuredSaver.from_conn_string(store_url(db)) as saver:
        saver.setup()
        run_turns(build_graph(script, saver), script, THREAD, turns, on_turn)
        finish_storage(saver, THREAD_ID)
        return saver.costs


def finish_storage(saver: FoldpointSaver, thread_id: str) -> None:
    """Fold what the thread's events still hold uncompacted, and give the freed space back."""
    for _ in compact(saver.engine, thread_id, grace=0):  # nobody else uses this store
        pass


def resume_seconds(db: Path) -> float:
    """How long the latest checkpoint takes to read: the median over savers that have read nothing before."""
    return statistics.median(_resume(db) for _ in range(RESUMES))


def _resume(db: Path) -> float:
    with FoldpointSaver.from_conn_string(store_url(db)) as saver:
        start = time.perf_counter()
        saver.get_tuple(THREAD)
        return time.perf_counter() - start


def continue_elsewhere(db: Path, source: Source, messages: int) -> Continued:
    """Have the thread of `messages` messages continued by a process that shares nothing with this one but the file."""
    command = [sys.executable, "-m", "demo", "--continue-from", str(db.resolve()), "--turns", str(CONTINUED_TURNS)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [*command, "--json", *source.options()], cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise DemoFailed(f"the process that continues the thread failed:\n{done.stderr.strip()}")
    continued = Continued(**json.loads(done.stdout))
    if continued.messages_found != messages:
        raise DemoFailed(f"another process found {continued.messages_found} messages instead of {messages}")
    return continued


def continue_here(db: Path, source: Source, turns: int) -> Continued:
    """Take the thread further from what is stored, after checking that it is this script's, perhaps forked."""
    with FoldpointSaver.from_conn_string(store_url(db)) as saver:
        found = _stored_messages(saver)
        script = source.script(len(found) + turns * MESSAGES_PER_TURN)
        if not all(message == said or message.id == FORK_ID for message, said in zip(found, script, strict=False)):
            raise click.UsageError("The thread has another script: give the --trace or --seed that it began with.")
        graph = build_graph(script, saver)
        run_turns(graph, script, THREAD, turns)
        after = messages_of(graph, THREAD)
        _expect(after, [*found, *script[len(found) :]], "the continued thread")
        return Continued(os.getpid(), len(found), len(after))


def _stored_messages(saver: FoldpointSaver) -> Script:
    latest = saver.get_tuple(THREAD)
    if latest is None:
        raise click.UsageError("The file holds no thread of the demo: make one with --db.")
    return cast("Script", latest.checkpoint["channel_values"].get("messages", []))


def fork(db: Path, script: Script, turns: int) -> Forked:
    """Go back to the end of turn `turns`, ask something else there, and go on; then read both branches.

    `script` is what the thread has said so far.
    """
    position = turns * MESSAGES_PER_TURN
    end = position + FORKED_TURNS * MESSAGES_PER_TURN
    question = HumanMessage("Wait, I would rather talk about another reservation.", id=FORK_ID)
    branch = [*script[:position], question, *script[position + 1 : end]]
    with FoldpointSaver.from_conn_string(store_url(db)) as saver:
        graph = build_graph(script, saver)
        main = graph.get_state(THREAD).config
        forked = graph.update_state(_end_of_turn(graph, turns), {"messages": [question]}, as_node="__start__")
        graph.invoke(None, forked, durability="sync")
        run_turns(graph, script, THREAD, FORKED_TURNS - 1)
        _expect(messages_of(graph, THREAD), branch, "the branch")
        _expect(messages_of(graph, main), script, "the thread that was forked")
    return Forked(position, branch)


def _end_of_turn(graph: Graph, turns: int) -> RunnableConfig:
    step = turns * CHECKPOINTS_PER_TURN - 2  # they count from -1, the first input
    return next(graph.get_state_history(THREAD, filter={"step": step}, limit=1)).config


def history_counts(turns: int, fork_turn: int) -> list[int]:
    """How many messages each checkpoint has, in any order, of `turns` turns forked after `fork_turn` of them."""
    branch = message_counts(fork_turn, fork_turn + FORKED_TURNS)[1:]  # its question is no input, which has its own
    return message_counts(0, turns) + branch


def read_history(db: Path, main: Script, branch: Script, counts: list[int], on_checkpoint: Callable[[], None]) -> int:
    """Read all checkpoints, newest first. Each is a beginning of one of the branches, as long as `counts` says."""
    found: Counter[int] = Counter()
    with FoldpointSaver.from_conn_string(store_url(db)) as saver:
        for state in build_graph(main, saver).get_state_history(THREAD):
            messages = state.values.get("messages", [])
            if messages != branch[: len(messages)]:
                _expect(messages, main[: len(messages)], f"checkpoint {state.config['configurable']['checkpoint_id']}")
            found[len(messages)] += 1
            on_checkpoint()
    if found != Counter(counts):
        raise DemoFailed(f"the history has other checkpoints than were put: {found.total()} instead of {len(counts)}")
    return found.total()


def _expect(messages: Script, expected: Script, what: str) -> None:
    if messages != expected:
        raise DemoFailed(f"{what} does not read back as written ({len(messages)} messages, {len(expected)} expected)")
