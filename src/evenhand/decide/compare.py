"""Paired comparison of models on the same rows: tests, intervals, correction, verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.core.decisions import Comparison, Pair, PairedTest, PairVerdict
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.predictions import Predictions
from evenhand.core.registry import suggest
from evenhand.decide.alignment import Answers, align
from evenhand.decide.families import correct
from evenhand.decide.replicates import seed_groups
from evenhand.decide.testing import Sides, Tested, pair_tests

__all__ = ["compare", "seed_groups"]

_HIGHER_IS_BETTER = frozenset({"f1", "accuracy"})


def compare(
    models: Mapping[str, Predictions],
    *,
    set_name: str,
    rng: np.random.Generator,
    replicates: Mapping[str, Sequence[str]] | None = None,
    seedless: Collection[str] = (),
    pairs: Sequence[tuple[str, str]] | None = None,
    alpha: float = 0.05,
    n_bootstrap: int = 10_000,
) -> Comparison:
    """Compare models pairwise on the same rows; every difference is ``second - first``.

    Decisions count as they are (:func:`evenhand.core.predictions.decided_at` takes them at another
    threshold). Rows that any model left undecided are left out of every pair, and counted. So that
    leaving rows undecided makes no model better, each test is then repeated with every row, a
    missing decision counted as a wrong one; where the two verdicts differ, there is no evidence.

    Accuracy, FPR and FNR (overall and per group) are tested by McNemar's exact test, F1 by the
    exact paired randomisation test; where rows come in clusters, all by exchanging the answers of
    whole clusters. Intervals are percentiles of the paired bootstrap of rows or clusters. P-values
    are adjusted (Holm 1979) within two families: F1 over all rows, of every pair; and all other
    tests. A test that its few disagreements keep from ever reaching its level does not count
    (Tarone 1990). A pair's verdict is F1's.

    A name in ``replicates`` is compared as the mean over its seeds. Its variance is that of the
    rows (paired bootstrap of the mean) plus that between seeds over their number, on each side, and
    the test is Student's t with Satterthwaite's degrees of freedom. A single model beside them is
    given their variance between seeds, since its own is unknown, unless it is ``seedless``.

    Args:
        models: predictions by model, on the same ids with the same labels.
        set_name: the evaluation set's name.
        rng: draws the resamples.
        replicates: for a name of your choice the models that differ only in their seed.
        seedless: models that are the same with every seed, such as a baseline of closed form.
        pairs: the pairs to compare; by default all, in the order of the names.
        alpha: the level of each family's verdicts, after Holm's correction.
        n_bootstrap: resamples, at least 100.

    Raises:
        DataError: the models' rows differ, or have no label.
        ConfigError: fewer than two models, or a name that is not there.
        ValueError: ``n_bootstrap`` or ``alpha`` is out of range.
    """
    if n_bootstrap < 100:
        raise ValueError(f"n_bootstrap is {n_bootstrap}; at least 100 are needed")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; it is a level, between 0 and 1")
    sides = _sides(models, replicates or {})
    compared = list(itertools.combinations(sides, 2)) if pairs is None else list(pairs)
    _check_names(compared, seedless, sides)
    opposed = [_opposed(sides, pair, seedless) for pair in compared]
    answers = align(models)
    found = _families(_tested(answers, opposed, n_bootstrap, rng), alpha=alpha)
    tests = found.tests
    if answers.n_left_out and len(answers):
        wrong = align(models, unanswered="wrong")
        again = _families(_tested(wrong, opposed, n_bootstrap, rng), alpha=alpha)
        tests = [
            tuple(itertools.starmap(_agreed, zip(*both, strict=True)))
            for both in zip(tests, again.tests, strict=True)
        ]
    return Comparison(
        set=set_name,
        n=len(answers),
        n_left_out=answers.n_left_out,
        n_clusters=answers.n_clusters,
        models=tuple(sides),
        replicates={name: runs for name, runs in sides.items() if len(runs) > 1},
        alpha=alpha,
        n_bootstrap=n_bootstrap,
        pairs=tuple(
            Pair(first=first, second=second, tests=pair, verdict=pair[0].verdict)
            for (first, second), pair in zip(compared, tests, strict=True)
        ),
        n_primary=found.n_primary,
        n_secondary=found.n_secondary,
    )


@dataclass(frozen=True)
class _Families:
    """The pairs' tests after correction, and how many count in each family."""

    tests: list[tuple[PairedTest, ...]]
    n_primary: int
    n_secondary: int


