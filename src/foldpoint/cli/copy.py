"""`foldpoint copy`: threads to another store, or one thread under another id."""

from __future__ import annotations

from dataclasses import dataclass

import click

from foldpoint.cli.failure import Unusable
from foldpoint.cli.opening import json_option, no_thread, open_engine, unreadable, url_option
from foldpoint.cli.output import print_json
from foldpoint.cli.progress import Bar, Stop, progress, shows_progress, stopping
from foldpoint.compaction.archives import Archives
from foldpoint.compaction.copying import copy_thread
from foldpoint.engine.engine import Engine
from foldpoint.errors import Conflict, RecordError, said

EXAMPLES = """
\b
Examples:
  foldpoint copy --url sqlite:///agents.db --all --into aerospike://db1:3000/agents?prefix=fp
  foldpoint copy --url sqlite:///archive.db --thread user-17 --into sqlite:///agents.db
  foldpoint copy --thread user-17 --as user-17-before-upgrade
"""


@click.command("copy", epilog=EXAMPLES)
@url_option
@click.option("--into", metavar="URL", help="The other store, which is made if it is not there.")
@click.option("--thread", metavar="T", help="Only the thread with the id T.")
@click.option("--as", "new_id", metavar="N", help="With --thread: the copy's id; without --into it stays in the store.")
@click.option("--prefix", metavar="P", help="Only threads whose id begins with P.")
@click.option("--all", "every", is_flag=True, help="All threads of the store.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    url: str | None,
    into: str | None,
    thread: str | None,
    new_id: str | None,
    prefix: str | None,
    every: bool,
    as_json: bool,
) -> None:
    """Copy threads to another store, or one thread under another id. Live writers need not stop.

    Every checkpoint and pending write in every namespace is copied, as it is when it is read: what is put meanwhile is
    taken along by running the command again, which is also how to go on where one was broken off. Checkpoints that are
    there already stay; one that both have becomes the copied one. Copies expire only once they are used by a saver with
    a TTL.

    This moves a store to another server, backs up a thread, and takes back what `compact --export-to` has put away.
    LANGGRAPH_AES_KEY is the key of both stores.
    """
    if (thread is not None) + (prefix is not None) + every != 1:
        raise click.UsageError("Say what to copy: one of --thread T, --prefix P and --all.")
    if prefix == "":
        raise click.UsageError("--prefix is empty: for all threads say --all.")
    if new_id is not None and thread is None:
        raise click.UsageError("--as names the copy of one thread: give it with --thread.")
    if into is None and (new_id is None or new_id == thread):
        raise click.UsageError("Say where to: --into URL, another id with --as, or both.")
    with open_engine(url) as engine, Archives(engine) as stores, unreadable() as unread:
        if thread is not None and not engine.namespaces(thread):
            raise no_thread(thread)
        target = stores.open(into) if into else engine
        ids = [info.thread_id for info in engine.threads(prefix or "", thread_id=thread, unread=unread)]
        visible = shows_progress() and not as_json
        with (
            stopping("stopping after the present thread") as stop,
            progress("threads", len(ids), 0, visible) as bar,
        ):
            done = _copy(engine, target, ids, new_id, bar, stop, as_json)
    if not as_json:
        threads = "1 thread" if done.threads == 1 else f"{done.threads:,} threads"
        click.echo(f"Copied {threads} with {done.checkpoints:,} checkpoints.")
    if stop.signal is not None:
        click.echo("Stopped: run the same command again to go on.", err=True)
        ctx.exit(128 + stop.signal)
    if done.failed:
        threads = "1 thread" if done.failed == 1 else f"{done.failed:,} threads"
        raise Unusable(f"{threads} could not be copied")


@dataclass(slots=True)
class _Done:
    threads: int = 0
    checkpoints: int = 0
    failed: int = 0


def _copy(
    engine: Engine, target: Engine, ids: list[str], new_id: str | None, bar: Bar, stop: Stop, as_json: bool
) -> _Done:
    """Copy thread after thread; one that cannot be read does not keep the others from it."""
    done = _Done()
    for thread_id in ids:
        copy_id = new_id or thread_id
        try:
            count = copy_thread(engine, thread_id, copy_id, into=target)
        except (RecordError, Conflict) as error:
            done.failed += 1
            _tell_failure(thread_id, error, bar, as_json)
        else:
            done.threads += 1
            done.checkpoints += count
            if as_json:
                print_json({"thread_id": thread_id, "copy_id": copy_id, "checkpoints": count})
        bar.step()
        if stop:
            break
    return done


def _tell_failure(thread_id: str, error: RecordError | Conflict, bar: Bar, as_json: bool) -> None:
    if as_json:
        print_json({"thread_id": thread_id, "failure": said(error)})
    else:
        bar.say(f"thread {thread_id!r}: {said(error)}")
