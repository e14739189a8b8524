"""Files of annotations as Label Studio writes them, read with everything that is wrong in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.core.errors import DataError, Problem
from evenhand.watch.reviewing.acts import clean_groups, clean_words, label_problems, words_problems

LABEL, GROUPS_FIELD, RATIONALE = "label", "groups", "rationale"
"""The names of the fields in the labelling configuration."""

# Label Studio keeps the ids of results: they tell our own annotations when they come back.
OURS = "evenhand-"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's answer to one task, as a file has it."""

    place: str
    post: str
    text: str
    text_sha256: str | None
    label: str
    groups: tuple[str, ...]
    rationale: str | None


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """What a file holds: the annotations, what is wrong with it, and what was passed over.

    Attributes:
        path: the file.
        annotations: those that can be read.
        problems: those that cannot.
        cancelled: annotations that were skipped in Label Studio.
        ours: annotations that an export of ours had put there.
        others: annotations of other annotators than the one asked for.
    """

    path: Path
    annotations: tuple[Annotation, ...]
    problems: tuple[Problem, ...]
    cancelled: int = 0
    ours: int = 0
    others: int = 0


def read_annotations(path: Path, *, annotator: str | None = None) -> AnnotationFile:
    """Read an export of Label Studio: JSON, or JSON_MIN with its flat tasks.

    Args:
        path: the file.
        annotator: take the annotations of this one alone: an id or an e-mail address.

    Raises:
        DataError: the file is not a JSON array.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refused(path, [Problem("the file", f"cannot be read: {error}")]) from error
    if not isinstance(tasks, list):
        raise refused(path, [Problem("the file", "is not a JSON array of tasks")])
    reading = _Reading(annotator)
    for number, task in enumerate(tasks):
        reading.task(f"[{number}]", task)
    return AnnotationFile(
        path, tuple(reading.annotations), tuple(reading.problems), **reading.passed_over
    )


def refused(path: Path, problems: Sequence[Problem]) -> DataError:
    """Return the error of a file of which nothing was imported."""
    return DataError(str(path), problems, consequence="nothing was imported")


@dataclass(slots=True)
class _Reading:
    """The reading of a file's tasks, one after the other."""

    annotator: str | None
    annotations: list[Annotation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    passed_over: dict[str, int] = field(
        default_factory=lambda: {"cancelled": 0, "ours": 0, "others": 0}
    )

    def task(self, place: str, task: Any) -> None:
        """Read one task with all its annotations."""
        if not isinstance(task, Mapping):
            self._wrong(place, "is not a task: a JSON object")
            return
        if "data" not in task:
            self._flat_task(place, task)
            return
        data, annotations = task["data"], task.get("annotations", [])
        if not isinstance(data, Mapping):
            self._wrong(f"{place}.data", "is not a JSON object")
            return
        if not isinstance(annotations, list):
            self._wrong(f"{place}.annotations", "is not a list")
            return
        for number, annotation in enumerate(annotations):
            where = f"{place}.annotations[{number}]"
            if not isinstance(annotation, Mapping):
                self._wrong(where, "is not a JSON object")
            elif not self._passes(annotation, annotation.get("completed_by")):
                self._add(where, data, _fields(annotation))

    def _flat_task(self, place: str, task: Mapping[str, Any]) -> None:
        """Read one task of JSON_MIN, which stands for one annotation."""
        if LABEL not in task:
            if "annotation_id" in task:
                self._wrong(place, "has no label")
            return
        if not self._passes(task, task.get("annotator")):
            named = (LABEL, GROUPS_FIELD, RATIONALE)
            self._add(place, task, {name: _values(task.get(name)) for name in named})

    def _passes(self, annotation: Mapping[str, Any], annotator: Any) -> bool:
        """Count an annotation that is passed over."""
        reason = None
        if annotation.get("was_cancelled"):
            reason = "cancelled"
        elif any(str(one.get("id", "")).startswith(OURS) for one in _results(annotation)):
            reason = "ours"
        elif self.annotator is not None and self.annotator not in _names(annotator):
            reason = "others"
        if reason is None:
            return False
        self.passed_over[reason] += 1
        return True

    def _add(self, place: str, data: Mapping[str, Any], given: dict[str, list[str]]) -> None:
        """Add an annotation, or what is wrong with it."""
        labels, groups = given.get(LABEL, []), given.get(GROUPS_FIELD, [])
        words = "\n".join(given.get(RATIONALE, [])) or None
        before = len(self.problems)
        for name in ("post", "text"):
            if not isinstance(data.get(name), str):
                self._wrong(place, f"its task has no {name}; was it exported by `evenhand review`?")
        if len(labels) != 1:
            self._wrong(place, f"has {len(labels)} labels instead of one")
        found = label_problems(labels[0], groups) if len(labels) == 1 else []
        for problem in (*found, *words_problems("rationale", words)):
            self._wrong(f"{place}.{problem.place}", problem.message)
        if len(self.problems) == before:
            self.annotations.append(
                Annotation(
                    place=place,
                    post=data["post"],
                    text=data["text"],
                    text_sha256=data.get("text_sha256"),
                    label=labels[0],
                    groups=tuple(clean_groups(groups)),
                    rationale=clean_words(words),
                )
            )

    def _wrong(self, place: str, message: str) -> None:
        self.problems.append(Problem(place, message))


def _results(annotation: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    found = annotation.get("result")
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, Mapping))


def _fields(annotation: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values of an annotation by field."""
    return {str(one.get("from_name")): _values(one.get("value")) for one in _results(annotation)}


def _values(value: Any) -> list[str]:
    """Return choices or texts, in whichever of Label Studio's forms they are."""
    if isinstance(value, Mapping):
        value = value.get("choices", value.get("text"))
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _names(annotator: Any) -> set[str]:
    if isinstance(annotator, Mapping):
        return {str(annotator[name]) for name in ("id", "email") if name in annotator}
    return {str(annotator)}
