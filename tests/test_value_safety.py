"""What a user stored is never turned into objects but by the saver, and never becomes part of a command."""

from __future__ import annotations

import ast
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aerospike_server
import pytest
from building import chain, config, put
from click.testing import CliRunner
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from stores import BACKENDS, Harness

import foldpoint
from foldpoint import Engine, FoldpointSaver, Settings
from foldpoint.cli import main
from foldpoint.compaction import DropRuns, KeepLast, Retention, compact_thread, rehearse, rewrite_thread, sweep
from foldpoint.compaction.verify import verify
from foldpoint.engine.sqlite import file as sqlite_file

SOURCE = Path(foldpoint.__file__).parent
SERDE = JsonPlusSerializer(pickle_fallback=True)


class Mine:
    """Makes a directory when it is unpickled, as could be anything."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._path),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "unpickled"


@pytest.fixture
def url(tmp_path: Path, mark: Path) -> str:
    """Of a store whose values, metadata and writes leave a mark when they are deserialized."""
    url = f"sqlite:///{tmp_path}/store.db"
    with FoldpointSaver.from_conn_string(url, serde=SERDE, window=4, compaction="inline") as saver:
        where = None
        for step in range(20):
            mine: Any = Mine(mark)
            where = put(saver, where, {"a": mine, "n": [mine, step]}, step=step, run_id=f"run-{step // 5}", note=mine)
            saver.put_writes(where, [("a", mine)], "task")
    return url


def test_engine_and_compactor_deserialize_nothing(url: str, mark: Path) -> None:
    with FoldpointSaver.from_conn_string(url, serde=SERDE) as saver:
        engine = saver.engine
        saver.copy_thread("thread", "copy")
        saver.delete_for_runs(["run-0"])
        saver.prune(["copy"], keep_last=3)
        rules = Retention(
            keep_last=2,
            keep_newer_than=timedelta(0),
            keep_one_per_run=True,
            keep_with_metadata=("note",),
            drop_superseded_writes=True,
        )
        assert list(rehearse(engine, "thread", rules))
        assert list(compact_thread(engine, "thread", rules, grace=0))
        assert rewrite_thread(engine, "thread", DropRuns(["run-1"])) > 0
        assert rewrite_thread(engine, "thread", KeepLast(2)) == 2
        assert list(compact_thread(engine, "copy", Retention(purge_idle=timedelta(0)), grace=0))
        assert not any(verified.findings for verified in verify(engine))
        sweep(engine)
        assert not mark.exists()
        with pytest.raises(FileExistsError):  # the first of the values made the directory, the next finds it there
            saver.get_tuple(config())
    assert mark.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("threads",),
        ("stats",),
        ("verify", "--repair"),
        ("compact", "--all", "--dry-run", "--keep-last", "2"),
        ("compact", "--all", "--keep-with-metadata", "note", "--drop-superseded-writes"),
        ("compact", "--all", "--reseal"),
        ("sweep",),
    ],
    ids=" ".join,
)
def test_commands_deserialize_nothing(
    url: str, mark: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "nice", lambda by: by)
    if "--reseal" in command:
        monkeypatch.setenv("LANGGRAPH_AES_KEY", "0123456789abcdef")
        monkeypatch.setenv("FOLDPOINT_ALLOW_PLAIN", "true")
    result = CliRunner().invoke(main, [command[0], "--url", url, *command[1:]])
    assert result.exit_code == 0, result.output
    assert not mark.exists()


def test_only_the_adapter_can_deserialize() -> None:
    """Nothing else names a deserializer, or makes code of data."""
    forbidden = {"pickle", "loads_typed", "loads", "eval", "exec", "import_module", "__import__", "ormsgpack"}
    files_of_operators = {("compaction/job.py", "loads"), ("compaction/policy.py", "loads")}  # JSON and TOML
    allowed = {*files_of_operators, ("cli/__init__.py", "import_module")}  # of the commands, by their names
    found = {
        (str(path.relative_to(SOURCE)), name)
        for path in SOURCE.rglob("*.py")
        if "langgraph_adapter" not in path.parts
        for name in _names(ast.parse(path.read_text()))
    }
    assert {one for one in found if one[1] in forbidden} == allowed


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name for alias in node.names)
            yield getattr(node, "module", None) or ""


# -- names -------------------------------------------------------------------------------------------------------------

HOSTILE = "x'); DROP TABLE log; -- ;set=other\n%s{0}"


def use(saver: FoldpointSaver, name: str) -> None:
    """Let a user's name be everything that users name, in everything that is done with it."""
    line = chain(saver, 12, thread=name, namespace=name, **{name: name})
    put(saver, line[-1], {name: name})
    saver.put_writes(line[-1], [(name, name)], name, name)
    assert list(saver.list(config(name, name), filter={name: name}))
    saver.copy_thread(name, f"{name} copy")
    saver.prune([name], keep_last=2)
    saver.delete_for_runs([name])
    assert saver.get_tuple(config(name, name)) is not None
    assert list(compact_thread(saver.engine, name, grace=0))
    saver.delete_thread(f"{name} copy")
    sweep(saver.engine)


def test_what_is_asked_of_sqlite_does_not_depend_on_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: set[str] = set()

    class Listening(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            said.add(sql)
            return super().execute(sql, *args)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite_file.sqlite3, "connect", lambda *args, **kw: connect(*args, factory=Listening, **kw))
    heard = []
    for name in ("plain", HOSTILE):
        url = f"sqlite:///{tmp_path}/{len(heard)}.db"
        with FoldpointSaver.from_conn_string(url, window=4, compaction="off") as saver:
            use(saver, name)
        heard.append(set(said))
        said.clear()
    assert heard[0] == heard[1]
    assert len(heard[0]) > 10


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = BACKENDS["aerospike"](tmp_path)
    yield harness
    harness.close()


def test_aerospike_has_two_sets_whatever_users_name(harness: Harness) -> None:
    store: Any = harness.open()
    with FoldpointSaver(Engine(store, Settings(window=4)), compaction="off") as saver:
        use(saver, HOSTILE)
    server = aerospike_server.target()
    client = aerospike_server.raw_client(server.hosts)
    try:
        answers = client.info_all(f"sets/{server.namespace}").values()
    finally:
        client.close()
    told = [
        dict(pair.split("=", 1) for pair in line.split(":")) for _, text in answers for line in text.split(";")[:-1]
    ]
    prefix = store._log_set.removesuffix("log")
    assert {one["set"] for one in told if one["set"].startswith(prefix)} == {f"{prefix}log", f"{prefix}head"}
    assert "other" not in {one["set"] for one in told}
