"""What is frozen is compared and built again exactly, compiled or not; and what is read uses it unseen."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import ormsgpack
import pytest
from drawing import Word, change, messages, odd, plain, state
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from ormsgpack import Ext, Fragment
from test_decoding import STRICT, outcome, stored
from test_encoding import FREEZERS, PLACE, SERDE, serialized, talk
from values import examples

from foldpoint.codecs.model import Value
from foldpoint.langgraph_adapter.blocks import BLOCK, Memory
from foldpoint.langgraph_adapter.decoding import Decoder
from foldpoint.langgraph_adapter.encoding import Encoder
from foldpoint.langgraph_adapter.frozen import IN_C, IN_PYTHON, Freezer
from foldpoint.langgraph_adapter.known import known_messages

NAMES = {cls: known.given for cls, known in known_messages().items()}
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
every_freezer = pytest.mark.parametrize("freezer", FREEZERS)


def frozen_or_none(freezer: Freezer, message: BaseMessage) -> Any:
    known = known_messages().get(type(message))
    return known and known.frozen(message, freezer)


# -- holding and building ----------------------------------------------------------------------------------------------


@every_freezer
@given(data=st.data(), message=messages)
@examples(3)
def test_a_message_holds_what_was_frozen_only_while_it_would_be_serialized_the_same(
    freezer: Freezer, data: st.DataObject, message: BaseMessage
) -> None:
    frozen, before = frozen_or_none(freezer, message), serialized(message)
    if frozen is None:
        return
    cls = type(message)
    assert freezer.hold([message], 0, [cls], [frozen])
    for _ in range(data.draw(st.integers(1, 3))):
        change(data.draw, message)
        if freezer.hold([message], 0, [cls], [frozen]):
            assert serialized(message) == before


TWINS = [
    (1, True),
    (1, 1.0),
    (0, False),
    (0.0, -0.0),
    ("a", Word("a")),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ([1], (1,)),
]


@every_freezer
@pytest.mark.parametrize(("was", "now"), [*TWINS, *((now, was) for was, now in TWINS[:4])])
def test_what_is_equal_and_not_the_same_does_not_hold(freezer: Freezer, was: Any, now: Any) -> None:
    for wrap in (lambda inner: inner, lambda inner: [inner], lambda inner: {"k": [inner, 1]}):
        message = ToolMessage("", tool_call_id="c", artifact=wrap(was))
        frozen = [frozen_or_none(freezer, message)]
        message.artifact = wrap(copy.deepcopy(was))
        assert freezer.hold([message], 0, [ToolMessage], frozen)
        message.artifact = wrap(now)
        assert not freezer.hold([message], 0, [ToolMessage], frozen)


@every_freezer
@given(message=messages)
@examples(3)
def test_what_is_built_is_what_the_serializer_builds_and_holds_what_was_frozen(
    freezer: Freezer, message: BaseMessage
) -> None:
    frozen, cls = frozen_or_none(freezer, message), type(message)
    try:
        expected = state(SERDE.loads_typed(SERDE.dumps_typed(message)))
    except TypeError:  # text that is no text
        return
    if frozen is not None:
        first, second = freezer.build([cls, cls], NAMES, [frozen, frozen])
        assert state(first) == state(second) == expected
        assert freezer.hold([first, second], 0, [cls, cls], [frozen, frozen])


@every_freezer
def test_what_is_built_shares_nothing_that_can_be_changed(freezer: Freezer) -> None:
    listed = talk(8)
    classes, frozen = [*map(type, listed)], [frozen_or_none(freezer, message) for message in listed]
    built = freezer.build(classes, NAMES, frozen)
    for message in built:
        spoil(vars(message))
        message.__pydantic_fields_set__.clear()
        message.__pydantic_extra__["more"] = 1
    assert state(freezer.build(classes, NAMES, frozen)) == state(SERDE.loads_typed(SERDE.dumps_typed(listed)))
    for message in listed:
        spoil(vars(message))
    assert state(freezer.build(classes, NAMES, frozen)) == state(SERDE.loads_typed(SERDE.dumps_typed(talk(8))))


def spoil(value: Any) -> None:
    for inner in [*value.values()] if type(value) is dict else [*value] if type(value) is list else ():
        spoil(inner)
    if type(value) is dict:
        value["spoilt"] = True
    elif type(value) is list:
        value.append("spoilt")


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


@every_freezer
@given(value=odd)
def test_what_is_not_plain_is_not_frozen_wherever_it_is(freezer: Freezer, value: Any) -> None:
    if type(value) is str or type(value) is int or (freezer is IN_PYTHON and type(value) is bytearray):
        return  # packing refuses what msgpack does not know, and any bytes are bytes to it
    for fields in ({"a": value}, {"a": [1, value]}, {"a": {"b": [{"c": value}]}}):
        with pytest.raises(TypeError):
            freezer.freeze(fields)


@every_freezer
@pytest.mark.parametrize("value", [Ext(99, b"x"), Fragment(b"\x81\x01\x02")])
def test_what_packs_and_does_not_unpack_is_not_frozen(freezer: Freezer, value: Any) -> None:
    with pytest.raises(TypeError):
        freezer.freeze({"a": [value]})


class Loud(type):
    def __repr__(cls) -> str:
        raise RuntimeError("asked what it is")


@every_freezer
def test_to_refuse_a_value_none_of_its_code_is_run(freezer: Freezer) -> None:
    class Key(metaclass=Loud):
        def __hash__(self) -> int:
            return hash("k")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("compared")

    fields: dict[Any, Any] = {Key(): 1}
    for inner in (fields, Loud("Odd", (), {})(), Loud("Odder", (), {})):
        with pytest.raises(TypeError):
            freezer.freeze({"a": 1, "b": inner})


@pytest.mark.skipif("CI" not in os.environ, reason="a person may have no compiler")
def test_on_a_build_server_it_is_compiled() -> None:
    assert IN_C is not None


def test_what_was_compiled_from_an_earlier_version_is_not_used() -> None:
    script = """
