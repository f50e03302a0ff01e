"""What Foldpoint promises, each with its limit and how it is measured.

Ratios are to the best durable peer of the same run, unless a claim names another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.results import Results, divided
from benchmarks.savers import PEERS
from benchmarks.workloads import SHAPES

Measure = Callable[[Results, str], float | None]


@dataclass(frozen=True)
class Claim:
    """`measure` gives the figure of one of Foldpoint's savers, None where it or the peers were not measured.

    unit: of the figure; without one it is a ratio.
    """

    text: str
    limit: float
    measure: Measure
    unit: str = ""


def _ratio(workload: str, figure: str, *peers: str) -> Measure:
    return lambda results, saver: results.ratio(workload, saver, figure, peers or PEERS)


def _figure(workload: str, figure: str, unit: float = 1) -> Measure:
    return lambda results, saver: divided(results.figure(workload, saver, figure), unit)


def _between(workload: str, other: str, figure: str) -> Measure:
    """The same saver's figure on one workload as a multiple of that on another."""
    return lambda results, saver: divided(results.figure(workload, saver, figure), results.figure(other, saver, figure))


def _shape(name: str) -> list[Claim]:
    return [
        Claim(f"{name}: time of the run", 1.05, _ratio(name, "wall")),
        Claim(f"{name}: memory of the process", 1.2, _ratio(name, "peak")),
    ]


CLAIMS: Sequence[Claim] = [
    Claim("airline: put at the end", 1 / 5, _ratio("airline", "put")),
    Claim("airline: growth of put, first mark to last", 2, _figure("airline", "put_growth")),
    Claim("airline: latest, by the saver that wrote it", 1 / 3, _ratio("airline", "latest")),
    Claim("airline: latest, by a saver that has read nothing", 1 / 3, _ratio("airline", "resume")),
    Claim("airline: time of the run", 1 / 2, _ratio("airline", "wall")),
    Claim("airline: bytes before compaction, to AerospikeSaver's", 1 / 800, _ratio("airline", "stored", "aerospike")),
    Claim("airline: bytes before compaction, to PostgresSaver's", 1 / 200, _ratio("airline", "stored", "postgres")),
    Claim("airline: bytes after compaction, to AerospikeSaver's", 1 / 500, _ratio("airline", "compacted", "aerospike")),
    Claim("airline: bytes after compaction", 0.25, _figure("airline", "compacted", 1e6), "MB"),
    Claim("fanout: bytes, to packets of numbers", 1.1, _between("fanout", "fanout_numbers", "stored")),
    Claim("fanout: bytes, to one node without packets", 1.1, _between("fanout", "fanout_one_node", "stored")),
    Claim("coding: bytes before compaction", 1 / 100, _ratio("coding", "stored")),
    Claim("skills: bytes before compaction", 1 / 100, _ratio("skills", "stored")),
    Claim("coding: bytes after compaction", 1 / 100, _ratio("coding", "compacted")),
    Claim("skills: bytes after compaction", 1 / 100, _ratio("skills", "compacted")),
    Claim("crowd: time per checkpoint", 1 / 5, _ratio("crowd", "per_checkpoint")),
    Claim("crowd_async: time per checkpoint", 1 / 5, _ratio("crowd_async", "per_checkpoint")),
    Claim("crowd_bare: time per checkpoint", 1 / 5, _ratio("crowd_bare", "per_checkpoint")),
    Claim("long: put beyond the serializer", 0.15, _figure("long", "put_beyond"), "ms"),
    Claim("long: growth of put", 1.2, _figure("long", "put_growth")),
    Claim("long: growth of latest", 1.2, _figure("long", "latest_growth")),
    Claim("long: growth of a cold latest", 1.2, _figure("long", "resume_growth")),
    Claim("long: a put, on average", 1.1, _figure("long", "put_calls"), "calls of the store"),
    Claim("long: a cold latest", 2, _figure("long", "resume_calls"), "calls of the store"),
    *(claim for name in SHAPES for claim in _shape(name)),
]
