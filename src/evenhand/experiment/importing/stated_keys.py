"""The names of figures that may be stated about a run, and what is wrong with those that are."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import Problem
from evenhand.core.registry import suggest

ALIASES = {
    "f1_score": "f1",
    "false_positive_rate": "fpr",
    "false_negative_rate": "fnr",
    "true_positive": "tp",
    "true_negative": "tn",
    "false_positive": "fp",
    "false_negative": "fn",
    "samples": "n",
    "sample_count": "n",
    "unparseable": "n_unparseable",
    "train_rows": "rows",
    "training_rows": "rows",
    "samples_per_second": "rows_per_second",
    "train_runtime": "runtime_seconds",
    "eval_loss": "final_eval_loss",
    "epoch": "final_epoch",
}
"""Other names of the same figure, those of the reference's files among them."""

METRICS = ("accuracy", "precision", "recall", "f1", "fpr", "fnr", "roc_auc", "ece", "brier")
COUNTS = ("tp", "tn", "fp", "fn")
ROWS = ("n", "n_scored", "n_unparseable", "n_error")
MEASURES = frozenset((*METRICS, *COUNTS, *ROWS))
"""Figures of an evaluation, or of a group in one."""

STATISTICS = frozenset(
    ("rows", "validation_rows", "processes", "runtime_seconds", "rows_per_second", "train_loss",
     "total_flos", "final_epoch", "final_eval_loss", "steps_run", "total_steps", "steps_per_epoch",
     "effective_batch_size", "trainable_parameters", "total_parameters", "trainable_percent")
)  # fmt: skip
"""Figures of a training."""

_NEAR = 0.75
_FACTS = frozenset(("stopped_early", "best_checkpoint"))
_FIELDS = PhaseConfig.model_fields
_GROUP_ENDING = re.compile(r"(.+)_(fpr|fnr|samples)")


@dataclass(frozen=True, slots=True)
class Claim:
    """One stated figure: where it was stated, its key and value.

    ``is_column`` marks a column of somebody's table, which may have others than figures.
    """

    place: str
    key: str
    value: float | int | str
    is_column: bool = False


def split_key(key: str, groups: Set[str]) -> tuple[tuple[str, ...], str]:
    """Return what a key's figure is of, and the one name of the figure.

    >>> split_key("validation.lgbtq_fpr", {"lgbtq"}), split_key("train_rows", set())
    ((('validation', 'lgbtq'), 'fpr'), ((), 'rows'))
    """
    parts = key.split(".")
    ending = _GROUP_ENDING.fullmatch(parts[-1])
    if ending and ending[1] in groups:
        parts[-1:] = [ending[1], ending[2]]
    return tuple(parts[:-1]), ALIASES.get(parts[-1], parts[-1])


