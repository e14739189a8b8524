"""A new threshold from what reviewers found in production, if it passes the gate.

The old decisions stay in force until a new threshold has been fitted on one part of the reviewed
sample, shown on the other, and judged on an evaluation set by the gate's criteria. Everything that
came of it, a refusal too, is written to ``RUN/retune.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evenhand.config.criteria import Criteria
from evenhand.core.decisions import (
    Deployment,
    FittedOn,
    GateVerdict,
    Threshold,
    ThresholdRule,
)
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.paths import sha256_json, write_json
from evenhand.core.production import Release
from evenhand.core.seeding import rng_for
from evenhand.decide.gate import deploy, judge
from evenhand.decide.threshold import threshold_rule
from evenhand.experiment.binding import binding_problems, current_binding
from evenhand.experiment.deciding import report_threshold
from evenhand.experiment.judged import basis_of
from evenhand.experiment.replacing import RETUNE, replace_decisions
from evenhand.experiment.results import Results, open_results
from evenhand.watch.statistics.refitting import Change, NoRefit, Refit, change, refit
from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.statistics.weighted import chosen_by_hash, part_of
from evenhand.watch.store.database import Database
from evenhand.watch.store.reviewed import read_reviewed
from evenhand.watch.store.served import Served, find_served

REVIEWED = "reviewed"
"""The name of the production sample, where a threshold names the set that it was fitted on."""

NOT_SATISFIED = 4
"""The exit code where no threshold keeps the limits, as that of ``evenhand threshold``."""

Status = Literal["no_threshold", "refused", "replaced"]


@dataclass(frozen=True)
class RetuneOptions:
    """How to retune; None leaves what the run's own rule says.

    Attributes:
        since: only posts answered from this time on, UTC; None for all of the release. A time that
            was fixed before those posts came, or an alarm's, keeps the guarantee.
        fit_share: the share of the reviewed posts that is fitted on; the rest shows the change.
        seed: of the split and of the bootstrap.
        validation: the name of the set that criteria call "validation".
        accept_review: whether a REVIEW is enough to replace the threshold.
    """

    maximise: Literal["f1", "recall"] | None = None
    max_group_fpr: float | None = None
    max_fpr_gap: float | None = None
    confidence: float | None = None
    since: datetime | None = None
    fit_share: float = 0.5
    seed: int = 0
    validation: str | None = None
    accept_review: bool = False


@dataclass(frozen=True)
class Retuned:
    """What came of retuning.

    Attributes:
        status: ``no_threshold`` (none keeps the limits), ``refused`` (by the gate), ``replaced``.
        served: the release whose reviews were used.
        fitted: the chosen threshold, or what is missing for one.
        change: before and after on the rest of the sample; None without a threshold.
        verdict: the gate's on the new threshold; None likewise.
        deployment: what follows from it; in force only where the status is ``replaced``.
        history: the folder that keeps the old decisions.
        done: the duties of the old deployment record that this fulfilled.
    """

    status: Status
    served: Served
    fitted: Refit | NoRefit
    change: Change | None = None
    threshold: Threshold | None = None
    verdict: GateVerdict | None = None
    deployment: Deployment | None = None
    history: Path | None = None
    done: tuple[Mapping[str, str], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 where the threshold was replaced; else the gate's code, or 4 without a threshold."""
        if self.status == "replaced":
            return 0
        return NOT_SATISFIED if self.verdict is None else self.verdict.exit_code