import sys, types
sys.modules["foldpoint.langgraph_adapter._frozen"] = types.ModuleType("_frozen")
from foldpoint.langgraph_adapter.frozen import FREEZER, IN_PYTHON
print(FREEZER is IN_PYTHON)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


@pytest.mark.skipif(IN_C is None, reason="not compiled here")
@pytest.mark.parametrize("fields", [{"a": nested(200)}, {"a": {1: 2}}, {1: 2}, [("a", 1)], None])
def test_compiled_too_what_is_too_deep_or_no_fields_is_not_frozen(fields: Any) -> None:
    assert IN_C is not None
    with pytest.raises(TypeError):
        IN_C.freeze(fields)


@every_freezer
def test_what_holds_itself_is_not_frozen(freezer: Freezer) -> None:
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(TypeError):
        freezer.freeze({"a": itself})


@every_freezer
def test_only_the_messages_of_that_place_hold(freezer: Freezer) -> None:
    listed = talk(8)
    classes, frozen = [*map(type, listed[2:4])], [frozen_or_none(freezer, message) for message in listed[2:4]]
    assert [freezer.hold(listed, first, classes, frozen) for first in (0, 1, 2, 3, 6, 7, 8, 9)] == [
        first == 2 for first in (0, 1, 2, 3, 6, 7, 8, 9)
    ]
    assert not freezer.hold(listed[:3], 2, classes, frozen)
    assert not freezer.hold(listed[3:1:-1], 0, classes, frozen)
    assert not freezer.hold(listed, 2, classes[::-1], frozen)


@pytest.mark.skipif(IN_C is None, reason="not compiled here")
def test_compiled_too_what_is_no_message_is_refused_and_not_a_crash() -> None:
    assert IN_C is not None
    frozen = IN_C.freeze({"a": 1})
    with pytest.raises(AttributeError):
        IN_C.hold([object()], 0, [object], [frozen])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        IN_C.hold(talk(1), 0, [SystemMessage], [{}])
    for classes, names, held in [
        ([HumanMessage], {}, [frozen]),
        ([], NAMES, [frozen]),
        ([HumanMessage], NAMES, [{}]),
        ([5], {5: set()}, [frozen]),
        ([int], {int: set()}, [frozen]),
        ([dict], {dict: set()}, [frozen]),
    ]:
        with pytest.raises((TypeError, AttributeError, IndexError)):
            IN_C.build(classes, names, held)  # type: ignore[arg-type]


