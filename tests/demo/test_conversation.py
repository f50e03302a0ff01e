"""The script of the demo: the same in every process, and like a real conversation."""

from __future__ import annotations

import gzip
import json
from itertools import islice, pairwise
from pathlib import Path

import pytest
import zstandard
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from demo.conversation import generate, load_trace

CALL = {"id": "call_1", "name": "lookup", "args": {"user": "ada"}}
TRACE = [
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]},
    {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "{}", "name": "lookup", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "Done."},
        ]
    },
]


def messages(count: int, seed: int = 1) -> list[AnyMessage]:
    return list(islice(generate(seed), count))


def test_a_seed_always_gives_the_same_messages() -> None:
    assert messages(200) == messages(200)


def test_a_longer_script_begins_with_the_shorter_one() -> None:
    assert messages(200)[:50] == messages(50)


def test_another_seed_gives_other_messages() -> None:
    assert messages(50, seed=1) != messages(50, seed=2)


def test_ids_are_unique() -> None:
    assert len({message.id for message in messages(900)}) == 900


def test_a_conversation_begins_with_its_system_prompt_and_the_customer() -> None:
    system, user, assistant = messages(3)
    assert isinstance(system, SystemMessage)
    assert isinstance(user, HumanMessage)
    assert isinstance(assistant, AIMessage)


def test_every_tool_call_is_answered_by_the_next_message() -> None:
    script = messages(900)
    calls = [(call["id"], after) for m, after in pairwise(script) for call in tool_calls(m)]
    assert len(calls) > 100
    assert all(isinstance(after, ToolMessage) and after.tool_call_id == call_id for call_id, after in calls)


def tool_calls(message: AnyMessage) -> list[dict[str, object]]:
    return message.tool_calls if isinstance(message, AIMessage) else []


def test_size_and_compressibility_are_those_of_real_conversations() -> None:
    """Real ones: 660 bytes a message as msgpack, of which zstd at level 3 leaves a tenth."""
    _, raw = JsonPlusSerializer().dumps_typed(messages(900))
    assert 500 < len(raw) / 900 < 800
    assert 8 < len(raw) / len(zstandard.compress(raw, 3)) < 13


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_a_trace_becomes_one_thread(tmp_path: Path, opener: object) -> None:
    path = tmp_path / "trace"
    with opener(path, "wt", encoding="utf-8") as file:  # type: ignore[operator]
        file.writelines(json.dumps(conversation) + "\n" for conversation in TRACE)
    assert load_trace(path) == [
        SystemMessage("Be kind.", id="m0"),
        HumanMessage("Hello", id="m1"),
        AIMessage("", tool_calls=[CALL], id="m2"),
        ToolMessage("{}", name="lookup", tool_call_id="call_1", id="m3"),
        AIMessage("Done.", id="m4"),
    ]


@pytest.mark.parametrize("line", ["not json", "[]", '{"messages": [{"role": "robot"}]}', '{"messages": 3}'])
def test_a_line_of_another_form_is_an_error_that_names_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(TRACE[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"trace\.jsonl, line 2: not a conversation"):
        load_trace(path)
