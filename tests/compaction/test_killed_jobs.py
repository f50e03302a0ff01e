"""The offline job beside live writers, killed at random. `python -m benchmarks.compaction` does this at full size."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.compaction import fill, killed_and_restarted, lost, unsealed, writers

THREADS, CHECKPOINTS, LIVE = 2400, 2, 10


def test_a_job_killed_three_times_beside_writers_ends_complete_and_nothing_is_lost(tmp_path: Path) -> None:
    fill(tmp_path / "store.db", range(THREADS), CHECKPOINTS)
    url = f"sqlite:///{tmp_path}/store.db"
    counts = dict.fromkeys(random.Random(0).sample(range(THREADS), LIVE), CHECKPOINTS)
    with writers(url, counts, pause=0.05) as end:
        killed_and_restarted(url, 3, (1.2, 2.0), "--workers", "2", "--resume", str(tmp_path / "resume.json"))
        written = end()
    assert written.errors == []
    assert sum(written.counts.values()) > LIVE * CHECKPOINTS + 20
    assert unsealed(url, range(THREADS)) == 0
    assert lost(url, dict.fromkeys(range(THREADS), CHECKPOINTS) | written.counts) == []
