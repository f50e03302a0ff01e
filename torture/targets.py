"""What is fed with bytes that nobody wrote: every decoder, and reading a store in which a record holds them.

A target returns, or raises what is no typed error: that is what fuzzing looks for. Whoever can write to a store can
compute checksums, so the records are sealed again around the bytes.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send

from foldpoint.codecs import envelope, event, header, wire, zstd
from foldpoint.codecs.delta import apply
from foldpoint.codecs.head import decode_head
from foldpoint.codecs.model import Header, Stored, Value, Write
from foldpoint.codecs.rope import Rope
from foldpoint.codecs.segment import decode_segment, decode_snapshot, decode_span
from foldpoint.codecs.wire import Malformed
from foldpoint.compaction.verify import verify
from foldpoint.engine import keys
from foldpoint.engine.fold import Slice
from foldpoint.engine.memory import MemoryStore
from foldpoint.errors import FoldpointError
from foldpoint.langgraph_adapter.blocks import Memory
from foldpoint.langgraph_adapter.decoding import Decoder
from torture.small import MAX_RECORD, THREAD, Small, id_of, overwrite, packed, read, record, small, with_same_records

Target = Callable[[bytes], None]

_KEY = bytes(range(16)) + b"e" + bytes(6)
_KINDS = tuple(range(8))
_LIMIT = 1 << 24
"""A zstd frame of the fuzzer's own may come to so many bytes, so that it does not spend its time on zeros."""
_cipher = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef").cipher


# -- decoders ----------------------------------------------------------------------------------------------------------


def _wire(data: bytes) -> None:
    with suppress(Malformed):
        wire.unpack(data)
    with suppress(Malformed):
        wire.read_varint(data, 0)
    for context in (b"", b"what stands before it" * 9):
        with suppress(Malformed):
            zstd.decompress(data, context, limit=_LIMIT)


def _envelope(data: bytes) -> None:
    start = data[:2].ljust(2, b"\0")
    checked = start + envelope._checksum(_KEY, start, data[2:]) + data[2:]
    for one in (data, checked):
        for cipher in (None, _cipher):
            with suppress(Malformed, envelope.Unsupported):
                opened = envelope.open_record(_KEY, one, cipher, kinds=_KINDS, allow_plain=True)
                _, at = opened.depth()
                if not opened.codec & 1 or len(opened.content) < 1 << 16:
                    opened.inflate(b"context", at)


def _head(data: bytes) -> None:
    with suppress(Malformed):
        decode_head(data)


def _segment(data: bytes) -> None:
    with suppress(Malformed):
        decode_segment(data)
    with suppress(Malformed):
        decode_span(data)
    with suppress(Malformed):
        decode_snapshot(data)


_BASE = event.Folded(
    6,
    Header("base", "parent", 2, "2026-01-01T00:00:00+00:00", {"list": 3, "b": "x", "c": 0.5}, {"node": {"list": 2}}),
    {"step": 1, "source": "loop"},
    packed({"a": 1}),
    {},
)
_STATE = {"list": Stored("msgpack", Rope(b"\x92\x01", b"\x02")), "b": Stored("bytes", Rope(b"some bytes" * 9))}
_WRITES = [Write("task", 0, "list", packed("written" * 9))]


def _event(data: bytes) -> None:
    """Folded upon nothing, and upon a checkpoint, whatever base it names."""
    for base in (None, event.Base(_BASE, lambda: _STATE, lambda: [(7, _WRITES)])):
        with suppress(Malformed):
            found = event.unpack_event(8, data)
            if found.kind == event.CHECKPOINT:
                folded = _folded(found, base.folded if base else None)
                names = header.names_of(folded.header.channel_versions)
                event.fold_state(found, names, base.channels if base else None, lambda seq: _WRITES)
            elif found.kind == event.WRITES:
                event.fold_writes(found, base.channels if base else None, lambda seq: _WRITES)


def _folded(found: event.Event, base: event.Folded | None) -> event.Folded:
    fold = event.Fold(base)
    fold.add(found)
    return fold.folded()


def _header(data: bytes) -> None:
    with suppress(Malformed):
        fields = wire.unpack(data)
        with suppress(Malformed):
            _folded(event.Event(8, 0, 6, None, b"", [0, 2, *(fields if type(fields) is list else [])]), _BASE)
        if type(fields) in (str, bytes):
            header.unpack_id(fields)


