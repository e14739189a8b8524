"""One global decision threshold, chosen so that limits on false positives hold on new rows.

The candidates are fixed before any label is seen. They are tested from the highest (the fewest
false positives) downwards, each at the full level, and the search stops at the first that fails:
fixed-sequence testing, as in Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei 2021,
arXiv:2110.01052, section 2.3). All candidates above that one satisfy the limits at once with the
stated confidence, so that choosing the best among them needs no further correction. A candidate
passes if every group does (an intersection-union test, which needs no correction over groups).

Where the same rows also chose the model, among phases or checkpoints, the one that looks safest by
chance is preferred. Each of the n models is then tested at its share of the error, a confidence of
1 - (1 - confidence) / n, so that the promise holds for whichever was chosen (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from evenhand.core.decisions import ThresholdRule
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.evaluation import Confusion, Record
from evenhand.core.predictions import Predictions
from evenhand.decide.bounds import Counts, counts_at, lower_bound, negatives_needed, upper_bound
from evenhand.measure.sample import Sample, group_masks, ordered_frame, sample_from_frame

_ENDS = np.concatenate([np.arange(1, 10) * 10.0**-power for power in (4, 5, 6)])
CANDIDATES = np.unique(np.round(np.concatenate([_ENDS, np.arange(1, 1000) / 1000, 1 - _ENDS]), 6))[
    ::-1
]
"""Every thousandth, and nine steps per decade down to a millionth from 0 and from 1; descending."""

_NO_LIMIT = "the best of {n} fixed candidates on the rows it was fitted on; no limit, no guarantee"
_LIMITS = (
    "fixed-sequence testing of {n} fixed candidates from the highest downwards; every group's "
    "one-sided Clopper-Pearson bound must meet the limits"
)
_AMONG = (
    "; each of the {n} models that these rows chose among is tested at its share of the error "
    "(Bonferroni)"
)
_CLUSTERED = " (Korn and Graubard's form for clustered rows, which is approximate)"


class GroupRate(Record):
    """A group's false positives at one threshold.

    Attributes:
        fpr: the observed rate; None where the group has no negatives.
        fpr_upper: one-sided upper bound of the rate, at the level of the rule; None where there is
            none.
        gap: the rate minus that of the rows outside the group.
        gap_upper: one-sided upper bound of the gap.
    """

    negatives: int
    false_positives: int
    fpr: float | None
    fpr_upper: float | None
    gap: float | None
    gap_upper: float | None


class OperatingPoint(Record):
    """What one threshold does on the rows that it was fitted on."""

    threshold: float
    confusion: Confusion
    groups: Mapping[str, GroupRate]


class FittedThreshold(Record):
    """The chosen threshold, beside the default one and what would be best without limits.

    Attributes:
        lowest: the lowest threshold that satisfies the limits.
        n: rows that it was fitted on; ``n_left_out`` had no score.
    """

    value: float
    rule: ThresholdRule
    chosen: OperatingPoint
    default: OperatingPoint
    unlimited: OperatingPoint
    lowest: float
    n: int
    n_left_out: int


class GroupShortfall(Record):
    """What a group lacks where the search stopped.

    Negatives that are needed are rows like those at hand: where rows come in clusters, the
    independent ones that would do, times ``design_effect``.

    Attributes:
        meets: whether the group met the limits there.
        needed_at_zero: negatives with which no false positive at all would meet the limits.
        needed_at_default: negatives with which the FPR seen at the default threshold would meet
            the limit on the FPR; None where that FPR is too high for any number of labels.
        design_effect: how many clustered rows are worth one independent row, at the default
            threshold; None where rows are independent or the group has no negatives.
        reason: why no limit can be shown for the group (``no_negatives``), else None.
    """

    rate: GroupRate
    meets: bool
    needed_at_zero: int
    fpr_at_default: float | None
    needed_at_default: int | None
    design_effect: float | None
    reason: str | None


class NoThreshold(Record):
    """No threshold satisfies the limits, and what each group would need for one.

    Attributes:
        reason: ``not_certified`` (not even the highest candidate is) or ``no_hate_found`` (those
            that are flag not one hate row).
        stopped_at: the candidate at which the search stopped.
    """

    rule: ThresholdRule
    reason: Literal["not_certified", "no_hate_found"]
    stopped_at: float
    groups: Mapping[str, GroupShortfall]
    n: int
    n_left_out: int


def threshold_rule(
    *,
    maximise: Literal["f1", "recall"] = "f1",
    max_group_fpr: float | None = None,
    max_fpr_gap: float | None = None,
    confidence: float = 0.95,
    n_candidates: int = 1,
) -> ThresholdRule:
    """Return a rule after checking that it makes sense.

    Args:
        maximise: the metric that the allowed thresholds compete on.
        max_group_fpr: the highest FPR that any group may have.
        max_fpr_gap: the highest excess of a group's FPR over the rows outside it.
        confidence: how sure the limits are to hold.
        n_candidates: models that the rows to fit on chose among, phases times checkpoints; 1 where
            they chose none.

    Raises:
        ConfigError: a limit is no share, or recall has no limit to compete under.

    >>> threshold_rule(max_group_fpr=0.3).confidence
    0.95
    """
    limits = {"max_group_fpr": max_group_fpr, "max_fpr_gap": max_fpr_gap}
    problems = [
        Problem(name, f"must be between 0 and 1, not {value:g}; 0.3 stands for 30%")
        for name, value in limits.items()
        if value is not None and not 0 < value < 1
    ]
    if not 0.5 < confidence < 1:
        problems.append(Problem("confidence", f"must be between 0.5 and 1, not {confidence:g}"))
    if n_candidates < 1:
        problems.append(Problem("n_candidates", f"must be at least 1, not {n_candidates}"))
    if maximise == "recall" and max_group_fpr is None:
        message = "recall is highest where everything is flagged; set max_group_fpr as well"
        problems.append(Problem("maximise", message))
    if problems:
        raise ConfigError("the threshold's rule", problems)
    limited = max_group_fpr is not None or max_fpr_gap is not None
    procedure = (_LIMITS if limited else _NO_LIMIT).format(n=len(CANDIDATES))
    if limited and n_candidates > 1:
        procedure += _AMONG.format(n=n_candidates)
    return ThresholdRule(
        maximise=maximise,
        max_group_fpr=max_group_fpr,
        max_fpr_gap=max_fpr_gap,
        confidence=confidence,
        procedure=procedure,
        n_candidates=n_candidates,
    )


def fit_threshold(
    predictions: Predictions, rule: ThresholdRule, *, default: float = 0.5
) -> FittedThreshold | NoThreshold:
    """Return the threshold on p(hate) that satisfies the rule, or what is missing for one.

    Among the thresholds that satisfy the limits, the one with the best F1 or recall is taken; of
    equal ones the highest. Rows without a score are left out and counted.

    Args:
        predictions: labelled rows with scores, not those that the model was trained on.
        rule: from :func:`threshold_rule`.
        default: the threshold that the chosen one is compared with.

    Raises:
        DataError: rows have no label or no score, one class is missing, or limits on groups are
            asked for where no row names a group.
    """
    frame = ordered_frame(predictions)
    everything = sample_from_frame(frame, threshold=default)
    sample = everything.where(everything.ok)
    members = {name: mask[everything.ok] for name, mask in group_masks(frame).items()}
    limited = rule.max_group_fpr is not None or rule.max_fpr_gap is not None
    _check(sample, members, limited=limited)
    if limited and sample.clusters is not None:
        rule = rule.model_copy(update={"procedure": rule.procedure + _CLUSTERED})
    search = _Search(sample, members, rule)
    n_left_out = len(everything) - len(sample)
    passes = np.logical_and.accumulate(search.meets_limits().all(axis=0))
    n_passing = int(passes.sum())
    merit = search.merit()
    if n_passing == 0 or (limited and search.true_positives[n_passing - 1] == 0):
        stopped = n_passing if n_passing < len(CANDIDATES) else n_passing - 1
        return NoThreshold(
            rule=rule,
            reason="no_hate_found" if n_passing else "not_certified",
            stopped_at=float(CANDIDATES[stopped]),
            groups=search.shortfalls(stopped, default=default),
            n=len(sample),
            n_left_out=n_left_out,
        )
    best = int(np.argmax(merit[:n_passing]))
    return FittedThreshold(
        value=float(CANDIDATES[best]),
        rule=rule,
        chosen=search.point(float(CANDIDATES[best])),
        default=search.point(default),
        unlimited=search.point(float(CANDIDATES[int(np.argmax(merit))])),
        lowest=float(CANDIDATES[n_passing - 1]),
        n=len(sample),
        n_left_out=n_left_out,
    )


def _check(sample: Sample, members: Mapping[str, np.ndarray], *, limited: bool) -> None:
    problems = []
    for word, count in (("hate", sample.hate.sum()), ("normal", (~sample.hate).sum())):
        if not count:
            problems.append(Problem("label", f"no scored row is {word}; both labels are needed"))
    if limited and not members:
        message = "no row names a target group; a limit per group needs them"
        problems.append(Problem("group", message))
    if problems:
        raise DataError("predictions", problems, consequence="no threshold was fitted")


class _Search:
    """Every candidate's counts and bounds, as arrays of shape (candidates,) per group."""

    def __init__(
        self, sample: Sample, members: Mapping[str, np.ndarray], rule: ThresholdRule
    ) -> None:
        self._sample, self._members, self._rule = sample, members, rule
        self._tail = (1 - rule.confidence) / rule.n_candidates
        self.true_positives = self._counts(sample.hate, CANDIDATES).hits
        self._false_positives = self._counts(~sample.hate, CANDIDATES).hits

    def merit(self) -> np.ndarray:
        """F1 or recall of every candidate."""
        positives = int(self._sample.hate.sum())
        if self._rule.maximise == "recall":
            return self.true_positives / positives
        return 2 * self.true_positives / (self.true_positives + self._false_positives + positives)

    def meets_limits(self) -> np.ndarray:
        """Whether each group meets the limits, shape (groups, candidates); one row if no limit."""
        if self._rule.max_group_fpr is None and self._rule.max_fpr_gap is None:
            return np.ones((1, len(CANDIDATES)), dtype=bool)
        return np.stack([self._meets(mask, CANDIDATES) for mask in self._members.values()])

    def point(self, threshold: float) -> OperatingPoint:
        """What one threshold does."""
        at = np.array([threshold])
        tp = int(self._counts(self._sample.hate, at).hits[0])
        fp = int(self._counts(~self._sample.hate, at).hits[0])
        positives, negatives = int(self._sample.hate.sum()), int((~self._sample.hate).sum())
        return OperatingPoint(
            threshold=threshold,
            confusion=Confusion(tp=tp, tn=negatives - fp, fp=fp, fn=positives - tp),
            groups={name: self._rate(mask, threshold) for name, mask in self._members.items()},
        )

    def shortfalls(self, stopped: int, *, default: float) -> dict[str, GroupShortfall]:
        """What each group lacks at the candidate where the search stopped."""
        return {
            name: self._shortfall(mask, float(CANDIDATES[stopped]), default=default)
            for name, mask in self._members.items()
        }

    def _shortfall(self, mask: np.ndarray, stopped: float, *, default: float) -> GroupShortfall:
        rule = self._rule
        seen = self._rate(mask, default).fpr
        needed = [
            negatives_needed(0.0, limit=limit, tail=tail)
            for limit, tail in (
                (rule.max_group_fpr, self._tail),
                (rule.max_fpr_gap, self._tail / 2),
            )
            if limit is not None
        ]
        at_default = None
        if seen is not None and rule.max_group_fpr is not None:
            at_default = negatives_needed(seen, limit=rule.max_group_fpr, tail=self._tail)
        inside, _ = self._sides(mask, np.array([np.inf, default]))
        clustered = inside.equal_clusters is not None
        at_zero_effect, effect = inside.design_effects if clustered else (1.0, 1.0)
        return GroupShortfall(
            rate=self._rate(mask, stopped),
            meets=bool(self._meets(mask, np.array([stopped]))[0]),
            needed_at_zero=math.ceil(max(n for n in needed if n is not None) * at_zero_effect),
            fpr_at_default=seen,
            needed_at_default=None if at_default is None else math.ceil(at_default * effect),
            design_effect=float(effect) if clustered else None,
            reason=self._why_not(mask),
        )

    def _why_not(self, mask: np.ndarray) -> str | None:
        normal = ~self._sample.hate
        if not (normal & mask).any():
            return "no_negatives"
        if self._rule.max_fpr_gap is not None and not (normal & ~mask).any():
            return "no_negatives_outside_the_group"
        return None

    def _counts(self, rows: np.ndarray, thresholds: np.ndarray) -> Counts:
        clusters = self._sample.clusters
        return counts_at(
            self._sample.score[rows],
            None if clusters is None else clusters[rows],
            thresholds=thresholds,
        )

    def _sides(self, mask: np.ndarray, thresholds: np.ndarray) -> tuple[Counts, Counts]:
        """The negatives inside and outside a group."""
        normal = ~self._sample.hate
        return self._counts(normal & mask, thresholds), self._counts(normal & ~mask, thresholds)

    def _gap_upper(self, inside: Counts, outside: Counts) -> np.ndarray:
        # Both bounds hold together at the level of the test: half of the error for each.
        tail = self._tail / 2
        return upper_bound(inside, tail=tail) - lower_bound(outside, tail=tail)

    def _meets(self, mask: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        rule, (inside, outside) = self._rule, self._sides(mask, thresholds)
        meets = np.full(len(thresholds), inside.total > 0)
        if rule.max_group_fpr is not None:
            meets &= upper_bound(inside, tail=self._tail) <= rule.max_group_fpr
        if rule.max_fpr_gap is not None:
            meets &= (outside.total > 0) & (self._gap_upper(inside, outside) <= rule.max_fpr_gap)
        return meets

    def _rate(self, mask: np.ndarray, threshold: float) -> GroupRate:
        inside, outside = self._sides(mask, np.array([threshold]))
        known, comparable = inside.total > 0, inside.total > 0 and outside.total > 0
        rate = float(inside.rate[0]) if known else None
        return GroupRate(
            negatives=inside.total,
            false_positives=int(inside.hits[0]),
            fpr=rate,
            fpr_upper=float(upper_bound(inside, tail=self._tail)[0]) if known else None,
            gap=float(inside.rate[0] - outside.rate[0]) if comparable else None,
            gap_upper=float(self._gap_upper(inside, outside)[0]) if comparable else None,
        )
