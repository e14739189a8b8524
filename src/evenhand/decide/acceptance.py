"""Whether a mitigation is accepted: an FPR falls, and nothing else is lost beyond its margin."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from evenhand.config.experiment_schema import AcceptanceConfig
from evenhand.core.acceptance import Acceptance, Condition, ConditionKind, ConditionStatus
from evenhand.core.decisions import LabelUnit
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.predictions import Predictions
from evenhand.core.registry import suggest
from evenhand.data.starter import functionalities
from evenhand.decide.alignment import Answers, align
from evenhand.decide.effects import Cells, Effect, template_effect
from evenhand.decide.families import correct
from evenhand.decide.paired import Metric

FAMILIES = ("identity", "counter_speech")
"""The families of functional cases that must hold: harmless texts that name a group."""

_HATECHECK = {
    "ident_neutral_nh": "identity",
    "ident_pos_nh": "identity",
    "counter_quote_nh": "counter_speech",
    "counter_ref_nh": "counter_speech",
}
_UNITS: Mapping[str, LabelUnit] = {"fpr": "normal rows", "fnr": "hate rows"}
_HIGHER_IS_BETTER = frozenset({"f1", "accuracy"})


@dataclass(frozen=True, eq=False)
class Versus:
    """A treated model and its control, by name, with the runs behind each (one, or its seeds).

    Attributes:
        models: each run's predictions on the held-out set.
        functional: each run's predictions on functional cases; None where those are not judged.
    """

    control: str
    treated: str
    runs: Mapping[str, Sequence[str]]
    models: Mapping[str, Predictions]
    functional: Mapping[str, Predictions] | None = None

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The numbers of the runs on each side, the control's first."""
        first, second = (len(self.runs[name]) for name in (self.control, self.treated))
        return tuple(range(first)), tuple(range(first, first + second))

    def of(self, predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
        """Return the predictions of the runs, in the order of ``sides``."""
        names = [*self.runs[self.control], *self.runs[self.treated]]
        return {name: predictions[name] for name in names}


def accept(
    versus: Versus,
    *,
    rule: AcceptanceConfig,
    rng: np.random.Generator,
    thresholds: Mapping[str, float | None] | None = None,
    n_bootstrap: int = 10_000,
) -> Acceptance:
    """Decide whether a treated model is accepted in the place of its control.

    It is accepted where the FPR of at least one targeted group falls, by the two-sided paired test
    after Holm's correction over the targeted groups, and every other condition is met: the
    one-sided bound at level ``alpha`` stays within its margin for the loss of F1, the rise of every
    group's FPR and FNR (a targeted group's own FNR has a margin of its own), and the loss of
    accuracy on each family of functional cases. Conditions
    that must all hold need no correction between them (intersection-union: Berger 1982,
    Technometrics 24).

    Decisions count as they are. Rows that a run left undecided are left out. Each condition is then
    judged again over all rows, with a missing decision counted as a wrong one, and is undecided
    where the two differ.

    Args:
        versus: the two sides and their predictions.
        rule: targeted groups, margins and level.
        rng: draws the resamples.
        thresholds: each run's decision threshold, for the record.
        n_bootstrap: resamples.

    Raises:
        DataError: the runs' rows differ, or have no label.
        ConfigError: a targeted group, or the functional cases, are not in the predictions.
    """
    models = versus.of(versus.models)
    answers, complete = align(models), align(models, unanswered="wrong")
    groups = tuple(complete.groups)
    targeted = groups if rule.groups is None else rule.groups
    cases = None if versus.functional is None else _cases(versus.of(versus.functional))
    _refuse(rule, groups=groups, cases=None if cases is None else cases[1])
    judge = _Judge(versus, rule, targeted, n_bootstrap)
    first, second = rng.spawn(2)
    conditions = judge.conditions(answers, None if cases is None else cases[0], groups, rng=first)
    if answers.n_left_out or (cases is not None and cases[0].n_left_out):
        again = judge.conditions(complete, None if cases is None else cases[1], groups, rng=second)
        conditions = list(itertools.starmap(_agreed, zip(conditions, again, strict=True)))
    falls = tuple(
        one.subject
        for one in conditions
        if one.kind == "fpr_falls" and one.status == "met" and one.subject is not None
    )
    return Acceptance(
        set=rule.set,
        functional=None if cases is None else rule.functional,
        control=versus.control,
        treated=versus.treated,
        replicates={name: tuple(runs) for name, runs in versus.runs.items() if len(runs) > 1},
        thresholds={name: (thresholds or {}).get(name) for name in models},
        at_recall=rule.at_recall,
        fitted_on=rule.fitted_on,
        groups=targeted,
        f1_margin=rule.f1_margin,
        group_margin=rule.group_margin,
        target_fnr_margin=rule.target_fnr_margin,
        functional_margin=None if cases is None else rule.functional_margin,
        alpha=rule.alpha,
        n=len(answers),
        n_left_out=answers.n_left_out,
        conditions=tuple(conditions),
        falls=falls,
        accepted=bool(falls)
        and all(one.status == "met" for one in conditions if one.kind != "fpr_falls"),
    )


@dataclass(frozen=True, eq=False)
class _Judge:
    """What every condition is judged by."""

    versus: Versus
    rule: AcceptanceConfig
    targeted: tuple[str, ...]
    n_bootstrap: int

    def conditions(
        self,
        answers: Answers,
        cases: Answers | None,
        groups: Sequence[str],
        *,
        rng: np.random.Generator,
    ) -> list[Condition]:
        """Return every condition: falls, F1, each group's FPR and FNR, functional families."""
        nobody = np.zeros(len(answers), dtype=bool)
        there = {name: answers.groups.get(name, nobody) for name in groups}
        cells = Cells(replace(answers, groups=there), *self.versus.sides, self.n_bootstrap, rng)
        rates: list[tuple[Metric, str | None]] = [
            (metric, group) for metric in ("fpr", "fnr") for group in groups
        ]
        f1, *others = cells.effects([("f1", None), *rates])
        of = dict(zip(rates, others, strict=True))
        found = self._falls({name: of["fpr", name] for name in self.targeted})
        found.append(self._holds("f1_holds", None, f1))
        found += [
            self._holds("fpr_holds" if metric == "fpr" else "fnr_holds", group, effect)
            for (metric, group), effect in of.items()
        ]
        if cases is not None:
            nothing = np.zeros(len(cases), dtype=bool)
            for family in FAMILIES:
                rows = cases.groups.get(family, nothing)
                effect = template_effect(cases, *self.versus.sides, rows)
                found.append(self._holds("functional_holds", family, effect))
        return found

    def _falls(self, effects: Mapping[str, Effect]) -> list[Condition]:
        """Return for each targeted group whether its FPR is shown to fall."""
        alpha = self.rule.alpha
        tested = {name: one for name, one in effects.items() if one.p_value is not None}
        corrected = correct(
            [one.p_value or 0.0 for one in tested.values()],
            [one.least for one in tested.values()],
            alpha=alpha,
        )
        p_holm = dict(zip(tested, corrected.p_values.tolist(), strict=True))
        tail = alpha / 2 / max(corrected.size, 1)
        found = []
        for group, effect in effects.items():
            value, p_value = effect.value or 0.0, p_holm.get(group)
            status: ConditionStatus = "undecided"
            if p_value is not None and p_value <= alpha and value != 0.0:
                status = "met" if value < 0.0 else "violated"
            is_open = status == "undecided" and value < 0.0
            one = Condition(
                kind="fpr_falls",
                subject=group,
                metric="fpr",
                control=effect.first,
                treated=effect.second,
                difference=effect.bounds(alpha / 2),
                confidence=1 - alpha,
                margin=None,
                p_value=effect.p_value,
                p_holm=p_value,
                n=effect.n,
                label_unit="normal rows",
                n_clusters=effect.n_clusters,
                status=status,
                labels_needed=effect.labels_needed(value, tail=tail) if is_open else None,
            )
            found.append(one)
        return found

    def _holds(self, kind: ConditionKind, subject: str | None, effect: Effect) -> Condition:
        """Return whether a metric is shown to be worse by no more than its margin."""
        metric, margin = self._metric_and_margin(kind, subject)
        alpha = self.rule.alpha
        difference = effect.bounds(alpha)
        sign = -1.0 if metric in _HIGHER_IS_BETTER else 1.0
        status: ConditionStatus = "undecided"
        needed = None
        if effect.value is not None and difference.low is not None and difference.high is not None:
            least, most = sorted((sign * difference.low, sign * difference.high))
            status = "met" if most <= margin else "violated" if least > margin else "undecided"
            if status == "undecided":
                needed = effect.labels_needed(margin - sign * effect.value, tail=alpha)
        return Condition(
            kind=kind,
            subject=subject,
            metric=metric,
            control=effect.first,
            treated=effect.second,
            difference=difference,
            confidence=1 - 2 * alpha,
            margin=margin,
            n=effect.n,
            label_unit=_UNITS.get(metric, "rows"),
            n_clusters=effect.n_clusters,
            status=status,
            labels_needed=needed,
        )

    def _metric_and_margin(self, kind: ConditionKind, subject: str | None) -> tuple[str, float]:
        if kind == "f1_holds":
            return "f1", self.rule.f1_margin
        if kind == "functional_holds":
            return "accuracy", self.rule.functional_margin
        if kind == "fnr_holds" and subject in self.targeted:
            return "fnr", self.rule.target_fnr_margin
        return kind.removesuffix("_holds"), self.rule.group_margin


def family_of(functionality: str | None) -> str | None:
    """Return the family that must hold which a functional case is of, or None.

    >>> family_of("counter_quote_nh"), family_of("pride"), family_of("threat")
    ('counter_speech', 'identity', None)
    """
    own = {one.name: one.family for one in functionalities() if one.family in FAMILIES}
    return (own | _HATECHECK).get(functionality or "")


def _cases(models: Mapping[str, Predictions]) -> tuple[Answers, Answers]:
    """Return the answers on the cases of :data:`FAMILIES`, which stand as groups.

    The first are of the rows that every run decided; in the others, of all rows, a missing decision
    is a wrong one.
    """
    kept = {}
    for name, predictions in models.items():
        frame = predictions.frame
        family = frame["fine_label"].map(family_of)
        there = family.notna()
        named = pd.Series([[one] for one in family[there]], index=frame.index[there], dtype=object)
        kept[name] = Predictions(frame[there].assign(group=named))
    return align(kept), align(kept, unanswered="wrong")


def _agreed(answered: Condition, all_rows: Condition) -> Condition:
    """Return the condition over the answered rows, undecided where the other rows change it."""
    if answered.status in (all_rows.status, "undecided"):
        return answered
    return answered.model_copy(
        update={"status": "undecided", "labels_needed": None, "depends_on_unanswered": True}
    )


def _refuse(rule: AcceptanceConfig, *, groups: Sequence[str], cases: Answers | None) -> None:
    problems = [
        Problem(name, f"no row of {rule.set} is of this group{suggest(name, groups)}")
        for name in rule.groups or ()
        if name not in groups
    ]
    if not groups:
        problems.append(Problem(rule.set, "its rows name no group, so no group's FPR can fall"))
    if cases is not None and not len(cases):
        known = ", ".join([*_HATECHECK, "or those of the starter corpus"])
        problems.append(
            Problem(
                rule.functional or "functional",
                f"has no identity or counter-speech case: its fine_label is none of {known}",
            )
        )
    if problems:
        raise ConfigError("the acceptance", problems, consequence="nothing was judged")
