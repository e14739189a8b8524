"""The threshold and the gate on a run folder: what is read, what is written, what it is bound to.

``threshold.json`` and ``deployment.json`` hold for one model. They name the hashes of its adapter,
prompt and base and, for the threshold, of the rows that it was fitted on; where the folder holds
something else by now, they are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from evenhand.config.criteria import Criteria
from evenhand.core.decisions import (
    Deployment,
    FittedOn,
    GateVerdict,
    Threshold,
    ThresholdReport,
    ThresholdRule,
)
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.paths import write_json
from evenhand.core.predictions import Predictions, decided_at
from evenhand.core.seeding import rng_for
from evenhand.decide.compare import compare
from evenhand.decide.gate import deploy, judge
from evenhand.decide.threshold import FittedThreshold, NoThreshold, fit_threshold
from evenhand.experiment.binding import binding_problems, current_binding
from evenhand.experiment.judged import SEED, basis_of, need_scores, split_by_hash
from evenhand.experiment.results import Decisions, Results, read_record
from evenhand.experiment.runs import now
from evenhand.measure.calibration import calibrate, calibration_measures, fit_temperature
from evenhand.measure.sample import Sample, ordered_frame, sample_from_frame

DEFAULT_THRESHOLD = 0.5
"""What a tuned threshold is compared with."""

_FILES = ("threshold.json", "threshold_report.json", "gate.json", "deployment.json")


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
) -> Tuned:
    """Fit the threshold and the temperature on one set, report on another, write both files.

    Where no threshold satisfies the rule, nothing is written. With ``fit_share`` the two sets are
    one, of which that share is fitted on and only the rest is reported on; a row's side follows
    from the hash of its cluster or id. The same folder and rule give the same files again.

    Args:
        results: a run with scores.
        fit_on: the evaluation set for fitting, which the model was not trained on.
        report_on: the evaluation set for the report, with other rows.
        rule: from :func:`evenhand.decide.threshold.threshold_rule`.
        fit_share: see above; needed if and only if the two names are the same.

    Raises:
        ConfigError: a set is not there, or the rows would be fitted and reported on alike.
        DataError: rows have no score or no label, or one class is missing.
    """
    _check_sets(results, fit_on=fit_on, report_on=report_on, fit_share=fit_share)
    fit_rows, report_rows = results.predictions(fit_on), results.predictions(report_on)
    for name, rows in ((fit_on, fit_rows), (report_on, report_rows)):
        need_scores(results, name, rows)
    if fit_share is not None:
        fit_rows, report_rows = split_by_hash(fit_rows, share=fit_share)
    fitted = fit_threshold(fit_rows, rule, default=DEFAULT_THRESHOLD)
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
) -> ThresholdReport:
    """Return what a threshold changes on rows that it was not fitted on."""
    default, rng = DEFAULT_THRESHOLD, rng_for(SEED, f"threshold {set_name}")
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
    problems = _judged_problems(deployment, results, read_threshold(results))
    if problems:
        raise ConfigError(
            str(results.path / "deployment.json"), problems, hint="run `evenhand gate` again"
        )
    return deployment


def read_decisions(results: Results) -> Decisions:
    """Return what was decided on a run and still holds; ``warnings`` names what does not.

    A record of another model, of other rows, or of another threshold is left out, and so is what
    was decided by it.
    """
    found = results.decisions
    warnings = []
    threshold = None
    try:
        threshold = read_threshold(results)
    except ConfigError as error:
        warnings.append(_stale("threshold.json", error.problems))
    report = found.threshold_report
    if report is not None and (threshold is None or report.value != threshold.value):
        report = None
        if threshold is not None or found.threshold is None:
            problem = Problem("value", "is of another threshold than the run now has")
            warnings.append(_stale("threshold_report.json", [problem]))
    verdict = found.verdict
    if verdict is not None:
        problems = _judged_problems(verdict, results, threshold)
        if problems:
            verdict = None
            warnings.append(_stale("gate.json", problems))
    deployment = found.deployment
    if deployment is not None:
        problems = _judged_problems(deployment, results, threshold)
        if not problems and (verdict is None or verdict.outcome != deployment.outcome):
            problems = [Problem("outcome", "is not that of gate.json")]
        if problems:
            deployment = None
            if verdict is not None or found.verdict is None:
                warnings.append(_stale("deployment.json", problems))
    return Decisions(threshold, report, verdict, deployment, tuple(warnings))


def clear_decisions(results: Results, *, keep: Collection[str] = ()) -> None:
    """Remove what an earlier run decided, except the files named in ``keep``.

    The files are ``threshold.json``, ``threshold_report.json``, ``gate.json`` and
    ``deployment.json``.
    """
    for name in _FILES:
        if name not in keep:
            (results.path / name).unlink(missing_ok=True)


def _stale(name: str, problems: Sequence[Problem]) -> str:
    what = "; ".join(f"{one.place} {one.message}" for one in problems)
    return f"{name} is of an earlier state and was not used: {what}."


def _judged_problems(
    record: GateVerdict | Deployment, results: Results, threshold: Threshold | None
) -> list[Problem]:
    """How the run differs from the one that a verdict or a deployment is of."""
    problems = binding_problems(record.binding, results)
    known = record.set in results.evaluation_names
    now_at = results.evaluation(record.set).threshold if known else None
    if threshold is not None:
        now_at = threshold.value
    if (known or threshold is not None) and record.threshold != now_at:
        was, is_now = (
            "the decisions as they are" if one is None else f"{one:g}"
            for one in (record.threshold, now_at)
        )
        problems.append(Problem("threshold", f"was judged at {was}, and the run now has {is_now}"))
    rows = record.rows_sha256 if known and isinstance(record, GateVerdict) else None
    if rows is not None and rows != _rows_sha256(results, record.set):
        problems.append(Problem("rows", f"{record.set} now has other rows than were judged"))
    return problems


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
    today = datetime.now(UTC).date()
    basis = basis_of(
        results,
        on=on,
        criteria=criteria,
        tuned=tuned,
        reference_run=reference_run,
        validation=validation,
    )
    verdict = judge(basis, criteria, binding=current_binding(results), today=today).model_copy(
        update={"rows_sha256": _rows_sha256(results, on)}
    )
    before = results.decisions
    if before.verdict is not None and _undated(before.verdict) == _undated(verdict):
        # The same verdict again must not move the dates of the duties.
        verdict, today = before.verdict, date.fromisoformat(before.verdict.created)
    deployment = deploy(verdict, model=results.name, today=today)
    if (verdict, deployment) != (before.verdict, before.deployment):
        write_json(results.path / "gate.json", verdict.model_dump(mode="json"))
        write_json(results.path / "deployment.json", deployment.model_dump(mode="json"))
    return verdict, deployment


def _undated(verdict: GateVerdict) -> GateVerdict:
    results = tuple(one.model_copy(update={"duty": None}) for one in verdict.results)
    return verdict.model_copy(update={"results": results, "created": ""})


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


def _rows_sha256(results: Results, name: str) -> str:
    results.evaluation(name)  # a name that is not there is said with those that are
    return results.inputs(name)["inputs"]["rows"]


def _scored(predictions: Predictions) -> Sample:
    sample = sample_from_frame(ordered_frame(predictions), threshold=None)
    return sample.where(sample.ok)
