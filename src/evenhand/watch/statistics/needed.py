"""How many more reviews a claim about production would take, and that in a plain sentence.

The reviewed sample so far is repeated until the sequence would show the claim. That is a guide: the
reviews to come differ from those so far by chance, and the rate may move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from evenhand.watch.statistics.estimates import Metric, about, draws_of
from evenhand.watch.statistics.sampling import Plan, decision_of, membership
from evenhand.watch.statistics.sequences import Draws, interval

if TYPE_CHECKING:
    from evenhand.watch.statistics.sample import ReviewedSample

# Fewer labels of the class say too little about what is to come; then the plan is asked.
LEAST_LABELS = 20
_MOST_TIMES = 1e5
_PRECISION = 1.005


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be shown of a rate: that it is below a bound, or what it is within so much.

    Attributes:
        below: the bound; None where a width is asked for.
        within: the half-width of the interval; None where a bound is.
    """

    below: float | None = None
    within: float | None = None

    def __post_init__(self) -> None:
        if (self.below is None) == (self.within is None):
            raise ValueError("a claim is about a bound or about a half-width, one of the two")

    def is_shown(self, low: float, high: float) -> bool:
        """Return whether an interval shows the claim."""
        if self.below is not None:
            return high < self.below
        return high - low <= 2 * (self.within or 0.0)

    @property
    def words(self) -> str:
        """The claim as it stands behind "would show"."""
        if self.below is not None:
            return f"below {self.below:.2f}"
        return f"to within {100 * (self.within or 0.0):.0f} pp"


@dataclass(frozen=True, slots=True)
class Needed:
    """How far a claim is.

    Attributes:
        group: whose rate; None for all posts.
        metric: ``fpr`` or ``fnr``.
        claim: what is to be shown.
        reviews: further reviews of posts about the group; 0 where it is shown, or only pending
            reviews stand in the way; None where no number would do at the present rate.
        days: how long they take at the labelling budget; None where reviews is or pace is unknown.
        sentence: the same in plain words.
    """

    group: str | None
    metric: Metric
    claim: Claim
    reviews: int | None
    days: float | None
    sentence: str


def labels_needed(
    sample: ReviewedSample,
    *,
    group: str | None,
    claim: Claim,
    confidence: float,
    labels_per_day: float,
    metric: Metric = "fpr",
) -> Needed:
    """Return how many more reviews would show a claim, if they are like those so far.

    With fewer than 20 labels of the class this is unknown, and the sentence says so; see
    :func:`planned_labels`.

    Args:
        sample: the reviewed sample, in queue order.
        group: whose rate; None for all posts.
        claim: what is to be shown.
        confidence: of the two-sided interval that has to show it.
        labels_per_day: the labelling budget, of all posts together.
        metric: ``fpr`` or ``fnr``.
    """
    draws = draws_of(sample, metric=metric, group=group)
    alpha = 1 - confidence
    now = interval(draws, alpha=alpha)
    name, posts = metric.upper(), _posts(group)
    labelled = sample.state == "labelled"
    reviewed = int((labelled & about(sample, group)).sum() if group else labelled.sum())

    def needed(reviews: int | None, days: float | None, sentence: str) -> Needed:
        return Needed(group, metric, claim, reviews, days, sentence)

    if now.drifted:
        moved = f"No constant {name} of {posts} agrees with the reviews: it has moved."
        return needed(None, None, moved)
    if claim.is_shown(now.low, now.high):
        return needed(
            0, 0.0, f"Shown: the {name} of {posts} is {_shown(claim, now.low, now.high)}."
        )
    if draws.labels < LEAST_LABELS or draws.value is None:
        few = f"{draws.labels} reviewed {_kind(metric)} {posts} are too few to look ahead from."
        return needed(None, None, few)
    if claim.below is not None and now.low >= claim.below:
        above = f"The {name} of {posts} has been above {claim.below:.2f}: at least {now.low:.2f}."
        return needed(None, None, above)
    times = _times(draws, claim, alpha=alpha)
    rate = f"{draws.value:.2f}"
    if times is None:
        never = (
            f"No number of reviews would show an {name} of {posts} {claim.words} while the rate "
            f"stays near {rate}."
        )
        return needed(None, None, never)
    reviews = math.ceil((times - 1) * reviewed)
    if reviews <= 0:
        pending = (
            f"The reviews of {posts} would show an {name} {claim.words} if the "
            f"{int(draws.pending.sum())} posts that wait for a label turn out like the others."
        )
        return needed(0, None, pending)
    pace = labels_per_day * reviewed / max(int(labelled.sum()), 1)
    return needed(reviews, reviews / pace, _sentence(reviews, pace, group, metric, claim, rate))


