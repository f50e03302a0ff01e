"""What the SQLite store promises beyond the contract: processes, crashes, failing disks, foreign files, forks."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from forking import ended_well, forked

from foldpoint.engine.records import HeadRecord
from foldpoint.engine.sqlite import SqliteStore, schema
from foldpoint.engine.sqlite import file as module
from foldpoint.engine.sqlite.errors import translate
from foldpoint.errors import (
    StoreBusy,
    StoreFull,
    StoreMismatch,
    StoreUnavailable,
)

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A fresh interpreter on `script`, with `sys.argv[1:]` as given and its output piped to us."""
    prelude = "import os, sys\nfrom foldpoint.engine.sqlite import SqliteStore\nfrom foldpoint.errors import *\n"
    command = [sys.executable, "-c", prelude + script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


OPEN = "store = SqliteStore(sys.argv[1])\n"


def at_once(script: str, argument_lists: list[tuple[object, ...]], before: str = OPEN) -> list[list[str]]:
    """The lines printed by one process per list of arguments; all are let go when all have done `before`."""
    gate = "print(flush=True)\nsys.stdin.readline()\n"
    processes = [python(before + gate + script, *args) for args in argument_lists]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [output(process) for process in processes]


def output(process: subprocess.Popen[str]) -> list[str]:
    """The lines a process printed; it must have ended well."""
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return text.splitlines()


def random_records(count: int, size: int, seed: int = 1) -> list[tuple[bytes, bytes]]:
    rng = random.Random(seed)
    return [(b"%08d" % n + rng.randbytes(17), rng.randbytes(size)) for n in range(count)]


def on_disk(path: Path) -> int:
    return sum(os.stat(file).st_size for file in path.parent.iterdir() if not file.name.endswith("-shm"))


class TestProcesses:
    def test_processes_create_the_same_keys_and_each_key_has_one_winner(self, path: Path) -> None:
        script = """
import random
me = sys.argv[2].encode()
for n in random.Random(me).sample(range(1000), 1000):
    if store.create([(b"%d" % n, me)], ttl=None) == [True]:
        print(n)
"""
        won = at_once(script, [(path, who) for who in range(4)])
        assert all(won)  # they did run at once
        assert sorted(int(n) for keys in won for n in keys) == list(range(1000))
        store = SqliteStore(path)
        for who, keys in enumerate(won):
            assert store.get_many([key.encode() for key in keys]) == [b"%d" % who] * len(keys)
        store.close()

    def test_processes_increment_one_head_and_no_increment_is_lost(self, store: SqliteStore, path: Path) -> None:
        script = """
from foldpoint.engine.records import HeadRecord
for _ in range(50):
    while True:
        old = store.get_head(b"h")
        if store.swap(HeadRecord(b"h", b"t", old.revision + 1, b""), expected=old.revision, ttl=None):
            break
"""
        store.swap(HeadRecord(b"h", b"t", 0, b""), expected=None, ttl=None)
        at_once(script, [(path,)] * 4)
        assert store.get_head(b"h") == HeadRecord(b"h", b"t", 200, b"")

    def test_processes_that_make_the_file_at_once_share_one_store(self, tmp_path: Path) -> None:
        script = """
for n in range(20):
    store = SqliteStore(f"{sys.argv[1]}/{n}.db")
    store.create([(sys.argv[2].encode(), b"v")], ttl=None)
    store.close()
"""
        at_once(script, [(tmp_path, n) for n in range(4)], before="")
        for n in range(20):
            store = SqliteStore(tmp_path / f"{n}.db")
            assert sorted(store.keys()) == [b"0", b"1", b"2", b"3"]
            store.close()

    def test_a_killed_writer_loses_nothing_it_acknowledged(self, path: Path) -> None:
        script = """
store = SqliteStore(sys.argv[1])
n = int(sys.argv[2])
while True:
    size = 300 if n % 10 else 20_000
    assert store.create([(b"%d" % n, b"%d," % n * (size // 8))], ttl=None) == [True]
    os.write(1, b"%d\\n" % n)
    n += 1
"""
        acknowledged: list[int] = []
        rng = random.Random(9)
        for round_ in range(10):
            writer = python(script, path, round_ * 1_000_000)
            assert writer.stdout is not None
            acknowledged.append(int(writer.stdout.readline()))  # it is at work
            time.sleep(rng.uniform(0.0, 0.15))
            writer.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in writer.communicate()[0].splitlines()]
            assert writer.returncode == -signal.SIGKILL
        store = SqliteStore(path)
        assert len(acknowledged) > 100
        values = store.get_many([b"%d" % n for n in acknowledged])
        assert [n for n, value in zip(acknowledged, values, strict=True) if not value or b"%d," % n not in value] == []
        store.close()
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class TestForeignFiles:
    def refused(self, path: Path, match: str) -> None:
        before = path.read_bytes()
        with pytest.raises(StoreMismatch, match=match) as caught:
            SqliteStore(path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]

    @pytest.mark.parametrize("content", [b"hello", b"text\n" * 1000, b"SQLite format 2\0" + bytes(4080)])
    def test_a_file_that_is_no_database(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self.refused(path, "not a database")

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TABLE users(id INTEGER)",
            "CREATE TABLE log(key BLOB PRIMARY KEY, value BLOB, expires INTEGER) WITHOUT ROWID",
            "PRAGMA application_id = 7",
            "PRAGMA user_version = 1",
        ],
    )
    def test_another_applications_database(self, path: Path, statement: str) -> None:
        with sqlite3.connect(path) as db:
            db.execute(statement)
        db.close()
        self.refused(path, "another application")

    def test_a_newer_schema(self, path: Path) -> None:
        SqliteStore(path).close()
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
        db.close()
        self.refused(path, "upgrade Foldpoint")

    def test_an_empty_file_becomes_a_store(self, path: Path) -> None:
        path.touch()
        store = SqliteStore(path)
        assert store.create([(b"k", b"v")], ttl=None) == [True]
        store.close()

    def test_a_directory_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable, match=r"missing/store\.db.*directory exists"):
            SqliteStore(tmp_path / "missing" / "store.db")

    def test_a_directory_or_a_pipe_in_its_place(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
            with pytest.raises(StoreMismatch, match=f"{path}: it is no regular file"):
                SqliteStore(path)

    def test_a_name_that_the_system_cannot_spell(self) -> None:
        with pytest.raises(ValueError, match="no name of a file"):
            SqliteStore("\ud800.db")

    @pytest.mark.parametrize("name", [":memory:", "", "a\0b"])
    def test_a_name_that_is_no_file(self, name: str) -> None:
        with pytest.raises(ValueError, match="memory:"):
            SqliteStore(name)

    @pytest.mark.parametrize("name", ["a?mode=memory", "100%41#x", "file:x", "straße 1.db"])
    def test_a_name_with_signs_of_a_url_is_only_a_name(self, tmp_path: Path, name: str) -> None:
        store = SqliteStore(tmp_path / name)
        store.create([(b"k", b"v")], ttl=None)
        store.close()
        assert os.listdir(tmp_path) == [name]

    def test_a_store_is_the_same_through_a_link_and_after_a_change_of_directory(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (path.parent / "link").symlink_to(path)
        monkeypatch.chdir(path.parent)
        linked = SqliteStore("link")
        monkeypatch.chdir("/")
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda n: linked.create([(b"%d" % n, b"v")], ttl=None), range(9))) == [[True]] * 9
        assert len(list(store.keys())) == 9
        linked.close()

    def test_synchronous_is_one_of_sqlites_words(self, path: Path) -> None:
        with pytest.raises(ValueError, match="synchronous"):
            SqliteStore(path, synchronous="FULL; DROP TABLE log")


