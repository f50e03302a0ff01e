"""What is said in the thread: a generated conversation, or one loaded from a trace.

Both are sequences of LangChain messages with the ids m0, m1, m2, ... so that any process that has the same seed (or
the same trace) and knows how many messages were said can go on from there.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from demo.customer import Customer
from demo.wording import policy

Message = TypeVar("Message", bound=BaseMessage)


def generate(seed: int) -> Iterator[AnyMessage]:
    """An endless customer-service thread: conversations one after the other, each with its system prompt."""
    rng = random.Random(seed)
    prompt = policy()
    return _numbered(message for _ in itertools.count() for message in Customer(rng).conversation(prompt))


def load_trace(path: str | Path) -> list[AnyMessage]:
    """All conversations of a JSON-lines file (gzip or plain), as one long thread.

    Each line is an object with "messages": [{"role", "content", "name"?, "tool_call_id"?, "tool_calls"?}].
    Raises OSError if the file cannot be read, ValueError naming the line if it is not in this form.
    """
    return list(_numbered(message for number, line in _lines(Path(path)) for message in _parse(path, number, line)))


def _numbered(messages: Iterable[Message]) -> Iterator[Message]:
    for index, message in enumerate(messages):
        message.id = f"m{index}"
        yield message


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt", encoding="utf-8") if zipped else path.open(encoding="utf-8") as lines:
        yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _parse(path: str | Path, number: int, line: str) -> list[AnyMessage]:
    try:
        return [_ROLES[raw["role"]](raw) for raw in json.loads(line)["messages"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: not a conversation ({type(error).__name__}: {error})") from error


_ROLES: dict[str, Callable[[dict[str, Any]], AnyMessage]] = {
    "system": lambda raw: SystemMessage(raw["content"]),
    "user": lambda raw: HumanMessage(raw["content"]),
    "assistant": lambda raw: AIMessage(raw["content"] or "", tool_calls=raw.get("tool_calls") or []),
    "tool": lambda raw: ToolMessage(raw["content"], name=raw.get("name"), tool_call_id=raw["tool_call_id"]),
}
