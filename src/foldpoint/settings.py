"""Settings, from arguments or `FOLDPOINT_*` environment variables.

>>> Settings(url="memory:", window=32).window
32
"""

from __future__ import annotations

import logging
import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "FOLDPOINT_"
LONGEST = 100 * 366 * 86_400
"""Seconds; what lasts longer overflows one store or another."""
logger = logging.getLogger("foldpoint")
Where = Literal["background", "inline", "off"]


class Settings(BaseSettings):
    """How an engine works. Every field may be given as `FOLDPOINT_<NAME>`; a wrong value names itself."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(
        "sqlite:///foldpoint.db",
        repr=False,  # it may hold a password
        description="memory:, sqlite:///file.db, or aerospike://host:3000,host2:3000/namespace?prefix=fp",
    )
    aerospike_password: SecretStr | None = Field(
        None, repr=False, description="of the user whom the URL names without a password"
    )
    aerospike_keyfile_pw: SecretStr | None = Field(
        None, repr=False, description="of the encrypted keyfile that the URL names"
    )
    window: Annotated[int, Field(ge=2, le=1024)] = Field(
        64, description="events after the last sealed segment before a writer seals"
    )
    snapshot_ratio: Annotated[float, Field(gt=0, le=1000)] = Field(
        0.1, description="a snapshot is taken when the log since the last one reaches this share of its size"
    )
    grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        600.0,
        description="seconds that superseded records stay; writers trust what they know for a tenth of it. One for all "
        "that use a store: what one removes early another may still rely on",
    )
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        256 * 1024 * 1024,
        description="memory for the last state of active streams, least recently used first out; savers take half "
        "of it more, for messages as they were last written or read",
    )
    compression_level: Annotated[int, Field(ge=1, le=22)] = Field(3, description="zstd level of single events")
    segment_level: Annotated[int, Field(ge=1, le=22)] = Field(
        9, description="zstd level of segments, and of snapshots that stay"
    )
    fast_encoding: bool = Field(
        True, description="serialize messages, and find those that did not change, without pydantic; same bytes"
    )
    fast_decoding: bool = Field(True, description="build messages without pydantic's validators; same objects")
    allow_plain: bool = Field(
        False, description="read unencrypted records in spite of a key: while a store becomes an encrypted one"
    )
    previous_aes_key: SecretStr | None = Field(
        None,
        repr=False,
        description="what commands and the server's entry read beside LANGGRAPH_AES_KEY, while records are sealed anew",
    )
    compaction: Where = Field(
        "background",
        description="where a saver seals and cleans: in a thread, in the put that finds it due, or only when it must",
    )
    compact_every: Annotated[float, Field(gt=0, le=LONGEST)] | None = Field(
        None, description="seconds after which a saver compacts the whole store, by `policy`; one process does"
    )
    sweep_every: Annotated[float, Field(gt=0, le=LONGEST)] | None = Field(
        None, description="seconds after which a saver sweeps the whole store; one process does"
    )
    policy: Path | None = Field(
        None, description="TOML or JSON file that says what of which threads compaction keeps (`Policies`)"
    )
    ttl: Annotated[int, Field(gt=0, le=LONGEST)] | None = Field(
        None, description="seconds a thread lives after its last use"
    )
    io_threads: Annotated[int, Field(ge=1, le=512)] = Field(16, description="threads of a saver's asynchronous calls")


def load_settings(**given: object) -> Settings:
    """Settings from `given` and the environment. Raises ValueError that names each wrong setting.

    A variable that looks like a setting misspelt is said at WARNING, once.
    """
    for name in (name for name in os.environ if name.startswith(_PREFIX)):
        _doubt(name)
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = "; ".join(_explain(problem) for problem in error.errors())
        raise ValueError(f"wrong setting: {wrong}") from error


@cache
def _doubt(variable: str) -> None:
    setting = variable.removeprefix(_PREFIX).lower()
    meant = get_close_matches(setting, Settings.model_fields, 1)
    if meant and setting not in Settings.model_fields:
        logger.warning("unknown setting %s; did you mean %s%s?", variable, _PREFIX, meant[0].upper())


def _explain(problem: object) -> str:
    assert isinstance(problem, dict)
    name = ".".join(map(str, problem["loc"])) or "settings"
    what = f"{name} (FOLDPOINT_{name.upper()}): {problem['msg']}"
    field = Settings.model_fields.get(name)
    # An unknown name may be that of a password, misspelt.
    return f"{what}, got {problem['input']!r}" if field and field.repr else what
