"""What a user may say of retention, in code and in files, and what is answered to a mistake."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foldpoint.compaction import KeepLast, Policies, Retention


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("30d", 30 * 86_400),
        ("12h", 12 * 3_600),
        ("90m", 5_400),
        ("45s", 45),
        ("2w", 14 * 86_400),
        ("1d12h", 36 * 3_600),
        ("1d 12h", 36 * 3_600),
        ("1.5h", 5_400),
        ("P30D", 30 * 86_400),
        ("PT12H30M", 45_000),
        (timedelta(hours=1), 3_600),
        ("0s", 0),
    ],
)
def test_a_length_of_time_is_spelled_short_or_as_iso_8601(given: Any, seconds: int) -> None:
    assert Retention(keep_newer_than=given).keep_newer_than == timedelta(seconds=seconds)


@pytest.mark.parametrize("given", ["", "d", "30x", "-1d", "12h 1d", "soon", -5, 30, 30.0, True, "30", "\u0663d"])
def test_what_is_no_length_of_time_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        Retention(keep_newer_than=given)


def test_a_retention_without_rules_keeps_everything() -> None:
    assert Retention().keeps_all
    assert Retention(drop_superseded_writes=True, purge_idle=timedelta(days=1)).keeps_all
    for rule in (
        {"keep_last": 1},
        {"keep_newer_than": "0s"},
        {"keep_one_per_run": True},
        {"keep_with_metadata": ["a"]},
    ):
        assert not Retention.model_validate(rule).keeps_all


def test_a_retention_names_its_rules() -> None:
    given = {"keep_last": 3, "keep_newer_than": "P1DT12H", "keep_with_metadata": ["a", "b"], "purge_idle": "0s"}
    assert (
        str(Retention.model_validate(given))
        == "keep_last=3, keep_newer_than=1d12h, keep_with_metadata=a+b, purge_idle=0s"
    )
    assert str(Retention()) == "keep everything"


@pytest.mark.parametrize(
    "wrong", [{"keep_last": 0}, {"keep_last": "many"}, {"keep": 1}, {"export_to": "sqlite:///a.db"}]
)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Retention.model_validate(wrong)


TOML = """
[default]
keep_newer_than = "30d"

[[threads]]
prefix = "eval-"
keep_last = 1

[[threads]]
prefix = "eval-nightly-"
purge_finished = "12h"
export_to = "sqlite:///nightly.db"
"""


def test_the_longest_prefix_wins_alone_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(TOML)
    from_toml = Policies.load(tmp_path / "policy.toml")
    (tmp_path / "policy.json").write_text(from_toml.model_dump_json())
    for policies in (from_toml, Policies.load(tmp_path / "policy.json")):
        assert policies.of("user-1").keep_newer_than == timedelta(days=30)
        assert (policies.of("eval-1").keep_last, policies.of("eval-1").keep_newer_than) == (1, None)
        nightly = policies.of("eval-nightly-7")
        assert (nightly.keep_last, nightly.purge_finished) == (None, timedelta(hours=12))
        assert nightly.export_to == "sqlite:///nightly.db"
        assert policies.of("eval").keep_newer_than == timedelta(days=30)


def test_the_order_of_entries_and_an_empty_prefix_do_not_matter() -> None:
    entries = [{"prefix": "ab", "keep_last": 2}, {"prefix": "", "keep_last": 9}, {"prefix": "a", "keep_last": 1}]
    for listed in (entries, entries[::-1]):
        policies = Policies.model_validate({"threads": listed})
        assert [policies.of(thread).keep_last for thread in ("abc", "ax", "x", "")] == [2, 1, 9, 9]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "[[threads]]\nkeep_last = 1\n", "threads.0.prefix: Field required"),
        ("a.toml", "[default]\nkeep_last = 0\nkeep_newer_than = 'soon'\n", "default.keep_newer_than: "),
        ("a.json", json.dumps({"defaults": {}}), "defaults: there is no such rule, or not there"),
        ("a.toml", "keep_last = 3\n", "keep_last: there is no such rule, or not there: rules stand under [default]"),
        ("a.toml", "[default]\nkeep_last = true\n", "default.keep_last: give a number"),
        (
            "a.toml",
            "[default]\nkeep_newer_than = 30\n",
            "default.keep_newer_than: give a length of time, such as 30d or 30s",
        ),
        ("a.toml", "[default]\nkeep_with_metadata = ['']\n", "default.keep_with_metadata.0: "),
        ("a.toml", "[[threads]]\nprefix = 'a'\n" * 2, "policy: two entries have the prefix 'a'"),
        ("a.json", "{", "not JSON"),
        ("a.toml", "[", "not TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"policy file .*{name}: .*") as caught:
        Policies.load(tmp_path / name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"policy file nowhere\.toml: No such file"):
        Policies.load(Path("nowhere.toml"))


@pytest.mark.parametrize("count", [0, -1, "3", True])
def test_keeping_none_is_refused(count: Any) -> None:
    with pytest.raises(ValueError, match="keep_last must be a whole number"):
        KeepLast(count)
