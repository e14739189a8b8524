"""A decision threshold from reviewed posts of production, each with its sampling weight.

As in :mod:`evenhand.decide.threshold`, fixed candidates are tested from the highest downwards, and
the first that fails ends the search (fixed-sequence testing: Angelopoulos et al. 2021,
arXiv:2110.01052), so that all above it keep the limits together with the stated confidence. What
differs is the bound. The rows are no simple random sample, and an operator retunes when an alarm
says so, which depends on the same labels: so a candidate passes where the wealth of bets against
"the group's FPR is at least the limit" (:mod:`evenhand.watch.statistics.sequences`) stands at
1/error or more, which happens at a rate at the limit or above with that probability at most,
whenever one looks. All of this is about the posts that were reviewed: if the rate moved among them,
it is about their mixture, and later posts may be unlike it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from evenhand.core.decisions import ThresholdRule
from evenhand.core.evaluation import MetricValue, Record
from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.statistics.sequences import interval, log_wealth_below, lower_end, upper_end
from evenhand.watch.statistics.weighted import WeightedCounts, WeightedRows, values_of

_ENDS = np.concatenate([np.arange(1, 10) * 10.0**-power for power in (3, 4, 5, 6)])
CANDIDATES = np.unique(np.round(np.concatenate([_ENDS, np.arange(1, 200) / 200, 1 - _ENDS]), 6))[
    ::-1
]
"""Every two-hundredth, and nine steps per decade down to a millionth from 0 and 1; descending."""

RESAMPLES = 1000
ALL = "all"
"""The name of all posts among the groups of an operating point."""

_PROCEDURE = (
    "fixed-sequence testing of {n} fixed candidates from the highest downwards on reviewed posts "
    "of production with their sampling weights; for every watched group, bets against an FPR at "
    "the limit must stand at {wealth:g} times their stake"
)
_NO_LIMIT = (
    "the best of {n} fixed candidates on reviewed posts of production with their sampling "
    "weights; no limit, no guarantee"
)


class WeightedPoint(Record):
    """What one threshold does on reviewed posts, weighted to all posts.

    Attributes:
        f1: with a weighted bootstrap's interval, as precision and recall.
        fpr: by group, ``all`` among them, with time-uniform intervals.
        fnr: likewise.
    """

    threshold: float
    f1: MetricValue
    precision: MetricValue
    recall: MetricValue
    fpr: Mapping[str, MetricValue]
    fnr: Mapping[str, MetricValue]


class Refit(Record):
    """The chosen threshold; ``lowest`` is the lowest that keeps the limits, ``n`` the labels."""

    value: float
    rule: ThresholdRule
    lowest: float
    n: int


class RefitShortfall(Record):
    """What a group lacks where the search stopped; ``labels`` are of normal posts about it."""

    labels: int
    fpr: float | None
    fpr_upper: float
    meets: bool


class NoRefit(Record):
    """No threshold keeps the limits; where the search stopped, and each group there.

    Attributes:
        reason: ``not_certified`` (not even the highest candidate is) or ``no_hate_found``.
    """

    rule: ThresholdRule
    reason: Literal["not_certified", "no_hate_found"]
    stopped_at: float
    groups: Mapping[str, RefitShortfall]
    n: int


class Change(Record):
    """A threshold before and after, on posts that the new one was not fitted on.

    Attributes:
        n: labelled posts; ``pending`` more were sampled and have no label yet.
        difference: after minus before, by ``f1``, ``recall`` and ``fpr GROUP``: paired weighted
            bootstrap.
        confidence: of all intervals.
    """

    n: int
    pending: int
    before: WeightedPoint
    after: WeightedPoint
    difference: Mapping[str, MetricValue]
    confidence: float


def refit(
    sample: ReviewedSample, rule: ThresholdRule, *, groups: Sequence[str], served: float
) -> Refit | NoRefit:
    """Choose the threshold with the best weighted merit among those that keep the limits.

    Args:
        sample: reviewed posts, in queue order.
        rule: maximise, limits, confidence; its procedure is replaced by the one used here.
        groups: the watched groups, each of which must keep the limits.
        served: the threshold that the posts were answered and sampled at.

    Raises:
        DataError: the labels hold no hateful or no normal post.
    """
    rows = WeightedRows(sample, served)
    rows.check()
    is_limited = rule.max_group_fpr is not None or rule.max_fpr_gap is not None
    tail = 1 - rule.confidence
    words = _PROCEDURE if is_limited else _NO_LIMIT
    rule = rule.model_copy(
        update={
            "procedure": words.format(n=len(CANDIDATES), wealth=1 / tail),
            "n_candidates": 1,  # these rows chose no model
        }
    )
    passing = 0
    for threshold in CANDIDATES:
        if is_limited and not all(_meets(rows, threshold, g, rule, tail) for g in groups):
            break
        passing += 1
    kept = CANDIDATES[:passing]
    finds = [rows.counts(float(one)).tp > 0 for one in kept]
    n = int(rows.labelled.sum())
    if not any(finds):
        stopped = float(CANDIDATES[min(passing, len(CANDIDATES) - 1)])
        return NoRefit(
            rule=rule,
            reason="no_hate_found" if passing else "not_certified",
            stopped_at=stopped,
            groups={g: _shortfall(rows, stopped, g, rule, tail) for g in groups},
            n=n,
        )
    merits = [_merit(rows.counts(float(one)), rule.maximise) for one in kept]
    best = int(np.argmax(merits))  # of equal ones the highest threshold
    return Refit(value=float(kept[best]), rule=rule, lowest=float(kept[-1]), n=n)


def change(
    sample: ReviewedSample,
    *,
    before: float,
    after: float,
    groups: Sequence[str],
    confidence: float,
    rng: np.random.Generator,
) -> Change:
    """Return what a new threshold changes on reviewed posts that it was not fitted on.

    Args:
        sample: the posts, answered and sampled at ``before``.
        before: the threshold in production.
        after: the new one.
        groups: the watched groups.
        confidence: of every interval.
        rng: of the bootstrap.

    Raises:
        DataError: the labels hold no hateful or no normal post.
    """
    rows = WeightedRows(sample, before)
    rows.check()
    places = np.flatnonzero(rows.labelled)
    even = np.full(len(places), 1 / len(places))
    drawn = rng.multinomial(len(places), even, size=RESAMPLES).astype(np.float32)
    points, resampled = [], []
    for threshold in (before, after):
        counts = rows.counts(threshold)
        again = rows.counts(threshold, times=drawn)
        spread = {name: values_of(name, again) for name in ("f1", "precision", "recall")}
        points.append(
            WeightedPoint(
                threshold=threshold,
                **{
                    name: _bootstrapped(values_of(name, counts), values, confidence)
                    for name, values in spread.items()
                },
                fpr=_rates(rows, threshold, "fpr", groups, confidence),
                fnr=_rates(rows, threshold, "fnr", groups, confidence),
            )
        )
        for group in (None, *groups):
            name = f"fpr {ALL if group is None else group}"
            spread[name] = values_of("fpr", rows.counts(threshold, group=group, times=drawn))
        resampled.append(spread)
    difference = {}
    for name in resampled[0]:
        old, new = (_value_at(point, name) for point in points)
        both = None if old is None or new is None else new - old
        spread = resampled[1][name] - resampled[0][name]
        difference[name] = _bootstrapped(both, spread, confidence)
    return Change(
        n=len(places),
        pending=int((~rows.labelled).sum()),
        before=points[0],
        after=points[1],
        difference=difference,
        confidence=confidence,
    )


def _meets(
    rows: WeightedRows, threshold: float, group: str, rule: ThresholdRule, tail: float
) -> bool:
    about = rows.about(group)
    inside = rows.draws(threshold, "fpr", about)
    if not inside.labels:
        return False
    limit = rule.max_group_fpr
    # The wealth as it stands, not its maximum: if the rate has risen, what was earned in better
    # times is lost again, and must not speak for the time to come.
    if limit is not None and log_wealth_below(inside, limit)[-1] < -np.log(tail):
        return False
    if rule.max_fpr_gap is None:
        return True
    outside = rows.draws(threshold, "fpr", rows.labelled & ~about)
    # Both bounds hold together at the level of the test: half of the error for each.
    gap = upper_end(inside, alpha=tail / 2) - lower_end(outside, alpha=tail / 2)
    return outside.labels > 0 and gap <= rule.max_fpr_gap


def _shortfall(
    rows: WeightedRows, threshold: float, group: str, rule: ThresholdRule, tail: float
) -> RefitShortfall:
    draws = rows.draws(threshold, "fpr", rows.about(group))
    return RefitShortfall(
        labels=draws.labels,
        fpr=draws.value,
        fpr_upper=upper_end(draws, alpha=tail),
        meets=_meets(rows, threshold, group, rule, tail),
    )


def _merit(counts: WeightedCounts, maximise: str) -> float:
    return float(np.nan_to_num(values_of(maximise, counts)))


def _value_at(point: WeightedPoint, name: str) -> float | None:
    if name.startswith("fpr "):
        return point.fpr[name.removeprefix("fpr ")].value
    return getattr(point, name).value


def _bootstrapped(
    value: float | np.ndarray | None, values: np.ndarray, confidence: float
) -> MetricValue:
    found = values[np.isfinite(values)]
    if value is None or not np.isfinite(value):
        return MetricValue(reason="no_labels")
    if not len(found):
        return MetricValue(value=float(value), reason="no_resample_has_it")
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    # A percentile interval need not hold the estimate in a small sample.
    return MetricValue(
        value=float(value),
        low=float(min(low, value)),
        high=float(max(high, value)),
        method="weighted_bootstrap",
    )


def _rates(
    rows: WeightedRows, threshold: float, metric: str, groups: Sequence[str], confidence: float
) -> dict[str, MetricValue]:
    found = {}
    for name, group in [(ALL, None), *((g, g) for g in groups)]:
        draws = rows.draws(threshold, metric, rows.about(group))
        ends = interval(draws, alpha=1 - confidence)
        if draws.value is None:
            found[name] = MetricValue(reason="no_labels")
            continue
        found[name] = MetricValue(
            value=draws.value,
            low=min(ends.low, draws.value),
            high=max(ends.high, draws.value),
            method="betting_sequence",
            denominator=draws.labels,
        )
    return found
