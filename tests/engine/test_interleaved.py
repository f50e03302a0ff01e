"""What processes do to one thread at once, call by call, and a crash amid it, loses nothing that was acknowledged.

`python -m torture interleave` plays many more of these.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from streams import STREAMS, merge_early

from foldpoint.engine.engine import Engine
from torture.interleaved import Taken, play, repeatable
from torture.turns import Turns


@pytest.mark.parametrize("seed", range(12))
def test_no_interleaving_and_no_crash_amid_it_loses_what_was_acknowledged(seed: int) -> None:
    play(seed)


@pytest.mark.parametrize(("kind", "seed"), [("young", 1187), ("large", 75), ("large", 776), ("levels", 0)])
def test_all_who_restore_the_same_at_once_are_answered(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one of them reads while another writes it may be of two moments."""
    merge_early(monkeypatch)
    stream, chance = STREAMS[kind](), random.Random(seed)
    expected, answers = stream.contents(), list[bool]()
    named = [key for key in stream.named() if stream.store.get_many([key]) not in ([b""], [None])]
    for key in chance.sample(named, chance.randint(1, len(named) // 2)):
        stream.store.flip(key)

    def read(engine: Engine) -> None:
        found = [(one.folded.header, one.folded.labels, one.state(), one.writes()) for one in engine.history("t", "")]
        answers.append(found == expected)

    with repeatable(chance):
        turns = Turns(chance, stream.clock)
        for number in range(3):
            store: Any = Taken(stream.store, turns, 0, chance)  # type: ignore[arg-type]
            turns.begin(f"r{number}", partial(read, stream.fresh(store)))
        turns.run()
    assert answers == [True] * 3
