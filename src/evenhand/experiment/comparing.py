"""Paired comparisons between runs, read from their folders."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.config.factors import LOCATIONS
from evenhand.core.decisions import Comparison
from evenhand.core.predictions import Predictions
from evenhand.core.seeding import rng_for
from evenhand.decide.compare import compare, seed_groups
from evenhand.experiment.results import Results
from evenhand.measure.sample import ordered_frame

BASELINE = "baseline: tfidf_logreg"
"""The baseline that models are tested against, as tables name it; `` of RUN`` where runs differ."""

_SEED = 0


def compare_runs(
    results: Sequence[Results],
    *,
    on: str,
    control: Sequence[str] = (),
    entries: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare runs on one evaluation set, every pair, and each with its baseline if it is there.

    Runs whose configurations differ only in the seed count as replicates of one. A run is paired
    with the baseline that was trained on its own rows: where the runs' baselines answer alike,
    there is one of them, else each has the name of its run. One that answers alike for several
    seeds has no variance between them. With a control (the names of its runs,
    of which one is enough for all its seeds) runs are paired with it and with their baselines only.
    ``entries`` is that of :func:`replicates_of`.

    Raises:
        ConfigError: a run was not evaluated on the set.
        DataError: the runs were not evaluated on the same rows.
    """
    models = {one.name: one.predictions(on) for one in results}
    baselines = {
        one.name: found
        for one in results
        if (found := one.baselines(on).get("tfidf_logreg")) is not None
    }
    groups = replicates_of(results, entries)
    if len(groups) == 1 and set(*groups.values()) == set(models) and not baselines:
        groups = {}  # the seeds of one configuration, compared with each other
    grouped = {name for names in groups.values() for name in names}
    runs_of = {**groups, **{name: (name,) for name in models if name not in grouped}}
    pairs = list(itertools.combinations(runs_of, 2))
    if control:
        untreated = [name for name, runs in runs_of.items() if set(runs) & set(control)]
        pairs = [(name, other) for name in untreated for other in runs_of if other not in untreated]
    replicates, seedless = dict(groups), set[str]()
    is_one = answer_alike(list(baselines.values()))
    for name, runs in runs_of.items():
        own = {run: baselines[run] for run in runs if run in baselines}
        if not own:
            continue
        if is_one or answer_alike(list(own.values())):
            title = BASELINE if is_one else f"{BASELINE} of {name}"
            models[title] = next(iter(own.values()))
            if len(own) > 1:
                seedless.add(title)
        else:
            title = f"{BASELINE} of {name}"
            seeds = {f"{BASELINE} of {run}": answers for run, answers in own.items()}
            models |= seeds
            replicates[title] = tuple(seeds)
        pairs.append((title, name))
    rng = rng_for(_SEED, f"compare {on}")
    return compare(
        models, set_name=on, rng=rng, replicates=replicates, seedless=seedless, pairs=pairs
    )


def replicates_of(
    results: Sequence[Results], entries: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the runs that differ only in their seed, by a common name.

    ``entries`` has for each run the phase of the experiment's file that it is a seed of: rows that
    are drawn by the seed, or a parent of the same seed, then make no other configuration of it.
    """
    known = [one for one in results if one.config is not None]
    if entries is None:
        return seed_groups({one.name: _setting(one) for one in known})
    return seed_groups(
        {one.name: {"entry": entries[one.name], "seed": _seed(one)} for one in known}
    )


def _seed(results: Results) -> Any:
    return (results.config or {}).get("seed")


def answer_alike(baselines: Sequence[Predictions]) -> bool:
    """Whether all of a run's or several runs' baselines decide every row alike."""
    decisions = [ordered_frame(one)["decision"].tolist() for one in baselines]
    return all(one == decisions[0] for one in decisions)


def _setting(results: Results) -> dict[str, Any]:
    """Return what must be equal, but for the seed, for two runs to be seeds of one setting."""
    inputs = results.manifest.get("inputs", {})
    hashes = {key: value for key, value in inputs.items() if key != "config"}
    # Without hashes, as in an import, the name of a file stands for what is in it.
    ignored = LOCATIONS if hashes else frozenset()
    config = {
        key: value
        for key, value in (results.config or {}).items()
        if key not in ignored and value is not None  # unused: an older run has no such key
    }
    return {**config, "inputs": hashes}


def compare_phases(
    results: Sequence[Results],
    *,
    sets: Sequence[str],
    control: Sequence[str] = (),
    entries: Mapping[str, str] | None = None,
) -> tuple[Comparison, ...]:
    """Compare the phases of an experiment on each set that any of them was evaluated on.

    With a control (the names of its runs) the others are compared with it and their baselines only.
    ``entries`` is that of :func:`replicates_of`.
    """
    found = []
    for name in sets:
        there = [one for one in results if name in one.evaluation_names]
        if len(there) > 1 or (there and "tfidf_logreg" in there[0].baselines(name)):
            own = [run for run in control if any(one.name == run for one in there)]
            found.append(compare_runs(there, on=name, control=own, entries=entries))
    return tuple(found)
