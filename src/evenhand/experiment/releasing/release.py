"""From a run folder to a release that can be served: verified, loaded, proved, written down."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, EvenhandError
from evenhand.core.paths import storage_errors
from evenhand.core.production import Override, Release
from evenhand.core.seeding import rng_for
from evenhand.experiment.binding import current_binding
from evenhand.experiment.deciding import DEFAULT_THRESHOLD
from evenhand.experiment.judged import SEED, split_by_hash
from evenhand.experiment.releasing.problems import (
    Acceptance,
    ReleaseProblem,
    check_acceptance,
    settle,
)
from evenhand.experiment.releasing.proof import ClassifierScorer, Proof, prove
from evenhand.experiment.releasing.verify import Verified, base_problems, verify_run
from evenhand.experiment.runs import machine
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.models import hash_model
from evenhand.measure.classification import evaluate
from evenhand.serve.scoring import Scorer
from evenhand.serve.service import Readiness

STARTS = "serving.jsonl"
"""The file in a run folder with one line for each start of a server."""

_BOOTSTRAP = 200
# Not the error's own hint, which is for those who write a configuration: a run's is settled.
_LOADABLE = "put the files of the training back where its configuration names them; a link will do"


@dataclass(frozen=True)
class PreparedRelease:
    """A release that may be served.

    Attributes:
        path: the run folder.
        scorer: answers; may be called from any thread.
        readiness: what was proved.
        reference: the offline evaluation that production is held against; see :func:`reference_of`.
        versions: of the machine and the libraries.
    """

    path: Path
    release: Release
    scorer: Scorer
    readiness: Readiness
    reference: Mapping[str, Any]
    versions: Mapping[str, Any]


def prepare_release(
    path: Path,
    *,
    acceptance: Acceptance | None = None,
    tolerance: float | None = None,
) -> PreparedRelease:
    """Verify a run, load its model, replay its golden rows, and return it ready to serve.

    Args:
        path: the run folder.
        acceptance: problems that are accepted, with the reason.
        tolerance: how far p(hate) of a golden row may be from its offline value; None: 0.001 in
            float32, 0.05 in 16-bit formats.

    Raises:
        ConfigError: the problems that were not accepted, all of them; or no run is there.
        DeviceError: as its name says.
    """
    acceptance = acceptance or Acceptance()
    check_acceptance(acceptance)
    verified = verify_run(path)
    if isinstance(verified, ReleaseProblem):
        raise _refused(path, [verified], acceptance)
    loaded = _load(verified, tolerance=tolerance)
    if isinstance(loaded, ReleaseProblem):
        raise _refused(path, [*verified.problems, loaded], acceptance)
    scorer, proof, further = loaded
    problems = [*verified.problems, *further, *proof.problems]
    overrides = settle(str(path), problems, acceptance)
    release = _release(verified, overrides)
    return PreparedRelease(
        path=path,
        release=release,
        scorer=scorer,
        readiness=proof.readiness,
        reference=reference_of(verified, release),
        versions=machine(),
    )


def _refused(
    path: Path, problems: Sequence[ReleaseProblem], acceptance: Acceptance
) -> EvenhandError:
    try:
        settle(str(path), problems, acceptance)
    except ConfigError as error:
        return error
    raise AssertionError("a fatal problem was settled")


def _load(
    verified: Verified, *, tolerance: float | None
) -> tuple[ClassifierScorer, Proof, list[ReleaseProblem]] | ReleaseProblem:
    run = verified.run
    try:
        classifier = load_classifier(run.path, run.config, run.prompt)
        scorer = ClassifierScorer(classifier)
        hashed = functools.partial(hash_model, classifier.base)
        further = base_problems(verified, hashed)
        proof = prove(classifier, scorer, verified.golden, place=str(run.path), tolerance=tolerance)
    except EvenhandError as error:
        if error.exit_code == 1:  # the machine's fault, not the run's
            raise
        return ReleaseProblem("cannot_load", str(run.path), error.message, _LOADABLE)
    return scorer, proof, further


def _release(verified: Verified, overrides: tuple[Override, ...]) -> Release:
    threshold, decisions = verified.threshold, verified.decisions
    verdict = decisions.verdict
    holds = verdict is not None and not verdict.vacuous
    calibration = None if threshold is None else threshold.calibration
    return Release(
        model=verified.results.name,
        binding=current_binding(verified.results),
        threshold=DEFAULT_THRESHOLD if threshold is None else threshold.value,
        temperature=None if calibration is None else calibration.temperature,
        outcome=verdict.outcome if verdict is not None and holds else None,
        deployment=decisions.deployment if holds else None,
        overrides=overrides,
    )


def reference_of(verified: Verified, release: Release) -> dict[str, Any]:
    """Return the offline evaluation that production's figures are held against.

    It is that of the set which the gate judged on, else of the last set by name, decided at the
    release's threshold and without the rows that the threshold was fitted on. Holds ``set``, ``n``,
    and ``fpr`` and ``fnr`` by group; ``""`` is all rows, and groups without such rows are left out.
    Empty where there is no evaluation with scores.
    """
    results, verdict = verified.results, verified.decisions.verdict
    names = results.evaluation_names
    name = verdict.set if verdict is not None and verdict.set in names else (names or (None,))[-1]
    if name is None:
        return {}
    predictions = results.predictions(name)
    answered = predictions.frame["status"] == "ok"
    if predictions.frame.loc[answered, "score"].isna().any() or not answered.any():
        return {}
    tuned = verified.threshold
    if tuned is not None and tuned.fitted_on.set == name and tuned.fitted_on.share is not None:
        predictions = split_by_hash(predictions, share=tuned.fitted_on.share)[1]
    found = evaluate(
        predictions,
        name=name,
        rng=rng_for(SEED, f"reference {name}"),
        threshold=release.threshold,
        n_bootstrap=_BOOTSTRAP,
    )
    rates = {
        metric: {
            group: value
            for group, one in {"": found.metrics, **found.groups}.items()
            if (value := getattr(one, metric).value) is not None
        }
        for metric in ("fpr", "fnr")
    }
    return {
        "set": name,
        "n": found.n,
        **rates,
    }


def record_start(
    prepared: PreparedRelease, *, now: datetime, where: str, database: str
) -> dict[str, Any]:
    """Append one line to ``RUN/serving.jsonl`` and return it.

    ``where`` is the server's address and ``database`` its URL without a password.

    Raises:
        StorageError: it cannot be written; a start that cannot be recorded must not happen.
    """
    release = prepared.release
    line = {
        "time": now.isoformat(timespec="seconds"),
        "release": release.sha256,
        "where": where,
        "database": database,
        "threshold": release.threshold,
        "outcome": release.outcome,
        "binding": release.binding.model_dump(mode="json"),
        "overrides": [one.model_dump(mode="json") for one in release.overrides],
        "golden_rows": prepared.readiness.golden_rows,
        "golden_max_difference": prepared.readiness.golden_max_difference,
        "versions": dict(prepared.versions),
    }
    file = prepared.path / STARTS
    with storage_errors(file), file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return line
