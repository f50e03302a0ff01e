"""Bytes made of shared pieces.

Folding a thousand appends onto a large value must not copy it a thousand times: a splice takes the pieces it keeps
and adds one. `bytes(rope)` joins them once and remembers. What two ropes share is found by looking at whole pieces.
"""

from __future__ import annotations

_MAX_PIECES = 128

Piece = bytes | memoryview


class Rope:
    """An immutable byte string. Safe to share between threads: joining twice gives the same bytes."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, *pieces: Piece) -> None:
        self._pieces: tuple[Piece, ...] = pieces or (b"",)
        self._size = sum(map(len, pieces))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return self._pieces

    @property
    def joined(self) -> bool:
        """Whether there is only one piece."""
        return len(self._pieces) == 1

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        only = self._pieces[0]
        if len(self._pieces) > 1 or not isinstance(only, bytes):
            only = b"".join(self._pieces)
            self._pieces = (only,)
        return only

    def start(self, count: int) -> bytes:
        """The first `count` bytes, without joining the rest."""
        found = b""
        for piece in self._pieces:
            found += piece[: count - len(found)]
            if len(found) == count:
                break
        return found

    def tail(self, count: int) -> tuple[bytes, int]:
        """(data, at): data[at:] is all but the first `count` bytes. Pieces that end before it are left out."""
        pieces, wanted = self._pieces, self._size - count
        first = len(pieces)
        while wanted > 0:
            first -= 1
            wanted -= len(pieces[first])
        return b"".join(pieces[first:]), -wanted

    def shared(self, skip: int, other: Rope, start: int) -> int:
        """How many bytes self[skip:] and other[start:] have in common at their start: at least so many.

        Exact to a piece where the two are made of the same pieces, or one of them of a single one.
        """
        mine, theirs = self._pieces, other._pieces
        if len(mine) == 1:
            return _leading(mine[0], skip, _drop_front(theirs, start))
        if len(theirs) == 1:
            return _leading(theirs[0], start, _drop_front(mine, skip))
        found = 0
        for one, another in zip(_drop_front(mine, skip), _drop_front(theirs, start), strict=False):
            if one is not another and (len(one) != len(another) or one != another):
                break
            found += len(one)
        return found

    def equals(self, other: Rope) -> bool:
        """Whether both are the same bytes."""
        if self is other:
            return True
        if self._size != other._size:
            return False
        if self.joined and other.joined:
            return self._pieces[0] == other._pieces[0]
        shared = self.shared(0, other, 0)
        mine, at = self.tail(shared)
        theirs, other_at = other.tail(shared)
        return mine[at:] == theirs[other_at:]

    def splice(self, head: bytes, skip: int, removed: int, suffix: int, body: bytes) -> Rope:
        """head + self[skip : size - removed - suffix] + body + self[size - suffix :].

        Raises ValueError if the parts do not fit into this rope.
        """
        size = self._size
        if min(skip, removed, suffix) < 0 or skip + removed + suffix > size:
            raise ValueError(f"splice of {skip}, {removed} and {suffix} bytes does not fit a value of {size}")
        kept = _keep_front(self._pieces, size, size - removed - suffix)
        kept = _drop_front(kept, skip)
        front = (head,) if head else ()
        middle = (body,) if body else ()
        pieces = (*front, *kept, *middle, *_keep_back(self._pieces, suffix))
        rope = Rope.__new__(Rope)
        rope._pieces = pieces or (b"",)
        rope._size = len(head) + size - skip - removed + len(body)
        if len(pieces) > _MAX_PIECES:
            bytes(rope)
        return rope


def _leading(whole: Piece, at: int, pieces: tuple[Piece, ...]) -> int:
    """How many bytes of `whole`, from `at` on, are the first of the pieces."""
    found = 0
    for piece in pieces:
        if not isinstance(whole, bytes) or not whole.startswith(piece, at + found):
            break
        found += len(piece)
    return found


def _keep_front(pieces: tuple[Piece, ...], size: int, count: int) -> tuple[Piece, ...]:
    """The pieces that hold the first `count` of `size` bytes. Walks from the end: what is dropped is short."""
    last = len(pieces)
    while last and size - len(pieces[last - 1]) >= count:
        last -= 1
        size -= len(pieces[last])
    if size == count:
        return pieces[:last]
    cut = len(pieces[last - 1]) - (size - count)
    return (*pieces[: last - 1], memoryview(pieces[last - 1])[:cut])


def _drop_front(pieces: tuple[Piece, ...], count: int) -> tuple[Piece, ...]:
    first = 0
    while first < len(pieces) and len(pieces[first]) <= count:
        count -= len(pieces[first])
        first += 1
    if count == 0:
        return pieces[first:]
    return (memoryview(pieces[first])[count:], *pieces[first + 1 :])


def _keep_back(pieces: tuple[Piece, ...], count: int) -> tuple[Piece, ...]:
    first = len(pieces)
    while count > 0:
        first -= 1
        count -= len(pieces[first])
    if count == 0:
        return pieces[first:]
    return (memoryview(pieces[first])[-count:], *pieces[first + 1 :])
