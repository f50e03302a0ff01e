"""`foldpoint compact`: fold what threads have accumulated, beside live writers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from foldpoint.cli.failure import Unusable
from foldpoint.cli.opening import json_option, open_engine, require_thread, settings_of, url_option
from foldpoint.cli.output import print_json, print_rows, printable
from foldpoint.cli.progress import Bar, Stop, progress, shows_progress, stopping
from foldpoint.compaction.job import Job, Journal, Outcome, Rate, ShareDone
from foldpoint.compaction.policy import Policies, Retention, explain
from foldpoint.compaction.workers import Opened, run_in_processes
from foldpoint.engine.engine import Engine
from foldpoint.langgraph_adapter.key import KEY_VARIABLE

EXAMPLES = """
\b
Examples:
  foldpoint compact --url sqlite:///agents.db --thread user-17
  foldpoint compact --all --keep-last 20 --keep-with-metadata pinned --dry-run
  foldpoint compact --prefix eval- --purge-idle 30d --json
  foldpoint compact --all --policy retention.toml --workers 2 --rate 200 --resume job.json
"""
_NICENESS = 10


def retention_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of `Retention`."""
    for name, field in reversed(Retention.model_fields.items()):
        spelled = f"--{name.replace('_', '-')}"
        if isinstance(field.default, bool):
            option = click.option(spelled, name, is_flag=True, default=None, help=f"{field.description}.")
        else:
            many = isinstance(field.default, tuple)
            option = click.option(spelled, name, multiple=many, metavar=_METAVARS[name], help=f"{field.description}.")
        command = option(command)
    return command


_METAVARS = {
    "keep_last": "N",
    "keep_newer_than": "AGE",
    "keep_with_metadata": "KEY",
    "purge_idle": "AGE",
    "purge_finished": "AGE",
    "export_to": "URL",
}


@click.command("compact", epilog=EXAMPLES)
@url_option
@click.option("--thread", metavar="T", help="Only the thread with the id T.")
@click.option("--prefix", metavar="P", help="Only threads whose id begins with P.")
@click.option("--all", "every", is_flag=True, help="All threads of the store.")
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="What stays of which threads: a TOML or JSON file.  [env: FOLDPOINT_POLICY, where no rule is given here]",
)
@retention_options
@click.option("--workers", type=click.IntRange(1, 256), default=1, metavar="N", help="Processes that share the work.")
@click.option("--rate", metavar="R", help="At most so many streams (20) or bytes (4MB) a second, all workers together.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="FILE", help="Note in FILE what is done, and go on from there."
)
@click.option("--reseal", is_flag=True, help="Write every record again first, with the key of LANGGRAPH_AES_KEY.")
@click.option(
    "--dry-run", is_flag=True, help="Change nothing; say what would be done in the end, when the grace is over too."
)
@json_option
def command(
    url: str | None,
    thread: str | None,
    prefix: str | None,
    every: bool,
    policy: Path | None,
    workers: int,
    rate: str | None,
    resume: Path | None,
    reseal: bool,
    dry_run: bool,
    as_json: bool,
    **retention: Any,
) -> None:
    """Compact one thread or many. Live writers need not stop.

    Without a policy, here or in FOLDPOINT_POLICY, nothing is lost: what is unsealed is sealed, segments are merged, and
    what is superseded is removed. A rule that keeps some checkpoints drops the others; ages are spelled 90d, 12h or
    PT12H. A job that was stopped or killed may be run again: what is done stays done.

    To change the key of an encrypted store, give savers a `Keyring` of the new and the old key, then run this with
    --reseal, the new key in LANGGRAPH_AES_KEY and the old one in FOLDPOINT_PREVIOUS_AES_KEY. To encrypt a plain one,
    set FOLDPOINT_ALLOW_PLAIN instead of an old key. What is superseded goes when the grace is over.

    Exit codes: 0 done, 1 the input was refused, 2 the store or some of its threads cannot be used, 128 and the
    signal's number where one stopped it.
    """
    if (thread is not None) + (prefix is not None) + every != 1:
        raise click.UsageError("Say what to compact: one of --thread T, --prefix P and --all.")
    if prefix == "":
        raise click.UsageError("--prefix is empty: for all threads say --all.")
    if resume is not None and (dry_run or thread is not None):
        raise click.UsageError("--resume is for jobs of many threads that do something.")
    if reseal and dry_run:
        raise click.UsageError("--reseal writes every record: there is nothing to try out.")
    if reseal and KEY_VARIABLE not in os.environ:
        raise click.UsageError(f"--reseal writes every record with the key of {KEY_VARIABLE}, which is not set.")
    settings = settings_of(url)
    job = Job(
        policies=_policies(policy, settings.policy, retention),
        thread_id=thread,
        prefix=prefix or "",
        rate=Rate.parse(rate).split(workers) if rate else None,
        dry_run=dry_run,
        reseal=reseal,
    )
    with open_engine(url) as engine:
        if thread is not None:
            require_thread(engine, thread)
        journal = Journal(resume, _fingerprint(settings.url, job)) if resume else None
        summary = _run(job, engine, partial(open_engine, url), workers, journal, as_json)
    if as_json:
        print_json({"summary": asdict(summary)})
    elif thread is None or dry_run:
        print_rows([{"": name.replace("_", " "), "total": value} for name, value in asdict(summary).items()])
    if summary.stopped:
        click.echo("Stopped. What is done stays done: run the same command again to go on.", err=True)
        raise SystemExit(128 + signal.Signals[summary.stopped])
    if summary.failed:
        threads = "1 thread" if summary.failed == 1 else f"{summary.failed:,} threads"
        others = f"; {summary.streams:,} other streams were" if summary.streams else ""
        raise Unusable(f"{threads} could not be compacted{others}")


