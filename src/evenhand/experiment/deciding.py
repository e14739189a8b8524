"""The threshold and the gate on a run folder: what is read, what is written, what it is bound to.

``threshold.json`` and ``deployment.json`` hold for one model. They name the hashes of its adapter,
prompt and base and, for the threshold, of the rows that it was fitted on; where the folder holds
something else by now, they are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from evenhand.config.criteria import Criteria
from evenhand.core.decisions import (
    Deployment,
    FittedOn,
    GateVerdict,
    Threshold,
    ThresholdReport,
    ThresholdRule,
)
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.evaluation import Evaluation
from evenhand.core.paths import write_json
from evenhand.core.predictions import Predictions, decided_at
from evenhand.core.seeding import rng_for
from evenhand.decide.compare import compare
from evenhand.decide.gate import deploy, judge
from evenhand.decide.threshold import FittedThreshold, NoThreshold, fit_threshold
from evenhand.experiment.binding import binding_problems, current_binding
from evenhand.experiment.results import Results, read_record
from evenhand.experiment.runs import now
from evenhand.measure.calibration import calibrate, calibration_measures, fit_temperature
from evenhand.measure.classification import evaluate
from evenhand.measure.sample import Sample, ordered_frame, sample_from_frame

VALIDATION = "validation"
"""What criteria call the set that the model was chosen on, whatever its name."""

_SEED = 0
"""Of the bootstrap, so that the same folder gets the same verdict."""


@dataclass(frozen=True)
class Tuned:
    """What came of tuning: the files' contents, or only what is missing for a threshold."""

    fitted: FittedThreshold | NoThreshold
    threshold: Threshold | None
    report: ThresholdReport | None


def tune(
    results: Results,
    *,
    fit_on: str,
    report_on: str,
    rule: ThresholdRule,
    fit_share: float | None = None,
    default: float = 0.5,
    rng: np.random.Generator,
) -> Tuned:
    """Fit the threshold and the temperature on one set, report on another, write both files.

    Where no threshold satisfies the rule, nothing is written. With ``fit_share`` the two sets are
    one, of which that share is fitted on and only the rest is reported on; a row's side follows
    from the hash of its cluster or id.

    Args:
        results: a run with scores.
        fit_on: the evaluation set for fitting, which the model was not trained on.
        report_on: the evaluation set for the report, with other rows.
        rule: from :func:`evenhand.decide.threshold.threshold_rule`.
        fit_share: see above; needed if and only if the two names are the same.
        default: the threshold that the tuned one is compared with.
        rng: drives the bootstrap of the comparison.

    Raises:
        ConfigError: a set is not there, or the rows would be fitted and reported on alike.
        DataError: rows have no score or no label, or one class is missing.
    """
    _check_sets(results, fit_on=fit_on, report_on=report_on, fit_share=fit_share)
    fit_rows, report_rows = results.predictions(fit_on), results.predictions(report_on)
    for name, rows in ((fit_on, fit_rows), (report_on, report_rows)):
        _need_scores(results, name, rows)
    if fit_share is not None:
        fit_rows, report_rows = split_by_hash(fit_rows, share=fit_share)
    fitted = fit_threshold(fit_rows, rule, default=default)
    if isinstance(fitted, NoThreshold):
        return Tuned(fitted, None, None)
    scored = _scored(fit_rows)
    threshold = Threshold(
        value=fitted.value,
        rule=fitted.rule,
        fitted_on=FittedOn(
            set=fit_on, rows_sha256=_rows_sha256(results, fit_on), n=fitted.n, share=fit_share
        ),
        binding=current_binding(results),
        calibration=fit_temperature(scored.score, scored.hate),
        created=now(),
    )
    report = report_threshold(
        report_rows,
        threshold,
        set_name=report_on,
        share=None if fit_share is None else 1 - fit_share,
        default=default,
        rng=rng,
    )
    before = results.decisions
    if before.threshold is not None and before.threshold_report == report:
        kept = before.threshold
        if kept.model_copy(update={"created": threshold.created}) == threshold:
            return Tuned(fitted, kept, report)
    write_json(results.path / "threshold_report.json", report.model_dump(mode="json"))
    write_json(results.path / "threshold.json", threshold.model_dump(mode="json"))
    return Tuned(fitted, threshold, report)