def planned_labels(
    plan: Plan, *, group: str | None, rate: float, claim: Claim, confidence: float
) -> Needed:
    """Return how many reviews would show that the FPR is what it was offline, before any review.

    The counts are those that the plan expects at its traffic, under the plan's own assumptions of
    how many posts of each stratum speak of the group, and as if unflagged posts were normal.

    Args:
        plan: the plan in force.
        group: whose FPR; None for all posts.
        rate: the offline FPR.
        claim: what is to be shown.
        confidence: of the two-sided interval that has to show it.
    """

    def needed(reviews: int | None, days: float | None, sentence: str) -> Needed:
        return Needed(group, "fpr", claim, reviews, days, sentence)

    posts = _posts(group)
    all_posts = {s: n for s, n in plan.expected.items() if n > 0}
    member = membership(list(all_posts), np.array([*all_posts.values()]), group=group)
    about_it = {s: n * m for (s, n), m in zip(all_posts.items(), member, strict=True) if m > 0}
    strata, traffic = list(about_it), np.array([*about_it.values()])
    flagged = np.array([decision_of(s) == "hate" for s in strata], dtype=bool)
    inclusion = np.array([plan.rate(s) for s in strata])
    right = traffic[~flagged].sum()
    if right == 0 or (not flagged.any() and rate > 0):
        return needed(None, None, f"The traffic expected holds too few {posts} to plan with.")
    # The flagged normal posts that go with the unflagged ones at this FPR, spread like flagged ones
    share = rate / (1 - rate) * right / traffic[flagged].sum() if flagged.any() else 0.0
    normal = np.where(flagged, traffic * min(share, 1.0), traffic) * inclusion
    # A thousand items in these shares; what is searched for is how often they have to come.
    repeats = np.rint(normal / normal.sum() * 1000).astype(int)
    every = np.repeat(np.arange(len(strata)), repeats)
    draws = Draws(
        member=np.ones(len(every), dtype=bool),
        pending=np.zeros(len(every), dtype=bool),
        error=flagged[every],
        inclusion=inclusion[every],
        least_error=np.full(len(every), plan.least_rate("hate")),
        least_right=np.full(len(every), plan.least_rate("normal")),
    )
    times = _times(draws, claim, alpha=1 - confidence, least=1e-3)
    pace = float(traffic @ inclusion)
    if times is None:
        never = (
            f"No number of reviews would show an FPR of {posts} {claim.words} if it is "
            f"{rate:.2f}, as offline."
        )
        return needed(None, None, never)
    reviews = math.ceil(times * len(every) / normal.sum() * pace)
    sentence = _sentence(reviews, pace, group, "fpr", claim, f"{rate:.2f}, the offline one,")
    return needed(reviews, reviews / pace, sentence.replace(" more reviews", " reviews", 1))


def _times(draws: Draws, claim: Claim, *, alpha: float, least: float = 1.0) -> float | None:
    """Return how often the items would have to come for the claim; None where never."""
    settled = replace(draws, pending=np.zeros(len(draws), dtype=bool))
    above, below = settled.above, settled.below

    def shows(times: float) -> bool:
        high = 1 - below.total(times=times).least_rate(alpha=alpha / 2)
        if claim.below is not None:
            return high < claim.below
        low = above.total(times=times).least_rate(alpha=alpha / 2)
        return claim.is_shown(low, high)

    return _least_true(shows, least=least)


def _least_true(shows: Callable[[float], bool], *, least: float) -> float | None:
    """Search for the least number that satisfies what every larger one does too."""
    if shows(least):
        return least
    low, high = least, 2 * least
    while not shows(high):
        low, high = high, 2 * high
        if high > _MOST_TIMES:
            return None
    while high / low > _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def _sentence(
    reviews: int, pace: float, group: str | None, metric: Metric, claim: Claim, rate: str
) -> str:
    shown = _rough(reviews)
    days = reviews / pace
    length = "less than a day" if days < 1 else f"about {_rough(math.ceil(days))} days"
    length = "about 1 day" if math.ceil(days) == 1 and days >= 1 else length
    return (
        f"About {shown} more reviews of {_posts(group)} ({length} at {_rough(round(pace))} a day) "
        f"would show an {metric.upper()} {claim.words} if the rate stays near {rate}"
        + (" and" if rate.endswith(",") else ";")
        + " this is a guide, not a promise."
    )


def _rough(number: int) -> str:
    """Round up to two digits.

    >>> _rough(238), _rough(7), _rough(1201)
    ('240', '7', '1,300')
    """
    step = 10 ** max(0, len(str(number)) - 2)
    return f"{math.ceil(number / step) * step:,}"


def _posts(group: str | None) -> str:
    return "posts" if group is None else f"posts about {group}"


def _kind(metric: Metric) -> str:
    return "normal" if metric == "fpr" else "hateful"


def _shown(claim: Claim, low: float, high: float) -> str:
    if claim.below is not None:
        return f"{claim.words}, at most {high:.2f}"
    return f"between {low:.2f} and {high:.2f}"