@dataclass(slots=True)
class Summary:
    """What a job did.

    waiting: streams with records that go when the grace is over. outdated: left to the next run, as others changed them
    meanwhile. Bytes are those of log records; bytes_reclaimed: by how much the store's file shrank.
    """

    streams: int = 0
    failed: int = 0
    deleted: int = 0
    waiting: int = 0
    outdated: int = 0
    events_sealed: int = 0
    merges: int = 0
    checkpoints_dropped: int = 0
    removed_records: int = 0
    bytes_written: int = 0
    bytes_removed: int = 0
    bytes_reclaimed: int = 0
    seconds: float = 0.0
    stopped: str = ""

    def add(self, outcome: Outcome) -> None:
        report = outcome.report
        if report is None:
            self.failed += 1
            return
        if not outcome.resealed:
            self.streams += 1
            self.deleted += bool(report.deleted)
            self.waiting += report.superseded
            self.outdated += report.outdated
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(report, name))


_SUMS = ("events_sealed", "merges", "checkpoints_dropped", "removed_records", "bytes_written", "bytes_removed")


def _policies(file: Path | None, configured: Path | None, options: dict[str, Any]) -> Policies:
    """From the command line; where it says nothing, from the file that the settings name."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if file is not None and given:
        raise click.UsageError("Give either --policy FILE or single rules.")
    try:
        if given:
            return Policies(default=Retention(**given))
    except ValidationError as error:
        raise ValueError(f"wrong rule: {explain(error)}") from error
    if file is None and configured is not None:
        click.echo(f"By the policy in {configured} (FOLDPOINT_POLICY).", err=True)
    file = file or configured
    return Policies.load(file) if file else Policies()


def _fingerprint(url: str, job: Job) -> dict[str, Any]:
    return {"url": url, "prefix": job.prefix, "reseal": job.reseal, "policies": job.policies.model_dump(mode="json")}


def _run(job: Job, engine: Engine, opened: Opened, workers: int, journal: Journal | None, as_json: bool) -> Summary:
    if hasattr(os, "nice"):
        os.nice(_NICENESS)  # and so do the workers: agents come first
    shares = journal.remaining if journal else [*range(job.shares)]
    started, summary = time.monotonic(), Summary()
    visible = shows_progress() and not as_json
    total = sum(1 for _ in job.streams(engine)) if visible else 0
    done = round(total * (1 - len(shares) / job.shares))
    with stopping("stopping after the present thread") as stop, progress("streams", total, done, visible) as bar:
        for message in _messages(job, engine, opened, workers, shares, stop):
            if isinstance(message, Outcome):
                if not message.resealed:
                    bar.step()
                summary.add(message)
                _say(message, bar, job, as_json)
            elif journal is not None:
                journal.finish(message.share)
        summary.stopped = stop.signal.name if stop.signal else ""
    if not stop and not job.dry_run:
        summary.bytes_reclaimed = engine.store.reclaim()
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def _messages(
    job: Job, engine: Engine, opened: Opened, workers: int, shares: list[int], stop: Stop
) -> Iterator[Outcome | ShareDone]:
    if workers == 1:
        return job.run(engine, shares, stop.wait)
    return run_in_processes(job, opened, workers, shares, lambda: bool(stop))


def _say(outcome: Outcome, bar: Bar, job: Job, as_json: bool) -> None:
    if as_json:
        print_json(_as_row(outcome))
    elif outcome.failure:
        bar.say(f"thread {outcome.thread_id!r}: {outcome.failure}")
    elif outcome.plan is not None and outcome.plan.steps:
        for line in str(outcome.plan).splitlines():
            click.echo(printable(line))
    elif job.thread_id is not None and outcome.report is not None:
        print_rows([asdict(outcome.report)])


def _as_row(outcome: Outcome) -> dict[str, Any]:
    if outcome.report is None:
        return {"thread_id": outcome.thread_id, "failure": outcome.failure}
    plan = {"plan": outcome.plan.as_dict()["steps"]} if outcome.plan else {}
    return {**asdict(outcome.report), **plan}
