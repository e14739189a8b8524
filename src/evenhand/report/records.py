"""What a summary is made of: phases, evaluation sets, the selection, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evenhand.core.acceptance import Acceptance
from evenhand.core.decisions import (
    Audit,
    Comparison,
    Deployment,
    GateVerdict,
    PairedTest,
    Threshold,
    ThresholdReport,
)
from evenhand.core.evaluation import Evaluation


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """The scored rows of one evaluation, for curves.

    Attributes:
        is_hate: whether the label is hate, bool, shape (n,).
        score: p(hate), shape (n,).
    """

    is_hate: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class ErrorExample:
    """One row that was decided wrongly; ``text`` only where posts were asked for."""

    id: str
    group: str
    label: str
    decision: str
    fine_label: str | None
    score: float | None
    text: str | None = None


@dataclass(frozen=True)
class PhaseReport:
    """One phase: its configuration, its training record, its evaluations, its decisions.

    Attributes:
        config: the resolved configuration; empty where an import came without one.
        config_source: the file it came from; None where it stood in the experiment file.
        training: the content of ``training.json``; None where nothing was trained, or nothing is
            known of a training.
        evaluations: by evaluation set.
        warnings: keys without effect and other remarks of the run.
        parent: the phase whose adapter this one continued.
        threshold: the tuned threshold, and what it does on rows it was not fitted on.
        verdict: the gate's; ``deployment`` is the record that was written from it.
        stated: figures that an import was told, by name: ``value``, ``status`` (``verified``,
            ``contradicted`` or ``stated, not verified``) and ``found``.
        imported: the content of ``manifest["imported"]``; None for a run that was trained here.
        history: lines of ``history.jsonl``, for the loss curves.
        scored: scored rows by evaluation set, for the curves.
        examples: confident errors by evaluation set.
    """

    name: str
    hypothesis: str | None
    config: Mapping[str, Any]
    config_source: str | None
    run_dir: str
    training: Mapping[str, Any] | None
    evaluations: Mapping[str, Evaluation]
    warnings: tuple[str, ...] = ()
    parent: str | None = None
    threshold: Threshold | None = None
    threshold_report: ThresholdReport | None = None
    verdict: GateVerdict | None = None
    deployment: Deployment | None = None
    stated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    imported: Mapping[str, Any] | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    scored: Mapping[str, ScoredRows] = field(default_factory=dict)
    examples: Mapping[str, tuple[ErrorExample, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SetReport:
    """One evaluation set: its role (train, validation, test, production) and its composition."""

    name: str
    role: str
    file: str
    sha256: str | None
    rows: int
    n_hate: int
    groups: Mapping[str, int]


@dataclass(frozen=True)
class Selection:
    """Which phase was chosen, on which set, by which metric."""

    set: str
    metric: str
    chosen: str
    values: Mapping[str, float | None]
    reason: str


@dataclass(frozen=True)
class Setting:
    """Phases that differ in nothing but their seed; one phase where there are no seeds.

    Attributes:
        name: the phase's of the experiment's file.
        phases: at least one; the first is the one that is told of in full.
    """

    name: str
    phases: tuple[PhaseReport, ...]


@dataclass(frozen=True)
class Summary:
    """An experiment, ready to be written down.

    Attributes:
        created: an ISO date.
        audit: None where none was made.
        comparisons: paired tests, one record per evaluation set; its models are phase names (and,
            where they were compared too, baselines).
        acceptances: for each treated phase (or its seeds) whether it is accepted.
        commands: the commands that repeat the result, in order.
        control: the phases, one a seed, that the others are compared with; empty: none is named.
    """

    name: str
    description: str | None
    created: str
    phases: tuple[PhaseReport, ...]
    sets: tuple[SetReport, ...]
    selection: Selection | None
    prompt: Mapping[str, Any]
    machine: Mapping[str, Any]
    command: str | None
    notes: tuple[str, ...] = ()
    audit: Audit | None = None
    comparisons: tuple[Comparison, ...] = ()
    acceptances: tuple[Acceptance, ...] = ()
    commands: tuple[str, ...] = ()
    control: tuple[str, ...] = ()

    def phase(self, name: str) -> PhaseReport | None:
        """Return the phase of that name, or None."""
        return next((phase for phase in self.phases if phase.name == name), None)

    @property
    def chosen(self) -> PhaseReport | None:
        """The chosen phase; without a selection the only one that was run on production rows."""
        if self.selection is not None:
            return self.phase(self.selection.chosen)
        production = [
            phase
            for phase in self.phases
            if any(self.role(name) == "production" for name in phase.evaluations)
        ]
        candidates = production or self.phases
        return candidates[0] if len(candidates) == 1 else None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The phases, seeds of one setting together: the chosen one, else the first, leads.

        On a set that not every seed was evaluated on fewer were compared; the most seeds count.
        """
        groups = (item for one in self.comparisons for item in one.replicates.items())
        largest_first = sorted(groups, key=lambda item: len(item[1]), reverse=True)
        name_of = {run: name for name, runs in reversed(largest_first) for run in runs}
        chosen = None if self.selection is None else self.selection.chosen
        found: dict[str, list[PhaseReport]] = {}
        for phase in self.phases:
            found.setdefault(name_of.get(phase.name, phase.name), []).append(phase)
        return tuple(
            Setting(name, tuple(sorted(phases, key=lambda phase: phase.name != chosen)))
            for name, phases in found.items()
        )

    def setting(self, phase: PhaseReport) -> Setting:
        """Return the setting that a phase is a seed of."""
        return next(
            one for one in self.settings if any(own.name == phase.name for own in one.phases)
        )

    @property
    def own_models(self) -> frozenset[str]:
        """The names under which phases are compared: their own, or that of several seeds."""
        phases = {phase.name for phase in self.phases}
        return frozenset(phases).union(
            name
            for comparison in self.comparisons
            for name, runs in comparison.replicates.items()
            if phases.issuperset(runs)
        )

    def compared_as(self, set_name: str, phase: PhaseReport) -> str:
        """Return the name under which a phase was compared on a set: its seeds', else its own."""
        comparison = next((one for one in self.comparisons if one.set == set_name), None)
        return phase.name if comparison is None else seeds_of(comparison, phase.name)

    def set_report(self, name: str) -> SetReport | None:
        """Return the evaluation set of that name, or None."""
        return next((item for item in self.sets if item.name == name), None)

    def set_names(self) -> tuple[str, ...]:
        """Return every evaluation set: those listed, then those that only phases name."""
        named = [item.name for item in self.sets]
        named += [name for phase in self.phases for name in phase.evaluations]
        return tuple(dict.fromkeys(named))

    def role(self, name: str) -> str:
        """Return a set's role; ``evaluation`` where the set is not listed."""
        listed = self.set_report(name)
        return "evaluation" if listed is None else listed.role

    def paired_test(
        self, set_name: str, models: tuple[str, str], *, metric: str, group: str | None = None
    ) -> PairedTest | None:
        """Return the paired test of ``models[1]`` against ``models[0]``, or None.

        A test that was made in the other order is turned round. A phase that was compared as one of
        several seeds stands for them all.
        """
        for comparison in self.comparisons:
            if comparison.set != set_name:
                continue
            first, second = (seeds_of(comparison, name) for name in models)
            for order, other_way in (((first, second), False), ((second, first), True)):
                pair = comparison.pair(*order)
                test = None if pair is None else pair.test(metric, group)
                if test is not None:
                    return turned(test) if other_way else test
        return None


def seeds_of(comparison: Comparison, phase: str) -> str:
    """Return the name under which a phase was compared: that of its seeds, else its own."""
    return next((name for name, runs in comparison.replicates.items() if phase in runs), phase)


def turned(test: PairedTest) -> PairedTest:
    """Return a test with its two models in the other order."""
    difference = test.difference
    low, high = difference.low, difference.high
    mirrored = difference.model_copy(
        update={
            "value": None if difference.value is None else -difference.value,
            "low": None if high is None else -high,
            "high": None if low is None else -low,
        }
    )
    verdict = {"better": "worse", "worse": "better"}.get(test.verdict, test.verdict)
    return test.model_copy(
        update={
            "first": test.second,
            "second": test.first,
            "difference": mirrored,
            "verdict": verdict,
        }
    )
