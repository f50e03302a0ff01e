"""The protocol of the log loses nothing in any interleaving, and each of its rules is needed."""

from __future__ import annotations

import pytest
from model.log_protocol import RULES, explore, start

WORLDS = {
    "a writer, a sealer that seals twice": start("ab", rewrites=False, reads=False),
    "a writer, a sealer, a rewriter": start("a", rounds=1, reads=False),
    "a writer and two sealers": start("ab", sealers=2, rounds=1, rewrites=False, reads=False),
    "a writer, a sealer, a reader": start("ab", rounds=1, rewrites=False),
    "a writer, a rewriter, a reader": start("a", sealers=0),
}


@pytest.mark.parametrize("name", WORLDS)
def test_no_interleaving_loses_an_event(name: str) -> None:
    explored = explore(WORLDS[name])
    assert explored.loss is None
    assert explored.states > 1000


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("adopt", "a writer and two sealers"),
        ("recheck", "a writer, a sealer, a rewriter"),
        ("retry", "a writer, a sealer, a reader"),
        ("fence", "a writer, a sealer, a rewriter"),
    ],
)
def test_without_one_of_the_rules_an_event_is_lost(rule: str, name: str) -> None:
    loss = explore(WORLDS[name], RULES - {rule}).loss
    assert loss is not None
    assert any("acknowledges" in step for step in loss)
