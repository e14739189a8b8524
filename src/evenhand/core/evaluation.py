"""The records of one evaluation: what ``evaluation.json`` holds.

Every number is a :class:`MetricValue`: a value with its interval, or null with the reason why it is
undefined. Nothing here is rounded; the report rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evenhand.core.errors import StorageError
from evenhand.core.paths import read_json, write_json
from evenhand.core.records import HATE

Method = Literal["score", "generate", "import"]


class Record(BaseModel):
    """Base of what lies on disk as JSON: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MetricValue(Record):
    """A number with its 95% interval, or None with the reason why there is none.

    Attributes:
        value: the estimate, a fraction (not a percentage); None where undefined.
        low: lower end of the interval; None where there is no interval.
        high: upper end of the interval.
        method: how the interval was made (``wilson``, ``bootstrap_percentile``, ...).
        reason: why the value, or its interval, is missing (``no_negatives``, ``one_class``, ...).
        numerator: rows counted, for a proportion.
        denominator: rows that could have counted, for a proportion.

    >>> MetricValue(reason="no_negatives").value is None
    True
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    reason: str | None = None
    numerator: int | None = None
    denominator: int | None = None

    @model_validator(mode="after")
    def _explicit(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends")
        if (self.value is None or self.low is None) and self.reason is None:
            raise ValueError("a missing value or interval needs a reason")
        return self


class Confusion(Record):
    """Counts of scored rows; ``hate`` is the positive class."""

    tp: int = Field(ge=0)
    tn: int = Field(ge=0)
    fp: int = Field(ge=0)
    fn: int = Field(ge=0)

    @property
    def positives(self) -> int:
        """Rows whose label is hate."""
        return self.tp + self.fn

    @property
    def negatives(self) -> int:
        """Rows whose label is normal."""
        return self.tn + self.fp

    @property
    def n(self) -> int:
        """All scored rows."""
        return self.positives + self.negatives


class Metrics(Record):
    """The performance of one set of rows, over its scored rows.

    Attributes:
        ece_if_calibrated: the mean ECE of so many rows with these scores if the scores were
            perfectly calibrated: how much of ``ece`` is noise; None where ``ece`` is undefined.
    """

    accuracy: MetricValue
    precision: MetricValue
    recall: MetricValue
    f1: MetricValue
    fpr: MetricValue
    fnr: MetricValue
    roc_auc: MetricValue
    ece: MetricValue
    brier: MetricValue
    ece_if_calibrated: float | None = None


class Bound(Record):
    """A metric if every unscored row were answered wrongly (worst) or rightly (best)."""

    worst: float | None
    best: float | None


class Bounds(Record):
    """What the unscored rows could do to the metrics."""

    accuracy: Bound
    f1: Bound
    fpr: Bound
    fnr: Bound


class SampleSize(Record):
    """Whether there are labels enough for a claim about a rate.

    Attributes:
        labels: scored rows of the class (negatives for FPR, positives for FNR).
        too_small: True below 30 labels.
        needed: labels for an interval of +-10 points at the observed rate, at least 30.
    """

    labels: int
    too_small: bool
    needed: int


class GroupEvaluation(Metrics):
    """One target group: the metrics over its rows, with counts."""

    n: int
    n_scored: int
    n_unparseable: int
    n_error: int
    confusion: Confusion
    bounds: Bounds | None
    negatives: SampleSize
    positives: SampleSize


class Gap(Record):
    """A group's rate minus that of the rows outside the group, as a difference of fractions."""

    fpr: MetricValue
    fnr: MetricValue
    rest: Confusion


class Slice(Record):
    """The rows that share the values in ``keys``: of one column, or of several crossed."""

    keys: Mapping[str, str]
    n: int
    n_scored: int
    n_unparseable: int
    n_error: int
    confusion: Confusion
    accuracy: MetricValue
    fpr: MetricValue
    fnr: MetricValue
    negatives: SampleSize
    positives: SampleSize