@pytest.mark.skipif(IN_C is None, reason="not compiled here")
def test_compiled_too_plain_messages_are_built_and_others_are_left_to_the_hook() -> None:
    assert IN_C is not None
    known, left = known_messages(), []
    hook = IN_C.opener(lambda code, body: left.append((code, body)), tuple(one.usual for one in known.values()))
    usual = [HumanMessage("a", id="1"), ToolMessage("b", tool_call_id="c"), AIMessage("d")]
    plain = [*usual, HumanMessage(["in", {"type": "text", "text": "blocks"}])]
    bodies = [known[type(message)].body(message) for message in plain]
    assert [repr(hook(5, body)) for body in bodies if body] == [*map(repr, plain)]
    assert not left
    blocks = bodies[-1]
    assert blocks is not None
    numbered = blocks.replace(ormsgpack.packb("in"), ormsgpack.packb(5))
    odd = [(5, numbered), (4, bodies[0]), (5, b""), (5, known[HumanMessage].start), (5, blocks[:-1] + b"\xc1")]
    assert [hook(code, body) for code, body in odd if body is not None] == [None] * len(odd)
    assert left == odd


@pytest.mark.skipif(IN_C is None, reason="not compiled here")
@pytest.mark.parametrize("asked", ["own", "is_plain"])
def test_compiled_too_an_error_in_what_tells_a_plain_message_is_raised(asked: str) -> None:
    assert IN_C is not None
    known = known_messages()[HumanMessage]
    hook = IN_C.opener(lambda *_: None, (known.usual._replace(**{asked: lambda fields: fields["missing"]}),))
    body = known.body(HumanMessage("a" if asked == "own" else ["in", "blocks"]))
    assert body is not None
    with pytest.raises(KeyError):
        hook(5, body)


@pytest.mark.skipif(IN_C is None, reason="not compiled here")
@pytest.mark.parametrize("change", [{"start": "a"}, {"cls": 5}, {"given": []}, {"names": []}, {"holds": ()}])
def test_compiled_too_what_describes_no_class_is_refused_and_not_a_crash(change: dict[str, Any]) -> None:
    assert IN_C is not None
    usual = known_messages()[HumanMessage].usual
    for classes in ((usual._replace(**change),), [usual], (5,), (usual, ())):
        with pytest.raises(TypeError):
            IN_C.opener(lambda *_: None, classes)  # type: ignore[arg-type]


@every_freezer
def test_nothing_is_leaked_and_the_collector_goes_on(freezer: Freezer) -> None:
    text, odd_one = "unlike any other text"[:], object()
    message = ToolMessage([{"deep": [text]}], tool_call_id=text, id=text)
    known = known_messages()[ToolMessage]
    bodies = [known.body(one) for one in (message, ToolMessage("usual", tool_call_id="c"))]

    def once() -> None:
        hook = freezer.opener(lambda *_: text, (known.usual,))
        for body in bodies:
            assert body is not None
            hook(5, body), hook(3, body), hook(5, body[:-1] + b"\xc1")
        frozen = known.frozen(message, freezer)
        for _ in range(3):
            assert freezer.hold([message], 0, [ToolMessage], [frozen])
            freezer.build([ToolMessage], NAMES, [frozen])
        with pytest.raises(TypeError):
            freezer.freeze({"a": text, "b": [text, {"c": odd_one}]})

    once()
    gc.collect()
    before = sys.getrefcount(text), sys.getrefcount(odd_one), sys.getrefcount(ToolMessage), len(gc.get_objects())
    for _ in range(100):
        once()
    gc.collect()
    after = sys.getrefcount(text), sys.getrefcount(odd_one), sys.getrefcount(ToolMessage), len(gc.get_objects())
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 50
    assert gc.isenabled()
    gc.disable()
    try:
        once()
        assert not gc.isenabled()
    finally:
        gc.enable()