def check_claims(
    claims: Sequence[Claim], *, name: str, groups: Mapping[str, Set[str]] | None
) -> tuple[list[Problem], list[str]]:
    """Return what is wrong with stated figures, and warnings of what cannot be told yet.

    Args:
        claims: in the order in which they were stated.
        name: the evaluation that a measure without a set's name speaks of.
        groups: by evaluation, its groups; None where they could not be read.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    for claim in claims:
        wrong, warning = _check(claim, groups)
        problems += [Problem(claim.place, message) for message in wrong]
        warnings += [warning] if warning else []
    return problems + _contradictions(claims, name=name, groups=groups or {}), warnings


def agrees(stated: Any, found: Any) -> bool:
    """Tell whether a figure that was found rounds to the stated one.

    >>> agrees(0.6308, 0.63077), agrees(0.6308, 0.6309), agrees(1, 0.93), agrees(825, 825.39)
    (True, False, False, True)
    """
    if _is_number(stated) and _is_number(found):
        if isinstance(stated, int) and (isinstance(found, int) or abs(stated) < 10):
            return math.isclose(stated, found, rel_tol=1e-9)
        half = 0.5 * 10.0 ** -_decimals(stated)
        return abs(stated - found) <= half * (1 + 1e-6) or math.isclose(stated, found, rel_tol=1e-9)
    return _plain(stated) == _plain(found)


def _check(claim: Claim, groups: Mapping[str, Set[str]] | None) -> tuple[list[str], str | None]:
    every = set[str]().union(*(groups or {}).values())
    where, figure = split_key(claim.key, every)
    problem: str | None = None
    warning: str | None = None
    if figure in MEASURES and len(where) <= 2:
        if groups is not None:
            problem, warning = _check_place(claim, where, groups, every)
    elif where or not (figure in STATISTICS | _FACTS or figure in _FIELDS):
        if claim.is_column or (groups is None and _GROUP_ENDING.fullmatch(claim.key)):
            return [], None
        known = [*MEASURES, *ALIASES]
        known += [] if where else [*STATISTICS, *_FACTS, *_FIELDS]
        known += [f"{group}_{measure}" for group in every for measure in ("fpr", "fnr", "samples")]
        last = claim.key.rpartition(".")[2]
        return [f'"{claim.key}" is not a figure that is known here{suggest(last, known)}'], None
    found = [problem] if problem else []
    if _is_numeric(figure) and isinstance(claim.value, str):
        found.append(f'{claim.key}: "{claim.value}" is not a number')
    return found, warning


def _check_place(
    claim: Claim, where: Sequence[str], groups: Mapping[str, Set[str]], every: Set[str]
) -> tuple[str | None, str | None]:
    """Check the evaluation and the group that a measure is said to be of."""
    if not where or where[0] in groups:
        if len(where) == 2 and where[1] not in groups[where[0]]:
            there = ", ".join(sorted(groups[where[0]])) or "none"
            nearest = suggest(where[1], groups[where[0]])
            message = f'{claim.key}: {where[0]} has no group "{where[1]}"{nearest}; it has: {there}'
            return message, None
        return None, None
    if len(where) == 1 and where[0] in every:
        return None, None
    # An evaluation may be imported later, and be called nearly as another is; groups are all here.
    near = difflib.get_close_matches(where[0], every, n=1, cutoff=_NEAR)
    unknown = f'"{where[0]}" is neither an evaluation nor a group of this run'
    if near and len(where) == 1:
        return f'{claim.key}: {unknown}; did you mean "{near[0]}"?', None
    return None, f"{claim.key}: {unknown}; checked once an evaluation of that name is imported"


def _is_numeric(figure: str) -> bool:
    if figure in MEASURES or figure in STATISTICS:
        return True
    default: Any = _FIELDS[figure].default if figure in _FIELDS else None
    return isinstance(default, (int, float)) and not isinstance(default, bool)


def _contradictions(
    claims: Sequence[Claim], *, name: str, groups: Mapping[str, Set[str]]
) -> list[Problem]:
    """Find figures that are stated twice, and differently."""
    every = set[str]().union(*groups.values())
    first: dict[tuple[str, ...], Claim] = {}
    problems = []
    for claim in claims:
        where, figure = split_key(claim.key, every)
        if figure in MEASURES and (not where or (where[0] in every and where[0] not in groups)):
            where = (name, *where)
        before = first.setdefault((*where, figure), claim)
        if not (agrees(before.value, claim.value) or agrees(claim.value, before.value)):
            message = f"{claim.key} is stated twice: {before.value} and {claim.value}"
            problems.append(Problem(claim.place, message))
    return problems


def _decimals(value: float) -> int:
    if isinstance(value, int):
        return 0
    mantissa, _, exponent = repr(value).partition("e")
    digits = mantissa.partition(".")[2]
    return (0 if digits == "0" else len(digits)) - int(exponent or 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(sorted(str(item) for item in value))
    text = str(value).strip().casefold()
    if re.fullmatch(r"\[.*\]", text):
        text = ",".join(sorted(re.findall(r"[\w./-]+", text)))
    return text
