"""Made-up text that compresses about as real text does: prose, program code, what tools print."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import accumulate, count

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


def words(rng: random.Random, number: int) -> list[str]:
    return rng.choices(_WORDS, cum_weights=_WEIGHTS, k=number)


def sentence(rng: random.Random) -> str:
    return " ".join(words(rng, rng.randint(6, 18))).capitalize() + "."


def prose(rng: random.Random, size: int) -> str:
    """`size` characters of sentences."""
    return _fill(size, " ", (sentence(rng) for _ in count()))


def code(rng: random.Random, size: int) -> str:
    """`size` characters of functions."""
    return _fill(size, "\n\n\n", (_function(rng) for _ in count()))


def listing(lines: list[str], size: int) -> str:
    """Numbered lines of files, at most `size` characters."""
    return "\n".join(f"{number:5} {line}" for number, line in enumerate(lines, 1))[:size]


def test_run(rng: random.Random, size: int) -> str:
    """`size` characters of what a run of the tests prints: the same tests each time, from some point on."""
    start = rng.randrange(len(_TESTS))
    return _fill(size, "\n", (_result(rng, _TESTS[n % len(_TESTS)]) for n in count(start)))


def code_line(rng: random.Random) -> str:
    a, b, c, d = words(rng, 4)
    return f"    {a} = {b}.{c}({d}, {rng.randint(0, 999)})"


def _function(rng: random.Random) -> str:
    name, first, second = words(rng, 3)
    body = "\n".join(code_line(rng) for _ in range(rng.randint(3, 12)))
    return f'def {name}_{first}({first}, {second}):\n    """{sentence(rng)}"""\n{body}\n    return {first}'


def _result(rng: random.Random, test: str) -> str:
    if rng.random() < 0.95:
        return f"{test} PASSED in {rng.randint(1, 999)} ms"
    return f"{test} FAILED in {rng.randint(1, 999)} ms\n  line {rng.randint(1, 400)}: {sentence(rng)}"


def _fill(size: int, separator: str, pieces: Iterable[str]) -> str:
    """As many pieces as it takes, cut to size."""
    taken, length = [], 0
    for piece in pieces:
        taken.append(piece)
        length += len(piece) + len(separator)
        if length >= size:
            break
    return separator.join(taken)[:size]


_TESTS = [f"tests/{'/'.join(words(_make, 2))}.py::test_{'_'.join(words(_make, 3))}" for _ in range(600)]
