"""How the library's errors end a command: one line on stderr and an exit code, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from foldpoint.errors import FoldpointError, said


class Refused(click.ClickException):
    """The input cannot be served: an unknown thread, a malformed URL, a wrong setting."""

    exit_code = 1

    def format_message(self) -> str:
        return "; ".join(self.message.splitlines())


class Unusable(Refused):
    """The store, or a record in it, cannot be used."""

    exit_code = 2


@contextmanager
def failures() -> Iterator[None]:
    """Within this block, the errors that the library raises on its own account end the command."""
    try:
        yield
    except FoldpointError as error:
        raise Unusable(said(error)) from error
    except ValueError as error:
        raise Refused(str(error) or type(error).__name__) from error
