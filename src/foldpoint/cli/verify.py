"""`foldpoint verify`: whether everything in a store is as it should be."""

from __future__ import annotations

from dataclasses import asdict

import click

from foldpoint.cli.opening import json_option, open_engine, require_thread, url_option
from foldpoint.cli.output import print_json, print_rows, printable
from foldpoint.cli.progress import progress, shows_progress, stopping
from foldpoint.compaction.archives import Archives
from foldpoint.compaction.verify import Finding, Verified, verify

EXAMPLES = """
\b
Examples:
  foldpoint verify --url sqlite:///agents.db
  foldpoint verify --thread user-17 --repair
  foldpoint verify --thread user-17 --repair --quarantine sqlite:///lost.db
  foldpoint verify --json | jq 'select(.findings != [])'
"""

_OTHER_KEY = (
    "give the key that it was sealed with: in LANGGRAPH_AES_KEY, an earlier one in FOLDPOINT_PREVIOUS_AES_KEY; "
    "FOLDPOINT_ALLOW_PLAIN reads what was sealed with none"
)
_ADVICE = {
    False: ": try --repair, which writes again what can be told exactly from other records",
    True: ": what stays so is put out of the way by --quarantine URL (see --help)",
}


@click.command("verify", epilog=EXAMPLES)
@url_option
@click.option("--thread", metavar="T", help="Only the thread with the id T.")
@click.option("--repair", is_flag=True, help="Write again what can be told exactly from other records.")
@click.option(
    "--quarantine",
    metavar="URL",
    help="With --repair: copy what cannot be repaired, as it lies, to another store, which is made if it is not there. "
    "The thread goes on from every checkpoint that can be read exactly.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, url: str | None, thread: str | None, repair: bool, quarantine: str | None, as_json: bool
) -> None:
    """Check every checksum, every fold and every invariant of each thread.

    Safe beside live writers. Findings name the invariant by its number in docs/DESIGN.md, and the record by its key.
    The exit code is 2 if anything is found that was not repaired, and not put into quarantine. Ctrl-C ends it after the
    present thread, and tells what was found.

    Bring back servers that are down, and have a backup at hand, before you use --quarantine: what a thread has gone on
    without is not taken in again. `foldpoint verify --url` on the quarantine tells what is wrong there.
    """
    if quarantine is not None and not repair:
        raise click.UsageError("--quarantine takes what cannot be repaired: give --repair too.")
    checked: list[Verified] = []
    with open_engine(url) as engine, Archives(engine) as stores:
        if thread is not None:
            require_thread(engine, thread)
        into = None if quarantine is None else stores.open(quarantine).store
        with (
            stopping("stopping after the present thread") as stop,
            progress("streams", None, 0, shows_progress() and not as_json) as bar,
        ):
            for verified in verify(engine, thread, repair=repair, into=into):
                checked.append(verified)
                bar.step()
                if as_json:
                    print_json(asdict(verified))
                if stop:
                    break
    if not as_json:
        _report(checked, repair)
    if stop.signal is not None:
        click.echo("Stopped: what comes after was not looked at.", err=True)
        ctx.exit(128 + stop.signal)
    ctx.exit(0 if all(verified.sound for verified in checked) else 2)


def _report(checked: list[Verified], repair: bool) -> None:
    rows = [_row(finding) for verified in checked for finding in verified.findings]
    streams = "1 stream" if len(checked) == 1 else f"{len(checked):,} streams"
    print_rows(rows, nothing=f"Checked {streams}, found nothing.")
    for verified in checked:
        _say(verified)
    if rows:
        click.echo(f"Checked {streams}, {_left(checked, repair)}.", err=True)


def _left(checked: list[Verified], repair: bool) -> str:
    unsound = [verified for verified in checked if not verified.sound]
    sealed = [verified for verified in unsound if any(finding.sealed for finding in verified.findings)]
    damaged = len(unsound) - len(sealed)
    told = [f"{len(sealed):,} of them not to be opened: {_OTHER_KEY}"] if sealed else []
    told += [f"{damaged:,} of them damaged{_ADVICE[repair]}"] if damaged else []
    return "; ".join(told) or "none of them damaged any more"


def _row(finding: Finding) -> dict[str, object]:
    row = asdict(finding)
    del row["sealed"]
    return {**row, "repaired": "in quarantine"} if row.pop("quarantined") else row


def _say(verified: Verified) -> None:
    """What became of a stream that could not be repaired."""
    done = verified.quarantine
    if done is None:
        return
    stream = f"thread {verified.thread_id!r}, namespace {verified.namespace!r}"
    if done.refused:
        click.echo(f"{stream} stays as it is: {done.refused}", err=True)
        return
    click.echo(f"{stream} goes on with {done.checkpoints:,} checkpoints; its records are in the quarantine.")
    numbers = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in done.unread)
    for words, told in (
        ("Only there are the checkpoints", ", ".join(done.left_out)),
        ("Pending writes are left out of", ", ".join(done.without_writes)),
        ("More may have been lost with the numbers", numbers),
    ):
        if told:
            click.echo(f"  {words}: {printable(told)}")
