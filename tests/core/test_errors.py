from __future__ import annotations

import pytest

from evenhand.core import errors
from evenhand.core.errors import ConfigError, EvenhandError, InputError, Problem


def test_every_problem_stands_on_a_line_of_its_own_aligned() -> None:
    error = ConfigError(
        "experiment.json",
        [Problem("phases[1].lora_r", "must be positive"), Problem("seed", "is not a number")],
        hint="`evenhand explain phases` lists every field",
    )
    assert error.render() == (
        "experiment.json has 2 problems; nothing was run\n"
        "\n"
        "  phases[1].lora_r   must be positive\n"
        "  seed               is not a number\n"
        "\n"
        "hint: `evenhand explain phases` lists every field"
    )


def test_one_problem_is_singular_and_the_consequence_can_be_said() -> None:
    error = InputError("a.csv", [Problem("line 3", "is empty")], consequence="nothing was read")
    assert str(error) == "a.csv has 1 problem; nothing was read"


def test_a_long_place_does_not_push_the_others_away() -> None:
    error = InputError("a", [Problem("x" * 60, "first"), Problem("y", "second")])
    assert f"  {'y':<40}   second" in error.render()


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        ("InputError", 2),
        ("ConfigError", 2),
        ("DataError", 2),
        ("ModelError", 2),
        ("DeviceError", 1),
        ("StorageError", 1),
        ("TrainingError", 1),
    ],
)
def test_exit_code_of_each_branch(kind: str, exit_code: int) -> None:
    cls = getattr(errors, kind)
    assert issubclass(cls, EvenhandError)
    assert cls.exit_code == exit_code


def test_hint_is_part_of_the_rendered_text() -> None:
    assert EvenhandError("no", hint="yes").render() == "no\n\nhint: yes"
    assert EvenhandError("no").render() == "no"