PROVIDERS = [{"token": "a", "logprob": -0.5, "top": [{"token": "b", "logprob": -1.5}]}] * 500
LARGE = {
    "little dicts": [{"a": 1}] * 5000,
    "little lists": [[0]] * 5000,
    "numbers": [n + 0.5 for n in range(5000)],
    "text": "x" * 50_000,
    "wide text": "x" * 50_000 + "\N{GRINNING FACE}",
    "what providers send": PROVIDERS,
    "little": "hi",
}


@every_freezer
@pytest.mark.parametrize("what", LARGE)
def test_what_is_remembered_takes_about_what_is_said(freezer: Freezer, what: str) -> None:
    memory = Memory(1 << 30, freezer)
    listed = [ToolMessage("", tool_call_id=str(n), artifact=copy.deepcopy(LARGE[what])) for n in range(20)]
    packed = stored(listed)
    del listed
    gc.collect()
    assert memory.first_seen(PLACE)
    tracemalloc.start()
    try:
        Decoder(SERDE, memory).channel(PLACE, packed)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory.held / 2 < taken < memory.held * 1.5


def test_what_is_larger_than_the_memory_displaces_nothing_else() -> None:
    memory = Memory(200_000)
    used = Encoder(SERDE, memory)
    for name in "abc":
        used.channel(("t", "", name), talk(8))
    for large in ([HumanMessage("x" * 300_000)], talk(2000)):
        used.channel(("t", "", "c"), large)
        Decoder(SERDE, memory).channel(("t", "", "d"), stored(large))
        assert [bool(memory.get(("t", "", name))) for name in "abcd"] == [True, True, False, False]
    assert 0 < memory.held < 200_000


def test_what_is_read_once_is_not_remembered_and_what_is_noted_of_it_is_bounded() -> None:
    memory = Memory(10_000)
    for number in range(1000):
        place = (str(number), "", "messages")
        Decoder(SERDE, memory).channel(place, stored(talk(1)))
        assert memory.get(place) == []
    assert 0 < memory.held <= 10_000


def test_what_is_only_read_again_and_again_is_not_the_first_to_be_forgotten() -> None:
    memory = Memory(60_000)
    for name in ("read", "idle"):
        Encoder(SERDE, memory).channel(("t", "", name), talk(8))
    for number in range(100):
        Decoder(SERDE, memory).channel(("t", "", "read"), stored(talk(8)))
        Decoder(SERDE, memory).channel(("t", "", str(number)), stored(talk(1)))
    assert memory.get(("t", "", "read"))
    assert not memory.get(("t", "", "idle"))


# -- messages that others change meanwhile -----------------------------------------------------------------------------


class During:
    """A freezer that lets something else happen before each message is frozen."""

    def __init__(self, freezer: Freezer, happens: Callable[[], Any]) -> None:
        self.freezer = freezer._replace(freeze=self._freeze)
        self._real, self._happens = freezer.freeze, happens

    def _freeze(self, fields: dict[str, Any]) -> Any:
        self._happens()
        return self._real(fields)


MEANWHILE: dict[str, Callable[[AIMessage], Any]] = {
    "keys of a tool call": lambda m: m.tool_calls[0].update(name=m.tool_calls[0].pop("name")),
    "keys of usage": lambda m: m.usage_metadata.update(input_tokens=m.usage_metadata.pop("input_tokens")),  # type: ignore[union-attr]
    "a provider's calls": lambda m: (m.tool_calls.clear(), m.additional_kwargs.update(tool_calls=[{}])),
    "a field set again": lambda m: m.__dict__.__setitem__("name", m.__dict__.pop("name")),
    "a further field": lambda m: m.__dict__.__setitem__("more", 1),
    "an id that is none": lambda m: m.__dict__.__setitem__("id", 5),
}


