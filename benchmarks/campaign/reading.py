"""Finished run folders of an experiment, by configuration and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.campaign.catalogue import HELD_OUT, RECALL_FLOOR, VALIDATION, Place
from benchmarks.campaign.means import Rows, read_rows

from evenhand.config.factors import LOCATIONS, NO_EFFECT_ON_RESULT
from evenhand.config.load import LoadedExperiment, ResolvedPhase, load_experiment
from evenhand.core.acceptance import Acceptance
from evenhand.core.errors import ConfigError
from evenhand.core.paths import read_json
from evenhand.core.predictions import read_predictions
from evenhand.experiment.accepting import accept_runs
from evenhand.experiment.results import Results, open_results

BASELINE = "tfidf_logreg"


@dataclass(frozen=True)
class Finished:
    """What there is of one experiment.

    Attributes:
        runs: by entry of the experiment's file, the finished runs by their seed.
        missing: wanted runs that are not finished; ``other`` were made from another configuration.
    """

    place: Place
    experiment: LoadedExperiment
    runs: Mapping[str, Mapping[int, Results]]
    missing: tuple[str, ...]
    other: tuple[str, ...]

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.place.name

    @property
    def every_run(self) -> tuple[Results, ...]:
        """All finished runs."""
        return tuple(one for seeds in self.runs.values() for one in seeds.values())

    @cached_property
    def _read(self) -> dict[str, Rows]:
        return {}

    def names(self, entry: str, on: str | None = None) -> tuple[str, ...]:
        """Return an entry's runs, one a seed; those that were evaluated on a set."""
        found = self.runs.get(entry, {})
        return tuple(one.name for one in found.values() if on is None or on in one.evaluation_names)

    def entries_on(self, name: str) -> tuple[str, ...]:
        """Return the entries with a run that was evaluated on a set."""
        return tuple(entry for entry in self.runs if self.names(entry, name))

    def rows(self, name: str) -> Rows | None:
        """Return a set with every run's scores; a run's baseline is ``RUN/tfidf_logreg``."""
        there = [one for one in self.every_run if name in one.evaluation_names]
        if not there:
            return None
        if name not in self._read:
            predictions = {one.name: one.predictions(name) for one in there}
            for one in there:
                file = one.path / "evaluations" / name / "baselines" / f"{BASELINE}.parquet"
                if file.is_file():
                    predictions[f"{one.name}/{BASELINE}"] = read_predictions(file)
            self._read[name] = read_rows(name, predictions)
        return self._read[name]

    def acceptances(self) -> list[dict[str, Any]] | None:
        """Return what ``acceptance.json`` holds; None where there is none."""
        file = self.place.folder / "acceptance.json"
        if not file.is_file():
            return None
        found = read_json(file)
        return found if isinstance(found, list) else list(found.get("acceptances", []))

    def at_equal_recall(self) -> list[dict[str, Any]]:
        """Judge the experiment's acceptance anew, with every run at the recall floor."""
        level = {"at_recall": RECALL_FLOOR, "fitted_on": VALIDATION}
        return [one.model_dump(mode="json") for one in self._judged(self.every_run, level)]

    def seed_by_seed(self) -> dict[str, dict[str, bool]]:
        """Judge each seed's runs as if there were no other: accepted or not, by entry and seed."""
        found: dict[str, dict[str, bool]] = {}
        seeds = {seed for runs in self.runs.values() for seed in runs}
        for seed in sorted(seeds) if len(seeds) > 1 else ():
            of_seed = [runs[seed] for runs in self.runs.values() if seed in runs]
            for one in self._judged(of_seed, {}):
                entry = one.treated.partition("-seed")[0]
                found.setdefault(entry, {})[str(seed)] = one.accepted
        return found

    def _judged(self, runs: Sequence[Results], level: Mapping[str, Any]) -> tuple[Acceptance, ...]:
        rule, control = self.experiment.config.acceptance, self.experiment.config.control
        there = [one for one in runs if {VALIDATION, HELD_OUT} <= {*one.evaluation_names}]
        entries = {one.name: one.entry for one in self.experiment.phases}
        untreated = [one.name for one in there if entries[one.name] == control]
        if rule is None or not untreated or len(there) == len(untreated):
            return ()
        changes = dict(level)
        if any(rule.functional not in one.evaluation_names for one in there):
            changes["functional"] = None
        changed = rule.model_copy(update=changes)
        return accept_runs(there, control=untreated, rule=changed, entries=entries)


def read_experiment(place: Place) -> Finished:
    """Open an experiment's file and its finished runs; the data need not be there."""
    experiment = load_experiment(place.config, check_files=False)
    runs: dict[str, dict[int, Results]] = {phase.entry: {} for phase in experiment.phases}
    missing, other = [], []
    for phase in experiment.phases:
        found = _open(place.folder / "runs" / phase.name)
        if found is None:
            missing.append(phase.name)
        elif not _same_configuration(found, phase):
            other.append(phase.name)
        else:
            runs[phase.entry][phase.config.seed] = found
    return Finished(place, experiment, runs, tuple(missing), tuple(other))


def finished_entries(found: Finished) -> tuple[str, ...]:
    """Return the entries of which at least one run is finished."""
    return tuple(entry for entry, seeds in found.runs.items() if seeds)


def _open(folder: Path) -> Results | None:
    if not (folder / "manifest.json").is_file():
        return None
    try:
        return open_results(folder)
    except ConfigError:
        return None


def _same_configuration(found: Results, phase: ResolvedPhase) -> bool:
    """Whether a run was made as the file says, so that no other run is taken for it."""
    ignored = NO_EFFECT_ON_RESULT | LOCATIONS - {"model_name_or_path"}
    wanted = phase.config.model_dump(mode="json")
    keys: Sequence[str] = [key for key in wanted if key not in ignored]
    return all(wanted[key] == (found.config or {}).get(key) for key in keys)
