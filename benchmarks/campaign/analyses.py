"""The questions that need more than a table: thresholds, recall floor, break-even, label noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from benchmarks.campaign import means
from benchmarks.campaign.catalogue import (
    GROUP,
    HELD_OUT,
    PRODUCTION,
    RECALL_FLOOR,
    RECOMMENDED,
    VALIDATION,
)
from benchmarks.campaign.facts import first_baseline, measured
from benchmarks.campaign.means import Rows
from benchmarks.campaign.reading import Finished

from evenhand.decide.threshold import FittedThreshold, fit_threshold, threshold_rule
from evenhand.measure.composition import composition
from evenhand.measure.operating import reachable
from evenhand.measure.sample import sample_from_frame

OFFENSIVE = "offensive"
_JUDGED = (HELD_OUT, PRODUCTION)


def tuned(found: Finished, entry: str, *, on: Sequence[str] = _JUDGED) -> dict[str, Any] | None:
    """Return figures at 0.5 and at each run's best threshold (for F1) on validation rows."""
    runs = found.names(entry, VALIDATION)
    by_name = {one.name: one for one in found.every_run}
    fitted = {
        run: fit_threshold(by_name[run].predictions(VALIDATION), threshold_rule()) for run in runs
    }
    thresholds = {run: one.value for run, one in fitted.items() if isinstance(one, FittedThreshold)}
    sets = {}
    for name in on:
        rows, there = found.rows(name), found.names(entry, name)
        there = tuple(run for run in there if run in thresholds)
        if rows is None or not there:
            continue
        sets[name] = {
            "default": measured(rows, there),
            "tuned": measured(rows, there, thresholds=thresholds),
            "tests": [_f1_change(rows, there, thresholds)],
        }
    return {"thresholds": sorted(thresholds.values()), "sets": sets} if sets else None


def _f1_change(rows: Rows, runs: Sequence[str], thresholds: dict[str, float]) -> dict[str, Any]:
    """Return what each run's own threshold changes in its F1: the same runs before and after."""

    def change(run: str, weights: np.ndarray) -> np.ndarray:
        score = rows.scores[run]
        after = means.f1(rows, score >= thresholds[run], weights)
        return after - means.f1(rows, score >= 0.5, weights)

    found = means.over_seeds(rows, change, runs, least=-1.0)
    return {
        "metric": "f1",
        "group": None,
        "difference": found["value"],
        "low": found["low"],
        "high": found["high"],
    }


def at_recall_floor(found: Finished, runs: Sequence[str], *, on: Sequence[str] = _JUDGED) -> Any:
    """Return question 6: recall and FPR at the highest threshold that finds 75% of the hate.

    The threshold is found on validation rows.

    Args:
        found: the experiment.
        runs: runs, one a seed, or the name under which a baseline's scores stand.
        on: the sets to report on.
    """
    validation = found.rows(VALIDATION)
    if validation is None or any(run not in validation.scores for run in runs):
        return None
    thresholds = {run: _floor_threshold(validation, run) for run in runs}
    sets = {}
    for name in on:
        rows = found.rows(name)
        if rows is None or any(run not in rows.scores for run in runs):
            continue
        sets[name] = {
            **measured(rows, runs, thresholds=thresholds),
            "composition": _composition(rows, runs, thresholds),
            "by_fine_label": _by_fine_label(rows, runs, thresholds),
        }
    return {"thresholds": sorted(thresholds.values()), "sets": sets} if sets else None


def _floor_threshold(rows: Rows, run: str) -> float:
    sample = replace(sample_from_frame(rows.frame, threshold=0.5), score=rows.scores[run])
    found = reachable(sample, {}, floor=RECALL_FLOOR)
    assert found is not None and found.threshold is not None
    return found.threshold


def _composition(
    rows: Rows, runs: Sequence[str], thresholds: dict[str, float]
) -> dict[str, Any] | None:
    """Return the group's FPR ratio to the other rows: plain, and among rows of the same kind.

    A row counts once for each seed, and its seeds are one cluster.
    """
    times = len(runs)
    frame = pd.concat([rows.frame] * times, ignore_index=True)
    if times > 1:
        frame["cluster"] = np.tile(rows.unit, times).astype(str)
    flagged = np.concatenate([rows.scores[run] >= thresholds[run] for run in runs])
    sample = replace(sample_from_frame(frame, threshold=0.5), flagged=flagged)
    members = {GROUP: np.tile(rows.groups[GROUP], times)}
    found = composition(frame, sample, members).get(GROUP)
    if found is None:
        return None
    crude, adjusted = found.fpr.crude, found.fpr.adjusted
    return {
        "crude": {"value": crude.value, "low": crude.low, "high": crude.high},
        "adjusted": {"value": adjusted.value, "low": adjusted.low, "high": adjusted.high},
        "explained": found.fpr.explained,
    }