@every_freezer
@pytest.mark.parametrize("what", MEANWHILE)
def test_a_message_that_is_changed_while_it_is_frozen_is_kept_only_if_it_is_plain_then(
    freezer: Freezer, what: str
) -> None:
    listed = talk(8)
    message = listed[2]
    assert isinstance(message, AIMessage)
    its_turn = iter([False, False, True])
    memory = Memory(1 << 20, During(freezer, lambda: next(its_turn, False) and MEANWHILE[what](message)).freezer)
    put = bytes(Encoder(SERDE, memory).channel(PLACE, listed).data)
    reads(memory, Value("msgpack", put))
    for _ in range(2):
        assert bytes(Encoder(SERDE, memory).channel(PLACE, listed).data) == SERDE.dumps_typed(listed)[1]


@every_freezer
def test_a_list_that_grows_while_it_is_put_is_stored_as_it_was_at_some_moment(freezer: Freezer) -> None:
    listed = talk(100)
    memory = Memory(1 << 20, During(freezer, lambda: listed.append(HumanMessage("meanwhile"))).freezer)
    put = Value("msgpack", bytes(Encoder(SERDE, memory).channel(PLACE, listed).data))
    assert state(SERDE.loads_typed(put)) == state(SERDE.loads_typed(stored(talk(100))))


# -- reading what is remembered ----------------------------------------------------------------------------------------


def reads(memory: Memory, value: Value, serde: JsonPlusSerializer = SERDE) -> Any:
    """Asserts that the decoder gives what the serializer gives, or fails as it fails. Returns it."""
    told = [
        outcome(lambda: serde.loads_typed(value)),
        outcome(lambda: Decoder(serde, memory).channel(PLACE, value)),
    ]
    assert told[0] == told[1]
    return told[1]


@every_freezer
@given(data=st.data(), length=st.integers(0, 70), drawn=st.lists(messages, max_size=3))
@examples(2)
def test_whatever_is_remembered_what_is_read_is_what_was_stored(
    freezer: Freezer, data: st.DataObject, length: int, drawn: list[BaseMessage]
) -> None:
    memory, listed, versions = Memory(1 << 20, freezer), talk(length), []
    for message in drawn:
        listed.insert(data.draw(st.integers(0, len(listed))), message)
    for _ in range(data.draw(st.integers(1, 4))):
        what = data.draw(st.sampled_from(["append", "change", "cut", "drop first", "nothing", "forget"]))
        if what == "append" or not listed:
            listed = [
                *listed,
                *data.draw(st.lists(messages, min_size=1, max_size=3)),
                *talk(data.draw(st.integers(0, 40))),
            ]
        elif what == "change":
            change(data.draw, data.draw(st.sampled_from(listed)))
        elif what == "cut":
            listed = listed[: data.draw(st.integers(0, len(listed)))]
        elif what == "drop first":
            listed = listed[data.draw(st.integers(1, 3)) :]
        elif what == "forget":
            memory = Memory(1 << 20, freezer)
        try:
            packed = SERDE.dumps_typed(listed)
        except TypeError:
            continue
        versions.append(Value(*packed))
        if data.draw(st.booleans()):
            assert Encoder(SERDE, memory).channel(PLACE, listed).data.__bytes__() == packed[1]
        reads(memory, data.draw(st.sampled_from(versions)), data.draw(st.sampled_from([SERDE, STRICT])))


@every_freezer
@given(data=st.data())
def test_spoilt_bytes_of_what_is_remembered_are_refused_as_by_langgraph(freezer: Freezer, data: st.DataObject) -> None:
    memory, listed = Memory(1 << 20, freezer), talk(data.draw(st.sampled_from([1, 31, 32, 40, 70])))
    packed = bytes(Encoder(SERDE, memory).channel(PLACE, listed).data)
    at = data.draw(st.sampled_from([0, 1, 2]) | st.integers(0, len(packed) - 1))
    spoilt = data.draw(
        st.sampled_from(
            [
                packed[:at],
                packed + b"\xc0",
                packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :],
                b"\xdc\x00\x05" + packed[3:],
                b"\x91" + packed,
                b"\xdd\x00\x00" + packed[1:],
                b"\xdc\xff\xff" + packed[3:],
            ]
        )
    )
    reads(memory, Value("msgpack", spoilt))
    reads(memory, Value("msgpack", packed))


