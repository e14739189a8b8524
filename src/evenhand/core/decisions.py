"""The records of what was concluded: audit, comparison, threshold, gate, deployment.

They are made in :mod:`evenhand.decide`, written as JSON, and read by the report, the server and the
monitor. Rates are fractions, differences are ``second - first``, dates are ISO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from evenhand.core.evaluation import Confusion, MetricValue, Record

Severity = Literal["error", "warning", "note"]
Status = Literal["pass", "fail", "undecided", "not_evaluated"]
Outcome = Literal["PASS", "PASS WITH CONDITIONS", "REVIEW", "FAIL"]
DeploymentStatus = Literal["approved", "approved_with_conditions", "needs_review", "rejected"]
PairVerdict = Literal["better", "worse", "no_evidence", "undefined"]
LabelUnit = Literal["rows", "normal rows", "hate rows"]
CriterionUnit = Literal["share", "points", "plain"]


class Finding(Record):
    """One thing that an audit found.

    Attributes:
        check: the check's name, ``exact_overlap`` for example.
        subject: what it is about: the files, sets, phases or groups.
        message: one sentence with the figures.
        evidence: the figures, and ids or row numbers (never the text of a post).
        remedy: one sentence: what to do.
        accepted: the reason with which the experiment accepts it; None where it does not.
    """

    check: str
    subject: str
    severity: Severity
    message: str
    evidence: Mapping[str, Any] = Field(default_factory=dict)
    remedy: str
    accepted: str | None = None


class Audit(Record):
    """What an audit found, which checks it made, and which it could not make and why."""

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    skipped: Mapping[str, str]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The errors that nobody accepted."""
        return tuple(
            one for one in self.findings if one.severity == "error" and one.accepted is None
        )


class PairedTest(Record):
    """One metric of two models on the same rows.

    Attributes:
        metric: ``f1``, ``accuracy``, ``fpr`` or ``fnr``.
        group: the target group; None over all rows.
        first: the first model's value.
        second: the second model's value.
        difference: ``second - first`` with its paired interval.
        test: the name of the test behind ``p_value``.
        p_value: two-sided, unadjusted; None where the test is undefined.
        least_p_value: the least p-value that the disagreements at hand could have given; a test for
            which it is above the level needed does not count in its family (Tarone 1990).
        p_holm: adjusted over the test's family (Holm 1979): F1 over all rows, of every pair, is
            one; all other metrics and groups are the second.
        n: rows (or labels of the class) that the test is over.
        n_discordant: rows on which exactly one of the two is right; None where not counted.
        minimum_detectable: the true difference that this sample finds with 80% power at the first
            step of Holm's correction: at the comparison's level over the size of the family.
        verdict: the second against the first.
        depends_on_unanswered: whether the verdict would be another, had missing decisions counted
            as wrong instead of their rows being left out; it is ``no_evidence`` then.
    """

    metric: str
    group: str | None
    first: float | None
    second: float | None
    difference: MetricValue
    test: str
    p_value: float | None
    p_holm: float | None
    n: int
    n_discordant: int | None
    minimum_detectable: float | None
    verdict: PairVerdict
    least_p_value: float | None = None
    depends_on_unanswered: bool = False

    @property
    def is_primary(self) -> bool:
        """Whether the test is in the first family: F1 over all rows."""
        return self.metric == "f1" and self.group is None


class Pair(Record):
    """Two models (or two groups of seeds) compared; ``verdict`` is that of F1 over all rows."""

    first: str
    second: str
    tests: tuple[PairedTest, ...]
    verdict: PairVerdict

    def test(self, metric: str, group: str | None = None) -> PairedTest | None:
        """Return the test of a metric over a group, or over all rows; None if there is none."""
        found = (t for t in self.tests if (t.metric, t.group) == (metric, group))
        return next(found, None)


class Comparison(Record):
    """Models compared on the same rows of one evaluation set.

    Attributes:
        set: the evaluation set.
        n: rows that every model scored; ``n_left_out`` had no decision from at least one.
        models: the names that were compared.
        replicates: for a name that stands for several seeds, the runs behind it.
        alpha: the level of the verdicts, in each of the two families after Holm's correction.
        n_primary: tests that count in the first family, F1 over all rows of every pair.
        n_secondary: tests that count in the second family, all others.
    """

    set: str
    n: int
    n_left_out: int
    n_clusters: int | None
    models: tuple[str, ...]
    replicates: Mapping[str, tuple[str, ...]]
    alpha: float
    n_bootstrap: int
    pairs: tuple[Pair, ...]
    n_primary: int = 0
    n_secondary: int = 0

    def pair(self, first: str, second: str) -> Pair | None:
        """Return the pair in this order, or None."""
        return next((p for p in self.pairs if (p.first, p.second) == (first, second)), None)


class Calibration(Record):
    """Temperature scaling fitted on validation rows (Guo et al. 2017), before and after there."""

    temperature: float
    n: int
    nll_before: float
    nll_after: float
    brier_before: float
    brier_after: float
    ece_before: float
    ece_after: float


class ThresholdRule(Record):
    """What a threshold was asked for.

    Attributes:
        maximise: the metric that the allowed thresholds compete on.
        max_group_fpr: the highest FPR that any group may have; None: no limit.
        max_fpr_gap: the highest excess of a group's FPR over the rows outside it; None: no limit.
        confidence: how sure the limits are to hold beyond the rows it was fitted on.
        procedure: how that is guaranteed, in words.
        n_candidates: models that these rows chose among, phases times checkpoints; each is tested
            at its share of the error.
    """

    maximise: Literal["f1", "recall"]
    max_group_fpr: float | None
    max_fpr_gap: float | None
    confidence: float
    procedure: str
    n_candidates: int = 1


