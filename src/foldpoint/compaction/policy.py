"""What stays of a thread and what goes, as a user says it: in code, in a file, on a command line.

`selection` applies it to checkpoints, `activity` to whole threads.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from foldpoint.compaction.selection import Circumstances, Last, Nothing, Retained, Rules, Selection, WithoutRuns
from foldpoint.engine.url import LASTING, without_secrets

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"\s*".join(rf"(?:(\d+(?:\.\d+)?)\s*{unit})?" for unit in _UNITS), re.ASCII)


def _to_seconds(given: Any) -> Any:
    """Of the short spelling; anything else is left to pydantic, which reads ISO 8601."""
    if isinstance(given, (int, float)):
        raise ValueError(f"give a length of time, such as {int(given)}d or {int(given)}s")
    found = _DURATION.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None or not any(found.groups()):
        return given
    return sum(float(count or 0) * unit for count, unit in zip(found.groups(), _UNITS.values(), strict=True))


Duration = Annotated[timedelta, BeforeValidator(_to_seconds), Field(ge=timedelta(0))]
"""A length of time: "30d", "1d 12h" or "PT12H"."""


def _not_a_flag(given: Any) -> Any:
    if isinstance(given, bool):
        raise ValueError("give a number")
    return given


Count = Annotated[int, BeforeValidator(_not_a_flag), Field(ge=1)]


class Policy(Protocol):
    """A rule of what stays of each stream of a thread."""

    @property
    def drop_superseded_writes(self) -> bool:
        """Whether kept checkpoints lose the writes that a child took in and nothing needs."""
        ...

    def selection(self, circumstances: Circumstances) -> Selection:
        """Decides on one stream, beginning with its newest checkpoint."""
        ...


class Retention(BaseModel):
    """Which checkpoints stay, in each namespace of a thread; and when a whole thread goes.

    Without a `keep_…` rule every checkpoint stays; with several, what any of them names. Whatever they say, these stay:
    the latest, those that wait (pending writes and no child), those that two or more kept ones come from, and what
    DeltaChannels of kept ones need. Of subgraphs goes what was made under a checkpoint that goes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_last: Count | None = Field(None, description="keep the newest N checkpoints of each namespace")
    keep_newer_than: Duration | None = Field(None, description="keep checkpoints younger than AGE")
    keep_one_per_run: bool = Field(False, description="keep the newest checkpoint of each run_id")
    keep_with_metadata: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="keep checkpoints whose metadata has KEY with a plain value (text, number, boolean, null)",
    )
    drop_superseded_writes: bool = Field(
        False, description="of kept checkpoints, drop the pending writes that a child took in and nothing needs"
    )
    purge_idle: Duration | None = Field(
        None, description="delete threads whose newest checkpoint, and answer to its interrupt, is older than AGE"
    )
    purge_finished: Duration | None = Field(
        None, description="delete threads that have no next task and whose newest checkpoint is older than AGE"
    )
    export_to: str | None = Field(
        None, description="URL of a store, such as sqlite:///archive.db, that threads are copied to before they go"
    )

    @model_validator(mode="after")
    def _exports_what_it_purges(self) -> Retention:
        if self.export_to is not None and self.purge_idle is None and self.purge_finished is None:
            raise ValueError("export_to is for threads that go: set purge_idle or purge_finished too")
        if self.export_to is not None and not self.export_to.startswith(LASTING):
            raise ValueError(f"export_to: expected the URL of a store that lasts, {' or '.join(LASTING)}…")
        return self

    @property
    def keeps_all(self) -> bool:
        """Whether every checkpoint stays."""
        chosen = self.keep_last or self.keep_one_per_run or self.keep_with_metadata
        return not chosen and self.keep_newer_than is None

    def selection(self, circumstances: Circumstances) -> Selection:
        age = self.keep_newer_than
        rules = Rules(
            last=self.keep_last,
            newer_than=None if age is None else circumstances.now - age.total_seconds(),
            one_per_run=self.keep_one_per_run,
            with_labels=frozenset(self.keep_with_metadata),
            everything=self.keeps_all,
        )
        return circumstances.beneath(Retained(rules))

    def __str__(self) -> str:
        given = {name: getattr(self, name) for name in Retention.model_fields}
        given["export_to"] = self.export_to and without_secrets(self.export_to)
        said = (f"{name}={_spell(value)}" for name, value in given.items() if value not in (None, False, ()))
        return ", ".join(said) or "keep everything"


