"""The criteria of a gate: what a model must show before it may be deployed.

A file holds ``{"name", "description", "criteria": [...]}``; docs/deciding.md explains the fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from evenhand.config import files
from evenhand.config.checking import found_problem, is_echo
from evenhand.config.rules import Broken
from evenhand.config.schema import Positive, StrictModel, raise_broken
from evenhand.config.strict_json import read_object
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.paths import sha256_json

SHIPPED = ("default", "reference")
_FOLDER = Path(__file__).parent / "criteria_sets"

EACH = "each"
RANGE = "range"

GateMetric = Literal[
    "accuracy",
    "precision",
    "recall",
    "f1",
    "fpr",
    "fnr",
    "roc_auc",
    "ece",
    "brier",
    "fpr_gap",
    "fnr_gap",
]


class Against(StrictModel):
    """What the figure is compared with: a baseline on the same rows, or another evaluation."""

    baseline: str | None = Field(
        default=None,
        min_length=1,
        description="A baseline of the evaluation: always_hate, always_normal or tfidf_logreg.",
    )
    set: str | None = Field(
        default=None,
        min_length=1,
        description='The evaluation set of the other figure; "validation": the one for selection.',
    )


class Duty(StrictModel):
    """What must be done where a condition does not pass."""

    monitor: str = Field(min_length=1, description="What is watched from the deployment on.")
    owner: str = Field(min_length=1, description="Who answers for it.")
    due_days: Positive = Field(description="Days from the verdict until the action is done.")
    action: str = Field(min_length=1, description="What is to be done until then.")


class Criterion(StrictModel):
    """One criterion: a metric and its bound.

    >>> Criterion(name="Recall", metric="recall", at_least=0.75).judged_on
    'point'
    """

    name: str = Field(min_length=1, description="As printed in the table.")
    metric: GateMetric = Field(
        description="A metric of the evaluation; fpr_gap and fnr_gap: a group's rate minus that "
        "of the rows outside the group."
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        description='null: all rows; "each": every group must meet it; "range": the largest minus '
        "the smallest value over the groups; or one group's name.",
    )
    at_least: float | None = Field(
        default=None, ge=-1, le=1, description="Lower bound, as a fraction; this or at_most."
    )
    at_most: float | None = Field(
        default=None, ge=-1, le=1, description="Upper bound, as a fraction; this or at_least."
    )
    judged_on: Literal["point", "lower", "upper"] = Field(
        default="point",
        description="The estimate, or the end of its 95% interval that is nearer to the bound: "
        "lower goes with at_least, upper with at_most.",
    )
    role: Literal["required", "stretch", "condition"] = Field(
        default="required",
        description="required: must pass; condition: where it does not pass, its duty is due; "
        "stretch: reported only.",
    )
    against: Against | None = Field(
        default=None,
        description="Judge the difference to another figure (this minus the other), not the "
        "figure itself.",
    )
    definition: str = Field(default="", description="What it means, and why this bound.")
    duty: Duty | None = Field(default=None, description="For a condition: what is due.")

    @model_validator(mode="after")
    def _rules(self) -> Self:
        raise_broken(list(_broken(self.model_dump())))
        return self

    @property
    def bound(self) -> float:
        """The bound, whichever way it goes."""
        bound = self.at_least if self.at_most is None else self.at_most
        assert bound is not None
        return bound


class Criteria(StrictModel):
    """A named set of criteria."""

    name: str = Field(min_length=1, description="The set's name, as it is printed.")
    description: str = Field(default="", description="What the set is for.")
    criteria: tuple[Criterion, ...] = Field(
        strict=False, min_length=1, description="The criteria, in the order of the table."
    )

    @model_validator(mode="after")
    def _rules(self) -> Self:
        raise_broken(list(_broken_together([one.model_dump() for one in self.criteria])))
        return self

    @property
    def sha256(self) -> str:
        """The hash of the whole set."""
        return sha256_json(self.model_dump(mode="json"))


def load_criteria(name: Path | str, *, base: Path | None = None) -> Criteria:
    """Read a file of criteria, or a shipped set: ``reference`` or ``default``.

    A relative name is looked for in ``base``, then in the current folder.

    Raises:
        ConfigError: there is no such file, or with every problem of the file.

    >>> load_criteria("reference").criteria[0].name
    'F1 >= 0.615'
    """
    if str(name) in SHIPPED:
        path = _FOLDER / f"{name}.json"
    else:
        folders = files.search_folders(base)
        path = files.find(str(name), folders) or Path(name)
        if not path.is_file():
            reason = "is a folder" if path.is_dir() else files.not_found(str(name), folders)
            shipped = " or ".join(f'"{one}"' for one in SHIPPED)
            raise ConfigError(str(name), [Problem("file", f"{reason}; shipped are {shipped}")])
    document, problems = read_object(path)
    if document is not None:
        criteria, more = check_criteria(document)
        problems.extend(more)
        if criteria is not None and not problems:
            return criteria
    raise ConfigError(files.shown(path), problems, consequence="nothing was judged")


def check_criteria(document: Mapping[str, Any]) -> tuple[Criteria | None, list[Problem]]:
    """Return the criteria, or None, and everything that is wrong with them.

    >>> entry = {"name": "F1", "metric": "f2", "at_least": 0.6, "judged_on": "upper"}
    >>> for one in check_criteria({"name": "mine", "criteria": [entry]})[1]:
    ...     print(one.place, one.message[:40])
    criteria[0].metric must be "accuracy", "precision", "recall
    criteria[0].judged_on "upper" is the lenient end for at_least;
    """
    entries = document.get("criteria")
    listed = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    problems = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            for rule in _broken(entry):
                problems.append(Problem(f"criteria[{index}].{rule.keys[0]}", rule.message))
    problems += [Problem(rule.keys[0], rule.message) for rule in _broken_together(listed)]
    try:
        return Criteria.model_validate(dict(document)), problems
    except ValidationError as error:
        fields = []
        for details in error.errors():
            if details["type"] != "rules" and not is_echo(details):
                found = found_problem(details, _model_at(details["loc"]))
                fields.append(Problem(found.place, found.message))
        return None, [*fields, *problems]


def _model_at(place: tuple[int | str, ...]) -> type[StrictModel]:
    names = [part for part in place[:-1] if isinstance(part, str)]
    return {"criteria": Criterion, "against": Against, "duty": Duty}.get(
        names[-1] if names else "", Criteria
    )


def _broken(entry: Mapping[str, Any]) -> Iterator[Broken]:
    """The rules that one criterion breaks, as read: wrong types are the fields' own business."""
    has = {key for key, value in entry.items() if value is not None}
    metric, group = entry.get("metric"), entry.get("group")
    judged_on = entry.get("judged_on", "point")
    if len(has & {"at_least", "at_most"}) != 1:
        wanted = (
            "give one of the two" if has & {"at_least", "at_most"} else "is missing, or at_most"
        )
        yield Broken(("at_least",), f"{wanted}: a criterion has one bound")
    elif judged_on in ("lower", "upper"):
        key, end = ("at_least", "lower") if "at_least" in has else ("at_most", "upper")
        if judged_on != end:
            message = f'"{judged_on}" is the lenient end for {key}; use "{end}" or "point"'
            yield Broken(("judged_on",), message)
    if group == RANGE and judged_on != "point":
        message = 'must be "point": a range over groups has no interval that can be trusted'
        yield Broken(("judged_on",), message)
    if group == RANGE and "against" in has:
        yield Broken(("against",), "cannot be combined with a range over groups")
    if metric in ("fpr_gap", "fnr_gap") and group in (None, RANGE):
        yield Broken(("group",), f'{metric} needs "each" or a group\'s name')
    if entry.get("role") == "condition" and "duty" not in has:
        yield Broken(("duty",), "is missing: a condition says who does what until when")
    if entry.get("role", "required") != "condition" and "duty" in has:
        yield Broken(("duty",), 'has no effect unless the role is "condition"')
    against = entry.get("against")
    if isinstance(against, dict) and sum(v is not None for v in against.values()) != 1:
        yield Broken(("against",), "must name either a baseline or a set")


def _broken_together(entries: list[Any]) -> Iterator[Broken]:
    """The rules that the criteria break together."""
    names = [entry.get("name") for entry in entries]
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        if names.count(name) > 1:
            yield Broken(("criteria",), f'the name "{name}" is given {names.count(name)} times')
    if entries and all(entry.get("role", "required") != "required" for entry in entries):
        yield Broken(("criteria",), "none is required: such a gate lets every model through")
