"""Made-up text that compresses about as real text does: prose, program code, logs."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate

_SYLLABLES = (
    "an",
    "ar",
    "be",
    "co",
    "de",
    "en",
    "fa",
    "ge",
    "in",
    "ka",
    "le",
    "mi",
    "no",
    "re",
    "sa",
    "te",
    "un",
    "vi",
)
_make = random.Random(0)
_WORDS = ["".join(_make.choices(_SYLLABLES, k=_make.choice((1, 2, 2, 3, 3, 4)))) for _ in range(1500)]
_WEIGHTS = list(accumulate(1 / (rank + 3) for rank in range(len(_WORDS))))  # as words are spread in a language


def words(rng: random.Random, count: int) -> list[str]:
    return rng.choices(_WORDS, cum_weights=_WEIGHTS, k=count)


def sentence(rng: random.Random) -> str:
    return " ".join(words(rng, rng.randint(6, 18))).capitalize() + "."


def prose(rng: random.Random, size: int) -> str:
    """`size` characters of sentences."""
    return _fill(size, " ", lambda: sentence(rng))


def code(rng: random.Random, size: int) -> str:
    """`size` characters of functions."""
    return _fill(size, "\n\n\n", lambda: _function(rng))


def log(rng: random.Random, size: int) -> str:
    """`size` characters of what a test run prints."""
    return _fill(size, "\n", lambda: _log_line(rng))


def code_line(rng: random.Random) -> str:
    a, b, c, d = words(rng, 4)
    return f"    {a} = {b}.{c}({d}, {rng.randint(0, 999)})"


def _function(rng: random.Random) -> str:
    name, first, second = words(rng, 3)
    body = "\n".join(code_line(rng) for _ in range(rng.randint(3, 12)))
    return f'def {name}_{first}({first}, {second}):\n    """{sentence(rng)}"""\n{body}\n    return {first}'


def _log_line(rng: random.Random) -> str:
    module, test, what = words(rng, 3)
    if rng.random() < 0.7:
        return f"tests/{module}/test_{test}.py::test_{test}_{what} PASSED in {rng.randint(1, 9999)} ms"
    return f"  File src/{module}/{test}.py, line {rng.randint(1, 900)}, in {what}: {sentence(rng)}"


def _fill(size: int, separator: str, piece: Callable[[], str]) -> str:
    pieces, length = [], 0
    while length < size:
        pieces.append(piece())
        length += len(pieces[-1]) + len(separator)
    return separator.join(pieces)[:size]