def report_threshold(
    predictions: Predictions,
    threshold: Threshold,
    *,
    set_name: str,
    share: float | None,
    default: float,
    rng: np.random.Generator,
) -> ThresholdReport:
    """Return what a threshold changes on rows that it was not fitted on."""
    name = f"threshold {threshold.value:g}"
    names = (f"threshold {default:g}", name if threshold.value != default else f"{name} (tuned)")
    before, after = decided_at(predictions, default), decided_at(predictions, threshold.value)
    scored = _scored(predictions)
    temperature = 1.0 if threshold.calibration is None else threshold.calibration.temperature
    return ThresholdReport(
        set=set_name,
        share=share,
        n=len(scored),
        default=default,
        value=threshold.value,
        before=_scored(before).confusion(),
        after=_scored(after).confusion(),
        comparison=compare({names[0]: before, names[1]: after}, set_name=set_name, rng=rng),
        calibration_before=calibration_measures(scored.score, scored.hate),
        calibration_after=calibration_measures(calibrate(scored.score, temperature), scored.hate),
    )


def read_threshold(results: Results) -> Threshold | None:
    """Return the run's tuned threshold, or None where there is none.

    Raises:
        ConfigError: it was fitted for another adapter, prompt or base model, or on other rows than
            the evaluation of that name now has.
    """
    threshold = read_record(Threshold, results.path / "threshold.json")
    if threshold is None:
        return None
    problems = binding_problems(threshold.binding, results)
    fitted = threshold.fitted_on
    known = fitted.set in results.evaluation_names
    if known and _rows_sha256(results, fitted.set) != fitted.rows_sha256:
        message = f"{fitted.set} now has other rows than those it was fitted on"
        problems.append(Problem("fitted_on", message))
    if problems:
        raise ConfigError(
            str(results.path / "threshold.json"),
            problems,
            hint="fit it again with `evenhand threshold`, or delete the file",
        )
    return threshold


def read_deployment(results: Results) -> Deployment | None:
    """Return the run's deployment record, or None where there is none.

    Raises:
        ConfigError: it was written for another adapter, prompt or base model, or for another
            threshold than the run now has.
    """
    deployment = read_record(Deployment, results.path / "deployment.json")
    if deployment is None:
        return None
    problems = binding_problems(deployment.binding, results)
    threshold = read_threshold(results)
    if threshold is not None and deployment.threshold != threshold.value:
        message = f"was judged at {deployment.threshold}, and the run now has {threshold.value:g}"
        problems.append(Problem("threshold", message))
    if problems:
        raise ConfigError(
            str(results.path / "deployment.json"), problems, hint="run `evenhand gate` again"
        )
    return deployment


def judge_run(
    results: Results,
    *,
    on: str,
    criteria: Criteria,
    reference_run: Results | None = None,
    validation: str | None = None,
    threshold: Literal["auto", "default"] = "auto",
) -> tuple[GateVerdict, Deployment]:
    """Judge a run on a set, and write ``gate.json`` and ``deployment.json``.

    With a tuned threshold (``auto``) the decisions are those at that threshold, measured again;
    rows of a part that it was fitted on are left out. ``default`` judges the decisions as they are.

    Args:
        results: the run.
        on: the evaluation set that decides.
        criteria: from :func:`evenhand.config.criteria.load_criteria`.
        reference_run: whose evaluations the criteria refer to; the run itself by default.
        validation: the name of the set that criteria call "validation"; by default that of this
            name, else the one that the threshold was fitted on, else the reference run's only one.
        threshold: see above.

    Raises:
        ConfigError: a set is not there, or the threshold is not this run's or was fitted on the
            whole of ``on``.
    """
    tuned = read_threshold(results) if threshold == "auto" else None
    evaluation = _judged(results, on, tuned)
    references = _references(results, on, criteria, reference_run, validation, tuned)
    stated = {
        name: float(one["value"])
        for name, one in results.stated.items()
        if one["status"] != "contradicted" and isinstance(one["value"], (int, float))
    }
    today = datetime.now(UTC).date()
    verdict = judge(
        evaluation,
        criteria,
        references=references,
        stated=stated,
        binding=current_binding(results),
        today=today,
    )
    before = results.decisions
    if before.verdict is not None and before.deployment is not None:
        # The same verdict again must not move the dates of the duties.
        if _undated(before.verdict) == _undated(verdict):
            return before.verdict, before.deployment
    deployment = deploy(verdict, model=results.name, today=today)
    write_json(results.path / "gate.json", verdict.model_dump(mode="json"))
    write_json(results.path / "deployment.json", deployment.model_dump(mode="json"))
    return verdict, deployment


def _undated(verdict: GateVerdict) -> GateVerdict:
    results = tuple(one.model_copy(update={"duty": None}) for one in verdict.results)
    return verdict.model_copy(update={"results": results, "created": ""})


def split_by_hash(predictions: Predictions, *, share: float) -> tuple[Predictions, Predictions]:
    """Return about ``share`` of the rows, and the rest, by the hash of each row's cluster or id."""
    frame = predictions.frame
    keys = frame["cluster"].where(frame["cluster"].notna(), frame["id"])
    inside = np.array([_fraction(str(key)) < share for key in keys], dtype=bool)
    return Predictions(frame[inside]), Predictions(frame[~inside])


