"""A reviewed sample as decision thresholds see it: parts of it, weighted counts, bets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evenhand.core.errors import DataError, Problem
from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.statistics.sequences import Draws

_ARRAYS = (
    "item",
    "post",
    "plan",
    "inclusion",
    "score",
    "flagged",
    "stratum",
    "time",
    "state",
    "hate",
)


def part_of(sample: ReviewedSample, chosen: np.ndarray) -> ReviewedSample:
    """Return the items of a sample where ``chosen`` (bool, shape (n,)) is true, in their order.

    Where the choice does not depend on labels, as with the hash of an id, the part is a sample like
    the whole: every inclusion probability shrinks by one factor, which no estimate depends on.
    """
    arrays = {name: getattr(sample, name)[chosen] for name in _ARRAYS}
    groups = tuple(one for one, is_in in zip(sample.groups, chosen, strict=True) if is_in)
    return replace(sample, groups=groups, **arrays)


def chosen_by_hash(ids: Sequence[str], *, share: float, seed: int) -> np.ndarray:
    """Return which ids are in the part of about ``share``, by their hash, bool, shape (n,).

    >>> chosen_by_hash(["a", "b", "c", "d"], share=0.5, seed=0).tolist()
    [True, False, True, False]
    """
    digests = (hashlib.sha256(f"retune {seed} {one}".encode()).digest() for one in ids)
    fractions = [int.from_bytes(digest[:8], "big") / 2**64 for digest in digests]
    return np.array(fractions, dtype=float) < share


@dataclass(frozen=True)
class WeightedCounts:
    """Weighted confusion counts; floats, or arrays of one per resample."""

    tp: float | np.ndarray
    fp: float | np.ndarray
    fn: float | np.ndarray
    tn: float | np.ndarray


class WeightedRows:
    """A reviewed sample as thresholds see it."""

    def __init__(self, sample: ReviewedSample, served: float) -> None:
        self._sample, self._served = sample, served
        self.labelled = sample.labelled
        self._weights = 1 / sample.inclusion
        # The score of a deleted post was rounded, perhaps across the threshold it was sampled by.
        under = np.minimum(sample.score, np.nextafter(served, 0))
        self._score = np.where(sample.flagged, np.maximum(sample.score, served), under)
        least = [(plan.least_rate("hate"), plan.least_rate("normal")) for plan in sample.plans]
        self._least = np.array(least, dtype=float).reshape(-1, 2)[sample.plan]

    def check(self) -> None:
        """Refuse a sample without labels of both classes."""
        hate = self._sample.hate[self.labelled]
        problems = [
            Problem("labels", f"no reviewed post is {word}; both labels are needed")
            for word, there in (("hate", hate.any()), ("normal", (~hate).any()))
            if not there
        ]
        if problems:
            raise DataError("the reviewed sample", problems, consequence="nothing was fitted")

    def about(self, group: str | None) -> np.ndarray:
        """Whether a labelled post speaks of a group; all of them for None."""
        if group is None:
            return self.labelled
        return self.labelled & np.array([group in one for one in self._sample.groups], dtype=bool)

    def counts(
        self, threshold: float, *, group: str | None = None, times: np.ndarray | None = None
    ) -> WeightedCounts:
        """Weighted counts at a threshold; ``times`` has shape (resamples, labelled items)."""
        flagged, hate = self._score >= threshold, self._sample.hate
        weights = np.where(self.about(group), self._weights, 0.0)
        cells = [hate & flagged, ~hate & flagged, hate & ~flagged, ~hate & ~flagged]
        if times is None:
            return WeightedCounts(*(float(weights[one].sum()) for one in cells))
        return WeightedCounts(
            *(times @ np.where(one, weights, 0.0)[self.labelled] for one in cells)
        )

    def draws(self, threshold: float, metric: str, member: np.ndarray) -> Draws:
        """The items as the FPR or the FNR at a threshold sees them; ``member`` are labelled."""
        sample = self._sample
        flagged = self._score >= threshold
        above, below = self._least_rates(threshold)
        is_fpr = metric == "fpr"
        return Draws(
            member=member & (~sample.hate if is_fpr else sample.hate),
            pending=~self.labelled,
            error=flagged if is_fpr else ~flagged,
            inclusion=sample.inclusion,
            least_error=above if is_fpr else below,
            least_right=below if is_fpr else above,
        )

    def _least_rates(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """The lowest rates at which posts scored from the threshold on, and under it, are sampled.

        Posts were sampled by the decision at the served threshold. From that one upwards, all posts
        that another threshold flags were flagged; under it, some were not.
        """
        flagged, unflagged = self._least[:, 0], self._least[:, 1]
        either = np.minimum(flagged, unflagged)
        above = flagged if threshold >= self._served else either
        below = unflagged if threshold <= self._served else either
        return above, below


def values_of(name: str, c: WeightedCounts) -> np.ndarray:
    """A metric of weighted counts; NaN where it is undefined."""
    parts = {
        "f1": (2 * c.tp, 2 * c.tp + c.fp + c.fn),
        "precision": (c.tp, c.tp + c.fp),
        "recall": (c.tp, c.tp + c.fn),
        "fpr": (c.fp, c.fp + c.tn),
    }
    above, below = (np.asarray(part, dtype=float) for part in parts[name])
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
