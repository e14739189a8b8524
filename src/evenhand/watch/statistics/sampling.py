"""Which posts are reviewed: strata, and the rates at which each is sampled.

Every post is sampled or not by its own coin, whose probability was fixed before the post came and
is recorded with it. So the reviewed posts are a probability sample of all posts, whatever the
rates; the rates only decide how much is learnt from a review.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from evenhand.core.errors import ConfigError, Problem

Decision = Literal["hate", "normal"]
NO_GROUP = "none"
_DECISIONS: tuple[Decision, ...] = ("hate", "normal")
_BANDS = ("near", "far")

# What is assumed before anything was reviewed. Wrong values cost precision, never correctness.
_NORMAL_SHARE: Mapping[str, float] = {"hate": 0.35, "normal": 0.90}  # normal posts, by decision
_RIGHT_PROPOSALS = 0.80  # posts proposed for a group that speak of it
# Posts that speak of a group and were proposed for none. The shipped term lists miss 54 to 72% of
# the reference's; a better proposer loses little by this, and the share is never estimated.
_MISSED = 0.5
_FNR_WEIGHT = 0.3  # of a group's FNR, against 1 for its FPR
_NEAR_FACTOR = 1.5  # near posts tell what another threshold would do
# Between the highest and the lowest rate of one decision, before the near factor: the bets of the
# confidence sequences are limited by the lowest rate, which any post might have been sampled at.
_MOST_RATIO = 5.0


@dataclass(frozen=True)
class Plan:
    """The sampling rates in force, set before any post that they apply to.

    Attributes:
        rates: the inclusion probability by stratum.
        default_rate: that of a stratum which is not named.
        expected: posts a day by stratum that the plan was made for.
        labels_per_day: the budget that it was made for; None where it is not known.
    """

    rates: Mapping[str, float]
    default_rate: float
    expected: Mapping[str, float] = field(default_factory=dict)
    labels_per_day: float | None = None

    def __post_init__(self) -> None:
        wrong = [r for r in (*self.rates.values(), self.default_rate) if not 0 < r <= 1]
        if wrong:
            raise ValueError(f"sampling rates must be above 0 and at most 1, not {wrong[0]}")

    def rate(self, stratum: str) -> float:
        """Return the probability with which a post of the stratum is reviewed."""
        return self.rates.get(stratum, self.default_rate)

    def least_rate(self, decision: Decision) -> float:
        """Return the lowest rate at which any post so decided could be sampled."""
        named = [rate for stratum, rate in self.rates.items() if decision_of(stratum) == decision]
        return min([*named, self.default_rate])

    @property
    def expected_labels(self) -> float:
        """The labels a day that the rates ask for, at the expected traffic."""
        return sum(posts * self.rate(stratum) for stratum, posts in self.expected.items())

    @property
    def excess_labels(self) -> float:
        """The labels a day beyond the budget, because no rate may go under its floor; 0 if none."""
        if self.labels_per_day is None:
            return 0.0
        return max(0.0, self.expected_labels - self.labels_per_day)


def stratum_of(
    proposed: Sequence[str],
    decision: str,
    score: float,
    *,
    threshold: float,
    band_width: float,
    groups: Sequence[str],
) -> str:
    """Return a post's stratum: proposed group, decision, and how near the score is.

    Args:
        proposed: the groups that the proposer named.
        decision: ``hate`` or ``normal``.
        score: p(hate).
        threshold: of the release.
        band_width: scores at most this far from the threshold are near.
        groups: the watched groups; the first of them that is proposed names the stratum.

    >>> stratum_of(["women", "lgbtq"], "hate", 0.6, threshold=0.5, band_width=0.15,
    ...            groups=["lgbtq", "mexican"])
    'lgbtq/hate/near'
    """
    group = next((g for g in groups if g in proposed), NO_GROUP)
    band = "near" if abs(score - threshold) <= band_width else "far"
    return f"{group}/{decision}/{band}"


def decision_of(stratum: str) -> str | None:
    """Return the decision in a stratum's name; None where it names none.

    >>> decision_of("lgbtq/hate/near")
    'hate'
    """
    parts = stratum.rsplit("/", 2)
    return parts[1] if len(parts) == 3 else None


def all_strata(groups: Sequence[str]) -> tuple[str, ...]:
    """Return every stratum there is, for the watched groups and for posts about none of them."""
    return tuple(
        f"{group}/{decision}/{band}"
        for group in (*groups, NO_GROUP)
        for decision in _DECISIONS
        for band in _BANDS
    )


def make_plan(
    traffic: Mapping[str, float],
    *,
    labels_per_day: float,
    min_inclusion: float,
    groups: Sequence[str],
) -> Plan:
    """Share the labelling budget so that each group's FPR, and less so its FNR, varies little.

    The rates are Neyman's for the sum of the groups' variances, under rough assumptions of how many
    flagged and unflagged posts are normal and how often the proposer is right; then no rate is more
    than a few times another of the same decision, none is under ``min_inclusion`` or above 1, and
    their scale is such that the expected labels a day are the budget.

    Args:
        traffic: posts a day by stratum.
        labels_per_day: the budget.
        min_inclusion: the floor; where it asks for more than the budget, the plan's
            ``excess_labels`` say by how much.
        groups: the watched groups.

    Raises:
        ConfigError: a watched group bears the name of the posts about no group, or holds a slash.

    >>> plan = make_plan({"lgbtq/hate/far": 40, "none/normal/far": 960}, labels_per_day=200,
    ...                  min_inclusion=0.01, groups=["lgbtq"])
    >>> round(plan.expected_labels, 6), plan.rate("lgbtq/hate/far") > plan.rate("none/normal/far")
    (200.0, True)
    """
    bad = [g for g in groups if g == NO_GROUP or "/" in g or not g]
    if bad:
        raise ConfigError(
            "watch.groups",
            [Problem(repr(g), 'a group is not "none" and has no "/" in its name') for g in bad],
        )
    strata = tuple(dict.fromkeys((*all_strata(groups), *traffic)))
    posts = np.array([max(float(traffic.get(stratum, 0.0)), 0.0) for stratum in strata])
    wanted = _intensities(strata, posts, groups=groups)
    rates = _scaled(wanted, posts, budget=labels_per_day, floor=min_inclusion)
    flagged = np.array([decision_of(stratum) == "hate" for stratum in strata])
    return Plan(
        rates=dict(zip(strata, rates.tolist(), strict=True)),
        # Not under the lowest named rate of either decision, so that it lowers no least rate.
        default_rate=float(max(rates[flagged].min(), rates[~flagged].min())),
        expected={s: n for s, n in zip(strata, posts.tolist(), strict=True) if n > 0},
        labels_per_day=float(labels_per_day),
    )


def membership(strata: Sequence[str], traffic: np.ndarray, *, group: str | None) -> np.ndarray:
    """Return the share of each stratum's posts assumed to speak of a group, shape (strata,).

    Most posts that are proposed for it do, and as many again are among those proposed for none.

    >>> membership(["a/hate/far", "b/hate/far", "none/hate/far"], np.array([10, 10, 40]), group="a")
    array([0.8, 0. , 0.2])
    """
    if group is None:
        return np.ones(len(strata))
    named = np.array([stratum.split("/")[0] for stratum in strata])
    member = np.where(named == group, _RIGHT_PROPOSALS, 0.0)
    none = named == NO_GROUP
    missed = (traffic * member).sum() * _MISSED / (1 - _MISSED)
    if none.any():
        member[none] = min(missed / traffic[none].sum(), 1.0)
    return member


def _intensities(
    strata: tuple[str, ...], posts: np.ndarray, *, groups: Sequence[str]
) -> np.ndarray:
    """Return the rates that would be best, up to a common factor, shape (strata,)."""
    flagged = np.array([decision_of(stratum) == "hate" for stratum in strata])
    near = np.array([stratum.endswith("/near") for stratum in strata])
    # An empty stratum may fill tomorrow; it is given a little, so that nothing divides by zero.
    traffic = np.maximum(posts, max(posts.sum(), 1.0) * 1e-3)
    normal = np.where(flagged, _NORMAL_SHARE["hate"], _NORMAL_SHARE["normal"])
    variance = np.zeros(len(strata))
    for domain in (*groups, None):
        member = membership(strata, traffic, group=domain)
        for share, error, weight in ((normal, flagged, 1.0), (1 - normal, ~flagged, _FNR_WEIGHT)):
            size = (traffic * member * share).sum()
            rate = (traffic * member * share * error).sum() / size
            variance += weight * member * share * (error - rate) ** 2 / size**2
    wanted = np.sqrt(variance)
    for decided in (flagged, ~flagged):
        wanted[decided] = np.maximum(wanted[decided], wanted[decided].max() / _MOST_RATIO)
    return np.where(near, wanted * _NEAR_FACTOR, wanted)


def _scaled(wanted: np.ndarray, posts: np.ndarray, *, budget: float, floor: float) -> np.ndarray:
    """Return the rates between floor and 1 whose expected labels are the budget, if any are."""

    def rates(scale: float) -> np.ndarray:
        return np.clip(wanted * scale, floor, 1.0)

    low, high = 0.0, 1.0 / float(wanted.min())
    if posts.sum() <= budget:
        return rates(high)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if posts @ rates(middle) <= budget else (low, middle)
    return rates(low)
