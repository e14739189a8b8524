"""How many labels a figure rests on, and how many would settle whether it meets a bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm

from evenhand.config.criteria import RANGE
from evenhand.core.decisions import LabelUnit
from evenhand.core.evaluation import Evaluation, GroupEvaluation
from evenhand.measure.intervals import CONFIDENCE, MIN_LABELS

_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))
_SURER = (_Z + float(norm.ppf(0.80))) / _Z
"""An interval that ends on the bound does so in half of all samples; one that is narrower by this
factor keeps off it in four of five."""

_MOST_TIMES = 20
_LEAST_MARGIN = 0.25
"""A margin below this share of the interval's half-width is as good as none."""

_CLASS_OF = {"fpr": "normal", "fpr_gap": "normal"} | dict.fromkeys(
    ("fnr", "fnr_gap", "recall"), "hate"
)

TOO_CLOSE = "too close to the bound to be settled by labelling"
NO_LOWER_END = "an ECE has no lower bound above 0, so labels cannot show that it is too large"
UNANSWERED = "the rows without an answer could decide it either way: get answers to them"


@dataclass(frozen=True)
class Labels:
    """How many labelled and answered rows there are, of one kind."""

    n: int
    unit: LabelUnit


@dataclass(frozen=True)
class Reach:
    """How far an interval reaches from its figure towards the bound.

    Attributes:
        own: the part that labels on the judged rows make shorter.
        other: the part that comes from another evaluation set, whose name is ``other_set``.
        half_width: of the whole interval.
    """

    own: float
    half_width: float
    other: float = 0.0
    other_set: str | None = None


@dataclass(frozen=True)
class Settling:
    """What would settle an undecided criterion, in words and, where labels do, their number."""

    words: str
    needed: Labels | None = None


def labels_behind(evaluation: Evaluation, *, metric: str, group: str | None) -> Labels:
    """Return the labels that a figure's interval shrinks with: of a rate those of its class.

    Of a range over the groups they are those of the smallest group.
    """
    if group == RANGE:
        each = [labels_behind(evaluation, metric=metric, group=one) for one in evaluation.groups]
        return min(each, key=lambda one: one.n, default=Labels(0, "rows"))
    part = _part(evaluation, group)
    kind = _CLASS_OF.get(metric)
    if kind is None:
        return Labels(0 if part is None else part.n_scored, "rows")
    return _of_class(part, kind)


def scarcest_labels(evaluation: Evaluation, *, metric: str, group: str | None) -> Labels:
    """Return the labels of which a claim needs :data:`MIN_LABELS`: the scarcer kind it rests on."""
    behind = labels_behind(evaluation, metric=metric, group=group)
    part = _part(evaluation, group)
    if metric in ("f1", "precision") and group != RANGE:
        return _of_class(part, "hate")
    if metric == "roc_auc" and group != RANGE:
        return min(_of_class(part, "hate"), _of_class(part, "normal"), key=lambda one: one.n)
    return behind


def what_settles(
    margin: float, reach: Reach, *, behind: Labels, scarcest: Labels, noun: str
) -> Settling:
    """Return what would settle a criterion whose interval holds the bound, or that is too small.

    Widths go with the square root of the labels; as many are asked for as settle it in four cases
    of five if the figure stays as it is.

    Args:
        margin: how far the figure is from the bound, on either side.
        reach: how far its interval reaches towards the bound.
        behind: the labels that there are.
        scarcest: those of which at least :data:`MIN_LABELS` are needed for any claim.
        noun: what the figure is, ``rate`` for example.

    >>> labels = Labels(100, "hate rows")
    >>> what_settles(0.05, Reach(0.08, 0.08), behind=labels, scarcest=labels, noun="rate").words
    ... # doctest: +NORMALIZE_WHITESPACE
    'if the rate stays as it is, about 530 hate rows in all (there are 100 now) would settle it in
    four cases of five'
    """
    needed = _needed(margin, reach, behind.n)
    if scarcest.n < MIN_LABELS:
        least = MIN_LABELS
        if needed is not None and scarcest.unit == behind.unit:
            least = max(least, needed)
        text = f"at least {_counted(least, scarcest)} are needed for a claim"
        return Settling(text, Labels(least, scarcest.unit))
    if reach.other_set is not None and reach.other >= margin / _SURER:
        return Settling(
            f"the figure on {reach.other_set} is too uncertain itself: label more rows there"
        )
    if needed is None or margin < _LEAST_MARGIN * reach.half_width:
        return Settling(TOO_CLOSE)
    if needed > _MOST_TIMES * behind.n:
        return Settling(TOO_CLOSE)
    text = (
        f"if the {noun} stays as it is, about {_counted(needed, behind)} would settle it in four "
        "cases of five"
    )
    return Settling(text, Labels(needed, behind.unit))


def _needed(margin: float, reach: Reach, n: int) -> int | None:
    left = (margin / _SURER) ** 2 - reach.other**2
    wanted = n * reach.own**2 / left if left > 0 else math.inf
    return math.ceil(wanted) if math.isfinite(wanted) else None


def _counted(needed: int, there: Labels) -> str:
    """The number, rounded up to two digits, beside how many there are."""
    step = 10 ** max(0, len(str(needed)) - 2)
    return f"{-(-needed // step) * step:,} {there.unit} in all (there are {there.n:,} now)"


def _part(evaluation: Evaluation, group: str | None) -> Evaluation | GroupEvaluation | None:
    return evaluation if group is None else evaluation.groups.get(group)


def _of_class(part: Evaluation | GroupEvaluation | None, kind: str) -> Labels:
    if kind == "normal":
        return Labels(0 if part is None else part.confusion.negatives, "normal rows")
    return Labels(0 if part is None else part.confusion.positives, "hate rows")
