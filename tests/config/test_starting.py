from __future__ import annotations

import pytest

from evenhand.config.checking import check_experiment, check_phase
from evenhand.config.starting import label_map, starting_experiment
from evenhand.core.errors import ConfigError


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