def retune(
    run: Path,
    database: Database,
    *,
    release_id: str | None,
    on: str,
    criteria: Criteria,
    options: RetuneOptions,
    now: datetime,
) -> Retuned:
    """Fit the threshold on reviewed posts, judge it, and put it in place if it passes.

    Args:
        run: the run folder, held by the caller.
        database: the production database.
        release_id: whose reviews; None for the release started last.
        on: the evaluation set of the run that decides.
        criteria: from :func:`evenhand.config.criteria.load_criteria`.
        options: see there.
        now: written into the records.

    Raises:
        ConfigError: no such set or release, or the reviews are of another model than the run's.
        DataError: the reviewed posts lack a class or scores are missing.
    """
    results = open_results(run)
    served = find_served(database, release_id)
    rule = _rule(results, served, options)
    _check(results, served.release, on=on, options=options)
    sample = _read(database, served.release_id, since=options.since)
    to_fit = chosen_by_hash(sample.post.tolist(), share=options.fit_share, seed=options.seed)
    fit_part = part_of(sample, to_fit)
    groups = served.settings.watch.groups
    fitted = refit(fit_part, rule, groups=groups, served=served.release.threshold)
    if isinstance(fitted, NoRefit):
        outcome = Retuned("no_threshold", served, fitted)
        write_json(run / RETUNE, document(outcome, now=now))
        return outcome
    changed = change(
        part_of(sample, ~to_fit),
        before=served.release.threshold,
        after=fitted.value,
        groups=groups,
        confidence=fitted.rule.confidence,
        rng=rng_for(options.seed, "retune"),
    )
    old = results.decisions.threshold
    threshold = Threshold(
        value=fitted.value,
        rule=fitted.rule,
        fitted_on=FittedOn(
            set=REVIEWED,
            rows_sha256=_rows_sha256(fit_part),
            n=fitted.n,
            share=options.fit_share,
        ),
        binding=current_binding(results),
        calibration=None if old is None else old.calibration,
        created=now.isoformat(timespec="seconds"),
    )
    verdict = _judged(results, threshold, on, criteria, options, now)
    deployment = deploy(verdict, model=results.name, today=now.date())
    is_accepted = not verdict.vacuous and (
        verdict.exit_code == 0 or (verdict.outcome == "REVIEW" and options.accept_review)
    )
    outcome = Retuned(
        "replaced" if is_accepted else "refused",
        served,
        fitted,
        changed,
        threshold,
        verdict,
        deployment,
    )
    return _put_in_place(results, outcome, now=now) if is_accepted else _noted(run, outcome, now)


def document(outcome: Retuned, *, now: datetime) -> dict[str, Any]:
    """Return the content of ``retune.json``."""
    parts = {
        "fitted": outcome.fitted,
        "change": outcome.change,
        "threshold": outcome.threshold,
        "verdict": outcome.verdict,
        "deployment": outcome.deployment,
    }
    return {
        "status": outcome.status,
        "created": now.isoformat(timespec="seconds"),
        "release": outcome.served.release_id,
        **{
            name: None if part is None else part.model_dump(mode="json")
            for name, part in parts.items()
        },
        "history": None if outcome.history is None else outcome.history.name,
        "duties_done": [dict(one) for one in outcome.done],
    }


def _noted(run: Path, outcome: Retuned, now: datetime) -> Retuned:
    write_json(run / RETUNE, document(outcome, now=now))
    return outcome


def _put_in_place(results: Results, outcome: Retuned, *, now: datetime) -> Retuned:
    assert outcome.threshold is not None
    assert outcome.verdict is not None
    assert outcome.deployment is not None
    predictions = results.predictions(outcome.verdict.set)
    history = replace_decisions(
        results.path,
        {
            "threshold_report.json": report_threshold(
                predictions, outcome.threshold, set_name=outcome.verdict.set, share=None
            ),
            "threshold.json": outcome.threshold,
            "gate.json": outcome.verdict,
            "deployment.json": outcome.deployment,
        },
        now=now,
    )
    done = _duties_done(outcome.served.release.deployment, outcome.verdict, now)
    outcome = Retuned(
        "replaced",
        outcome.served,
        outcome.fitted,
        outcome.change,
        outcome.threshold,
        outcome.verdict,
        outcome.deployment,
        history,
        done,
    )
    return _noted(results.path, outcome, now)


