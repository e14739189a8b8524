"""What an audit looks at. Everything is optional: a check that lacks its input is skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from evenhand.core.decisions import GateVerdict
from evenhand.core.evaluation import Evaluation
from evenhand.core.records import Dataset
from evenhand.data.overlap import Texts
from evenhand.decide.audit.schedule import Schedule
from evenhand.prompts.template import PromptTemplate

Role = Literal["train", "validation", "test", "production"]
ROLES: tuple[Role, ...] = ("train", "validation", "test", "production")
TargetMetric = Literal["f1", "accuracy", "precision", "recall"]
TARGET_METRICS: tuple[TargetMetric, ...] = ("f1", "accuracy", "precision", "recall")


@dataclass(frozen=True)
class AuditSet:
    """A data file under its name and role."""

    name: str
    role: Role
    data: Dataset

    @cached_property
    def texts(self) -> Texts:
        """Its texts, normalised once for all checks."""
        return Texts(self.data.rows)


@dataclass(frozen=True)
class AuditPhase:
    """One training: planned, done here, or done elsewhere.

    Attributes:
        config: the configuration by key; None where it is not known.
        parent: the phase that this one starts from.
        train: the name of its training set; None: every training set there is.
        prompt: the prompt of its evaluation; None where it is not known or there is none.
        verbatim: whether it trains on chats as they stand in the file; None where not known.
        schedule: the updates that are planned or were made.
        count: counts trainable and total parameters, by the keys of ``stated``; called at most
            once, where a check needs them.
        stated: figures that somebody claims of it.
        training: the statistics of the training; None where it has not been done.
        embedding_parameters: parameters that no FLOP count has; 0 where not known.
    """

    name: str
    config: Mapping[str, Any] | None = None
    parent: str | None = None
    train: str | None = None
    prompt: PromptTemplate | None = None
    verbatim: bool | None = None
    schedule: Schedule | None = None
    count: Callable[[], Mapping[str, int]] = dict
    stated: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None
    embedding_parameters: int = 0

    @cached_property
    def counted(self) -> Mapping[str, int]:
        """Trainable and total parameters as counted; empty where they cannot be."""
        return self.count()


@dataclass(frozen=True)
class AuditEvaluation:
    """A model's evaluation on a set."""

    model: str
    set: str
    evaluation: Evaluation

    @property
    def subject(self) -> str:
        """The model and the set, as findings name them."""
        return f"{self.model} / {self.set}"


@dataclass(frozen=True, slots=True)
class Target:
    """A bar that a metric over all rows of a set is to reach, ``f1 >= 0.615`` for example.

    Attributes:
        set: the evaluation set; None: every one.
    """

    metric: TargetMetric
    at_least: float
    set: str | None = None


@dataclass(frozen=True)
class AuditInputs:
    """All that an audit may look at.

    Attributes:
        targets: bars that are known before a gate judges; ``more_required`` tells whether there
            are further required criteria beside them.
        uses: the record of what was evaluated on production rows (``production.json``).
        imported: for a model whose results were imported, the facts of the import.
    """

    sets: tuple[AuditSet, ...] = ()
    phases: tuple[AuditPhase, ...] = ()
    evaluations: tuple[AuditEvaluation, ...] = ()
    verdicts: tuple[GateVerdict, ...] = ()
    targets: tuple[Target, ...] = ()
    more_required: bool = False
    uses: tuple[Mapping[str, Any], ...] = ()
    imported: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def training_sets(self) -> tuple[AuditSet, ...]:
        """The sets of role train."""
        return tuple(one for one in self.sets if one.role == "train")

    @property
    def evaluation_sets(self) -> tuple[AuditSet, ...]:
        """The sets of any other role."""
        return tuple(one for one in self.sets if one.role != "train")

    def trained_on(self, phase: AuditPhase) -> tuple[AuditSet, ...]:
        """Return the training sets of a phase."""
        return tuple(one for one in self.training_sets if phase.train in (None, one.name))