class RateRatio(Record):
    """A group's rate over that of the rows outside the group, before and after stratifying.

    Attributes:
        crude: the plain ratio of the two rates.
        adjusted: the Mantel-Haenszel risk ratio over the strata.
        explained: the share of the crude ratio's logarithm that stratifying takes away, 1 where all
            of it is composition; None where the crude ratio is not shown to differ from 1.
        strata: strata with rows both inside and outside the group.
        left_out: rows of the group in strata that have no row outside it.
    """

    crude: MetricValue
    adjusted: MetricValue
    explained: float | None
    strata: int
    left_out: int


class Composition(Record):
    """How much of a group's gap is which kinds of posts it has, by the columns in ``by``."""

    by: tuple[str, ...]
    fpr: RateRatio
    fnr: RateRatio


class Reachable(Record):
    """The lowest false-positive rates that one threshold reaches at a floor of recall.

    The threshold is the highest whose recall on these rows is at least ``floor``; it was chosen on
    the same rows, so the rates are optimistic. Where there are no scores, the decisions themselves
    are the only operating point.

    Attributes:
        threshold: None where there are no scores.
        recall: the recall there; undefined, with a reason, where no operating point has the floor.
    """

    floor: float
    threshold: float | None
    recall: MetricValue
    fpr: MetricValue
    groups: Mapping[str, MetricValue]


class BiasAuc(Record):
    """The bias AUCs of one group (Borkan et al. 2019)."""

    subgroup: MetricValue
    bpsn: MetricValue
    bnsp: MetricValue


class BiasAucs(Record):
    """Bias AUCs per group, and their generalised means with power -5."""

    groups: Mapping[str, BiasAuc]
    mean: BiasAuc


class ReliabilityBin(Record):
    """Rows whose p(hate) lies in one bin: their mean score against the share that is hate."""

    low: float
    high: float
    n: int
    mean_score: float | None
    hate_rate: MetricValue


class BaselineGroup(Record):
    """A baseline's rates in one group."""

    n: int
    confusion: Confusion
    fpr: MetricValue
    fnr: MetricValue


class BaselineEvaluation(Record):
    """A baseline on the same rows, in short."""

    confusion: Confusion
    metrics: Metrics
    groups: Mapping[str, BaselineGroup]
    reachable: Reachable | None


class Evaluation(Record):
    """One model on one evaluation set: the content of ``evaluation.json``.

    Attributes:
        name: the evaluation set's name.
        method: ``score`` (decisions from scores at ``threshold``), ``generate`` or ``import``.
        threshold: the decision threshold on p(hate); None where decisions came as they are.
        n: rows in the set; ``n_scored + n_unparseable + n_error``.
        n_clusters: independent clusters behind the intervals; None where rows are independent.
        bounds: worst and best case over the unscored rows; None where every row was scored.
        slices: by each set of columns that was asked for.
        composition: per group; empty where rows have neither source nor fine label.
        reachable: at a recall of 75%.
        bias_aucs: None where there are no scores or no groups.
        reliability: ten equal-width bins of the score; empty where there are no scores.
        agreement: per group, and for all rows under "": the mean share of annotators that gave a
            row its label; empty where the data do not have it.
    """

    name: str
    method: Method
    threshold: float | None
    positive_label: str = HATE
    dataset_sha256: str | None = None
    confidence: float
    n_bootstrap: int
    n: int
    n_scored: int
    n_unparseable: int
    n_error: int
    n_clusters: int | None
    confusion: Confusion
    metrics: Metrics
    bounds: Bounds | None
    groups: Mapping[str, GroupEvaluation]
    gaps: Mapping[str, Gap]
    slices: tuple[Slice, ...]
    composition: Mapping[str, Composition]
    reachable: Reachable | None
    bias_aucs: BiasAucs | None
    reliability: tuple[ReliabilityBin, ...]
    agreement: Mapping[str, float]
    baselines: Mapping[str, BaselineEvaluation]


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write ``evaluation.json`` atomically."""
    write_json(path, evaluation.model_dump(mode="json"))


def read_evaluation(path: Path) -> Evaluation:
    """Read ``evaluation.json``; a damaged or foreign file is a :class:`StorageError`."""
    try:
        return Evaluation.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StorageError(
            f"{path} is not an evaluation: {error.error_count()} problems, first {place}: "
            f"{first['msg']}",
            hint="run `evenhand evaluate` again to rewrite it",
        ) from error
