"""Whatever happened to a stream, every checkpoint that was put reads back equal to what a dict of full states holds.

`python -m torture machine` plays many more of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stores
from counting import NarrowStore
from hypothesis import settings

from foldpoint.engine.records import RecordStore
from torture.machine import Histories, SqliteHistories
from torture.power import NodeHistories
from torture.small import small_limits


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_limits():
        yield


class AerospikeHistories(Histories):
    def make_store(self) -> RecordStore:
        self.harness = stores.aerospike(Path())
        return NarrowStore(self.harness.open(), 300)

    def teardown(self) -> None:
        super().teardown()
        self.harness.close()


def _share(divisor: int) -> settings:
    return settings(max_examples=max(5, settings.default.max_examples // divisor), stateful_step_count=40)


TestMemory = Histories.TestCase
TestMemory.settings = _share(1)
TestNode = NodeHistories.TestCase
TestNode.settings = _share(2)
TestSqlite = SqliteHistories.TestCase
TestSqlite.settings = _share(8)
TestAerospike = AerospikeHistories.TestCase
TestAerospike.settings = _share(20)
