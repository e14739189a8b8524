"""Seeds as replicates: which runs differ only in their seed, and what their spread adds."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from evenhand.config.factors import NO_EFFECT_ON_RESULT
from evenhand.core.paths import sha256_json
from evenhand.decide.paired import POWER
from evenhand.measure.intervals import CONFIDENCE

_NOT_COMPARED = NO_EFFECT_ON_RESULT | {"seed"}
_SEPARATORS = "-_. "


@dataclass(frozen=True)
class SeedTest:
    """A difference of means over seeds: its p-value, interval, standard error and degrees."""

    p_value: float
    low: float
    high: float
    error: float
    degrees: float

    def detectable(self, level: float) -> float:
        """Return the true difference that is found at a level with 80% power."""
        quantile, power = (float(student.ppf(p, self.degrees)) for p in (1 - level / 2, POWER))
        return (quantile + power) * self.error


def seed_test(
    first: np.ndarray, second: np.ndarray, *, row_variance: float, n_units: int
) -> SeedTest:
    """Return Student's t-test of ``mean(second) - mean(first)`` with Satterthwaite's degrees.

    The variance is that of the rows that all seeds share plus, on each side, the variance between
    seeds over their number, which holds what each seed answers in its own way. A side with one seed
    is given the other side's variance, since its own is unknown.

    Args:
        first: the metric of each seed on the first side, shape (seeds,).
        second: the metric of each seed on the second side, shape (seeds,).
        row_variance: what rows add beside that (:func:`evenhand.decide.paired.row_variances`),
            above 0.
        n_units: independent rows or clusters behind ``row_variance``.
    """
    parts = [(row_variance, float(n_units - 1)), *_between_seeds(first, second)]
    variance = sum(part for part, _ in parts)
    degrees = variance**2 / sum(part**2 / free for part, free in parts if part > 0.0)
    error = math.sqrt(variance)
    difference = float(second.mean() - first.mean())
    quantile = float(student.ppf(0.5 + CONFIDENCE / 2, degrees))
    return SeedTest(
        p_value=float(2 * student.sf(abs(difference) / error, degrees)),
        low=difference - quantile * error,
        high=difference + quantile * error,
        error=error,
        degrees=float(degrees),
    )


def seed_groups(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the runs that differ only in their seed, by a common name.

    Runs are alike if their configurations are, but for the seed and for keys that change no result
    (where it was written, how it was logged). Runs of which two have the same seed are no
    replicates, and a run that is alone is left out.

    >>> runs = {f"large-{seed}": {"lora_r": 64, "seed": seed} for seed in (1, 2, 3)}
    >>> seed_groups({**runs, "small": {"lora_r": 8, "seed": 1}})
    {'large (3 seeds)': ('large-1', 'large-2', 'large-3')}
    """
    alike: dict[str, list[str]] = {}
    for name, config in configs.items():
        kept = {key: value for key, value in config.items() if key not in _NOT_COMPARED}
        alike.setdefault(sha256_json(kept), []).append(name)
    groups = {}
    for names in alike.values():
        seeds = {configs[name].get("seed") for name in names}
        if len(names) > 1 and len(seeds) == len(names):
            groups[_free(f"{_stem(names)} ({len(names)} seeds)", groups)] = tuple(names)
    return groups


def _between_seeds(first: np.ndarray, second: np.ndarray) -> list[tuple[float, float]]:
    """Return each side's variance of the mean over seeds, with its degrees of freedom."""
    known = [values for values in (first, second) if len(values) > 1]
    if len(known) == 2:
        return [
            (float(values.var(ddof=1)) / len(values), float(len(values) - 1)) for values in known
        ]
    # One estimate serves both sides: their two variances of the mean are added before.
    return [
        (float(values.var(ddof=1)) * (1 / len(first) + 1 / len(second)), float(len(values) - 1))
        for values in known
    ]


def _stem(names: Sequence[str]) -> str:
    """Return what all names begin with, short of the seed; the first name if that is nothing."""
    columns = zip(*names, strict=False)
    start = "".join(c[0] for c in itertools.takewhile(lambda c: len(set(c)) == 1, columns))
    # Seeds 42 and 43 begin alike.
    stem = start.rstrip(string.digits).rstrip(_SEPARATORS)
    return stem.removesuffix("seed").rstrip(_SEPARATORS) or names[0]


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name, numbered if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} #{number}"
    return free
