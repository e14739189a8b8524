"""The settings of production, read as a user writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evenhand.config.production import load_production
from evenhand.core.errors import ConfigError


def test_the_defaults_need_no_file() -> None:
    settings = load_production()
    assert settings.watch.groups == ("lgbtq", "mexican", "middle_east")
    assert settings.watch.text == "keep"


def test_a_file_is_changed_by_overrides(tmp_path: Path) -> None:
    path = tmp_path / "production.json"
    path.write_text(json.dumps({"watch": {"groups": ["women"], "labels_per_day": 50}}))
    settings = load_production(
        path, overrides=["watch.labels_per_day=80", 'watch.alarms.max_group_fpr={"women": 0.2}']
    )
    assert settings.watch.groups == ("women",)
    assert settings.watch.labels_per_day == 80
    assert settings.watch.alarms.max_group_fpr == {"women": 0.2}


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "production.json"
    wrong = {"watch": {"text": "hash", "alarms": {"alpa": 1}}, "reviews": {}}
    path.write_text(json.dumps(wrong))
    with pytest.raises(ConfigError) as caught:
        load_production(path, overrides=["serve.timeout_seconds=-1", "nonsense"])
    places = [one.place for one in caught.value.problems]
    assert set(places) == {
        "--set nonsense",
        "serve.timeout_seconds",
        "watch.text",
        "watch.alarms.alpa",
        "reviews",
    }
    assert 'did you mean "alpha"?' in caught.value.render()


def test_a_bound_of_a_group_that_is_not_watched_is_a_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        load_production(overrides=['watch.alarms.max_group_fpr={"lgbt": 0.2}'])
    assert 'did you mean "lgbtq"?' in caught.value.render()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_production(tmp_path / "nothing.json")