class TestFailures:
    def test_a_read_only_file_is_read_and_not_written(self, path: Path) -> None:
        store = SqliteStore(path)
        store.create([(b"k", b"v")], ttl=None)
        store.close()
        path.chmod(0o444)
        for directory in (path.parent, *path.parent.parents[:2]):
            directory.chmod(0o777)
        script = """
if os.getuid() == 0:
    os.chown(sys.argv[1], 65534, 65534)
    os.setuid(65534)  # permissions do not bind root
store = SqliteStore(sys.argv[1])
print(store.get_many([b"k"]))
try:
    store.create([(b"n", b"v")], ttl=None)
except StoreUnavailable as error:
    print(type(error).__name__, error)
print(store.get_many([b"k", b"n"]))
"""
        before, refusal, after = output(python(script, path))
        assert before == "[b'v']"
        assert refusal.startswith(f"StoreReadOnly SQLite store {path}:")
        assert after == "[b'v', None]"

    @pytest.mark.skipif(os.getuid() != 0, reason="another user is needed, and only root can be one")
    def test_another_user_who_only_reads_keeps_nobody_from_writing(self, path: Path) -> None:
        for directory in (path.parent, *path.parent.parents[:2]):
            directory.chmod(0o777)
        script = """
os.setuid(int(sys.argv[2]))
try:
    store = SqliteStore(sys.argv[1])
    print(store.get_many([b"k"]))
    print(store.create([(b"k", b"v")], ttl=None))
except StoreUnavailable as error:
    print(type(error).__name__, error)
"""
        owner, other = "65533", "65534"
        assert output(python(script, path, owner)) == ["[None]", "[True]"]
        [refusal] = output(python(script, path, other))
        assert refusal.startswith(f"StoreReadOnly SQLite store {path}: it is another user's")
        assert output(python(script, path, owner)) == ["[b'v']", "[False]"]
        held = python(
            f"os.setuid({owner})\n{OPEN}store.create([(b'n', b'')], ttl=None)\nprint(flush=True)\ninput()", path
        )
        assert held.stdout is not None
        held.stdout.readline()
        assert output(python(script, path, other))[0] == "[b'v']", "its owner has it open"
        held.communicate("\n", timeout=60)
        assert output(python(script, path, owner)) == ["[b'v']", "[False]"]

    def test_a_file_that_may_not_grow_keeps_its_state_and_takes_writes_again_later(self, path: Path) -> None:
        script = """
import resource
store = SqliteStore(sys.argv[1])
assert store.create([(b"%d" % n, b"v" * 300) for n in range(100)], ttl=None) == [True] * 100
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(sys.argv[1] + "-wal").st_size + 3000, hard))
for _ in range(3):
    try:
        store.create([(b"small", b"v"), (b"big", bytes(500_000))], ttl=None)
    except StoreUnavailable as error:
        print(type(error).__name__, error)
assert store.get_many([b"%d" % n for n in range(100)]) == [b"v" * 300] * 100
assert store.get_many([b"small", b"big"]) == [None, None]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert store.create([(b"small", b"v"), (b"big", bytes(500_000))], ttl=None) == [True, True]
store.close()
store = SqliteStore(sys.argv[1])
assert store.get_many([b"0", b"small", b"big"]) == [b"v" * 300, b"v", bytes(500_000)]
"""
        refusals = output(python(script, path))
        assert len(refusals) == 3
        assert all(line.startswith(f"StoreFull SQLite store {path}: disk I/O error") for line in refusals)

    def test_sqlites_word_for_a_full_disk_becomes_store_full(self, path: Path) -> None:
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE t(x)")
        db.execute("PRAGMA max_page_count = 3")
        with pytest.raises(sqlite3.Error) as caught:
            db.execute("INSERT INTO t VALUES (?)", (bytes(100_000),))
        db.close()
        error = translate(caught.value, path)
        assert type(error) is StoreFull
        assert str(path) in str(error)

    def test_a_damaged_page_is_reported_with_its_cause(self, path: Path) -> None:
        records = random_records(500, 300)
        store = SqliteStore(path)
        store.create(records, ttl=None)
        store.close()
        with path.open("r+b") as file:
            file.seek(schema.PAGE_SIZE * 10)
            file.write(b"\xa5" * (os.stat(path).st_size - schema.PAGE_SIZE * 10))
        store = SqliteStore(path)
        with pytest.raises(StoreUnavailable, match="the file is damaged") as caught:
            store.get_many([key for key, _ in records])
        assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
        assert str(path) in str(caught.value)
        store.close()

    def test_a_write_to_a_file_that_was_removed_is_refused(self, store: SqliteStore, path: Path) -> None:
        store.create([(b"k", b"v")], ttl=None)
        path.unlink()
        with pytest.raises(StoreUnavailable, match="the file was removed"):
            store.create([(b"l", b"v")], ttl=None)
        with pytest.raises(StoreUnavailable, match="unable to open"):
            store.create([(b"l", b"v")], ttl=None)
        assert not path.exists()

    def test_a_write_to_a_file_that_was_replaced_is_refused(self, store: SqliteStore, path: Path) -> None:
        SqliteStore(path.with_name("other")).close()
        path.with_name("other").rename(path)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="the file was replaced"):
                store.create([(b"k", b"v")], ttl=None)

    def test_an_interrupted_write_leaves_nothing_and_the_store_usable(self, store: SqliteStore) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.interrupted_write(store)
        assert store.get_many([b"\0"]) == [None]
        assert store.create([(b"\0", b"v")], ttl=None) == [True]

    def interrupted_write(self, store: SqliteStore) -> None:
        with store._file.writing() as db:
            db.execute("INSERT INTO log VALUES (x'00', x'00', NULL)")
            raise KeyboardInterrupt


