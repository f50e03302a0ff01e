"""What processes do to one thread at once, call by call, and a crash amid it, loses nothing that was acknowledged.

`python -m torture interleave` plays many more of these.
"""

from __future__ import annotations

import pytest

from torture.interleaved import play


@pytest.mark.parametrize("seed", range(12))
def test_no_interleaving_and_no_crash_amid_it_loses_what_was_acknowledged(seed: int) -> None:
    play(seed)
