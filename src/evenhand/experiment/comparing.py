"""Paired comparisons between runs, read from their folders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from evenhand.core.decisions import Comparison
from evenhand.core.seeding import rng_for
from evenhand.decide.compare import compare, seed_groups
from evenhand.experiment.results import Results

BASELINE = "baseline: tfidf_logreg"
"""The baseline that models are tested against, as tables name it."""

_SEED = 0


def compare_runs(results: Sequence[Results], *, on: str) -> Comparison:
    """Compare runs on one evaluation set, every pair, and each with the baseline if it is there.

    Runs whose configurations differ only in the seed count as replicates of one.

    Raises:
        ConfigError: a run was not evaluated on the set.
        DataError: the runs were not evaluated on the same rows.
    """
    models = {one.name: one.predictions(on) for one in results}
    baseline = next(
        (found for one in results if (found := one.baselines(on).get("tfidf_logreg"))), None
    )
    groups = seed_groups({one.name: _setting(one) for one in results if one.config is not None})
    if len(groups) == 1 and set(*groups.values()) == set(models) and baseline is None:
        groups = {}  # the seeds of one configuration, compared with each other
    grouped = {name for names in groups.values() for name in names}
    sides = [*groups, *(name for name in models if name not in grouped)]
    pairs = list(itertools.combinations(sides, 2))
    if baseline is not None:
        models[BASELINE] = baseline
        pairs += [(BASELINE, name) for name in sides]
    return compare(
        models, set_name=on, rng=rng_for(_SEED, f"compare {on}"), replicates=groups, pairs=pairs
    )


def _setting(results: Results) -> dict[str, Any]:
    """Return what must be equal, but for the seed, for two runs to be seeds of one setting."""
    inputs = results.manifest.get("inputs", {})
    hashes = {key: value for key, value in inputs.items() if key != "config"}
    return {**(results.config or {}), "inputs": hashes}


def compare_phases(results: Sequence[Results], *, sets: Sequence[str]) -> tuple[Comparison, ...]:
    """Compare the phases of an experiment on each set that any of them was evaluated on."""
    found = []
    for name in sets:
        there = [one for one in results if name in one.evaluation_names]
        if len(there) > 1 or (there and "tfidf_logreg" in there[0].baselines(name)):
            found.append(compare_runs(there, on=name))
    return tuple(found)
