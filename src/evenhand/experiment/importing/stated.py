"""Figures that somebody states about a run, each held against what its files prove."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.evaluation import Evaluation, GroupEvaluation, MetricValue
from evenhand.experiment.importing.stated_keys import COUNTS, MEASURES, ROWS, agrees, split_key

VERIFIED = "verified"
CONTRADICTED = "contradicted"
NOT_VERIFIED = "stated, not verified"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run's files prove.

    Attributes:
        name: the evaluation that a measure without a set's name speaks of.
        evaluations: by set.
        training: the training statistics.
        derived: the statistics that follow by arithmetic or were counted, and how.
        config: the configuration by key.
    """

    name: str
    evaluations: Mapping[str, Evaluation]
    training: Mapping[str, Any]
    derived: Mapping[str, str]
    config: Mapping[str, Any]


def parse_stated(pairs: Iterable[tuple[str, str]]) -> dict[str, float | int | str]:
    """Return stated figures as numbers where they are: ``93.33%`` is 0.9333, ``2,686`` is 2686.

    >>> parse_stated([("f1", "0.6308"), ("train_rows", "2,686"), ("lgbtq.fpr", "93.33%")])
    {'f1': 0.6308, 'train_rows': 2686, 'lgbtq.fpr': 0.9333}
    """
    return {key.strip(): _number(text) for key, text in pairs}


def read_stated(path: Path, *, strategy: str | None) -> dict[str, float | int | str]:
    """Read stated figures: a JSON object, or one of the reference's tables of metrics.

    In a CSV each column of the strategy's row is a figure; with a ``persona_tag`` (or ``group``)
    column, each row is about that group.

    Raises:
        ConfigError: the file is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _error(path, f"cannot be read: {error}") from error
    if path.suffix.lower() == ".csv":
        return parse_stated(_table_figures(path, text, strategy))
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _error(path, f"is neither a .csv table nor JSON: {error}") from error
    if not isinstance(document, dict):
        raise _error(path, "is not a JSON object of figures")
    return parse_stated(_flat(document))


def check_stated(
    stated: Mapping[str, float | int | str], evidence: Evidence
) -> dict[str, dict[str, Any]]:
    """Return for each figure its value, status, what was found, and where.

    A measure of an evaluation is stored under ``SET.measure`` or ``SET.GROUP.measure``. A figure
    is verified if what was found rounds to it; with a "contradicted" one both stand side by side.
    """
    checked: dict[str, dict[str, Any]] = {}
    for key, value in stated.items():
        name, found, source = _find(key, evidence)
        if found is None:
            status = NOT_VERIFIED
        else:
            status = VERIFIED if agrees(value, found) else CONTRADICTED
        checked[name] = {"value": value, "status": status, "found": found, "source": source}
    return checked


def _find(key: str, evidence: Evidence) -> tuple[str, Any, str | None]:
    """Return a key in its one form, the figure that files prove for it, and which do."""
    before, measure = split_key(key, _groups(evidence))
    where = list(before)
    if measure in MEASURES and len(where) <= 2:
        first = where[0] if where else None
        if len(where) < 2 and (
            first is None or (first not in evidence.evaluations and first in _groups(evidence))
        ):
            where = [evidence.name, *where]
        name = ".".join([*where, measure])
        evaluation = evidence.evaluations.get(where[0])
        if evaluation is None:
            return name, None, None
        if len(where) == 1:
            return name, _measure(evaluation, measure), f"the predictions on {where[0]}"
        group = evaluation.groups.get(where[1])
        found = None if group is None else _measure(group, measure)
        return name, found, f"the predictions on {where[0]}"
    if not where and measure in evidence.training:
        how = evidence.derived.get(measure)
        return key, evidence.training[measure], how or "the training's files"
    if not where and measure in evidence.config:
        return key, evidence.config[measure], "the configuration"
    return key, None, None


def _groups(evidence: Evidence) -> set[str]:
    return {group for one in evidence.evaluations.values() for group in one.groups}


def _measure(part: Evaluation | GroupEvaluation, measure: str) -> float | int | None:
    if measure in COUNTS:
        return getattr(part.confusion, measure)
    if measure in ROWS:
        return getattr(part, measure)
    value: MetricValue = getattr(part.metrics if isinstance(part, Evaluation) else part, measure)
    return value.value


def _table_figures(path: Path, text: str, strategy: str | None) -> Iterable[tuple[str, str]]:
    rows = list(csv.DictReader(text.splitlines()))
    names = {row["strategy"] for row in rows if row.get("strategy")}
    if len(names) > 1 and strategy is None:
        raise _error(path, f"has figures of {len(names)} strategies; choose one with --strategy")
    if strategy is not None and names:
        rows = [row for row in rows if row.get("strategy") == strategy]
    if not rows:
        raise _error(path, "has no figures" + (f' of "{strategy}"' if strategy else ""))
    for row in rows:
        group = row.get("persona_tag") or row.get("group")
        if group is None and len(rows) > 1:
            raise _error(path, "has several rows but no persona_tag or group column")
        for column, value in row.items():
            if column not in ("strategy", "persona_tag", "group") and value:
                yield (column if group is None else f"{group}.{column}"), value


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _number(text: str) -> float | int | str:
    plain = text.strip().replace(",", "")
    percent = plain.endswith("%")
    try:
        value = float(plain.removesuffix("%"))
    except ValueError:
        return text.strip()
    if not math.isfinite(value):
        return text.strip()
    if percent:
        digits = len(plain.removesuffix("%").partition(".")[2])
        return round(value / 100, digits + 2)
    return int(plain) if re.fullmatch(r"[+-]?\d+", plain) else value


def _error(path: Path, message: str) -> ConfigError:
    return ConfigError(str(path), [Problem("--stated-file", message)],
                       consequence="nothing was imported")  # fmt: skip
