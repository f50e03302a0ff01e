"""The options that commands share, and the engine that they work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from foldpoint.cli.failure import Refused, Unusable
from foldpoint.cli.output import printable
from foldpoint.engine import keys
from foldpoint.engine.engine import Engine, Unread
from foldpoint.engine.url import open_store
from foldpoint.errors import RecordError, said
from foldpoint.langgraph_adapter.key import cipher_of
from foldpoint.settings import Settings, load_settings

url_option = click.option(
    "--url",
    metavar="URL",
    help="The store, such as sqlite:///file.db.  [env: FOLDPOINT_URL; default: sqlite:///foldpoint.db]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")


def settings_of(url: str | None) -> Settings:
    """From the environment, but for `url` where it is given."""
    return load_settings() if url is None else load_settings(url=url)


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """An engine on the store at `url`, or at FOLDPOINT_URL, with the other settings from the environment.

    The store must be there: a URL that was mistyped makes no file. Should the machine crash, a command may have to be
    run again. Where LANGGRAPH_AES_KEY is set records are sealed with that key, and read with FOLDPOINT_PREVIOUS_AES_KEY
    too.
    """
    settings = settings_of(url)
    store = open_store(settings.url, settings, create=False, durable=False)
    try:
        yield Engine(store, settings, cipher=cipher_of(settings))
    finally:
        store.close()


@contextmanager
def unreadable() -> Iterator[Unread]:
    """Hears of heads that cannot be read: each is said, and when the rest is done the command fails."""
    count = 0

    def hear(thread_id: str, error: RecordError) -> None:
        nonlocal count
        count += 1
        click.echo(printable(said(error)), err=True)

    try:
        yield hear
    except Refused:
        if not count:
            raise  # else what could not be read is why
    if count:
        raise Unusable(f"left out {'a stream' if count == 1 else f'{count:,} streams'} whose head cannot be read")


def require_thread(engine: Engine, thread: str) -> None:
    """Refuse a thread of which the store knows nothing: its id may be mistyped."""
    if next(engine.store.heads(keys.text(thread)), None) is None:
        raise no_thread(thread)


def no_thread(thread: str) -> Refused:
    return Refused(f"there is no thread {thread!r} in the store: `foldpoint threads` lists those there are")