def _delta(data: bytes) -> None:
    with suppress(Malformed):
        fields = wire.unpack(data)
        for old in (None, *_STATE.values()):
            if type(fields) is list and fields:
                bytes(apply(old, fields, fields[0]).data)


def _rope(data: bytes) -> None:
    """Splices of splices, against plain bytes."""
    rope, plain = Rope(b"0123456789"), b"0123456789"
    for at in range(0, len(data) - 4, 5):
        skip, removed, suffix, size, keep = data[at : at + 5]
        with suppress(ValueError):
            rope = rope.splice(b"h" * (keep % 2), skip, removed, suffix, b"body"[: size % 5])
            end = len(plain) - suffix
            plain = b"h" * (keep % 2) + plain[skip : end - removed] + b"body"[: size % 5] + plain[end:]
        assert len(rope) == len(plain)
    assert rope.start(5) == plain[:5]
    assert bytes(rope) == plain


_STRICT = Decoder(JsonPlusSerializer(allowed_msgpack_modules=None), Memory(0))


def _message(data: bytes) -> None:
    """What LangGraph's serializer makes of it, at its strictest; errors of the serializer pass through."""
    value = Value("msgpack", data)
    with suppress(Exception):
        expected = repr(_STRICT._serde.loads_typed((value.type, value.data)))
        assert repr(_STRICT.value(value)) == expected


# -- records -----------------------------------------------------------------------------------------------------------


@cache
def _small() -> Small:
    """Its events stand alone, uncompressed: else changing one would damage the next before it is looked at."""
    made = small(MemoryStore(max_record=MAX_RECORD))
    for key, payload in _tail(made).items():
        overwrite(made.store, key, _sealed(made, key, envelope.EVENT, payload))
    return made


def _tail(made: Small) -> dict[bytes, bytes]:
    """The payloads of the events that are in no segment, by key."""
    slice_, numbers = _newest(made)
    return {keys.event(slice_.epoch, seq): slice_.payload(seq) for seq in numbers}


def _newest(made: Small) -> tuple[Slice, list[int]]:
    """What latest is read from, and the numbers of its events that are in no segment."""
    view = made.engine().reader(THREAD, "").load()
    assert view is not None
    return view.slice, [seq for seq in view.head.slots if seq <= view.last]


@cache
def _stored(kind: str) -> list[tuple[bytes, bytes]]:
    """(key, payload) of the records of a kind that a payload of one's own can take the place of."""
    made = _small()
    if kind == "event":
        return [*_tail(made).items()]
    opened = ((key, envelope.open_record(key, record(made.store, key), kinds=_KINDS)) for key in made.places()[kind])
    return [(key, one.inflate()) for key, one in opened]


def _sealed(made: Small, key: bytes, kind: int, payload: bytes) -> bytes:
    """A record that opens."""
    if kind == envelope.EVENT:
        check = bytes(envelope.CHECK_BYTES)
        with suppress(Malformed, FoldpointError):
            seq = int.from_bytes(key[keys.EPOCH_BYTES + 1 :], "big")
            check = event.check_of(event.unpack_event(seq, payload), _newest(made)[0].check)
        payload = envelope.event_content(0, check, payload)
    return envelope.seal(key, kind, 0, payload)


def _record(kind: str) -> Target:
    """The target that reads a store by every path after a record of that kind was given another payload.

    The first byte says which record.
    """

    def target(data: bytes) -> None:
        made, choices = _small(), _stored(kind)
        key, _ = choices[data[0] % len(choices)] if data else choices[0]
        store = MemoryStore()
        with_same_records(made.store, store)
        stored = envelope.open_record(key, record(made.store, key), kinds=_KINDS)
        overwrite(store, key, _sealed(made, key, stored.kind, data[1:]))
        read_by_every_path(made, store)

    return target


def read_by_every_path(made: Small, store: MemoryStore) -> None:
    engine = made.engine(store)
    with suppress(FoldpointError):
        if latest := engine.latest(THREAD, ""):
            read(latest)
    for n in (2, 20, 33):
        with suppress(FoldpointError):
            if found := engine.find(THREAD, "", id_of(n)):
                read(found)
    with suppress(FoldpointError):
        for entry in engine.history(THREAD, ""):
            read(entry)
    with suppress(FoldpointError):
        engine.channel_history(THREAD, "", None, ["list", "noise"])
    with suppress(FoldpointError):
        list(engine.threads())
    with suppress(FoldpointError):
        list(verify(engine))


