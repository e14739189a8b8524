"""Error rates of production from the reviewed sample: weighted estimates, time-uniform intervals.

A post's groups are those that its reviewers settled on; what the proposer said only chose how often
such posts are reviewed. So a rate of a group is a domain estimate (Särndal, Swensson and Wretman
1992, chapter 10): it sums over every reviewed post that turned out to be about the group, wherever
it was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from evenhand.watch.statistics.sequences import Draws, interval

if TYPE_CHECKING:
    from evenhand.watch.statistics.sample import ReviewedSample

Metric = Literal["fpr", "fnr"]
METRICS: tuple[Metric, ...] = ("fpr", "fnr")


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """One error rate of production.

    Attributes:
        metric: ``fpr`` or ``fnr``.
        group: whose posts; None for all posts.
        value: Hajek's estimate over the labelled items; None without any of the class.
        low: lower end of the time-uniform interval.
        high: upper end, never under ``low``.
        labels: labelled items in the class (normal ones for an FPR, hate for an FNR).
        pending: items without a label yet; each counts as the worst that it could be.
        weight_max: the largest weight in the class over the mean weight; None without labels.
        drifted: earlier and later reviews disagree: no constant rate agrees with all looks, or
            ``value``, which is over all of the sample, lies where an earlier look excluded it.
    """

    metric: Metric
    group: str | None
    value: float | None
    low: float
    high: float
    labels: int
    pending: int
    weight_max: float | None
    drifted: bool = False


def estimate(
    sample: ReviewedSample, *, groups: Sequence[str], confidence: float
) -> tuple[RateEstimate, ...]:
    """Return FPR and FNR of all posts (group None) and of each group.

    Each interval holds with the stated confidence at all times at once, by itself; that all hold
    together is not claimed.
    """
    estimates = []
    for metric in METRICS:
        for group in (None, *groups):
            draws = draws_of(sample, metric=metric, group=group)
            ends, value = interval(draws, alpha=1 - confidence), draws.value
            estimates.append(
                RateEstimate(
                    metric=metric,
                    group=group,
                    value=value,
                    low=ends.low,
                    high=ends.high,
                    labels=draws.labels,
                    pending=int(draws.pending.sum()),
                    weight_max=draws.weight_max,
                    drifted=ends.drifted
                    or (value is not None and not ends.low <= value <= ends.high),
                )
            )
    return tuple(estimates)


def draws_of(
    sample: ReviewedSample,
    *,
    metric: Metric,
    group: str | None = None,
    outside: bool = False,
) -> Draws:
    """Return the sample as one error rate sees it.

    Args:
        sample: in queue order.
        metric: ``fpr`` or ``fnr``.
        group: the posts about this group; None for all.
        outside: the posts that are not about the group instead.
    """
    labelled = sample.state == "labelled"
    in_class = sample.hate if metric == "fnr" else ~sample.hate
    member = labelled & in_class
    if group is not None:
        member = member & (about(sample, group) != outside)
    least = [(plan.least_rate("hate"), plan.least_rate("normal")) for plan in sample.plans]
    hate, normal = np.array(least, dtype=float).reshape(-1, 2)[sample.plan].T
    return Draws(
        member=member,
        pending=~labelled,
        error=sample.flagged if metric == "fpr" else ~sample.flagged,
        inclusion=sample.inclusion,
        least_error=hate if metric == "fpr" else normal,
        least_right=normal if metric == "fpr" else hate,
    )


def about(sample: ReviewedSample, group: str) -> np.ndarray:
    """Return which items their reviewers settled to be about a group, bool, shape (n,)."""
    return np.fromiter((group in named for named in sample.groups), bool, len(sample.groups))
