"""The options that commands share, and the engine that they work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from foldpoint.engine.engine import Engine
from foldpoint.engine.url import open_store
from foldpoint.settings import load_settings

url_option = click.option("--url", metavar="URL", help="The store, such as sqlite:///file.db.  [env: FOLDPOINT_URL]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """An engine on the store at `url`, or at FOLDPOINT_URL, with the other settings from the environment."""
    settings = load_settings() if url is None else load_settings(url=url)
    store = open_store(settings.url)
    try:
        yield Engine(store, settings)
    finally:
        store.close()
