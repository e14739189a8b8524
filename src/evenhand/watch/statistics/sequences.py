"""Bounds of an error rate that hold however often one looks: betting on a weighted sample.

An item of the queue was sampled with a recorded probability ``pi``. Let N say that it is in the
class that the rate is over (normal, and about the group) and F that the model erred on it. If the
rate is m, then ``Z(m) = N (F - m) / pi``, taken as 0 for posts that were not sampled, has mean 0
given all that came before, whatever becomes of the traffic's mix of groups. A bet that pays
``1 + f Z(m) / B`` therefore neither gains nor loses on average, for any f below 1 and for B the
largest loss that the plan in force allows, ``m / least rate of posts without error``. B may depend
on the plan, which was set before the post came; never on the item's stratum or decision. The wealth
of such bets exceeds 1/alpha at any time with probability alpha at most (Ville 1939); m is excluded
once it has. Betting on F instead of against it gives the other side. The fraction f is not
chosen: the wealth is averaged over a grid of them. (Waudby-Smith and Ramdas 2024, JRSS B 86.)

Late labels. An item without a label yet counts with the least factor that any label could give it,
min(1, its factor as a member of the class). So the wealth shown is never above the wealth that the
full labels would give at the same place of the queue, which passes 1/alpha anywhere with
probability alpha at most: whichever labels are late, and why, cannot make a bound invalid.

What is estimated: the rate, if it is constant over the release. If it moves, the wealth against
"at most m" is still a supermartingale under every path that stays at or below m. So the lower end
has been exceeded by the rate at some time, the upper end undercut at some time; if the ends cross,
the rate has moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

# The wealth is looked at after every so many items of the queue, and at its end.
CHECKPOINT_ITEMS = 25
# Fractions of the largest bet, and the wealth that starts on each.
FRACTIONS = 0.95 * 0.62 ** np.arange(11)
_LOG_SHARES = np.full(len(FRACTIONS), -np.log(len(FRACTIONS)))
_BISECTIONS = 22


@dataclass(frozen=True, eq=False)
class Draws:
    """The items of the queue, in its order, as one error rate sees them.

    Attributes:
        member: labelled and in the class that the rate is over, bool, shape (n,).
        pending: without a label yet, bool, shape (n,).
        error: what the model answered is an error if the item is in the class, bool, shape (n,).
        inclusion: the probability with which the item was sampled, shape (n,).
        least_error: the lowest probability with which the plan in force could have sampled any
            post with ``error``, shape (n,).
        least_right: the same for posts without ``error``, shape (n,).
    """

    member: np.ndarray
    pending: np.ndarray
    error: np.ndarray
    inclusion: np.ndarray
    least_error: np.ndarray
    least_right: np.ndarray

    def __post_init__(self) -> None:
        least = np.where(self.error, self.least_error, self.least_right)
        if (self.member & self.pending).any():
            raise ValueError("an item is both labelled and pending")
        if ((self.inclusion <= 0) | (least > self.inclusion * (1 + 1e-9))).any():
            raise ValueError("an item was sampled at a rate under its plan's least")

    def __len__(self) -> int:
        return len(self.member)

    @property
    def labels(self) -> int:
        """Labelled items in the class."""
        return int(self.member.sum())

    @property
    def value(self) -> float | None:
        """Hajek's estimate of the rate: the weighted share of errors; None without labels."""
        weights = 1.0 / self.inclusion[self.member]
        if not len(weights):
            return None
        return float(weights @ self.error[self.member] / weights.sum())

    @property
    def weight_max(self) -> float | None:
        """The largest weight of a labelled item in the class over their mean weight."""
        weights = 1.0 / self.inclusion[self.member]
        return float(weights.max() / weights.mean()) if len(weights) else None

    def since(self, start: int) -> Draws:
        """Return the items from a place in the queue on."""
        return Draws(
            self.member[start:],
            self.pending[start:],
            self.error[start:],
            self.inclusion[start:],
            self.least_error[start:],
            self.least_right[start:],
        )

    @cached_property
    def above(self) -> Bets:
        """The bets that gain when the rate is above what is claimed."""
        return _bets(self, gains=self.error, least=self.least_right)

    @cached_property
    def below(self) -> Bets:
        """The bets that gain when the rate is below what is claimed; claims are of 1 - rate."""
        return _bets(self, gains=~self.error, least=self.least_error)


@dataclass(frozen=True, eq=False)
class Bets:
    """One side's bets, summed between checkpoints.

    Attributes:
        losses: log factors of the losing items up to each checkpoint, shape (checkpoints,
            fractions); they do not depend on the claimed rate.
        counts: gaining items by segment between checkpoints and by distinct relative weight,
            sparse, shape (checkpoints, weights).
        weights: the distinct relative weights, shape (weights,).
        ends: the queue's items up to each checkpoint, shape (checkpoints,).
    """

    losses: np.ndarray
    counts: csr_array
    weights: np.ndarray
    ends: np.ndarray

    def log_factors(self, rate: float) -> np.ndarray:
        """Return log wealth by checkpoint and fraction against a rate of at most ``rate``."""
        odds = (1 - rate) / rate
        gains = np.log1p(self.weights[:, None] * FRACTIONS * odds)
        return self.losses + np.cumsum(self.counts @ gains, axis=0)

    def log_wealth(self, rate: float) -> np.ndarray:
        """Return the log of the mixture's wealth at each checkpoint, shape (checkpoints,)."""
        return _log_mean(self.log_factors(rate))

    def total(self, *, times: float = 1.0) -> Bets:
        """Return the bets with one checkpoint, at the end, as if each item had come so often."""
        if not len(self.ends):
            return self
        counts = csr_array(self.counts.sum(axis=0)[None, :] * times)
        return Bets(self.losses[-1:] * times, counts, self.weights, self.ends[-1:])

    def least_rate(self, *, alpha: float) -> float:
        """Return the highest rate such that all below it are excluded; 0 where none is."""
        goal = -np.log(alpha)
        if not self.counts.nnz:
            return 0.0
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            passed = self.log_wealth(middle).max() >= goal  # falls as the rate grows
            low, high = (middle, high) if passed else (low, middle)
        return low


