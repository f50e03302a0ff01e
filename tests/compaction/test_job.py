"""A job over a whole store: every thread once, at its rate, whatever is killed."""

from __future__ import annotations

import time
from multiprocessing import Pipe, get_context
from pathlib import Path

import pytest
from checkpoints import numbered, numbers

from foldpoint import Engine, Settings
from foldpoint.compaction import Archives
from foldpoint.compaction.job import SHARES, Job, Journal, Outcome, Rate, ShareDone
from foldpoint.compaction.policy import Policies, Retention
from foldpoint.compaction.workers import _Crew
from foldpoint.engine.memory import MemoryStore
from foldpoint.engine.url import open_store
from foldpoint.errors import StoreUnavailable


def go_on(seconds: float) -> bool:
    return False


@pytest.fixture
def engine() -> Engine:
    """On a store of 100 threads of 3 checkpoints, half of which have a subgraph, and some only that."""
    engine = Engine(MemoryStore(), Settings())
    for t in range(100):
        for n in range(3):
            for namespace in ("",) if t % 2 else ("", "child|a"):
                if t % 10 or namespace:
                    engine.put(f"t{t}", namespace, numbered(n))
    return engine


def outcomes(job: Job, engine: Engine, shares: range | None = None) -> list[Outcome]:
    messages = job.run(engine, range(job.shares) if shares is None else shares, go_on)
    return [message for message in messages if isinstance(message, Outcome)]


def test_the_shares_together_have_every_stream_once(engine: Engine) -> None:
    expected = sorted((head.thread_id, head.namespace) for head in engine.heads())
    found = [outcome.report for share in range(SHARES) for outcome in outcomes(Job(), engine, range(share, share + 1))]
    assert sorted((report.thread_id, report.namespace) for report in found if report) == expected
    assert sum(1 for _ in Job().streams(engine)) == len(expected)


def test_the_streams_of_a_thread_come_together(engine: Engine) -> None:
    found = [outcome.thread_id for outcome in outcomes(Job(), engine)]
    assert len({*found}) == 100
    assert all(found.index(each) + found.count(each) - 1 == len(found) - 1 - found[::-1].index(each) for each in found)


def test_one_thread_or_a_prefix_alone(engine: Engine) -> None:
    assert {outcome.thread_id for outcome in outcomes(Job(thread_id="t4"), engine)} == {"t4"}
    assert {outcome.thread_id for outcome in outcomes(Job(prefix="t4"), engine)} == {
        "t4",
        *(f"t4{n}" for n in range(10)),
    }
    assert outcomes(Job(thread_id="nobody"), engine) == []


def test_each_share_is_announced_when_all_of_it_is_done(engine: Engine) -> None:
    messages = [*Job().run(engine, [5, 3], go_on)]
    done = [at for at, message in enumerate(messages) if isinstance(message, ShareDone)]
    assert [messages[at] for at in done] == [ShareDone(5), ShareDone(3)]
    fifth = {outcome.thread_id for outcome in outcomes(Job(), engine, range(5, 6))}
    assert {message.thread_id for message in messages[: done[0]] if isinstance(message, Outcome)} == fifth


def test_it_stops_after_a_thread_and_leaves_its_share_undone(engine: Engine) -> None:
    asked = []

    def wait(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) == 7

    messages = [*Job().run(engine, range(SHARES), wait)]
    assert isinstance(messages[-1], Outcome)
    assert len({message.thread_id for message in messages if isinstance(message, Outcome)}) == 7


@pytest.mark.parametrize(
    ("text", "amount", "of"),
    [
        ("20", 20, "streams"),
        ("0.5", 0.5, "streams"),
        ("4MB", 4e6, "bytes"),
        ("500 kB", 5e5, "bytes"),
        ("1MiB", 1 << 20, "bytes"),
    ],
)
def test_a_rate_is_of_streams_or_bytes(text: str, amount: float, of: str) -> None:
    assert Rate.parse(text) == Rate(amount, of)


@pytest.mark.parametrize("text", ["", "0", "0MB", "-1", "fast", "4 mb", "4MB/s", "\u0663"])
def test_another_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rate: expected"):
        Rate.parse(text)


@pytest.mark.parametrize("rate", [Rate(0.001, "streams"), Rate(1, "bytes")], ids=str)
def test_a_rate_makes_it_wait_across_all_shares(engine: Engine, rate: Rate) -> None:
    waits: list[float] = []
    reports = []
    for message in Job(rate=rate).run(engine, range(SHARES), lambda seconds: bool(waits.append(seconds))):
        if isinstance(message, Outcome) and message.report:
            reports.append(message.report)
    cost = sum(report.bytes_written + report.bytes_removed if rate.of == "bytes" else 1 for report in reports)
    assert waits[-1] == pytest.approx(cost / rate.amount, rel=0.01)
    assert Job(rate=rate.split(4)).rate == Rate(rate.amount / 4, rate.of)


def test_policies_count_by_thread(engine: Engine) -> None:
    policies = Policies.model_validate({"default": {"keep_last": 1}, "threads": [{"prefix": "t7", "keep_last": 2}]})
    assert outcomes(Job(policies), engine)
    assert numbers(engine, "t7") == [2, 1]
    assert numbers(engine, "t11") == [2]


def test_a_dry_run_changes_nothing(engine: Engine) -> None:
    before = {key: engine.store.get_many([key]) for key in list(engine.store.keys())}
    found = outcomes(Job(Policies(default=Retention(keep_last=1)), dry_run=True), engine)
    assert all(outcome.plan and outcome.report for outcome in found)
    assert {key: engine.store.get_many([key]) for key in list(engine.store.keys())} == before


def test_a_journal_remembers_what_is_done_and_goes_when_all_is(tmp_path: Path) -> None:
    path, job = tmp_path / "journal.json", {"url": "memory:", "prefix": "x"}
    first = Journal(path, job)
    assert first.remaining == [*range(SHARES)]
    for share in (3, 1):
        first.finish(share)
    second = Journal(path, job)
    assert second.remaining == [share for share in range(SHARES) if share not in (1, 3)]
    with pytest.raises(ValueError, match="of another job"):
        Journal(path, {**job, "prefix": "y"})
    for share in second.remaining:
        second.finish(share)
    assert not path.exists()


@pytest.mark.parametrize("said", [0, 1], ids=["before it said anything", "when it had done a share"])
def test_a_worker_that_was_killed_ends_the_job_with_what_happened_to_it(said: int) -> None:
    crew = _Crew(range(9))
    here, there = Pipe()
    worker = get_context("spawn").Process(target=time.sleep, args=(60,))
    worker.start()
    crew._links[here] = worker
    for _ in range(said):
        there.send(ShareDone(0))
    here.send(1)  # which nobody takes
    there.close()
    worker.kill()
    worker.join()
    with pytest.raises(StoreUnavailable, match="a worker process ended with code -9; run the job again"):
        [*crew.listen(), *crew.listen(), *crew.listen()]


def test_an_archive_that_was_refused_is_refused_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    engine = Engine(open_store(url))
    with Archives(engine) as archives:
        for _ in range(2):
            with pytest.raises(ValueError, match="is the store that is worked on"):
                archives.open(url)
        assert archives.open(f"sqlite:///{tmp_path}/other.db").store is not engine.store
    engine.store.close()
