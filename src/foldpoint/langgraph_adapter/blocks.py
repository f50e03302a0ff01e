"""Lists of messages in blocks, as they were last written or read: most of a list is again what it was."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgpack
from langchain_core.messages import BaseMessage

from foldpoint.engine.forks import forks
from foldpoint.langgraph_adapter.frozen import FREEZER, Freezer

Place = tuple[str, str, str]
"""Thread, namespace, channel: what is there next is likely to be much like what was last."""

BLOCK = 64
"""Messages. Fewer: more pieces of a long list. More: more bytes to copy at each append."""
array_header = msgpack.Packer(autoreset=True).pack_array_header
_PLACE_BYTES = 600
_MESSAGE_BYTES = 400
"""What a place, and a message beside what it holds, take here, about."""


@dataclass(frozen=True, slots=True)
class Block:
    """Up to BLOCK messages. frozen: what they held, None where that does not tell everything. piece: they, packed.

    size: bytes that all this takes, about.
    """

    classes: list[type]
    frozen: list[Any] | None
    piece: bytes
    size: int

    def __len__(self) -> int:
        return len(self.classes)

    def followed_by(self, more: Block) -> Block:
        both = None if self.frozen is None or more.frozen is None else self.frozen + more.frozen
        return Block(self.classes + more.classes, both, self.piece + more.piece, self.size + more.size)


class Memory:
    """The blocks of the places used last: `held` bytes, about, and at most `limit`. Safe to share between threads."""

    def __init__(self, limit: int, freezer: Freezer = FREEZER) -> None:
        self.freezer = freezer
        self.limit = limit
        self.after_fork_in_child()
        forks.renew_after(self)

    def after_fork_in_child(self) -> None:
        """Begin with nothing."""
        self.held = 0
        self._blocks: OrderedDict[Place, tuple[list[Block], int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, place: Place) -> list[Block]:
        """What is remembered of the place; not to be changed."""
        with self._lock:
            if place not in self._blocks:
                return []
            self._blocks.move_to_end(place)
            return self._blocks[place][0]

    def first_seen(self, place: Place) -> bool:
        """Whether nothing was put for the place yet, or it is forgotten; from now on it is known."""
        with self._lock:
            seen = place in self._blocks
        if not seen:
            self.put(place, [])
        return not seen

    def put(self, place: Place, blocks: list[Block]) -> None:
        """In place of what was remembered; nothing where the blocks alone are more than the limit."""
        size = _PLACE_BYTES + sum(block.size for block in blocks)
        with self._lock:
            _, before = self._blocks.pop(place, ([], 0))
            self.held -= before
            if size > self.limit:
                return
            self._blocks[place] = blocks, size
            self.held += size
            while self.held > self.limit:
                _, (_, dropped) = self._blocks.popitem(last=False)
                self.held -= dropped

    def block(self, classes: list[type], frozen: list[Any] | None, piece: bytes) -> Block:
        size = len(piece) + _MESSAGE_BYTES * len(classes) + sum(map(self.freezer.size, frozen or ()))
        return Block(classes, frozen, piece, size)

    def holds(self, block: Block, messages: list[BaseMessage], first: int) -> bool:
        """Whether the messages from the `first` on are the block's, and hold what they held."""
        return block.frozen is not None and self.freezer.hold(messages, first, block.classes, block.frozen)