class ThreadRetention(Retention):
    """The retention of threads whose id begins with `prefix`."""

    prefix: str


class Policies(BaseModel):
    """Retention by thread: of the entries whose prefix a thread's id begins with the longest counts, alone.

    >>> policies = Policies.model_validate({"threads": [{"prefix": "eval-", "keep_last": 1}]})
    >>> policies.of("eval-7").keep_last, policies.of("user-7").keep_last
    (1, None)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: Retention = Field(default_factory=Retention, description="of threads that no prefix fits")
    threads: tuple[ThreadRetention, ...] = ()

    @model_validator(mode="after")
    def _names_each_prefix_once(self) -> Policies:
        prefixes = [entry.prefix for entry in self.threads]
        if twice := {prefix for prefix in prefixes if prefixes.count(prefix) > 1}:
            raise ValueError(f"two entries have the prefix {min(twice)!r}")
        return self

    @property
    def exports(self) -> set[str]:
        """The URLs of the stores that threads are copied to."""
        return {entry.export_to for entry in (self.default, *self.threads) if entry.export_to is not None}

    def of(self, thread_id: str) -> Retention:
        fitting = (entry for entry in self.threads if thread_id.startswith(entry.prefix))
        return max(fitting, key=lambda entry: len(entry.prefix), default=None) or self.default

    @classmethod
    def load(cls, path: str | Path) -> Policies:
        """From a file that ends in .toml or .json. Raises ValueError that names the file and each wrong entry."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            return cls.model_validate(json.loads(text) if path.suffix == ".json" else tomllib.loads(text))
        except OSError as error:
            raise ValueError(f"policy file {path}: {error.strerror or error}") from error
        except ValidationError as error:
            raise ValueError(f"policy file {path}: {explain(error)}") from error
        except ValueError as error:
            form = "JSON" if path.suffix == ".json" else "TOML"
            raise ValueError(f"policy file {path}: not {form}: {error}") from error


def explain(error: ValidationError) -> str:
    """What is wrong with a policy, in one line; without what may hold a password."""
    return "; ".join(map(_explained, error.errors()))


def _explained(problem: Any) -> str:
    where, given = ".".join(map(str, problem["loc"])), problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no such rule, or not there: rules stand under [default] or [[threads]]"
    said = problem["msg"].removeprefix("Value error, ")
    plain = isinstance(given, (str, int, float)) and "export_to" not in where
    return f"{where or 'policy'}: {said}" + (f", got {given!r}" if plain else "")


def _spell(value: Any) -> str:
    if not isinstance(value, timedelta):
        return "+".join(value) if isinstance(value, tuple) else str(value)
    rest, spelled = value.total_seconds(), ""
    for unit, seconds in _UNITS.items():
        count, rest = divmod(rest, seconds) if seconds > 1 else (rest, 0)
        spelled += f"{count:g}{unit}" if count else ""
    return spelled or "0s"


# -- what a call asks for by name --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeepLast:
    """The `count` checkpoints with the greatest ids of each namespace, and no others: what LangGraph's `prune` asks."""

    count: int = 1
    drop_superseded_writes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise ValueError(f"keep_last must be a whole number of at least 1, got {self.count!r}")

    def selection(self, circumstances: Circumstances) -> Selection:
        return circumstances.beneath(Last(self.count))


@dataclass(frozen=True, slots=True)
class DropRuns:
    """All but the checkpoints whose metadata names one of these run ids."""

    run_ids: Collection[str]
    drop_superseded_writes: ClassVar[bool] = False

    def selection(self, circumstances: Circumstances) -> Selection:
        return WithoutRuns(frozenset(self.run_ids))


@dataclass(frozen=True, slots=True)
class DropAll:
    """None: the thread is deleted."""

    drop_superseded_writes: ClassVar[bool] = False

    def selection(self, circumstances: Circumstances) -> Selection:
        return Nothing()
