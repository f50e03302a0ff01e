"""Settings come from arguments and the environment; a wrong one names itself."""

from __future__ import annotations

import pytest

from foldpoint.settings import Settings, load_settings


def test_the_environment_sets_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDPOINT_WINDOW", "32")
    monkeypatch.setenv("FOLDPOINT_GRACE", "5")
    assert load_settings().window == 32
    assert load_settings(window=16).window == 16
    assert load_settings().grace == 5


@pytest.mark.parametrize(("name", "value"), [("WINDOW", "many"), ("GRACE", "-1"), ("COMPRESSION_LEVEL", "99")])
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FOLDPOINT_{name}", value)
    with pytest.raises(ValueError, match=f"FOLDPOINT_{name}"):
        load_settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().window = 3  # type: ignore[misc]
