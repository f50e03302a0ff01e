"""A rope is a byte string."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldpoint.codecs.rope import Rope


@given(st.data(), st.binary(max_size=30))
def test_any_chain_of_splices_gives_the_bytes_that_slicing_gives(data: st.DataObject, start: bytes) -> None:
    rope, expected = Rope(start), start
    for _ in range(data.draw(st.integers(0, 8))):
        size = len(expected)
        skip = data.draw(st.integers(0, size))
        removed = data.draw(st.integers(0, size - skip))
        suffix = data.draw(st.integers(0, size - skip - removed))
        head, body = data.draw(st.binary(max_size=3)), data.draw(st.binary(max_size=6))
        rope = rope.splice(head, skip, removed, suffix, body)
        expected = head + expected[skip : size - removed - suffix] + body + expected[size - suffix :]
        assert len(rope) == len(expected)
        count = data.draw(st.integers(0, len(expected)))
        assert rope.start(count) == expected[:count]
        if data.draw(st.booleans()):
            assert bytes(rope) == expected
    assert bytes(rope) == expected


parts = st.lists(st.sampled_from([b"", b"a", b"ab", b"abc" * 3]), max_size=6)


@given(parts, parts, st.data())
def test_pieces_tell_what_two_ropes_share_and_never_more(
    one: list[bytes], another: list[bytes], data: st.DataObject
) -> None:
    mine, theirs = b"".join(one), b"".join(another)
    skip, start = data.draw(st.integers(0, len(mine))), data.draw(st.integers(0, len(theirs)))
    shared = Rope(*one).shared(skip, Rope(*another), start)
    assert mine[skip : skip + shared] == theirs[start : start + shared]
    assert 0 <= shared <= min(len(mine) - skip, len(theirs) - start)
    assert Rope(*one).equals(Rope(*another)) == (mine == theirs)


@given(parts, st.data())
def test_a_tail_is_what_follows_and_leaves_out_whole_pieces(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    count = data.draw(st.integers(0, len(whole)))
    tail, at = Rope(*pieces).tail(count)
    assert tail[at:] == whole[count:]
    assert at <= max(map(len, pieces), default=0)


def test_what_is_shared_is_found_however_the_other_rope_was_joined() -> None:
    pieces = [b"header", *(b"message %d" % n for n in range(20))]
    whole = b"".join(pieces)
    for mine, theirs in (
        (Rope(*pieces), Rope(*pieces, b"more")),
        (Rope(whole), Rope(*pieces)),
        (Rope(*pieces), Rope(whole)),
    ):
        assert mine.shared(6, theirs, 6) == len(whole) - 6


@pytest.mark.parametrize("appends", [1, 127, 128, 129, 1000])
def test_many_appends_join_to_all_of_them(appends: int) -> None:
    rope = Rope(b"")
    for n in range(appends):
        rope = rope.splice(b"", 0, 0, 0, b"%d," % n)
    assert bytes(rope) == b"".join(b"%d," % n for n in range(appends))


def test_a_splice_leaves_the_rope_it_was_made_of() -> None:
    old = Rope(b"0123456789").splice(b"", 0, 0, 0, b"ab")
    new = old.splice(b"X", 2, 3, 4, b"YY")
    assert bytes(new) == b"X" + b"234" + b"YY" + b"89ab"
    assert bytes(old) == b"0123456789ab"


@pytest.mark.parametrize(("skip", "removed", "suffix"), [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (2, 2, 2), (6, 0, 0)])
def test_a_splice_that_does_not_fit_is_refused(skip: int, removed: int, suffix: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Rope(b"12345").splice(b"", skip, removed, suffix, b"")


def test_joining_from_many_threads_at_once_gives_the_same_bytes() -> None:
    rope = Rope(b"start")
    for n in range(100):
        rope = rope.splice(b"", 0, 0, 0, b"%03d" % n)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: bytes(rope), range(64)))
    assert set(results) == {b"start" + b"".join(b"%03d" % n for n in range(100))}
