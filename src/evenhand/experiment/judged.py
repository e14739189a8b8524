"""What a gate judges of a run folder: the evaluation, and what criteria hold it against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from evenhand.config.criteria import Criteria
from evenhand.core.decisions import Threshold
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.evaluation import Evaluation
from evenhand.core.predictions import Predictions, decided_at
from evenhand.core.seeding import rng_for
from evenhand.decide.basis import Basis
from evenhand.decide.rivals import Rivals, rivals_of
from evenhand.experiment.results import Results
from evenhand.measure.classification import evaluate

VALIDATION = "validation"
"""What criteria call the set that the model was chosen on, whatever its name."""

SEED = 0
"""Of every generator here, so that the same folder gets the same threshold and verdict."""


def basis_of(
    results: Results,
    *,
    on: str,
    criteria: Criteria,
    tuned: Threshold | None,
    reference_run: Results | None = None,
    validation: str | None = None,
) -> Basis:
    """Read what a gate judges by; see :func:`evenhand.experiment.deciding.judge_run`.

    Args:
        results: the run.
        on: the evaluation set that decides.
        criteria: what is asked for; no more than that is read and measured.
        tuned: the threshold at which decisions are taken; None for the decisions as they are.
        reference_run: whose evaluations the criteria refer to; the run itself by default.
        validation: the name of the set that criteria call "validation".

    Raises:
        ConfigError: a set is not there, or the threshold was fitted on the whole of ``on``.
    """
    evaluation = _judged(results, on, tuned)
    return Basis(
        evaluation,
        references=_references(results, on, criteria, reference_run, validation, tuned),
        stated={
            name: float(one["value"])
            for name, one in results.stated.items()
            if one["status"] != "contradicted" and isinstance(one["value"], (int, float))
        },
        rivals=_rivals(results, evaluation, criteria, tuned),
    )


def split_by_hash(predictions: Predictions, *, share: float) -> tuple[Predictions, Predictions]:
    """Return about ``share`` of the rows, and the rest, by the hash of each row's cluster or id."""
    frame = predictions.frame
    keys = frame["cluster"].where(frame["cluster"].notna(), frame["id"])
    inside = np.array([_fraction(str(key)) < share for key in keys], dtype=bool)
    return Predictions(frame[inside]), Predictions(frame[~inside])


def _fraction(key: str) -> float:
    digest = hashlib.sha256(f"threshold {key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def need_scores(results: Results, name: str, predictions: Predictions) -> None:
    """Refuse predictions of which answered rows have no score, with the remedy."""
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

    predictions = results.predictions(name)
    need_scores(results, name, predictions)
    return evaluate(
        _rest(predictions, share),
        name=name,
        rng=rng_for(SEED, f"gate {name}"),
        threshold=tuned.value,
        n_bootstrap=stored.n_bootstrap,
        baselines={key: _rest(rows, share) for key, rows in results.baselines(name).items()},
        dataset_sha256=stored.dataset_sha256,
    )


def _rivals(
    results: Results, evaluation: Evaluation, criteria: Criteria, tuned: Threshold | None
) -> Rivals:
    """The baselines against the model, by the decisions and on the rows that are judged."""
    on = evaluation.name
    share = _left_out(tuned, on)
    predictions = _rest(results.predictions(on), share)
    if evaluation.threshold is not None:
        predictions = decided_at(predictions, evaluation.threshold)
    return rivals_of(
        predictions,
        {name: _rest(rows, share) for name, rows in results.baselines(on).items()},
        criteria,
        set_name=on,
        # The stream of the comparison of runs, so that the two print one interval.
        rng=rng_for(SEED, f"compare {on}"),
    )


def _left_out(tuned: Threshold | None, name: str) -> float | None:
    """The share of a set that the threshold was fitted on, and that is not judged."""
    return None if tuned is None or tuned.fitted_on.set != name else tuned.fitted_on.share


def _rest(rows: Predictions, share: float | None) -> Predictions:
    return rows if share is None else split_by_hash(rows, share=share)[1]


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
