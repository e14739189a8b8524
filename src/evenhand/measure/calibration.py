"""Calibration: whether p(hate) means what it says, and temperature scaling."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from evenhand.core.decisions import Calibration
from evenhand.core.errors import DataError, Problem
from evenhand.core.evaluation import ReliabilityBin
from evenhand.measure.ece import ECE_BINS, ece_bin
from evenhand.measure.intervals import proportion
from evenhand.measure.sample import Sample

EPSILON = 1e-12
"""Scores are taken as at least this far from 0 and 1, where the logit and the NLL are infinite."""

TEMPERATURE_BOUNDS = (0.01, 100.0)
"""A fitted temperature at a bound means that the scores rank perfectly, or not at all."""


def reliability(sample: Sample, *, n_bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Return the share of hate per equal-width bin of p(hate), with its Wilson interval.

    A bin holds its lower edge, the last one both. Only scored rows count.

    Returns:
        Nothing where no row is scored or a scored row has no score.
    """
    rows = sample.where(sample.ok)
    if not len(rows) or np.isnan(rows.score).any():
        return ()
    index = _bin_index(rows.score, n_bins)
    bins = []
    for number in range(n_bins):
        inside = index == number
        n = int(inside.sum())
        bins.append(
            ReliabilityBin(
                low=number / n_bins,
                high=(number + 1) / n_bins,
                n=n,
                mean_score=float(rows.score[inside].mean()) if n else None,
                hate_rate=proportion(
                    rows.hate, inside, clusters=rows.clusters, undefined="no_rows_in_the_bin"
                ),
            )
        )
    return tuple(bins)


def fit_temperature(score: np.ndarray, hate: np.ndarray) -> Calibration:
    """Fit one temperature on the logit of p(hate) by least negative log-likelihood.

    Guo et al. 2017. The ranking of the rows stays. The figures before and after are of these same
    rows, so the gain is optimistic. A fit that gains nothing is the temperature 1.

    Args:
        score: p(hate), shape (n,).
        hate: whether the label is hate, shape (n,).

    Raises:
        DataError: there are no scores, some are missing, or all labels are the same.

    >>> score, hate = np.array([0.9, 0.9, 0.9, 0.1]), np.array([True, True, False, False])
    >>> round(fit_temperature(score, hate).temperature, 2)
    2.0
    """
    problems = _score_problems(score)
    if not problems and (hate.all() or not hate.any()):
        problems.append(
            Problem("label", f'all {len(hate)} labels are the same; "hate" and "normal" are needed')
        )
    if problems:
        raise DataError("calibration rows", problems, consequence="no temperature was fitted")
    before = calibration_measures(score, hate)
    temperature = _least_nll(_logit(score), hate)
    after = calibration_measures(calibrate(score, temperature), hate)
    if after["nll"] >= before["nll"]:
        temperature, after = 1.0, before
    return Calibration(
        temperature=temperature,
        n=len(score),
        nll_before=before["nll"],
        nll_after=after["nll"],
        brier_before=before["brier"],
        brier_after=after["brier"],
        ece_before=before["ece"],
        ece_after=after["ece"],
    )


def calibrate(score: np.ndarray, temperature: float) -> np.ndarray:
    """Return p(hate) with its logit divided by the temperature; shape (n,).

    A temperature above 1 draws scores towards 0.5; 0.5 itself stays. A missing score (NaN) stays
    missing.

    Raises:
        ValueError: the temperature is not a number above 0.

    >>> calibrate(np.array([0.5, 0.9]), 2.0)
    array([0.5 , 0.75])
    """
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; it is a number above 0")
    return expit(_logit(score) / temperature)


def calibration_measures(score: np.ndarray, hate: np.ndarray) -> dict[str, float]:
    """Return ``nll`` (nats a row), ``brier`` and ``ece`` of p(hate).

    The expected calibration error has 15 equal-width bins, as the metric ``ece`` has. The NLL takes
    scores as at least 1e-12 away from 0 and 1.

    Raises:
        DataError: there are no scores, or some are missing.
    """
    problems = _score_problems(score)
    if problems:
        raise DataError("scores", problems, consequence="nothing was measured")
    residual = np.bincount(ece_bin(score), weights=hate - score, minlength=ECE_BINS)
    return {
        "nll": _nll(_logit(score), hate),
        "brier": float(np.mean((score - hate) ** 2)),
        "ece": float(np.abs(residual).sum() / len(score)),
    }


def _least_nll(logits: np.ndarray, hate: np.ndarray) -> float:
    """Return the temperature at the root of the NLL's slope, or the bound that the slope points to.

    By the inverse temperature the NLL is convex, so its slope has one root at most.
    """

    def slope(inverse: float) -> float:
        return float(np.mean(logits * (expit(logits * inverse) - hate)))

    coldest, hottest = TEMPERATURE_BOUNDS
    least, most = 1 / hottest, 1 / coldest
    if slope(least) >= 0.0:
        return hottest
    if slope(most) <= 0.0:
        return coldest
    return 1 / float(brentq(slope, least, most, xtol=1e-12))


def _nll(logits: np.ndarray, hate: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, np.where(hate, -logits, logits))))


def _logit(score: np.ndarray) -> np.ndarray:
    return logit(np.clip(score, EPSILON, 1.0 - EPSILON))


def _bin_index(score: np.ndarray, n_bins: int) -> np.ndarray:
    return np.minimum((score * n_bins).astype(int), n_bins - 1)


def _score_problems(score: np.ndarray) -> list[Problem]:
    missing = int(np.isnan(score).sum())
    if not len(score):
        return [Problem("score", "there are no scored rows")]
    if missing:
        return [
            Problem(
                "score",
                f"{missing} of {len(score)} rows have no score; calibration needs p(hate) for "
                "every row, so score the labels instead of generating text",
            )
        ]
    return []