_DECODERS: dict[str, Target] = {
    "wire": _wire,
    "envelope": _envelope,
    "head": _head,
    "segment": _segment,
    "event": _event,
    "header": _header,
    "delta": _delta,
    "rope": _rope,
    "message": _message,
}


def targets() -> dict[str, Target]:
    """By name: decoders, and reading a store after a record of each kind was changed."""
    kinds = (kind for kind in _small().places() if not kind.startswith("emptied"))
    return {**_DECODERS, **{f"stored {kind}": _record(kind) for kind in kinds}}


# -- what they are fed with --------------------------------------------------------------------------------------------

_ATOMS: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 7, 16, 255, 256, 65536, 2**31, 2**40, 2**63 - 1, -(2**63), 2**64 - 1, 1.5, -0.0),
    *("", "x", "list", "\ud800", b"", b"x" * 16, b"\x92\x01\x02", [], [0], [None], {}, {0: 1}, {"list": [b"", None]}),
    *(["msgpack", b""], [1, 2, 3, 4, 5], [[1, 2, 3, 4, False]], [b"body", 1, 1, 1, "msgpack", [-1]]),
]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Bytes that differ from `data` in a few places: in the msgpack that they end with, if they do, else anywhere."""
    for start in (0, 1, 2):
        with suppress(Malformed, ValueError):
            found = wire.unpack(data[start:])
            if isinstance(found, list | dict):
                for _ in range(chance.choice((1, 1, 1, 2, 4))):
                    found = _edited(found, chance.choice([*_paths(found)]), chance)
                return data[:start] + wire.pack(found)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(changed) + 1)
        changed[at : at + chance.choice((0, 1, 1, 1, 4))] = chance.randbytes(chance.choice((0, 1, 1, 1, 4)))
    return bytes(changed)


def _paths(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested lists and dicts."""
    yield path
    for key, inner in enumerate(found) if isinstance(found, list) else found.items() if isinstance(found, dict) else ():
        yield from _paths(inner, (*path, key))


def _edited(found: Any, path: tuple[Any, ...], chance: random.Random) -> Any:
    """A copy with something else at `path`, or one entry more there, or one less."""
    if path:
        copy = dict(found) if isinstance(found, dict) else list(found)
        if len(path) == 1 and chance.random() < 0.2:
            del copy[path[0]]
        else:
            copy[path[0]] = _edited(found[path[0]], path[1:], chance)
        return copy
    atom = chance.choice(_ATOMS)
    if isinstance(found, list) and chance.random() < 0.7:
        at = chance.randrange(len(found) + 1)
        return [*found[:at], atom, *found[at:]]
    if isinstance(found, dict) and chance.random() < 0.7 and not isinstance(atom, list | dict):
        return {**found, atom: chance.choice(_ATOMS)}
    return found + atom if type(found) is type(atom) is int else atom


def seeds(name: str) -> list[bytes]:
    """What a target takes without an error: it is mutated."""
    if name.startswith("stored "):
        return [bytes([at]) + payload for at, (_, payload) in enumerate(_stored(name.removeprefix("stored ")))]
    payloads = {kind: [payload for _, payload in _stored(kind)] for kind in _small().places() if "emptied" not in kind}
    events = [payload for payload in payloads["event"] if payload]
    given = {
        "wire": [zstd.compress(b"what is compressed " * 20, 3, b"what stands before it" * 9), *events],
        "envelope": [
            bytes([1, kind << 4 | codec]) + b"\0\0\0\0\0" + events[0] for kind in _KINDS for codec in range(4)
        ],
        "head": payloads["head"] + payloads["tombstone"],
        "segment": [one for kind in payloads if kind.startswith(("segment", "span")) for one in payloads[kind]],
        "event": events,
        "header": [wire.pack(wire.unpack(one)[2:]) for one in events],
        "delta": [wire.pack(delta) for delta in ([b"body"], [b"body", 2, 1, 1], [b"body", None, 0, 0, "bytes", [-1]])],
        "rope": [bytes(range(60))],
        "message": [value.data for value in _messages()],
    }
    return given[name]


def _messages() -> list[Value]:
    said = [AIMessage("yes", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c"}]), HumanMessage(["no", {"a": "b"}])]
    values = (said, Send("node", {"messages": said}), {"when": datetime(2026, 1, 1), "ids": {uuid.UUID(int=1)}})
    return [Value(*JsonPlusSerializer().dumps_typed(value)) for value in values]
