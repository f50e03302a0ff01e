"""Running the targets under atheris, each in a process of its own that libFuzzer takes over."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from torture.targets import Target, mutate, seeds, targets

MEMORY_MB = 2048
"""More than that is a failure: a record never claims memory that it does not fill."""
INPUT_SECONDS = 20
_DONE = re.compile(r"Done (\d+) (?:runs|in)|#(\d+)\s+DONE|stat::number_of_executed_units:\s+(\d+)")


class AtherisMissing(Exception):
    """The fuzzer is not installed: pip install atheris."""


def names() -> list[str]:
    return list(targets())


def fuzz(name: str, seconds: float, seed: int) -> int:
    """Feed a target for so long; how many inputs. AssertionError with the file of one that it failed on."""
    with TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(data)
        kept = Path(mkdtemp(prefix="foldpoint-fuzz-"))
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "torture.fuzz", name, corpus, f"-seed={seed % (1 << 31) + 1}"),
                *(f"-max_total_time={int(seconds)}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={INPUT_SECONDS}"),
                *("-print_final_stats=1", "-max_len=4096", f"-artifact_prefix={kept}/"),
            ],
            capture_output=True,
            text=True,
        )
    told = ran.stdout + ran.stderr
    if "No module named 'atheris'" in told:
        raise AtherisMissing(AtherisMissing.__doc__)
    inputs = [*kept.iterdir()]
    if ran.returncode or inputs:
        again = f"python -m torture fuzz --only {name!r} --input {inputs[0] if inputs else '?'}"
        raise AssertionError(f"{told[-3000:]}\nAgain: {again}")
    kept.rmdir()
    found = [int(next(filter(None, match))) for match in _DONE.findall(told)]
    return max(found, default=0)


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["foldpoint"]):
        import foldpoint.compaction.verify
        import foldpoint.langgraph_adapter  # noqa: F401

    name = sys.argv.pop(1)
    target: Target = targets()[name]

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(data, random.Random(seed))[:max_size]

    atheris.Setup(sys.argv, target, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