class FittedOn(Record):
    """The rows that a threshold was fitted on; ``share`` is None where it was the whole set."""

    set: str
    rows_sha256: str
    n: int
    share: float | None


class Binding(Record):
    """Hashes of the model that a threshold or a verdict belongs to; None where there is none."""

    run: str
    adapter: str | None
    prompt: str | None
    base: str | None


class Threshold(Record):
    """A frozen decision threshold: the content of ``threshold.json``."""

    value: float
    rule: ThresholdRule
    fitted_on: FittedOn
    binding: Binding
    calibration: Calibration | None
    created: str


class ThresholdReport(Record):
    """A threshold on rows that it was not fitted on: ``threshold_report.json``.

    Attributes:
        set: the evaluation set; ``share`` is the part that was reported on, None for all.
        default: the decision threshold it is compared with.
        tests: default (first) against tuned (second), paired.
    """

    set: str
    share: float | None
    n: int
    default: float
    value: float
    before: Confusion
    after: Confusion
    comparison: Comparison
    calibration_before: Mapping[str, float]
    calibration_after: Mapping[str, float]


class CriterionPart(Record):
    """One group as it was judged under a criterion that every group must meet.

    Attributes:
        labels: the labelled and answered rows there are now, of the kind ``label_unit``.
        labels_needed: about how many of them, in all, would settle it; None where it is settled
            or where labels would not settle it.
        settling: for an undecided one, what would settle it, in words; else empty.
    """

    status: Status
    measured: MetricValue
    labels: int | None = None
    labels_needed: int | None
    label_unit: LabelUnit | None = None
    settling: str = ""


class CriterionResult(Record):
    """One criterion as it was judged.

    Attributes:
        name: as printed.
        definition: what it means and why its bound is where it is; may be empty.
        metric: the metric, ``fpr`` for example; ``fpr_gap`` is a group's rate minus that of the
            rows outside it.
        unit: how ``measured``, the values in ``parts`` and those in ``constants`` are printed:
            ``share`` as a percentage, ``points`` as signed percentage points (differences, gaps,
            ranges), ``plain`` as a decimal number.
        group: the group whose figure is ``measured``; None over all rows, ``range`` for the range
            over groups.
        role: required, stretch or condition.
        measured: what it was judged on; a difference where the criterion is ``against`` a figure.
        against: the figure that it was compared with, in words; None where it was not.
        required: the bound in words, ``>= 0.615`` for example.
        judged_on: point, lower or upper.
        status: undecided where the interval contains the bound; not_evaluated where the figure is
            not there.
        note: one sentence or more; may be empty.
        labels: the labels there are now behind ``measured``, of the kind ``label_unit``.
        labels_needed: about how many of them, in all, would settle it in four cases of five; None
            where it is settled or where labels would not settle it.
        settling: for an undecided one, what would settle it: words to be printed as they are (no
            capital, no full stop), with the numbers and, for several groups, each group's.
        constants: for each constant classifier that meets it, the value it has.
        duty: ``monitor``, ``owner``, ``action`` and ``due`` (an ISO date), for a condition that did
            not pass.
        parts: for a criterion that every group must meet, each group.
    """

    name: str
    definition: str = ""
    metric: str
    unit: CriterionUnit = "plain"
    group: str | None
    role: Literal["required", "stretch", "condition"]
    measured: MetricValue
    against: str | None = None
    required: str
    judged_on: Literal["point", "lower", "upper"]
    status: Status
    note: str
    labels: int | None = None
    labels_needed: int | None
    label_unit: LabelUnit | None = None
    settling: str = ""
    constants: Mapping[str, float]
    duty: Mapping[str, str] | None
    parts: Mapping[str, CriterionPart] = Field(default_factory=dict)


class GateVerdict(Record):
    """The verdict of a gate: the content of ``gate.json``.

    Attributes:
        n: rows that were judged; ``n_scored`` of them have an answer.
        rows_sha256: of the evaluation set's rows, as its ``inputs.json`` had it; None where that
            is not known.
        vacuous: the constant classifiers that meet every required criterion; a gate with any
            is no gate.
    """

    outcome: Outcome
    set: str
    n: int
    n_scored: int
    criteria_name: str
    criteria_sha256: str
    results: tuple[CriterionResult, ...]
    vacuous: tuple[str, ...]
    threshold: float | None
    binding: Binding
    rows_sha256: str | None = None
    created: str

    @property
    def exit_code(self) -> int:
        """0 where it may be deployed, 3 for a review, 4 for a failure, 2 where it is no gate."""
        if self.vacuous:
            return 2
        return {"REVIEW": 3, "FAIL": 4}.get(self.outcome, 0)


class Deployment(Record):
    """Whether a model may be deployed and on which duties: ``deployment.json``.

    Attributes:
        status: ``approved``, ``approved_with_conditions``, ``needs_review`` or ``rejected``.
        conditions: duties, each with what to monitor, owner and due date.
        next_action: what is to be done next; ``due`` is its ISO date.
    """

    status: DeploymentStatus
    date: str
    model: str
    set: str
    outcome: Outcome
    threshold: float | None
    binding: Binding
    conditions: tuple[Mapping[str, str], ...]
    next_action: str | None
    due: str | None
