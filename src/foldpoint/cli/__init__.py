"""The `foldpoint` command: each subcommand is a module here, imported when it is used, that calls the library once."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

from foldpoint.cli.failure import Unusable, failures

COMMANDS = ("compact", "copy", "stats", "sweep", "threads", "verify")

_NOBODY_READS = 141  # as a shell says of a command that SIGPIPE ended
EXAMPLES = """
\b
Examples:
  foldpoint threads --url sqlite:///agents.db
  foldpoint stats --url sqlite:///agents.db --thread user-17
  foldpoint compact --url aerospike://db1:3000,db2:3000/agents?prefix=fp --all
  FOLDPOINT_URL=sqlite:///agents.db foldpoint threads --json | jq .thread_id
"""


class LazyGroup(click.Group):
    """Finds the command NAME in the module foldpoint.cli.NAME, as `command`; the library's errors become one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"foldpoint.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def main(self, *args: Any, **options: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a stored name may hold what the terminal cannot write
        try:
            return super().main(*args, **options)
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            full = Unusable(f"the output cannot be written: {error.strerror}")
            full.show()
            sys.exit(full.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with failures():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(128 + signal.SIGINT)
        except BrokenPipeError:  # as with `| head`: what is still to be flushed goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_NOBODY_READS)


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="foldpoint")
def main() -> None:
    """Look at and look after the LangGraph threads in a Foldpoint store.

    Every command takes the store's URL from --url or from the environment variable FOLDPOINT_URL. With --json it
    prints one object a line.

    Exit codes: 0 done, 1 the input was refused, 2 the store or a record in it cannot be used (or the command line
    cannot be understood), 130 and 143 interrupted, 141 nobody read the output to its end.
    """