class TestTogether:
    """Threads that wait for one another share a transaction."""

    def waiting(self, store: SqliteStore, calls: list[Callable[[], object]]) -> list[Future[object]]:
        """The calls, each in a thread, let go at once when all of them wait."""
        with ThreadPoolExecutor(len(calls)) as pool, store._file._turn():
            made = [pool.submit(call) for call in calls]
            while len(store._file._waiting) < len(calls):
                time.sleep(0.001)
            store._file._write_lock.release()
            wait(made)
            store._file._write_lock.acquire()
        return made

    def test_one_sync_serves_all_that_wait(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        began: list[bool] = []
        begin = module.when_free
        monkeypatch.setattr(module, "when_free", lambda *args: began.append(True) or begin(*args))
        keys = [b"%d" % (n // 2) for n in range(16)]  # each key twice
        made = self.waiting(store, [lambda key=key: store.create([(key, b"v")], ttl=None) for key in keys])
        assert len(began) == 1
        for first, second in zip(made[::2], made[1::2], strict=True):
            assert sorted([first.result(), second.result()]) == [[False], [True]]
        assert sorted(store.keys()) == sorted(set(keys))

    def test_one_that_fails_does_not_take_the_others_with_it(self, store: SqliteStore) -> None:
        good = [lambda n=n: store.create([(b"%d" % n, b"v")], ttl=None) for n in range(4)]
        made = self.waiting(
            store, [*good, lambda: store._file.together(lambda db: db.execute("no SQL"), size=0, single=True)]
        )
        assert [one.result() for one in made[:4]] == [[True]] * 4
        with pytest.raises(StoreUnavailable, match="syntax"):
            made[4].result()
        assert sorted(store.keys()) == [b"0", b"1", b"2", b"3"]

    def test_an_interruption_of_the_one_that_writes_leaves_no_other_waiting_or_without_an_answer(
        self, store: SqliteStore
    ) -> None:
        """The first time all are done at once, the second time each alone."""
        times = iter([sqlite3.OperationalError("disk I/O error"), KeyboardInterrupt()])

        def interrupted(db: sqlite3.Connection) -> None:
            raise next(times)

        made = self.waiting(
            store,
            [lambda: store._file.together(interrupted, size=0, single=False)]
            + [lambda n=n: store.create([(b"%d" % n, b"v")], ttl=None) for n in range(4)],  # type: ignore[misc]
        )
        with pytest.raises(KeyboardInterrupt):
            made[0].result()
        for one in made[1:]:
            if (error := one.exception()) is None:
                assert one.result() == [True]
            else:
                assert isinstance(error, StoreUnavailable)
        assert not store._file._waiting
        done = [n for n, one in enumerate(made[1:]) if one.exception() is None]
        assert sorted(store.keys()) == [b"%d" % n for n in done]

    @pytest.mark.parametrize(("size", "count", "single"), [(200, 1, True), (5000, 1, False), (200, 2, False)])
    def test_a_small_record_alone_is_one_statement(
        self, store: SqliteStore, size: int, count: int, single: bool
    ) -> None:
        seen: list[str] = []
        with store._file._writer.connection() as db:
            db.set_trace_callback(seen.append)
        assert store.create(random_records(count, size), ttl=None) == [True] * count
        assert (len(seen), any("BEGIN" in one for one in seen)) == ((1, False) if single else (len(seen), True))

    def test_one_that_waited_too_long_is_not_done_later(self, path: Path) -> None:
        store = SqliteStore(path, busy_timeout=0.05)
        with store._file._turn(), ThreadPoolExecutor(1) as pool, pytest.raises(StoreBusy):
            pool.submit(store.create, [(b"late", b"v")], ttl=None).result()
        store.create([(b"k", b"v")], ttl=None)
        assert list(store.keys()) == [b"k"]
        store.close()


class TestLocks:
    def test_a_lock_held_too_long_is_store_busy_within_the_timeout(self, path: Path) -> None:
        store = SqliteStore(path, busy_timeout=0.3)
        store.create([(b"k", b"v")], ttl=None)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StoreBusy, match=str(path)):
            store.create([(b"new", b"v")], ttl=None)
        assert 0.25 <= time.monotonic() - started < 2
        assert store.get_many([b"k", b"new"]) == [b"v", None]
        holder.execute("ROLLBACK")
        holder.close()
        assert store.create([(b"new", b"v")], ttl=None) == [True]
        store.close()

    def test_threads_that_wait_for_a_writer_of_their_own_store_get_store_busy_too(self, path: Path) -> None:
        store = SqliteStore(path, busy_timeout=0.3)
        started = time.monotonic()
        with store._file.writing(), ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(store.create, [(b"%d" % n, b"v")], ttl=None) for n in range(4)]
            assert all(isinstance(future.exception(), StoreBusy) for future in futures)
        assert time.monotonic() - started < 2
        assert store.create([(b"0", b"v")], ttl=None) == [True]
        store.close()

    def test_no_process_starves_beside_others_that_write_without_pause(self, path: Path) -> None:
        script = """
import time
end = time.monotonic() + 1.5
n = 0
while time.monotonic() < end:
    store.create([(b"%s.%d" % (sys.argv[2].encode(), n), b"v")], ttl=None)
    n += 1
print(n)
"""
        written = [int(line) for [line] in at_once(script, [(path, n) for n in range(4)])]
        assert min(written) > max(written) / 3

    def test_a_lock_held_shorter_than_the_timeout_is_waited_for(self, store: SqliteStore, path: Path) -> None:
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, lambda: holder.execute("ROLLBACK"))
        release.start()
        assert store.create([(b"k", b"v")], ttl=None) == [True]
        release.join()
        holder.close()

    def test_more_threads_than_connections_take_turns(self, store: SqliteStore) -> None:
        records = random_records(200, 2000)
        store.create(records, ttl=None)
        with ThreadPoolExecutor(64) as pool:
            results = pool.map(lambda _: store.get_many([key for key, _ in records]), range(200))
            assert all(values == [value for _, value in records] for values in results)

    def test_connections_are_bounded_and_who_waits_too_long_for_one_gets_store_busy(self, path: Path) -> None:
        store = SqliteStore(path, busy_timeout=0.2)
        with ExitStack() as held:
            for _ in range(module.MAX_CONNECTIONS):
                held.enter_context(store._file.reading())
            with pytest.raises(StoreBusy, match="connections"):
                store.get_many([b"k"])
        assert store.get_many([b"k"]) == [None]
        store.close()

    def test_threads_that_ended_leave_no_connection_behind(self, store: SqliteStore, path: Path) -> None:
        def touch(n: int) -> None:
            thread = threading.Thread(target=store.create, args=([(b"%d" % n, b"v")],), kwargs={"ttl": None})
            thread.start()
            thread.join()

        touch(0)
        before = len(os.listdir("/dev/fd"))
        for n in range(1, 50):
            touch(n)
        assert len(os.listdir("/dev/fd")) <= before + 2


