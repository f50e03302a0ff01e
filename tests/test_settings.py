"""Settings come from arguments or the environment; a wrong one names itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from foldpoint import FoldpointSaver, Settings
from foldpoint.settings import load_settings

GIVEN: dict[str, tuple[str, Any]] = {
    "url": ("memory:", "memory:"),
    "aerospike_password": ("p", SecretStr("p")),
    "aerospike_keyfile_pw": ("p", SecretStr("p")),
    "window": ("128", 128),
    "snapshot_ratio": ("2.5", 2.5),
    "grace": ("0", 0.0),
    "cache_bytes": ("0", 0),
    "compression_level": ("1", 1),
    "segment_level": ("19", 19),
    "fast_encoding": ("false", False),
    "fast_decoding": ("0", False),
    "allow_plain": ("true", True),
    "previous_aes_key": ("k", SecretStr("k")),
    "compaction": ("inline", "inline"),
    "compact_every": ("3600", 3600.0),
    "sweep_every": ("0.5", 0.5),
    "policy": ("retention.toml", Path("retention.toml")),
    "ttl": ("86400", 86400),
    "io_threads": ("4", 4),
}
WRONG: dict[str, list[str]] = {
    "window": ["0", "1", "1025", "x", "", "64.5"],
    "snapshot_ratio": ["0", "-1", "nan", "inf", "x"],
    "grace": ["-0.1", "nan", "soon"],
    "cache_bytes": ["-1", "1MB"],
    "compression_level": ["0", "23", "x"],
    "segment_level": ["0", "23"],
    "fast_encoding": ["", "maybe"],
    "fast_decoding": ["2"],
    "allow_plain": ["perhaps"],
    "compaction": ["", "on", "Background"],
    "compact_every": ["0", "1h", "1e300"],
    "sweep_every": ["-1", "soon"],
    "ttl": ["0", "-5", "1h", "9223372036854775807"],
    "io_threads": ["0", "513"],
}


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FOLDPOINT_{name.upper()}", raising=False)


def test_every_setting_is_tested_here() -> None:
    assert set(GIVEN) == set(Settings.model_fields)


@pytest.mark.parametrize("name", GIVEN)
def test_a_setting_is_taken_from_its_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, value = GIVEN[name]
    assert getattr(Settings(), name) != value
    monkeypatch.setenv(f"FOLDPOINT_{name.upper()}", text)
    assert getattr(load_settings(), name) == value


def test_an_argument_counts_more_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_WINDOW", "32")
    assert load_settings(window=16).window == 16
    with FoldpointSaver.from_conn_string("memory:", window=8) as saver:
        assert saver.engine.settings.window == 8
    with FoldpointSaver.from_conn_string("memory:") as saver:
        assert saver.engine.settings.window == 32


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_a_wrong_setting_is_named_with_its_variable_and_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"FOLDPOINT_{name.upper()}", text)
    with pytest.raises(ValueError, match=name) as caught:
        load_settings()
    assert f"FOLDPOINT_{name.upper()}" in str(caught.value)
    assert repr(text) in str(caught.value)
    with pytest.raises(ValueError, match=name):
        FoldpointSaver.from_conn_string("memory:", **{name: text})


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"window.*; grace"):
        load_settings(window=0, grace=-1)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="windw"):
        FoldpointSaver.from_conn_string("memory:", windw=8)


def test_an_unknown_variable_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_TEST_AEROSPIKE", "host")
    assert load_settings() == Settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().window = 3  # type: ignore[misc]


def test_a_variable_that_is_misspelt_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FOLDPOINT_COMPACT_EVRY", "5")
    monkeypatch.setenv("FOLDPOINT_TLL", "5")
    monkeypatch.setenv("FOLDPOINT_WINDOW", "32")
    monkeypatch.setenv("FOLDPOINT_OF_SOMETHING_ELSE", "1")
    assert load_settings().window == 32
    assert sorted(caplog.messages) == [
        "unknown setting FOLDPOINT_COMPACT_EVRY; did you mean FOLDPOINT_COMPACT_EVERY?",
        "unknown setting FOLDPOINT_TLL; did you mean FOLDPOINT_TTL?",
    ]
