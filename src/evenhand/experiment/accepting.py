"""Whether treated runs are accepted in the place of a control, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evenhand.config.experiment_schema import AcceptanceConfig
from evenhand.config.load import LoadedExperiment
from evenhand.core.acceptance import Acceptance
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.paths import write_json
from evenhand.core.predictions import decided_at
from evenhand.core.records import HATE
from evenhand.core.registry import suggest
from evenhand.core.seeding import rng_for
from evenhand.decide.acceptance import Versus, accept
from evenhand.experiment.comparing import replicates_of
from evenhand.experiment.results import Results
from evenhand.measure.operating import highest_threshold

FILE = "acceptance.json"

_SEED = 0


def accept_runs(
    results: Sequence[Results],
    *,
    control: Sequence[str],
    rule: AcceptanceConfig,
    entries: Mapping[str, str] | None = None,
) -> tuple[Acceptance, ...]:
    """Decide for each run, or several seeds of one, whether it is accepted against the control.

    Args:
        results: the runs, the control's among them.
        control: the names of the control's runs; one is enough for all its seeds.
        rule: the sets, groups, margins and level.
        entries: of which phase of the experiment's file each run is a seed; None: told by their
            configurations.

    Raises:
        ConfigError: the control is not there or is more than one configuration, or a run was not
            evaluated on one of the sets.
        DataError: the runs were not evaluated on the same rows, or a threshold was asked for where
            a row has no score.
    """
    named = {one.name: one for one in results}
    runs = _sides(results, entries)
    untreated = [name for name, own in runs.items() if set(own) & set(control)]
    problems = [
        Problem("control", f'"{name}" is not among the runs{suggest(name, named)}')
        for name in control
        if name not in named
    ]
    if len(untreated) > 1:
        problems.append(
            Problem(
                "control",
                f"{' and '.join(untreated)} differ in more than their seed; name one configuration",
            )
        )
    treated = [name for name in runs if name not in untreated]
    if not treated:
        problems.append(Problem("control", "there is no other run to judge against it"))
    if problems:
        raise ConfigError("the acceptance", problems, consequence="nothing was judged")
    models = {name: one.predictions(rule.set) for name, one in named.items()}
    functional = rule.functional
    cases = None
    if functional is not None:
        cases = {name: one.predictions(functional) for name, one in named.items()}
    thresholds: Mapping[str, float | None]
    if rule.at_recall is None:
        thresholds = {name: one.evaluation(rule.set).threshold for name, one in named.items()}
    else:
        thresholds = at = {name: _threshold_at_recall(one, rule) for name, one in named.items()}
        models = {name: decided_at(one, at[name]) for name, one in models.items()}
        cases = cases and {name: decided_at(one, at[name]) for name, one in cases.items()}
    found = []
    for name in treated:
        versus = Versus(untreated[0], name, runs, models, cases)
        rng = rng_for(_SEED, f"accept {rule.set} {name}")
        found.append(accept(versus, rule=rule, rng=rng, thresholds=thresholds))
    return tuple(found)


def accept_phases(
    experiment: LoadedExperiment, results: Sequence[Results]
) -> tuple[Acceptance, ...]:
    """Decide it for the phases of an experiment; nothing where it asks for no acceptance."""
    rule = experiment.config.acceptance
    if rule is None:
        return ()
    if rule.at_recall is not None and rule.fitted_on is None:
        rule = rule.model_copy(update={"fitted_on": experiment.selection_set.name})
    there = [one for one in results if rule.set in one.evaluation_names]
    entries = {one.name: one.entry for one in experiment.phases}
    return accept_runs(there, control=experiment.control_phases, rule=rule, entries=entries)


def _threshold_at_recall(results: Results, rule: AcceptanceConfig) -> float:
    """Return the highest threshold that finds the asked share of the hate of ``fitted_on``.

    Raises:
        ConfigError: no set is named, or it is one of those that are judged.
        DataError: a row has no score, or none is hate.
    """
    assert rule.at_recall is not None
    if rule.fitted_on is None or rule.fitted_on in (rule.set, rule.functional):
        message = "name a set for the thresholds that is none of those that are judged"
        raise ConfigError("the acceptance", [Problem("fitted_on", message)])
    frame = decided_at(results.predictions(rule.fitted_on), 0.5).frame  # every row has a score
    scores = frame.loc[(frame["label"] == HATE) & (frame["status"] == "ok"), "score"].to_numpy(
        float
    )
    if not len(scores):
        source = f"{results.name} on {rule.fitted_on}"
        raise DataError(source, [Problem("label", "no row is hate, so no recall can be asked for")])
    return highest_threshold(scores, rule.at_recall)


def write_acceptances(found: Sequence[Acceptance], out: Path) -> None:
    """Write ``acceptance.json`` to an experiment's folder; without any, remove an earlier one."""
    file = out / FILE
    if found:
        write_json(file, [one.model_dump(mode="json") for one in found])
    else:
        file.unlink(missing_ok=True)


def _sides(
    results: Sequence[Results], entries: Mapping[str, str] | None
) -> dict[str, tuple[str, ...]]:
    """Return what is judged by name, in the order of the runs: a run, or several seeds."""
    groups = replicates_of(results, entries)
    if len(groups) == 1 and len(*groups.values()) == len(results):
        groups = {}  # the seeds of one configuration: there is nothing else to judge
    name_of = {run: name for name, runs in groups.items() for run in runs}
    names = dict.fromkeys(name_of.get(one.name, one.name) for one in results)
    return {name: groups.get(name, (name,)) for name in names}