def _by_fine_label(rows: Rows, runs: Sequence[str], thresholds: dict[str, float]) -> dict[str, Any]:
    """Return the group's FPR by fine label, and which share of its false positives each gives."""
    flagged = {run: rows.scores[run] >= thresholds[run] for run in runs}
    normal = ~rows.hate & rows.groups[GROUP]
    wrong = sum(float((flagged[run] & normal).sum()) for run in runs)
    facts = {}
    for label in sorted(set(rows.fine[normal])):
        part = normal & (rows.fine == label)
        hits = sum(float((flagged[run] & part).sum()) for run in runs)
        facts[label or "(none)"] = {
            "fpr": means.rate_over_seeds(rows, flagged, part, runs),
            "share_of_false_positives": hits / wrong if wrong else None,
        }
    return facts


def break_even(found: Finished, entry: str) -> dict[str, Any] | None:
    """Return question 8: where precision equals recall on validation rows, and what becomes of it.

    Precision equals recall where as many rows are flagged as are hate.
    """
    validation, runs = found.rows(VALIDATION), found.names(entry, VALIDATION)
    if validation is None or not runs:
        return None
    thresholds = {run: _even(validation, run) for run in runs}
    draws = np.array([_even_replicates(validation, run) for run in runs])
    low, high = np.quantile(draws, [0.025, 0.975])
    sets = {}
    for name in (VALIDATION, *_JUDGED):
        rows, there = found.rows(name), found.names(entry, name)
        there = tuple(run for run in there if run in thresholds)
        if rows is None or not there:
            continue
        facts = measured(rows, there, thresholds=thresholds)
        flagged = {run: rows.scores[run] >= thresholds[run] for run in there}
        sets[name] = {
            "precision": facts["precision"],
            "recall": facts["recall"],
            "difference": _recall_less_precision(rows, flagged, there),
            "own_threshold": float(np.mean([_even(rows, run) for run in there])),
            "hate_share": facts["n_hate"] / facts["n"],
        }
    return {
        "value": float(np.mean(list(thresholds.values()))),
        "low": float(low),
        "high": float(high),
        "seeds": [thresholds[run] for run in runs],
        "sets": sets,
    }


def _even(rows: Rows, run: str) -> float:
    scores = np.sort(rows.scores[run])[::-1]
    return float(scores[int(rows.hate.sum()) - 1])


def _even_replicates(rows: Rows, run: str) -> np.ndarray:
    """Return the break-even threshold in each bootstrap resample, shape (b,)."""
    order = np.argsort(-rows.scores[run], kind="stable")
    sorted_scores = rows.scores[run][order]
    weights = means.resamples(rows)
    flagged = np.cumsum(weights[:, order], axis=1)
    wanted = (weights * rows.hate).sum(axis=1, keepdims=True)
    # The last score that is flagged when as many rows are flagged as are hate.
    place = np.minimum((flagged < wanted).sum(axis=1), len(rows) - 1)
    return sorted_scores[place]


def _recall_less_precision(
    rows: Rows, flagged: dict[str, np.ndarray], runs: Sequence[str]
) -> dict[str, Any]:
    def difference(run: str, weights: np.ndarray) -> np.ndarray:
        hits = flagged[run]
        return means.share(hits, rows.hate)(weights) - means.share(rows.hate, hits)(weights)

    found = means.over_seeds(rows, difference, runs, least=-1.0)
    return {key: found[key] for key in ("value", "low", "high")}


def ceiling(found: Finished, entry: str) -> dict[str, Any] | None:
    """Return what the label *offensive*, counted as normal, costs: without it, and as hate."""
    sets = {}
    for name in (VALIDATION, *_JUDGED):
        rows, runs = found.rows(name), found.names(entry, name)
        if rows is None or not runs or not (rows.fine == OFFENSIVE).any():
            continue
        offensive = rows.fine == OFFENSIVE
        everything = np.ones(len(rows), dtype=bool)
        views = {
            "as_read": rows,
            "without_offensive": rows.where(~offensive),
            "offensive_as_hate": rows.where(everything, hate=rows.hate | offensive),
        }
        facts = {view: measured(part, runs) for view, part in views.items()}
        sets[name] = {
            "n_offensive": int(offensive.sum()),
            **{v: {key: one[key] for key in ("n", "f1", "roc_auc")} for v, one in facts.items()},
        }
    return sets or None


def less_recommended(finals: Sequence[Finished]) -> dict[str, Any]:
    """Return each final model's F1 on production rows less the recommended one's, both at 0.5."""
    scored = {
        f"{one.name}/{entry}": run
        for one in finals
        for entry, seeds in one.runs.items()
        for run in seeds.values()
        if PRODUCTION in run.evaluation_names
    }
    chosen = next((name for name in scored if name.startswith(f"{RECOMMENDED}/")), None)
    if chosen is None or len(scored) < 2:
        return {}
    rows = means.read_rows(
        PRODUCTION, {name: run.predictions(PRODUCTION) for name, run in scored.items()}
    )

    def less(run: str, weights: np.ndarray) -> np.ndarray:
        own, other = (rows.scores[name] >= 0.5 for name in (run, chosen))
        return means.f1(rows, own, weights) - means.f1(rows, other, weights)

    return {name: means.over_seeds(rows, less, (name,), least=-1.0) for name in scored}


def baseline_at_floor(found: Finished) -> Any:
    """Return question 6 for the TF-IDF baseline of the experiment's first run."""
    validation = found.rows(VALIDATION)
    run = None if validation is None else first_baseline(validation)
    return None if run is None else at_recall_floor(found, (run,))
