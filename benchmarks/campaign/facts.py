"""What every experiment gives: its configurations on every set, paired tests, acceptances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from benchmarks.campaign import means
from benchmarks.campaign.catalogue import GROUP, HELD_OUT, SETS, VALIDATION
from benchmarks.campaign.means import Rows
from benchmarks.campaign.reading import BASELINE, Finished, finished_entries

from evenhand.core.decisions import Comparison, PairedTest
from evenhand.core.predictions import Predictions
from evenhand.core.seeding import rng_for
from evenhand.decide.compare import compare
from evenhand.experiment.comparing import answer_alike
from evenhand.experiment.results import Results

BASELINE_NAME = "baseline: tfidf_logreg"
_TESTED = (("f1", None), ("fpr", None), ("fnr", None), ("fpr", GROUP), ("fnr", GROUP))
_TRAINING = (
    "rows",
    "total_steps",
    "trainable_parameters",
    "total_parameters",
    "runtime_seconds",
)


def experiment_facts(found: Finished) -> dict[str, Any]:
    """Return one experiment's part of the record; short where nothing is finished."""
    known: dict[str, Any] = {
        "command": found.place.command,
        "control": found.experiment.config.control,
        "seeds": list(found.experiment.config.seeds or ()),
        "finished": len(found.every_run),
        "missing": list(found.missing),
        "other_configuration": list(found.other),
    }
    if not found.every_run:
        return known
    control = control_of(found)
    return {
        **known,
        "machine": _machine(found.every_run),
        "entries": {entry: entry_facts(found, entry) for entry in finished_entries(found)},
        "baselines": baseline_facts(found),
        "compared_with": control,
        "comparisons": {
            name: compared(found, name, control=control)
            for name in (VALIDATION, HELD_OUT)
            if found.rows(name) is not None
        },
        "acceptances": found.acceptances(),
        "at_equal_recall": found.at_equal_recall(),
        "seed_by_seed": found.seed_by_seed(),
    }


def control_of(found: Finished) -> str | None:
    """Return what entries are compared with: the control, else the best on validation rows."""
    named = found.experiment.config.control
    there = finished_entries(found)
    if named is not None:
        return named if named in there else None
    rows = found.rows(VALIDATION)
    known = found.entries_on(VALIDATION)
    if rows is None or not known:
        return None
    return max(known, key=lambda entry: mean_f1(rows, found.names(entry, VALIDATION)))


def mean_f1(rows: Rows, runs: Sequence[str], *, threshold: float = 0.5) -> float:
    """Return the mean F1 of runs at a threshold."""
    whole = np.ones((1, len(rows)))
    return float(np.mean([means.f1(rows, rows.scores[r] >= threshold, whole)[0] for r in runs]))


def entry_facts(found: Finished, entry: str) -> dict[str, Any]:
    """Return one configuration: how it was trained, and how it does on every set."""
    runs = list(found.runs[entry].values())
    return {
        "seeds": sorted(found.runs[entry]),
        "model": (runs[0].config or {}).get("model_name_or_path"),
        "tuning": (runs[0].config or {}).get("tuning"),
        "epochs": (runs[0].config or {}).get("num_train_epochs"),
        "training": _training(runs),
        "sets": {
            name: measured(rows, found.names(entry, name))
            for name in SETS
            if (rows := found.rows(name)) is not None and found.names(entry, name)
        },
    }


def baseline_facts(found: Finished) -> dict[str, Any]:
    """Return the TF-IDF baseline on every set: that of the first run, fitted on its rows."""
    facts = {}
    for name in SETS:
        rows = found.rows(name)
        run = None if rows is None else first_baseline(rows)
        if rows is not None and run is not None:
            facts[name] = measured(rows, (run,))
    return facts


def first_baseline(rows: Rows) -> str | None:
    """Return the name under which the first run's TF-IDF scores stand."""
    return next((run for run in rows.scores if run.endswith(f"/{BASELINE}")), None)