def _fraction(key: str) -> float:
    digest = hashlib.sha256(f"threshold {key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check_sets(results: Results, *, fit_on: str, report_on: str, fit_share: float | None) -> None:
    problems = []
    if fit_share is not None and not 0 < fit_share < 1:
        problems.append(Problem("--fit-share", f"must be between 0 and 1, not {fit_share:g}"))
    if fit_on == report_on and fit_share is None:
        message = "is also fitted on: report on other rows, or fit on a part with --fit-share 0.5"
        problems.append(Problem("--report-on", message))
    elif fit_on != report_on and fit_share is not None:
        message = "is for one set that is both fitted and reported on; these are two"
        problems.append(Problem("--fit-share", message))
    elif fit_on != report_on and _rows_sha256(results, fit_on) == _rows_sha256(results, report_on):
        message = f"{report_on} has the same rows as {fit_on}: nothing would be held out"
        problems.append(Problem("--report-on", message))
    if problems:
        raise ConfigError(str(results.path), problems, consequence="no threshold was fitted")


def _need_scores(results: Results, name: str, predictions: Predictions) -> None:
    frame = predictions.frame
    bare = int(((frame["status"] == "ok") & frame["score"].isna()).sum())
    if bare:
        message = (
            f"{bare} of {len(frame)} rows have a decision but no score, and a threshold needs "
            "p(hate); evaluate with --method score, or import predictions with a score column"
        )
        raise DataError(
            str(results.path), [Problem(name, message)], consequence="nothing was fitted"
        )


def _rows_sha256(results: Results, name: str) -> str:
    results.evaluation(name)  # a name that is not there is said with those that are
    return results.inputs(name)["inputs"]["rows"]


def _scored(predictions: Predictions) -> Sample:
    sample = sample_from_frame(ordered_frame(predictions), method="import", threshold=None)
    return sample.where(sample.ok)


def _judged(results: Results, on: str, tuned: Threshold | None) -> Evaluation:
    if tuned is None or tuned.fitted_on.set != on:
        return _evaluation_at(results, on, tuned)
    if tuned.fitted_on.share is None:
        message = (
            f"the run's threshold was fitted on {on}: judge on other rows, or judge the decisions "
            "as they are with --threshold default"
        )
        raise ConfigError(str(results.path), [Problem("--on", message)])
    return _evaluation_at(results, on, tuned, share=tuned.fitted_on.share)


def _evaluation_at(
    results: Results, name: str, tuned: Threshold | None, *, share: float | None = None
) -> Evaluation:
    """The evaluation at a threshold, without the part that the threshold was fitted on."""
    stored = results.evaluation(name)
    if tuned is None:
        return stored

    def rest(rows: Predictions) -> Predictions:
        return rows if share is None else split_by_hash(rows, share=share)[1]

    predictions = results.predictions(name)
    _need_scores(results, name, predictions)
    return evaluate(
        rest(predictions),
        name=name,
        rng=rng_for(_SEED, f"gate {name}"),
        threshold=tuned.value,
        n_bootstrap=stored.n_bootstrap,
        baselines={key: rest(rows) for key, rows in results.baselines(name).items()},
        dataset_sha256=stored.dataset_sha256,
    )


def _references(
    results: Results,
    on: str,
    criteria: Criteria,
    reference_run: Results | None,
    validation: str | None,
    tuned: Threshold | None,
) -> Mapping[str, Evaluation]:
    """The evaluations that criteria are against, by the name that the criteria give them."""
    source = results if reference_run is None else reference_run
    wanted = {c.against.set for c in criteria.criteria if c.against is not None and c.against.set}
    found = {}
    for name in sorted(wanted):
        actual = _actual_name(name, source, reference_run, validation, tuned)
        if actual is None:
            continue
        if source is results and actual == on:
            message = f'is "{on}" itself, which is judged; name another with --validation'
            raise ConfigError(str(results.path), [Problem(name, message)])
        found[name] = _evaluation_at(source, actual, tuned if source is results else None)
    return found


def _actual_name(
    name: str,
    source: Results,
    reference_run: Results | None,
    validation: str | None,
    tuned: Threshold | None,
) -> str | None:
    """The name in the run folder of a set that criteria name; None where it has none."""
    if name == VALIDATION and validation is not None:
        return validation  # where it is not there, the reader is told so
    if name in source.evaluation_names:
        return name
    if name != VALIDATION:
        return None
    if reference_run is not None:
        return source.evaluation_names[0] if len(source.evaluation_names) == 1 else None
    return None if tuned is None or tuned.fitted_on.share is not None else tuned.fitted_on.set
