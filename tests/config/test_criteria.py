from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from evenhand.config.criteria import SHIPPED, Against, Criteria, Criterion, Duty, load_criteria
from evenhand.core.errors import ConfigError

DUTY = {"monitor": "FPR", "owner": "me", "due_days": 7, "action": "tune"}


def write(folder: Path, *entries: dict[str, Any], **keys: Any) -> Path:
    path = folder / "criteria.json"
    path.write_text(json.dumps({"name": "mine", "criteria": list(entries), **keys}))
    return path


def problems(path: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_criteria(path)
    assert caught.value.exit_code == 2
    return {one.place: one.message for one in caught.value.problems}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_load_and_explain_each_criterion(name: str) -> None:
    criteria = load_criteria(name)
    assert criteria.name == name
    assert all(len(one.definition) > 20 for one in criteria.criteria)


def test_the_reference_set_is_the_reference_experiments() -> None:
    found = {one.name: one for one in load_criteria("reference").criteria}
    assert [one.role for one in found.values()] == [
        "required",
        "stretch",
        "required",
        "condition",
        "required",
        "required",
    ]
    assert found["F1 >= 0.615"].at_least == 0.615
    assert found["Recall >= 75%"].at_least == 0.75
    duty = found["Bias fairness"].duty
    assert duty is not None and duty.due_days == 14
    assert all(one.judged_on == "point" for one in found.values())


def test_a_file_is_found_beside_the_experiment(tmp_path: Path) -> None:
    write(tmp_path, {"name": "F1", "metric": "f1", "at_least": 0.6})
    found = load_criteria("criteria.json", base=tmp_path)
    assert found.criteria[0].bound == 0.6
    assert found.sha256 == load_criteria(tmp_path / "criteria.json").sha256
    changed = write(tmp_path, {"name": "F1", "metric": "f1", "at_least": 0.61})
    assert found.sha256 != load_criteria(changed).sha256


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    found = problems(
        write(
            tmp_path,
            {"name": "a", "metric": "f2", "at_least": 0.6, "judged_on": "upper"},
            {"name": "b", "metric": "fpr", "grup": "each", "at_most": 1.5},
            {"name": "b", "metric": "fpr", "at_most": 0.3, "role": "condition"},
            {"metric": "recall", "at_least": 0.3, "at_most": 0.7},
            descripton="typo",
        )
    )
    assert 'must be "accuracy"' in found["criteria[0].metric"]
    assert 'use "lower"' in found["criteria[0].judged_on"]
    assert 'did you mean "group"' in found["criteria[1].grup"]
    assert "at most" in found["criteria[1].at_most"] or "less" in found["criteria[1].at_most"]
    assert "who does what" in found["criteria[2].duty"]
    assert found["criteria[3].name"] == "is missing"
    assert "one bound" in found["criteria[3].at_least"]
    assert "given 2 times" in found["criteria"]
    assert 'did you mean "description"' in found["descripton"]


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"metric": "f1"}, "at_least"),
        ({"metric": "fnr", "group": "range", "at_most": 0.1, "judged_on": "upper"}, "judged_on"),
        (
            {"metric": "fnr", "group": "range", "at_most": 0.1, "against": {"set": "x"}},
            "against",
        ),
        ({"metric": "fpr_gap", "at_most": 0.1}, "group"),
        ({"metric": "f1", "at_least": 0.1, "duty": DUTY}, "duty"),
        ({"metric": "f1", "at_least": 0.1, "against": {"set": "x", "baseline": "y"}}, "against"),
        ({"metric": "f1", "at_least": 0.1, "against": {}}, "against"),
    ],
)
def test_rules_over_several_fields(tmp_path: Path, entry: dict[str, Any], place: str) -> None:
    assert list(problems(write(tmp_path, {"name": "x", **entry}))) == [f"criteria[0].{place}"]
    with pytest.raises(ValidationError):
        Criterion.model_validate({"name": "x", **entry})


def test_a_set_in_which_nothing_can_fail_is_refused(tmp_path: Path) -> None:
    entry = {"name": "x", "metric": "f1", "at_least": 0.1, "role": "stretch"}
    assert "lets every model through" in problems(write(tmp_path, entry))["criteria"]
    assert "must have at least one entry" in problems(write(tmp_path))["criteria"]
    with pytest.raises(ValidationError):
        Criteria(name="x", criteria=(Criterion.model_validate(entry),))


def test_a_name_that_is_no_file_is_told_of_the_shipped_sets(tmp_path: Path) -> None:
    assert '"default" or "reference"' in problems(tmp_path / "nothing.json")["file"]
    (tmp_path / "broken.json").write_text('{"name": "a", "name": "b"')
    assert "is not JSON" in next(iter(problems(tmp_path / "broken.json").values()))


def test_the_page_lists_every_field_and_metric(project_root: Path) -> None:
    page = (project_root / "docs/deciding.md").read_text()
    metrics = get_args(Criterion.model_fields["metric"].annotation)
    names = [*Criterion.model_fields, *Duty.model_fields, *Against.model_fields, *metrics]
    assert [name for name in names if name not in page] == []
