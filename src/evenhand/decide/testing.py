"""The tests of one pair of models, or of two groups of seeds, before Holm's correction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evenhand.core.decisions import PairedTest
from evenhand.core.evaluation import MetricValue
from evenhand.decide.alignment import Answers
from evenhand.decide.paired import (
    METRICS,
    Metric,
    RowVariance,
    Units,
    bootstrap_gains,
    count_units,
    detectable,
    f1_randomisation,
    least_p_value,
    mcnemar_exact,
    metric_values,
    row_variances,
    standard_error,
    swap_p_values,
)
from evenhand.decide.replicates import seed_test
from evenhand.measure.intervals import bootstrap_value

_GROUP_METRICS: tuple[Metric, ...] = ("fpr", "fnr")
_UNDEFINED = {"fpr": "no_negatives", "f1": "no_positives", "fnr": "no_positives"}


@dataclass(frozen=True)
class _Over:
    """What one test is of: a metric, over a group or (None) all rows."""

    metric: Metric
    group: str | None
    scope: int


@dataclass(frozen=True)
class Tested:
    """A test before correction, and what it could have detected at the level that it then needs."""

    test: PairedTest
    detectable: Callable[[float], float] | None


@dataclass(frozen=True)
class _Found:
    """A difference with its interval, its p-value, the least one possible, and what it detects."""

    difference: MetricValue
    p_value: float
    least: float
    detectable: Callable[[float], float] | None


@dataclass(frozen=True, eq=False)
class Sides:
    """Two sides of a comparison: the rows, and the numbers of the models on each side."""

    answers: Answers
    first: tuple[int, ...]
    second: tuple[int, ...]

    @property
    def are_single(self) -> bool:
        """Whether each side is one model, so that rows can be matched."""
        return len(self.first) == len(self.second) == 1


def pair_tests(sides: Sides, *, n_bootstrap: int, rng: np.random.Generator) -> list[Tested]:
    """Return F1, accuracy, FPR and FNR over all rows, then FPR and FNR of each group.

    ``p_holm`` and ``minimum_detectable`` are None and no verdict is given yet: all of them depend
    on the whole comparison.
    """
    answers = sides.answers
    tests = [_Over(metric, None, 0) for metric in METRICS]
    for scope, group in enumerate(answers.groups, start=1):
        tests += [_Over(metric, group, scope) for metric in _GROUP_METRICS]
    if not len(answers):
        return [_undefined(over, "no_scored_rows", n=0) for over in tests]
    units = count_units(answers, (*sides.first, *sides.second))
    cells: list[tuple[Metric, int]] = [(over.metric, over.scope) for over in tests]
    if not sides.are_single:
        split = len(sides.first)
        variances = row_variances(units, cells, split=split, n=n_bootstrap, rng=rng)
        return [_test(sides, units, *one) for one in zip(tests, variances, strict=True)]
    gains = bootstrap_gains(units, cells, split=1, n=n_bootstrap, rng=rng)
    swapped: list[float] | None = None
    if answers.clusters is not None:
        swapped = swap_p_values(units, cells, n=n_bootstrap, rng=rng)
    return [
        _test(sides, units, over, gains[number], None if swapped is None else swapped[number])
        for number, over in enumerate(tests)
    ]


def _test(
    sides: Sides,
    units: Units,
    over: _Over,
    drawn: np.ndarray | RowVariance,
    swapped: float | None = None,
) -> Tested:
    values = metric_values(units.totals, over.metric, over.scope)[0]
    rows = _rows(sides.answers, over)
    n = int(rows.sum())
    if np.isnan(values).any():
        return _undefined(over, _UNDEFINED[over.metric], n=n)
    first, second = values[: len(sides.first)], values[len(sides.first) :]
    discordant = None
    if isinstance(drawn, RowVariance):
        name = "t_rows_and_seeds"
        found = _over_seeds(units, over, drawn, first, second)
    else:
        hate, ours, theirs = _decisions(sides, rows)
        discordant = int((ours != theirs).sum())
        least = least_p_value(units.disagreeing(over.metric, over.scope))
        if swapped is None:
            name = "randomisation_exact" if over.metric == "f1" else "mcnemar_exact"
            p_value = _exact(over.metric, hate, ours, theirs)
        else:
            name, p_value = "randomisation_clustered", swapped
            least = max(least, 1 / (len(drawn) + 1))  # as many exchanges are drawn as resamples
        difference, detect = _by_bootstrap(units, over, drawn, float(second[0] - first[0]))
        found = _Found(difference, p_value, least, detect)
    test = PairedTest(
        metric=over.metric,
        group=over.group,
        first=float(first.mean()),
        second=float(second.mean()),
        difference=found.difference,
        test=name,
        p_value=found.p_value,
        least_p_value=found.least,
        p_holm=None,
        n=n,
        n_discordant=discordant,
        minimum_detectable=None,
        verdict="no_evidence",
    )
    return Tested(test, found.detectable)


def _exact(metric: Metric, hate: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    if metric == "f1":
        return f1_randomisation(hate, first, second)
    differ, right = first != second, first == hate
    return mcnemar_exact(int((differ & right).sum()), int((differ & ~right).sum()))


def _by_bootstrap(
    units: Units, over: _Over, gains: np.ndarray, difference: float
) -> tuple[MetricValue, Callable[[float], float] | None]:
    """Return the difference with its interval, and what is detectable at a level."""
    if units.holding(over.metric, over.scope) < 2:
        return _lone(difference), None
    error = standard_error(gains)

    def detect(level: float) -> float:
        return detectable(units, over.metric, over.scope, error=error, level=level)

    return _bounded(bootstrap_value(difference, gains, method="paired_bootstrap")), detect


def _over_seeds(
    units: Units, over: _Over, rows: RowVariance, first: np.ndarray, second: np.ndarray
) -> _Found:
    difference = float(second.mean() - first.mean())
    n_units = units.holding(over.metric, over.scope)
    if n_units < 2:
        return _Found(_lone(difference), 1.0, 1.0, None)
    found = seed_test(first, second, row_variance=rows.beside_seeds, n_units=n_units)
    value = MetricValue(value=difference, low=found.low, high=found.high, method="t_rows_and_seeds")
    return _Found(_bounded(value), found.p_value, 0.0, found.detectable)


def _bounded(value: MetricValue) -> MetricValue:
    """No difference of two rates leaves -1 to 1."""
    if value.low is None or value.high is None:
        return value
    return value.model_copy(update={"low": max(-1.0, value.low), "high": min(1.0, value.high)})


def _lone(difference: float) -> MetricValue:
    return MetricValue(value=difference, reason="one_independent_unit")


def _rows(answers: Answers, over: _Over) -> np.ndarray:
    """Return which rows a metric is over."""
    rows = {"fpr": ~answers.hate, "fnr": answers.hate}.get(over.metric, np.ones_like(answers.hate))
    return rows if over.group is None else rows & answers.groups[over.group]


def _decisions(sides: Sides, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels and the two models' decisions on some rows."""
    flagged = sides.answers.flagged
    return sides.answers.hate[rows], flagged[sides.first[0]][rows], flagged[sides.second[0]][rows]


def _undefined(over: _Over, reason: str, *, n: int) -> Tested:
    test = PairedTest(
        metric=over.metric,
        group=over.group,
        first=None,
        second=None,
        difference=MetricValue(reason=reason),
        test="none",
        p_value=None,
        p_holm=None,
        n=n,
        n_discordant=None,
        minimum_detectable=None,
        verdict="undefined",
    )
    return Tested(test, None)
