from __future__ import annotations

from typing import Any

import pytest

from evenhand.config.checking import check_experiment, check_phase
from evenhand.config.starting import (
    label_map,
    optional_columns,
    recognise_columns,
    starting_experiment,
)
from evenhand.core.errors import ConfigError

NAMES = {
    "text": ("text", "post"),
    "label": ("label", "class"),
    "group": ("group", "target"),
    "id": ("id",),
    "cluster": ("thread",),
}
POSTS = ["one two three", "four five six", "seven eight nine"]


def test_names_come_before_content() -> None:
    samples = {"notes": POSTS, "Post": POSTS, "Label": ["a", "b", "b"], "flag": ["x", "y", "y"]}
    found = recognise_columns(samples, given={}, common_names=NAMES)
    assert (found.text, found.label, found.group) == ("Post", "Label", ())


def test_content_where_names_say_nothing() -> None:
    samples = {"a": POSTS, "b": [0, 1, 1], "c": [1, 2, 3], "Target": ["x", "y", "y"]}
    found = recognise_columns(samples, given={}, common_names=NAMES)
    assert (found.text, found.label, found.group) == ("a", "b", ("Target",))


def test_what_is_given_counts() -> None:
    samples = {"post": POSTS, "reply": POSTS, "label": [0, 1, 1], "x": [0, 1, 1]}
    given: dict[str, Any] = {"text": "reply", "label": "x", "group": ("label",)}
    found = recognise_columns(samples, given=given, common_names=NAMES)
    assert (found.text, found.label, found.group) == ("reply", "x", ("label",))


def test_what_cannot_be_told_is_asked_for_all_at_once() -> None:
    samples = {"a": POSTS, "b": POSTS, "c": [1, 2, 3]}
    with pytest.raises(ConfigError) as caught:
        recognise_columns(samples, given={"group": ("d",)}, common_names=NAMES)
    found = {problem.place: problem.message for problem in caught.value.problems}
    assert set(found) == {"--group", "--text", "--label"}
    assert "'a' or 'b'" in found["--text"]


def test_further_columns() -> None:
    values = {"ID": [1, 2], "thread": ["x", "x"], "other": [1, 1]}
    found = optional_columns(values, common_names=NAMES)
    assert found == {"id": "ID", "cluster": "thread"}
    assert optional_columns({"id": [1, 1]}, common_names=NAMES) == {}
    assert optional_columns({"id": [1, None]}, common_names=NAMES) == {}


def test_label_words() -> None:
    known = {"hate": "hate", "normal": "normal", "0": "normal"}
    assert label_map(["normal", "hate"], positive=[], known=known) == {
        "normal": "normal",
        "hate": "hate",
    }
    assert label_map(["a", "b", "c"], positive=["a", "b"], known=known) == {
        "a": "hate",
        "b": "hate",
        "c": "normal",
    }


@pytest.mark.parametrize(
    ("words", "positive", "message"),
    [
        (["a", "hate"], [], "cannot tell"),
        (["a", "b"], ["c"], '"c" is no label word'),
        (["normal"], [], "no row would be hate"),
        (["a"], ["a"], "no row would be normal"),
        ([str(n) for n in range(50)], [], "holds no label words"),
    ],
)
def test_label_words_that_do_not_do(words: list[str], positive: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match="the table") as caught:
        label_map(words, positive=positive, known={"hate": "hate", "normal": "normal"})
    assert message in caught.value.render()


def test_the_starting_experiment_is_valid() -> None:
    document = starting_experiment("mine", data_folder="data")
    _, found = check_experiment(document)
    assert found == []
    _, found = check_phase({**document["defaults"], **document["phases"][0]["config"]})
    assert found == []
