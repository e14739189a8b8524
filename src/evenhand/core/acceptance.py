"""The record of whether a mitigation was accepted: ``acceptance.json`` is a list of them.

It is made in :mod:`evenhand.decide.acceptance`. Rates are fractions; differences are
``treated - control``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from evenhand.core.decisions import LabelUnit
from evenhand.core.evaluation import MetricValue, Record

ConditionKind = Literal["fpr_falls", "f1_holds", "fpr_holds", "fnr_holds", "functional_holds"]
ConditionStatus = Literal["met", "violated", "undecided"]


class Condition(Record):
    """One thing that must be shown before a mitigation is accepted.

    Attributes:
        kind: what it is; of the ``fpr_falls`` one suffices, of the others all are needed.
        subject: the target group, or the family of functional cases; None over all rows.
        metric: ``f1``, ``fpr``, ``fnr`` or ``accuracy``.
        control: the untreated value; a mean where there are several seeds.
        treated: the treated value.
        difference: ``treated - control`` with its paired interval.
        confidence: the level of that interval. 1 - 2 alpha where one end of it decides, 1 - alpha
            for ``fpr_falls``, which a two-sided test decides.
        margin: the largest change for the worse that is accepted; None for ``fpr_falls``.
        p_value: of the two-sided test that the FPR differs; None for other kinds.
        p_holm: adjusted over the targeted groups (Holm 1979).
        n: labels that it rests on, of the kind ``label_unit``.
        n_clusters: the templates or threads that they come from; None where rows are independent.
        status: ``violated`` where the opposite is shown; ``undecided`` where neither is.
        labels_needed: about how many labels in all would settle it in four cases of five if the
            difference stays as it is; None where it is settled or labels would not settle it.
        depends_on_unanswered: whether it is undecided only because rows without a decision, counted
            as wrong, give another status.
    """

    kind: ConditionKind
    subject: str | None
    metric: str
    control: float | None
    treated: float | None
    difference: MetricValue
    confidence: float
    margin: float | None
    p_value: float | None = None
    p_holm: float | None = None
    n: int
    label_unit: LabelUnit
    n_clusters: int | None
    status: ConditionStatus
    labels_needed: int | None = None
    depends_on_unanswered: bool = False


class Acceptance(Record):
    """Whether a treated model is accepted in the place of its control.

    Attributes:
        set: the held-out set; ``functional`` is the one of functional cases, None without.
        control: the untreated model's name, ``treated`` the other's.
        replicates: for a name that stands for several seeds, the runs behind it.
        thresholds: the decision threshold of each run on ``set``; None where there was no score.
        at_recall: the share of the hate of ``fitted_on`` that each threshold finds; None where each
            run decided as it was evaluated.
        groups: the targeted groups, one of whose FPR must fall.
        falls: those whose FPR does.
        n: rows of ``set`` that every run decided; ``n_left_out`` had no decision from at least one.
        accepted: whether an FPR falls and every other condition is met.
    """

    set: str
    functional: str | None
    control: str
    treated: str
    replicates: Mapping[str, tuple[str, ...]]
    thresholds: Mapping[str, float | None]
    at_recall: float | None = None
    fitted_on: str | None = None
    groups: tuple[str, ...]
    f1_margin: float
    group_margin: float
    target_fnr_margin: float
    functional_margin: float | None
    alpha: float
    n: int
    n_left_out: int
    conditions: tuple[Condition, ...]
    falls: tuple[str, ...]
    accepted: bool

    def of(self, kind: ConditionKind) -> tuple[Condition, ...]:
        """Return the conditions of one kind."""
        return tuple(one for one in self.conditions if one.kind == kind)

    @property
    def missing(self) -> tuple[Condition, ...]:
        """What keeps it from being accepted; of several groups whose FPR might fall, each."""
        return tuple(
            one
            for one in self.conditions
            if one.status != "met" and not (one.kind == "fpr_falls" and self.falls)
        )
