"""From experiment folders to one compact record: numbers only, no texts, the same every time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.campaign.analyses import (
    at_recall_floor,
    baseline_at_floor,
    break_even,
    ceiling,
    less_recommended,
    tuned,
)
from benchmarks.campaign.catalogue import AIMED_SETS, FINALS, RECOMMENDED, Place
from benchmarks.campaign.facts import experiment_facts
from benchmarks.campaign.reading import BASELINE, Finished, finished_entries, read_experiment

from evenhand.core.paths import read_json
from evenhand.data.fingerprint import normalise
from evenhand.data.sources import read_dataset

FORMAT = 1
SPEED = "speed.json"
_DIGITS = 6
_SEEDS_KEPT = ("f1", "roc_auc")
_BY_MODEL = ("tuned", "recall_floor", "break_even", "recommended", "finals", "ceiling")
_FILES = ("unified_train", "unified_val", "unified_test")


def collect(
    places: Sequence[Place], *, experiments: Path, data: Path | None = None
) -> dict[str, Any]:
    """Return the campaign's record.

    Args:
        places: the experiments; those that were not run yet are named as such.
        experiments: the folder of their folders, where ``speed.json`` may lie too.
        data: the folder of the real data, for the count of texts that have both labels.
    """
    found = [read_experiment(place) for place in places]
    analysed = [one for one in found if one.every_run]
    models = [one for one in analysed if one.name == "small_models" or one.name in finals(found)]
    speed = experiments / SPEED
    return _rounded(
        {
            "format": FORMAT,
            "experiments": {one.name: experiment_facts(one) for one in found},
            "tuned": _each(_with_first(analysed, models), tuned),
            "recall_floor": _floors(models),
            "break_even": _each(models, break_even),
            "recommended": _each([one for one in analysed if one.name == RECOMMENDED], _aimed),
            "finals": less_recommended([one for one in analysed if one.name in finals(found)]),
            "ceiling": _each(models, ceiling),
            "conflicts": None if data is None else conflicts(data),
            "speed": read_json(speed) if speed.is_file() else None,
        }
    )


def with_earlier(record: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record in which what is not here stays as an earlier record had it.

    Somebody who runs one experiment has no folders of the others; their figures stay. An experiment
    of which at least one run is here is taken from here alone.
    """
    own, known = record["experiments"], earlier["experiments"]
    absent = {name for name, facts in own.items() if not facts["finished"] and name in known}
    merged = {key: earlier[key] if value is None else value for key, value in record.items()}
    merged["experiments"] = {name: (known if name in absent else own)[name] for name in own}
    for key in _BY_MODEL:
        merged[key] = {
            entry: facts
            for name in own
            for entry, facts in (earlier if name in absent else record).get(key, {}).items()
            if entry.startswith(f"{name}/")
        }
    return merged


def finals(found: Sequence[Finished]) -> tuple[str, ...]:
    """Return the experiments of final models."""
    return tuple(one.name for one in found if one.name in FINALS or one.name.startswith("final_"))


def conflicts(data: Path) -> dict[str, int] | None:
    """Return how many texts of the corpus stand in it more than once, and with both labels."""
    files = [data / "unified" / f"{name}.json" for name in _FILES]
    if not all(file.is_file() for file in files):
        return None
    labels: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for row in read_dataset(file, on_bad_row="skip").rows:
            labels[normalise(row.text)].append(str(row.label))
    repeated = [found for found in labels.values() if len(found) > 1]
    return {
        "rows": sum(map(len, labels.values())),
        "texts": len(labels),
        "repeated": len(repeated),
        "with_both_labels": sum(len(set(found)) > 1 for found in repeated),
    }


def _floors(models: Sequence[Finished]) -> dict[str, Any]:
    """Analyse each experiment's models, and the baseline on its training rows."""
    floors: dict[str, Any] = {}
    for one in models:
        floors |= _each([one], lambda found, entry: at_recall_floor(found, found.names(entry)))
        if (baseline := baseline_at_floor(one)) is not None:
            floors[f"{one.name}/{BASELINE}"] = baseline
    return floors


def _aimed(found: Finished, entry: str) -> dict[str, Any] | None:
    return tuned(found, entry, on=AIMED_SETS)


def _with_first(analysed: Sequence[Finished], models: Sequence[Finished]) -> list[Finished]:
    """Return the models, and before them the untreated one of the mitigations."""
    return [one for one in analysed if one.name == "mitigation"] + list(models)


def _each(experiments: Sequence[Finished], analyse: Any) -> dict[str, Any]:
    """Analyse every finished entry; by ``EXPERIMENT/ENTRY``."""
    results = {}
    for one in experiments:
        control = one.experiment.config.control if one.name == "mitigation" else None
        for entry in finished_entries(one):
            if control in (None, entry) and (result := analyse(one, entry)) is not None:
                results[f"{one.name}/{entry}"] = result
    return results


def _rounded(value: Any) -> Any:
    """Round for the file: more digits than the intervals warrant, fewer than machines differ in."""
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(_short(key, item)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _short(key: str, value: Any) -> Any:
    """Leave each seed's value out of a figure that is not read by seed."""
    is_figure = isinstance(value, Mapping) and "seeds" in value and "high" in value
    if not is_figure or key in _SEEDS_KEPT:
        return value
    return {name: item for name, item in value.items() if name != "seeds"}
