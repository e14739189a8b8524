"""What a summary is made of: phases, evaluation sets, the selection, and where it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.core.evaluation import Evaluation


@dataclass(frozen=True)
class PhaseReport:
    """One phase: its configuration, its training record, its evaluations.

    Attributes:
        config: the resolved configuration.
        config_source: the file it came from; None where it stood in the experiment file.
        training: the content of ``training.json``; None where nothing was trained.
        evaluations: by evaluation set.
        warnings: keys without effect and other remarks of the run.
        parent: the phase whose adapter this one continued.
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
class Summary:
    """An experiment, ready to be written down. ``created`` is an ISO date."""

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

    def phase(self, name: str) -> PhaseReport | None:
        """Return the phase of that name, or None."""
        return next((phase for phase in self.phases if phase.name == name), None)

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