def _duties_done(
    former: Deployment | None, verdict: GateVerdict, now: datetime
) -> tuple[Mapping[str, str], ...]:
    """The duties of the served deployment record that ask for a threshold to be tuned."""
    conditions = () if former is None else former.conditions
    return tuple(
        {
            **one,
            "done": now.isoformat(timespec="seconds"),
            "verdict": verdict.outcome,
            "judged_on": verdict.set,
        }
        for one in conditions
        if "threshold" in one.get("action", "").lower()
    )


def _rule(results: Results, served: Served, options: RetuneOptions) -> ThresholdRule:
    """The rule that the run's threshold was fitted by, with what the options say instead.

    A run without a threshold has no rule: the bound that alarms go by is its limit then.
    """
    old = results.decisions.threshold
    if old is None:
        bound = served.settings.watch.alarms.max_group_fpr
        strictest = min(bound.values()) if isinstance(bound, Mapping) else bound
        base = threshold_rule(max_group_fpr=strictest)
    else:
        base = old.rule
    return threshold_rule(
        maximise=options.maximise or base.maximise,
        max_group_fpr=_either(options.max_group_fpr, base.max_group_fpr),
        max_fpr_gap=_either(options.max_fpr_gap, base.max_fpr_gap),
        confidence=options.confidence or base.confidence,
    )


def _either(chosen: float | None, otherwise: float | None) -> float | None:
    return otherwise if chosen is None else chosen


def _check(results: Results, release: Release, *, on: str, options: RetuneOptions) -> None:
    problems = binding_problems(release.binding, results)
    other = "the reviews must be of the model in this folder; --release names another release"
    hint = other if problems else None
    if not 0 < options.fit_share < 1:
        message = f"must be between 0 and 1, not {options.fit_share:g}"
        problems.append(Problem("--fit-share", message))
    if REVIEWED in results.evaluation_names:
        message = "is what production's reviews are called; give this evaluation another name"
        problems.append(Problem(f"evaluations/{REVIEWED}", message))
    if problems:
        raise ConfigError(
            str(results.path),
            problems,
            hint=hint,
            consequence="nothing was replaced",
        )
    results.evaluation(on)  # a name that is not there is said with those that are


def _read(database: Database, release_id: str, *, since: datetime | None) -> ReviewedSample:
    with database.reading() as session:
        sample = read_reviewed(session, release_id)
    when = ""
    if since is not None:
        start = np.datetime64(since.astimezone(UTC).replace(tzinfo=None), "us")
        sample = part_of(sample, sample.time >= start)
        when = f", answered since {since:%Y-%m-%d %H:%M} UTC,"
    if not sample.labelled.any():
        message = f"no sampled post of this release{when} has a label yet"
        raise DataError(
            "the reviewed sample",
            [Problem("labels", message)],
            hint="review at /review, or see `evenhand watch status` for what is waiting",
            consequence="nothing was fitted",
        )
    return sample


def _rows_sha256(sample: ReviewedSample) -> str:
    """The hash of the labelled posts that a threshold was fitted on."""
    return sha256_json(
        [
            [
                str(sample.post[at]),
                bool(sample.hate[at]),
                sorted(sample.groups[at]),
                float(sample.inclusion[at]),
                float(sample.score[at]),
            ]
            for at in np.flatnonzero(sample.labelled)
        ]
    )


def _judged(
    results: Results,
    threshold: Threshold,
    on: str,
    criteria: Criteria,
    options: RetuneOptions,
    now: datetime,
) -> GateVerdict:
    old = results.decisions.threshold
    names = results.evaluation_names
    fallback = None
    if old is not None and old.fitted_on.share is None and old.fitted_on.set in names:
        # As the gate does for the threshold that this one replaces.
        fallback = old.fitted_on.set
    validation = options.validation
    if validation is None and "validation" not in names and fallback != on:
        validation = fallback
    basis = basis_of(results, on=on, criteria=criteria, tuned=threshold, validation=validation)
    verdict = judge(basis, criteria, binding=threshold.binding, today=now.date())
    return verdict.model_copy(update={"rows_sha256": results.inputs(on)["inputs"]["rows"]})
