"""`foldpoint verify` as a person runs it; what it finds is told in tests/compaction/test_verify.py."""

from __future__ import annotations

import pytest
from commands import run


@pytest.mark.parametrize(
    ("threads", "said"), [((), "Checked 4 streams"), (("--thread", "user-2"), "Checked 1 stream,")], ids=["all", "one"]
)
def test_it_says_how_many_streams_it_looked_at(url: str, threads: tuple[str, ...], said: str) -> None:
    result = run("verify", "--url", url, *threads)
    assert result.exit_code == 0, result.output
    assert said in result.stderr