@every_freezer
def test_messages_are_unpacked_once(freezer: Freezer, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, unpacked = Memory(1 << 20, freezer), []
    reads(memory, stored(talk(70)))
    real = Decoder._message
    monkeypatch.setattr(Decoder, "_message", lambda self, data, read: unpacked.append(data) or real(self, data, read))
    reads(memory, stored(talk(70)))
    assert len(unpacked) == 70
    reads(memory, stored(talk(70)))
    reads(memory, stored(talk(73)))
    assert len(unpacked) == 73
    edited = talk(73)
    edited[70].content = "edited"
    reads(memory, stored(edited))
    assert len(unpacked) == 73 + (73 - BLOCK)
    reads(memory, stored(talk(73)))  # what is remembered is another thread's business or an older state: it stays
    reads(memory, stored([*talk(73), HumanMessage("more")]))
    assert len(unpacked) == 73 + (73 - BLOCK) + 1


@every_freezer
def test_what_was_written_is_read_without_unpacking_and_what_was_read_is_written_without_packing(
    freezer: Freezer, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, listed = Memory(1 << 20, freezer), talk(70)
    packed = bytes(Encoder(SERDE, memory).channel(PLACE, listed).data)
    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "_message", refuse)
        assert reads(memory, Value("msgpack", packed)) == state(SERDE.loads_typed(("msgpack", packed)))
    other = Memory(1 << 20, freezer)
    for _ in range(2):
        read = Decoder(SERDE, other).channel(PLACE, Value("msgpack", packed))
    monkeypatch.setattr(Encoder, "_packed", refuse)
    assert bytes(Encoder(SERDE, other).channel(PLACE, read).data) == packed


FOREIGN = {
    "another word at the end": lambda body: body[:-1] + b"X",
    "a string with a longer header": lambda body: body.replace(b"\xa2hi", b"\xd9\x02hi"),
    "an integer of more bytes": lambda body: body.replace(b"\x81\xa1a\x05", b"\x81\xa1a\xcc\x05"),
}


@every_freezer
@pytest.mark.parametrize("how", FOREIGN)
def test_what_others_packed_in_another_way_is_read_and_not_written_again(freezer: Freezer, how: str) -> None:
    listed = [*talk(3), HumanMessage("hi", additional_kwargs={"a": 5})]
    memory, bodies = Memory(1 << 20, freezer), []
    ormsgpack.unpackb(stored(listed).data, ext_hook=lambda code, body: bodies.append(Ext(code, FOREIGN[how](body))))
    foreign = Value("msgpack", ormsgpack.packb(bodies))
    assert foreign != stored(listed)
    reads(memory, foreign)
    reads(memory, foreign)
    read = Decoder(SERDE, memory).channel(PLACE, foreign)
    assert bytes(Encoder(SERDE, memory).channel(PLACE, read).data) == SERDE.dumps_typed(read)[1]


@every_freezer
def test_reading_an_older_state_forgets_nothing(freezer: Freezer, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(1 << 20, freezer)
    Encoder(SERDE, memory).channel(PLACE, talk(200))
    for count in (3, 64, 70, 130):
        reads(memory, stored(talk(count)))
    monkeypatch.setattr(Encoder, "_packed", refuse)
    Encoder(SERDE, memory).channel(PLACE, talk(200))


@every_freezer
@given(value=plain | st.lists(plain | messages, max_size=3))
def test_what_is_no_list_of_messages_is_read_as_it_is(freezer: Freezer, value: Any) -> None:
    memory = Memory(1 << 20, freezer)
    try:
        packed = stored(value)
    except TypeError:
        return
    reads(memory, packed)
    reads(memory, packed)


def test_a_message_within_something_else_is_not_taken_for_one_of_the_list() -> None:
    memory = Memory(1 << 20)
    for value in ([[AIMessage("a")]], [{"a": AIMessage("a")}], [[AIMessage("a"), AIMessage("b")], 1]):
        for _ in range(2):
            reads(memory, stored(value))
    assert memory.get(PLACE) == []


def refuse(*args: Any) -> None:
    raise AssertionError("not needed")