def measured(
    rows: Rows, runs: Sequence[str], *, thresholds: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the metrics of runs on a set, each run decided at its threshold (0.5 by default)."""
    at = dict.fromkeys(runs, 0.5) if thresholds is None else thresholds
    flagged = {run: rows.scores[run] >= at[run] for run in runs}
    missed = {run: ~one for run, one in flagged.items()}
    right = {run: one == rows.hate for run, one in flagged.items()}
    everything = np.ones(len(rows), dtype=bool)
    facts = {
        "n": len(rows),
        "n_hate": int(rows.hate.sum()),
        "f1": means.over_seeds(rows, lambda run, w: means.f1(rows, flagged[run], w), runs),
        "roc_auc": means.over_seeds(
            rows, lambda run, w: means.roc_auc(rows, rows.scores[run], w), runs
        ),
        "accuracy": means.rate_over_seeds(rows, right, everything, runs),
        "precision": means.over_seeds(
            rows, lambda run, w: means.share(rows.hate, flagged[run])(w), runs
        ),
        "recall": means.rate_over_seeds(rows, flagged, rows.hate, runs),
        "fpr": means.rate_over_seeds(rows, flagged, ~rows.hate, runs),
    }
    groups = {
        group: {
            "fpr": means.rate_over_seeds(rows, flagged, ~rows.hate & member, runs),
            "fnr": means.rate_over_seeds(rows, missed, rows.hate & member, runs),
            "roc_auc": means.over_seeds(rows, _auc_among(rows, member), runs),
        }
        for group, member in rows.groups.items()
        if rows.name not in ("functional", "hatecheck")
    }
    return {**facts, "groups": groups}


def _auc_among(rows: Rows, member: np.ndarray) -> Callable[[str, np.ndarray], np.ndarray]:
    return lambda run, weights: means.roc_auc(rows, rows.scores[run], weights * member)


def compared(found: Finished, name: str, *, control: str | None) -> dict[str, Any] | None:
    """Return the paired tests of every entry against the control, seeds as replicates.

    Where the experiment names no control, the baseline is compared with each too.
    """
    sides = {entry: found.names(entry, name) for entry in found.entries_on(name)}
    others = [entry for entry in sides if entry != control]
    pairs = [(control, entry) for entry in others if control in sides]
    results = {one.name: one for one in found.every_run}
    models = {run: results[run].predictions(name) for runs in sides.values() for run in runs}
    seedless = []
    if found.experiment.config.control is None and sides:
        own = [
            results[run].baselines(name).get(BASELINE) for runs in sides.values() for run in runs
        ]
        own = [one for one in own if one is not None]
        if own:
            models[BASELINE_NAME] = own[0]
            pairs += [(BASELINE_NAME, entry) for entry in sides]
            seedless = [BASELINE_NAME] if len(own) > 1 and answer_alike(own) else []
    if not pairs:
        return None
    record = paired(name, models, sides, [(str(a), b) for a, b in pairs], seedless)
    for pair in record["pairs"]:
        pair["roc_auc"] = auc_change(found, name, pair["first"], pair["second"])
    return record


def auc_change(found: Finished, name: str, first: str, second: str) -> dict[str, Any] | None:
    """Return an entry's ROC AUC less another's, each seed against the same; None for a baseline."""
    rows, sides = found.rows(name), (found.runs.get(first, {}), found.runs.get(second, {}))
    runs = {
        sides[1][seed].name: sides[0][seed].name
        for seed in sides[0].keys() & sides[1].keys()
        if all(name in side[seed].evaluation_names for side in sides)
    }
    if rows is None or not runs:
        return None

    def change(run: str, weights: np.ndarray) -> np.ndarray:
        own, other = (means.roc_auc(rows, rows.scores[one], weights) for one in (run, runs[run]))
        return own - other

    return means.over_seeds(rows, change, sorted(runs), least=-1.0)


def paired(
    name: str,
    models: Mapping[str, Predictions],
    sides: Mapping[str, Sequence[str]],
    pairs: Sequence[tuple[str, str]],
    seedless: Sequence[str] = (),
) -> dict[str, Any]:
    """Return paired tests between sides, each of one run or of several seeds."""
    replicates = {side: tuple(runs) for side, runs in sides.items() if len(runs) > 1}
    single = {runs[0]: side for side, runs in sides.items() if len(runs) == 1}
    renamed = {single.get(run, run): one for run, one in models.items()}
    rng = rng_for(0, f"campaign compare {name}")
    found = compare(
        renamed, set_name=name, rng=rng, replicates=replicates, seedless=seedless, pairs=pairs
    )
    return {"n": found.n, "pairs": [_pair(found, first, second) for first, second in pairs]}


def _pair(found: Comparison, first: str, second: str) -> dict[str, Any]:
    pair = found.pair(first, second)
    tests = [] if pair is None else [pair.test(metric, group) for metric, group in _TESTED]
    return {
        "first": first,
        "second": second,
        "tests": [_test(test) for test in tests if test is not None],
    }


def _test(test: PairedTest) -> dict[str, Any]:
    return {
        "metric": test.metric,
        "group": test.group,
        "difference": test.difference.value,
        "low": test.difference.low,
        "high": test.difference.high,
        "p_value": test.p_value,
        "p_holm": test.p_holm,
        "minimum_detectable": test.minimum_detectable,
        "verdict": test.verdict,
    }


def _training(runs: Sequence[Results]) -> dict[str, Any]:
    known = [one.training for one in runs if one.training is not None]
    if not known:
        return {}
    return {key: known[0].get(key) for key in _TRAINING}


def _machine(runs: Sequence[Results]) -> dict[str, Any]:
    machines = [one.manifest.get("machine", {}) for one in runs]
    devices = {str(one.manifest.get("device", {}).get("name")) for one in runs}
    dates = sorted(str(one.manifest.get("created"))[:10] for one in runs)
    keys = ("processor", "cpus", "python", "torch", "transformers", "peft")
    return {
        "first": dates[0],
        "last": dates[-1],
        "devices": sorted(devices),
        **{key: sorted({str(one.get(key)) for one in machines}) for key in keys},
    }
