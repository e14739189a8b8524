from __future__ import annotations

from typing import Any

import pytest

from evenhand.core.errors import ConfigError
from evenhand.data.recognise import optional_columns, recognise_columns

POSTS = ["one two three", "four five six", "seven eight nine"]


def test_names_come_before_content() -> None:
    samples = {"notes": POSTS, "Post": POSTS, "Label": ["a", "b", "b"], "flag": ["x", "y", "y"]}
    found = recognise_columns(samples, given={})
    assert (found.text, found.label, found.group) == ("Post", "Label", ())


def test_content_where_names_say_nothing() -> None:
    samples = {"a": POSTS, "b": [0, 1, 1], "c": [1, 2, 3], "Target": ["x", "y", "y"]}
    found = recognise_columns(samples, given={})
    assert (found.text, found.label, found.group) == ("a", "b", ("Target",))


def test_what_is_given_counts() -> None:
    samples = {"post": POSTS, "reply": POSTS, "label": [0, 1, 1], "x": [0, 1, 1]}
    given: dict[str, Any] = {"text": "reply", "label": "x", "group": ("label",)}
    found = recognise_columns(samples, given=given)
    assert (found.text, found.label, found.group) == ("reply", "x", ("label",))


def test_what_cannot_be_told_is_asked_for_all_at_once() -> None:
    samples = {"a": POSTS, "b": POSTS, "c": [1, 2, 3]}
    with pytest.raises(ConfigError) as caught:
        recognise_columns(samples, given={"group": ("d",)})
    found = {problem.place: problem.message for problem in caught.value.problems}
    assert set(found) == {"--group", "--text", "--label"}
    assert "'a' or 'b'" in found["--text"]


def test_further_columns() -> None:
    values = {"ID": [1, 2], "thread_id": ["x", "x"], "other": [1, 1]}
    found = optional_columns(values)
    assert found == {"id": "ID", "cluster": "thread_id"}
    assert optional_columns({"id": [1, 1]}) == {}
    assert optional_columns({"id": [1, None]}) == {}