def _opposed(
    sides: Mapping[str, tuple[str, ...]], pair: tuple[str, str], seedless: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the models of each side; one that every seed gives counts once for each seed."""
    first, second = (sides[name] for name in pair)
    if pair[0] in seedless and len(first) == 1:
        first *= len(second)
    if pair[1] in seedless and len(second) == 1:
        second *= len(first)
    return first, second


def _tested(
    answers: Answers,
    opposed: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> list[list[Tested]]:
    """Return the tests of each pair of sides, before correction."""
    number = {name: index for index, name in enumerate(answers.names)}
    pairs = [[tuple(number[run] for run in runs) for runs in pair] for pair in opposed]
    return [
        pair_tests(Sides(answers, first, second), n_bootstrap=n_bootstrap, rng=child)
        for (first, second), child in zip(pairs, rng.spawn(len(pairs)), strict=True)
    ]


def _sides(
    models: Mapping[str, Predictions], replicates: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Return what is compared, by name: a model, or several seeds in the place of the first."""
    problems = []
    for name, runs in replicates.items():
        unknown = [run for run in runs if run not in models]
        problems += [
            Problem(name, f'"{run}" is not compared{suggest(run, models)}') for run in unknown
        ]
        if name in models:
            problems.append(Problem(name, "is a model's name already; call the seeds differently"))
        if len(set(runs)) < 2:
            problems.append(Problem(name, "stands for fewer than two models; seeds need two"))
    used = [run for runs in replicates.values() for run in runs]
    problems += [
        Problem(run, "is named more than once among the seeds; name it once")
        for run in sorted({run for run in used if used.count(run) > 1})
    ]
    if len(models) - len(used) + len(replicates) < 2 and not problems:
        problems.append(Problem("models", "there is nothing to compare; give two at least"))
    _refuse(problems)
    name_of = {run: name for name, runs in replicates.items() for run in runs}
    named = dict.fromkeys(name_of.get(model, model) for model in models)
    return {name: tuple(replicates.get(name, (name,))) for name in named}


def _check_names(
    pairs: Sequence[tuple[str, str]], seedless: Collection[str], sides: Mapping[str, Any]
) -> None:
    problems = [
        Problem(name, f"is not compared{suggest(name, sides)}")
        for name in dict.fromkeys((*itertools.chain(*pairs), *seedless))
        if name not in sides
    ]
    problems += [
        Problem(first, "is paired with itself; give two different names")
        for first, second in pairs
        if first == second
    ]
    _refuse(problems)


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise ConfigError("the comparison", problems, consequence="nothing was compared")


def _families(tested: Sequence[Sequence[Tested]], *, alpha: float) -> _Families:
    """Return the pairs' tests with p-values adjusted in their families, and with verdicts."""
    judged: dict[int, PairedTest] = {}
    sizes = []
    every = [one for tests in tested for one in tests]
    for primary in (True, False):
        family = [
            one for one in every if one.test.is_primary == primary and one.test.p_value is not None
        ]
        corrected = correct(
            [one.test.p_value or 0.0 for one in family],
            [one.test.least_p_value or 0.0 for one in family],
            alpha=alpha,
        )
        sizes.append(corrected.size)
        level = alpha / max(corrected.size, 1)
        for one, p_holm in zip(family, corrected.p_values, strict=True):
            judged[id(one)] = _judged(one, float(p_holm), alpha=alpha, level=level)
    tests = [tuple(judged.get(id(one), one.test) for one in pair) for pair in tested]
    return _Families(tests, *sizes)


def _judged(one: Tested, p_holm: float, *, alpha: float, level: float) -> PairedTest:
    test = one.test
    gain = test.difference.value or 0.0
    verdict: PairVerdict = "no_evidence"
    if p_holm <= alpha and gain != 0.0:
        verdict = "better" if (gain > 0.0) == (test.metric in _HIGHER_IS_BETTER) else "worse"
    minimum = None if one.detectable is None else min(1.0, one.detectable(level))
    return test.model_copy(
        update={"p_holm": p_holm, "verdict": verdict, "minimum_detectable": minimum}
    )


def _agreed(answered: PairedTest, all_rows: PairedTest) -> PairedTest:
    """Return the test over the answered rows, without a verdict that the other rows contradict."""
    if answered.verdict in (all_rows.verdict, "undefined"):
        return answered
    return answered.model_copy(update={"verdict": "no_evidence", "depends_on_unanswered": True})
