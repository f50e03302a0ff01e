"""The README's Python runs, in order, as one program; its policy and its metrics are what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foldpoint.compaction.policy import Policies
from foldpoint.engine import metrics

README = Path(__file__).parents[2] / "README.md"


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippets) == 2
    names: dict[str, object] = {"__name__": "readme"}
    for snippet in snippets:
        exec(compile(snippet, str(README), "exec", dont_inherit=True), names)
    assert capsys.readouterr().out == "3\n"
    assert (tmp_path / "agents.db").exists()


def test_the_policy_can_be_loaded(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "retention.toml").write_text(snippet)
    policies = Policies.load(tmp_path / "retention.toml")
    assert policies.of("eval-7").keep_last == 1
    assert policies.of("user-7").export_to == "sqlite:///archive.db"


def test_every_metric_is_named() -> None:
    names = re.findall(r'"(foldpoint\.\w+\.\w+)"', Path(metrics.__file__).read_text())
    assert len(names) == 7
    assert [name for name in names if f"`{name}`" not in README.read_text()] == []