class TestInterrupted:
    """By an exception from outside, as of a time limit that a thread has."""

    class TimeLimit(BaseException):
        pass

    @pytest.mark.parametrize("what", ["turn", "connection"])
    def test_a_writer_that_waited_holds_up_nobody(self, path: Path, what: str) -> None:
        store = SqliteStore(path, busy_timeout=5)
        over, go_on = threading.Event(), threading.Event()

        def write() -> None:
            try:
                store.create([(b"a", b"v")], ttl=None)
            except self.TimeLimit:
                over.set()
                go_on.wait(60)  # with what was raised, and all that it leads to

        waiting = threading.Thread(target=write, daemon=True)
        with store._file._turn() if what == "turn" else store._file._connection(store._file._writer):
            waiting.start()
            time.sleep(0.2)
            assert waiting.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(waiting.ident), ctypes.py_object(self.TimeLimit))
        assert over.wait(60)
        assert store.create([(b"b", b"v")], ttl=None) == [True]
        go_on.set()
        store.close()


class TestForks:
    def test_parent_and_child_both_go_on_and_nothing_acknowledged_is_lost(self, path: Path) -> None:
        store = SqliteStore(path)
        store.create([(b"before", b"v")], ttl=None)
        to_child, to_parent = os.pipe(), os.pipe()

        def work() -> None:
            assert store.create([(b"child 1", b"v")], ttl=None) == [True]
            os.write(to_parent[1], b"x")
            os.read(to_child[0], 1)
            assert store.create([(b"child 2", b"v")], ttl=None) == [True]

        child = forked(work)
        os.read(to_parent[0], 1)
        assert store.create([(b"parent", b"v")], ttl=None) == [True]
        store.close()  # would delete the write-ahead log under the child, were its locks not its own
        os.write(to_child[1], b"x")
        ended_well(child)
        for end in (*to_child, *to_parent):
            os.close(end)
        again = SqliteStore(path)
        assert sorted(again.keys()) == [b"before", b"child 1", b"child 2", b"parent"]
        again.close()

    def test_forks_while_threads_write_neither_hang_nor_lose(self, store: SqliteStore) -> None:
        stop = threading.Event()

        def write(n: int) -> list[bytes]:
            written = []
            while not stop.is_set():
                written.append(b"%d.%d" % (n, len(written)))
                assert store.create([(written[-1], bytes(random.choice([100, 5000])))], ttl=None) == [True]
            return written

        def work(n: int) -> None:
            for step in range(5):
                assert store.create([(b"child %d.%d" % (n, step), b"v")], ttl=None) == [True]

        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(write, n) for n in range(4)]
            children = [forked(lambda n=n: work(n)) for n in range(12)]
            for child in children:
                ended_well(child)
            stop.set()
            expected = {key for writer in writers for key in writer.result()}
        expected |= {b"child %d.%d" % (n, step) for n in range(12) for step in range(5)}
        assert set(store.keys()) == expected

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_fork_that_is_interrupted_while_it_waits_for_a_writer_leaves_the_store_usable(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        others = [SqliteStore(tmp_path / f"other{n}.db") for n in range(3)]
        writing, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with store._file.writing():
                writing.set()
                let_go.wait()

        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(hold)
            writing.wait()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                child = forked(lambda: None)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
                let_go.set()
            held.result()
        os.waitpid(child, 0)
        for one in (store, *others):
            assert one.create([(b"k", b"v")], ttl=None) == [True]
        ended_well(forked(lambda: None))
        for one in others:
            one.close()

    def test_no_descriptor_of_the_file_crosses_a_fork(self, store: SqliteStore, path: Path) -> None:
        def work() -> None:
            for name in os.listdir("/dev/fd"):
                if os.path.lexists(f"/dev/fd/{name}"):
                    assert not os.path.realpath(f"/dev/fd/{name}").startswith(str(path))

        store.create([(b"k", b"v")], ttl=None)
        ended_well(forked(work))


def free_and_all(path: Path) -> tuple[int, int]:
    """Pages of the file that are free, and how many there are."""
    db = sqlite3.connect(path)
    try:
        [(free,), (pages,)] = (db.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
        return free, pages
    finally:
        db.close()


def mode_of(path: Path) -> int:
    """Of auto_vacuum."""
    db = sqlite3.connect(path)
    [mode] = db.execute("PRAGMA auto_vacuum").fetchone()
    db.close()
    return int(mode)


class TestSpace:
    def test_the_file_is_laid_out_as_documented_and_stays_so_after_reclaim(
        self, store: SqliteStore, path: Path
    ) -> None:
        store.create(random_records(100, 5000), ttl=None)
        store.remove_many(list(store.keys()))
        store.reclaim()
        db = sqlite3.connect(path)
        pragmas = ("application_id", "user_version", "page_size", "auto_vacuum", "journal_mode")
        values = [db.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas]
        assert values == [schema.APPLICATION_ID, schema.SCHEMA_VERSION, 2048, 2, "wal"]
        db.close()

    def test_reclaim_gives_the_pages_of_removed_records_back(self, store: SqliteStore, path: Path) -> None:
        records = random_records(2000, 300) + random_records(300, 20_000, seed=2)
        store.create(records, ttl=None)
        store.create([(b"kept", b"v")], ttl=None)
        store.remove_many([key for key, _ in records])
        before = on_disk(path)
        given_back = store.reclaim()
        assert given_back == before - on_disk(path) > 5_000_000
        assert on_disk(path) < 32 * 1024
        assert store.get_many([b"kept"]) == [b"v"]

    def test_what_removal_frees_is_given_back_as_it_comes(self, store: SqliteStore, path: Path) -> None:
        kept, gone = random_records(20, 20_000), random_records(20, 20_000, seed=2)
        store.create(kept + gone, ttl=None)
        before = free_and_all(path)[1]
        store.remove_many([key for key, _ in gone])
        free, pages = free_and_all(path)
        assert (free, pages < 0.6 * before) == (0, True)
        store.empty_many([key for key, _ in kept])
        assert free_and_all(path)[1] < 0.1 * before
        assert store.get_many([kept[0][0], gone[0][0]]) == [b"", None]

    def test_few_free_pages_are_kept_for_what_comes_and_many_for_reclaim(self, store: SqliteStore, path: Path) -> None:
        records = random_records(500, 20_000)
        store.create(records, ttl=None)
        store.remove_many([key for key, _ in records[:50]])
        assert 400 < free_and_all(path)[0] < 600
        store.remove_many([key for key, _ in records[50:]])
        assert free_and_all(path)[0] > module.MOST_TRIMMED
        store.reclaim()
        assert free_and_all(path)[0] == 0

    @pytest.mark.parametrize("step", ["BEGIN IMMEDIATE", f"PRAGMA auto_vacuum = {schema.VACUUM_ON_DEMAND}"])
    def test_removal_does_not_fail_or_wait_long_where_pages_cannot_be_given_back(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        records = random_records(20, 20_000)
        store.create(records, ttl=None)
        db = sqlite3.connect(path, isolation_level=None)
        when_free, trim = module.when_free, module.SqliteFile.trim

        def locked(writer: sqlite3.Connection, statement: str, patience: float) -> sqlite3.Cursor:
            if statement == step:
                db.execute("BEGIN IMMEDIATE")
            return when_free(writer, statement, patience)

        def trimmed(self: module.SqliteFile) -> None:
            monkeypatch.setattr(module, "when_free", locked)
            trim(self)
            monkeypatch.setattr(module, "when_free", when_free)

        monkeypatch.setattr(module, "TRIM_PATIENCE", 0.1)
        monkeypatch.setattr(module.SqliteFile, "trim", trimmed)
        began = time.monotonic()
        store.remove_many([key for key, _ in records])
        assert time.monotonic() - began < 5
        assert db.in_transaction
        db.execute("ROLLBACK")
        db.close()
        monkeypatch.undo()
        assert store.create(records[:1], ttl=None) == [True]
        assert mode_of(path) == schema.VACUUM_ON_DEMAND

    def test_removal_does_not_fail_where_the_disk_has_room_for_it_but_not_for_giving_pages_back(
        self, path: Path
    ) -> None:
        script = """
import resource, shutil, sqlite3
store = SqliteStore(sys.argv[1])
gone, kept = ([(b"%s%d" % (name, n), os.urandom(1900)) for n in range(300)] for name in (b"g", b"k"))
for pair in zip(gone, kept):
    store.create(pair, ttl=None)
store.reclaim()
store.close()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for room in range(100_000, 500_000, 50_000):
    copy = f"{sys.argv[1]}-{room}"
    shutil.copy(sys.argv[1], copy)
    store = SqliteStore(copy)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    for at in range(0, 300, 20):
        batch, refused = [key for key, _ in gone[at : at + 20]], False
        try:
            store.remove_many(batch)
        except StoreUnavailable:
            refused = True
        left = len([*filter(None, store.get_many(batch))])
        assert left == (20 if refused else 0), (room, at, left, refused)
        print("refused" if refused else "removed")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert store.get_many([key for key, _ in kept]) == [value for _, value in kept]
    db = sqlite3.connect(copy)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    store.close()
"""
        assert set(output(python(script, path))) == {"refused", "removed"}

    def test_pages_stay_while_a_reader_keeps_the_log(self, store: SqliteStore, path: Path) -> None:
        records = random_records(40, 20_000)
        store.create(records, ttl=None)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        store.remove_many([key for key, _ in records[:20]])
        assert free_and_all(path)[0] > 100
        reader.close()
        store.remove_many([key for key, _ in records[20:]])
        assert free_and_all(path)[0] == 0

    def test_a_removal_that_is_under_way_when_the_store_is_closed_does_not_fail(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records, trim = random_records(20, 20_000), module.SqliteFile.trim

        def closed(self: module.SqliteFile) -> None:
            store.close()
            trim(self)

        store.create(records, ttl=None)
        monkeypatch.setattr(module.SqliteFile, "trim", closed)
        store.remove_many([key for key, _ in records])
        again = SqliteStore(path)
        assert list(again.keys()) == []
        again.close()

    def test_a_file_left_by_a_vacuum_that_was_killed_is_put_right_by_the_next_writer_and_read_before(
        self, path: Path
    ) -> None:
        store = SqliteStore(path)
        store.create([(b"k", b"v")], ttl=None)
        store.close()
        db = sqlite3.connect(path, isolation_level=None)
        db.execute(f"PRAGMA auto_vacuum = {schema.VACUUM_AT_COMMIT}")
        db.execute("BEGIN IMMEDIATE")
        store = SqliteStore(path, busy_timeout=0.2)
        assert store.get_many([b"k"]) == [b"v"]
        with pytest.raises(StoreBusy):
            store.create([(b"n", b"v")], ttl=None)
        db.execute("ROLLBACK")
        db.close()
        assert store.create([(b"n", b"v")], ttl=None) == [True]
        assert mode_of(path) == schema.VACUUM_ON_DEMAND
        store.close()

    def test_reclaim_waits_for_a_process_that_writes_all_the_time(self, store: SqliteStore, path: Path) -> None:
        stop, db = threading.Event(), sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)

        def write() -> None:
            while not stop.is_set():
                with suppress(sqlite3.OperationalError):
                    db.execute("BEGIN IMMEDIATE")
                    time.sleep(0.03)  # longer than a writer's connection waits by itself
                    db.execute("COMMIT")
                    time.sleep(random.uniform(0, 0.003))

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            try:
                for _ in range(10):
                    records = random_records(50, 5000)
                    store.create(records, ttl=None)
                    store.remove_many([key for key, _ in records])
                    store.reclaim()
            finally:
                stop.set()
            writer.result()
        db.close()
        assert store.get_many([b"none"]) == [None]

    def test_reclaim_gives_expired_records_back(self, path: Path) -> None:
        now = 1000.0
        store = SqliteStore(path, clock=lambda: now)
        store.create(random_records(2000, 300) + random_records(40, 20_000, seed=2), ttl=10)
        for n in range(1000):
            store.swap(HeadRecord(b"%d" % n, b"t", 1, bytes(200)), expected=None, ttl=10)
        now = 1011.0
        assert store.reclaim() > 1_000_000
        assert on_disk(path) < 32 * 1024
        store.close()

    def test_a_record_is_gone_at_the_very_second_it_expires(self, path: Path) -> None:
        now = 1000.0
        store = SqliteStore(path, clock=lambda: now)
        store.create([(b"k", b"v")], ttl=10)
        now = 1009.9
        assert store.get_many([b"k"]) == [b"v"]
        now = 1010.0
        assert store.get_many([b"k"]) == [None]
        assert store.create([(b"k", b"w")], ttl=None) == [True]
        store.close()

    def test_no_large_value_is_left_of_records_that_were_to_be_created_all_at_once(self, path: Path) -> None:
        with closing(SqliteStore(path)) as store:
            store.create([(b"b", b"first")], ttl=None)
            assert store.create_all([(b"a", bytes(9000)), (b"b", bytes(9000))], ttl=None) is False
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM large").fetchone() == (0,)

    @pytest.mark.parametrize("replaced", [False, True])
    def test_no_large_value_outlives_its_row(self, path: Path, replaced: bool) -> None:
        now = 1000.0
        store = SqliteStore(path, clock=lambda: now)
        store.create([(b"k", bytes(9000))], ttl=10)
        assert store.create([(b"k", bytes(8000))], ttl=10) == [False]
        now = 1011.0
        if replaced:
            assert store.create([(b"k", b"v")], ttl=None) == [True]
        store.remove_many([b"k"])
        store.close()
        with sqlite3.connect(path) as db:
            assert db.execute("SELECT count(*) FROM large").fetchone() == (0,)
        db.close()

    def test_a_history_of_small_records_costs_little_more_than_its_bytes(self, path: Path) -> None:
        rng = random.Random(3)
        epoch = rng.randbytes(16)
        sizes = [rng.randint(150, 400) for _ in range(2100)] + [rng.randint(6000, 10_000) for _ in range(35)]
        sizes += [57 * 1024] * 6
        records = [(epoch + n.to_bytes(9, "big"), rng.randbytes(size)) for n, size in enumerate(sizes)]
        store = SqliteStore(path, synchronous="OFF")
        for record in records:
            store.create([record], ttl=None)
        store.close()
        assert on_disk(path) < 1.10 * sum(len(key) + len(value) for key, value in records)

    def test_the_write_ahead_log_is_bounded_while_others_always_read(self, store: SqliteStore, path: Path) -> None:
        hot = random_records(4, MIB)
        store.create(hot, ttl=None)
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                store.get_many([key for key, _ in hot])

        largest = 0
        with ThreadPoolExecutor(5) as pool:
            readers = [pool.submit(read) for _ in range(5)]
            for record in random_records(150, MIB // 2, seed=2):
                store.create([record], ttl=None)
                largest = max(largest, os.stat(f"{path}-wal").st_size)
            stop.set()
            assert [reader.result() for reader in readers] == [None] * 5
        assert largest < 2 * module.WAL_LIMIT

    def test_the_write_ahead_log_shrinks_after_a_long_reader_has_left(self, store: SqliteStore, path: Path) -> None:
        store.create([(b"k", b"v")], ttl=None)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        for record in random_records(30, MIB):
            store.create([record], ttl=None)
        assert os.stat(f"{path}-wal").st_size > module.WAL_LIMIT
        reader.execute("COMMIT")
        reader.close()
        for record in random_records(4, 300, seed=2):
            store.create([record], ttl=None)
        assert os.stat(f"{path}-wal").st_size <= module.WAL_LIMIT

    def test_a_value_of_64_mib_is_stored_and_given_back(self, store: SqliteStore, path: Path) -> None:
        value = random.Random(64).randbytes(64 * MIB)
        assert store.create([(b"k", value)], ttl=None) == [True]
        assert store.get_many([b"k"]) == [value]
        assert os.stat(f"{path}-wal").st_size <= module.WAL_LIMIT
        store.remove_many([b"k"])
        assert store.reclaim() > 60 * MIB