@dataclass(frozen=True, slots=True)
class Interval:
    """A time-uniform interval of a rate.

    Attributes:
        low: the lower end.
        high: the upper end, not under ``low``.
        drifted: no constant rate agrees with the sample. The rate was then at or below ``low`` at
            one time and at or above ``high`` at another.
    """

    low: float
    high: float
    drifted: bool


def interval(draws: Draws, *, alpha: float) -> Interval:
    """Return the interval that holds at all times at once with probability 1 - alpha.

    Two one-sided sequences at alpha/2 each, and the intersection over all checkpoints.

    >>> none = np.zeros(0)
    >>> interval(Draws(none > 0, none > 0, none > 0, none, none, none), alpha=0.05)
    Interval(low=0.0, high=1.0, drifted=False)
    """
    low, high = lower_end(draws, alpha=alpha / 2), upper_end(draws, alpha=alpha / 2)
    return Interval(min(low, high), max(low, high), drifted=low > high)


def lower_end(draws: Draws, *, alpha: float) -> float:
    """Return the one-sided lower end: the rate exceeds it at some time, at confidence 1 - alpha."""
    return draws.above.least_rate(alpha=alpha)


def upper_end(draws: Draws, *, alpha: float) -> float:
    """Return the one-sided upper end: the rate is below it at some time."""
    return 1.0 - draws.below.least_rate(alpha=alpha)


def log_wealth_above(draws: Draws, rate: float) -> np.ndarray:
    """Return the log evidence at each checkpoint that the rate is not at most ``rate``."""
    return draws.above.log_wealth(rate)


def log_wealth_below(draws: Draws, rate: float) -> np.ndarray:
    """Return the log evidence at each checkpoint that the rate is not at least ``rate``."""
    return draws.below.log_wealth(1.0 - rate)


def log_alarm_wealth(draws: Draws, bound: float) -> np.ndarray:
    """Return the log evidence that the rate has at some time risen above a bound.

    A new bet starts at every checkpoint with a share of the wealth; the shares, close to
    1/(j log^2 j), sum to 1 over all checkpoints to come. Each bet is a supermartingale from its
    start on under any path of the rate at or below the bound, and so is their sum: it passes
    1/alpha at any time of the release's life with probability alpha at most. A bet that starts
    late owes nothing to the good times before (Shin, Ramdas and Rinaldo 2023, e-detectors).

    Returns:
        The log wealth at each checkpoint, shape (checkpoints,).
    """
    bets = draws.above
    factors = bets.log_factors(bound)
    before = np.vstack([np.zeros((1, factors.shape[1])), factors[:-1]])
    shares = log_start_shares(len(factors))
    # sum over starts j <= t of share_j * exp(factors_t - before_j), for all t in one pass
    started = np.logaddexp.accumulate(shares[:, None] - before, axis=0)
    return _log_mean(started + factors)


def log_start_shares(checkpoints: int) -> np.ndarray:
    """Return the log of the wealth that waits for each start; the shares sum to at most 1.

    The share of start j is 1/log2(j+1) - 1/log2(j+2), whose sums telescope; it falls like
    1/(j log^2 j), so that a late start costs little more than log j.

    >>> shares = np.exp(log_start_shares(10_000))
    >>> bool(shares.sum() < 1), float(shares[0].round(3))
    (True, 0.369)
    """
    edges = 1.0 / np.log2(np.arange(checkpoints + 1) + 2.0)
    return np.log(edges[:-1] - edges[1:])


def _bets(draws: Draws, *, gains: np.ndarray, least: np.ndarray) -> Bets:
    """Sum the factors of one side: items with ``gains`` win, the others lose."""
    n = len(draws)
    inner = np.arange(CHECKPOINT_ITEMS, n, CHECKPOINT_ITEMS)
    ends = np.append(inner, n) if n else np.zeros(0, dtype=np.int64)
    ratio = least / draws.inclusion
    losing = np.flatnonzero((draws.member | draws.pending) & ~gains)
    gaining = np.flatnonzero(draws.member & gains)
    lost = _counts(losing, ratio, ends)
    won = _counts(gaining, ratio, ends)
    # A ratio above 1 by rounding must not lose more than all.
    log_losses = np.log1p(-np.minimum(lost[1], 1.0)[:, None] * FRACTIONS)
    return Bets(np.cumsum(lost[0] @ log_losses, axis=0), won[0], won[1], ends)


def _counts(
    places: np.ndarray, ratio: np.ndarray, ends: np.ndarray
) -> tuple[csr_array, np.ndarray]:
    """Count items by the segment of the queue and by relative weight, and return the weights."""
    weights, column = np.unique(ratio[places], return_inverse=True)
    row = np.searchsorted(ends, places, side="right")
    shape = (len(ends), len(weights))
    return csr_array((np.ones(len(places)), (row, column)), shape=shape), weights


def _log_mean(log_factors: np.ndarray) -> np.ndarray:
    """Return the log of the average over fractions, shape (checkpoints,)."""
    if not log_factors.size:
        return np.zeros(0)
    top = log_factors.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(log_factors + _LOG_SHARES - top).sum(axis=1))
