"""The workloads by name. Each is a function that takes a `Case` and gives a `Job`; its docstring says what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.job import Case, Job
from benchmarks.workloads.coding import coding
from benchmarks.workloads.conversation import airline, delta_channel, skills, window
from benchmarks.workloads.crowd import crowd, crowd_async, crowd_bare
from benchmarks.workloads.fanout import fanout, fanout_numbers, fanout_one_node
from benchmarks.workloads.long import large, long
from benchmarks.workloads.shapes import (
    pydantic_state,
    react_10,
    react_100,
    sequential,
    subgraphs_10,
    subgraphs_100,
    wide_dict,
    wide_state,
)

_THREADS = (airline, coding, fanout, fanout_numbers, fanout_one_node, window, skills, delta_channel, large, long)
_SHAPES = (react_10, react_100, subgraphs_10, subgraphs_100, wide_state, wide_dict, pydantic_state, sequential)
_CROWDS = (crowd, crowd_async, crowd_bare)

SHAPES: tuple[str, ...] = tuple(make.__name__ for make in _SHAPES)
WORKLOADS: Mapping[str, Callable[[Case], Job]] = {make.__name__: make for make in (*_THREADS, *_SHAPES, *_CROWDS)}
