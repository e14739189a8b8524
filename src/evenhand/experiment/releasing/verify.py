"""Whether what lies in a run folder belongs together: every problem at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evenhand.core.decisions import Binding, Threshold
from evenhand.core.errors import ConfigError, StorageError
from evenhand.experiment.binding import current_binding
from evenhand.experiment.deciding import read_decisions, read_threshold
from evenhand.experiment.releasing.golden import GOLDEN, Golden, is_of, read_golden
from evenhand.experiment.releasing.hashes import weights_sha256
from evenhand.experiment.releasing.problems import ReleaseProblem
from evenhand.experiment.results import Decisions, Results, open_results, read_manifest
from evenhand.experiment.runs import Run, find_run, open_run

_RETRAIN = "put the file of the training back, or train again"
_JUDGE = "run `evenhand gate {run} --on NAME` again"


@dataclass(frozen=True)
class Verified:
    """A run whose files can be read, with what was found wrong.

    Attributes:
        decisions: what was decided and still holds.
        threshold: the tuned threshold as it lies in the folder, whether it holds or not.
        golden: the golden rows; None where there are none.
        weights: the hash of the run's own weights as they are; None unless all were trained.
    """

    run: Run
    results: Results
    decisions: Decisions
    threshold: Threshold | None
    golden: Golden | None
    weights: str | None
    problems: tuple[ReleaseProblem, ...]

    @property
    def threshold_that_holds(self) -> Threshold | None:
        """The tuned threshold, where it belongs to the model in the folder."""
        return self.decisions.threshold


def check_run(path: Path) -> None:
    """Refuse a folder that holds no run at all, before a database is made in it.

    Raises:
        ConfigError: there is no run.
    """
    if find_run(path) is None:
        open_run(path)  # which raises, and says which folder may have been meant


def verify_run(path: Path) -> Verified | ReleaseProblem:
    """Read a run folder and return it with its problems, or the one that ends everything.

    Raises:
        ConfigError: there is no run, or its prompt file is wrong.
    """
    try:
        return _verify(path)
    except StorageError as error:
        remedy = error.hint or "put it back from a copy"
        return ReleaseProblem("damaged", str(path), error.message, remedy)


def _verify(path: Path) -> Verified | ReleaseProblem:
    manifest = read_manifest(path)
    if manifest is not None and "imported" in manifest:
        remedy = "train the model here to serve it"
        return ReleaseProblem(
            "run_imported", str(path), "an imported run has answers but no model", remedy
        )
    run = find_run(path)
    if run is not None and not run.is_finished:
        remedy = "go on with `evenhand train ... --resume`"
        return ReleaseProblem("run_unfinished", str(path), "its training has not ended", remedy)
    if run is None:
        open_run(path)  # which raises, and says which folder may have been meant
        raise AssertionError
    results = open_results(path)
    weights = weights_sha256(path / "model") if run.config.tuning == "full" else None
    there = current_binding(results)
    decisions = read_decisions(results)
    golden = read_golden(path)
    problems = [
        *_file_problems(run, results, there, weights),
        *_threshold_problems(results),
        *_gate_problems(results, decisions),
        *_golden_problems(path, golden, there, weights),
    ]
    threshold = results.decisions.threshold
    return Verified(run, results, decisions, threshold, golden, weights, tuple(problems))


def _file_problems(
    run: Run, results: Results, there: Binding, weights: str | None
) -> list[ReleaseProblem]:
    recorded, path = results.binding, run.path
    problems = []
    if run.config.uses_adapter and there.adapter != recorded.adapter:
        place = str(path / "adapter" / "adapter_model.safetensors")
        message = "is not the adapter that manifest.json records of the training"
        problems.append(ReleaseProblem("adapter_changed", place, message, _RETRAIN))
    if there.prompt != recorded.prompt:
        message = "is not the prompt that manifest.json records of the training"
        problems.append(
            ReleaseProblem("prompt_changed", str(path / "prompt.json"), message, _RETRAIN)
        )
    if run.config.tuning == "full" and weights != results.manifest.get("weights_sha256"):
        known = "weights_sha256" in results.manifest
        message = (
            "holds other weights than manifest.json records of the training"
            if known
            else "its weights cannot be checked: manifest.json, of an earlier version, has no hash"
        )
        problems.append(ReleaseProblem("weights_changed", str(path / "model"), message, _RETRAIN))
    return problems


def _threshold_problems(results: Results) -> list[ReleaseProblem]:
    try:
        read_threshold(results)
    except ConfigError as error:
        what = "; ".join(f"{one.place} {one.message}" for one in error.problems)
        remedy = "fit it again with `evenhand threshold`"
        place = str(results.path / "threshold.json")
        return [ReleaseProblem("threshold_stale", place, what, remedy)]
    return []


def _gate_problems(results: Results, decisions: Decisions) -> list[ReleaseProblem]:
    path, found = results.path, results.decisions
    judge = _JUDGE.format(run=path)
    gate, record = str(path / "gate.json"), str(path / "deployment.json")

    def told_of(name: str) -> str:
        told = [one for one in decisions.warnings if one.startswith(f"{name} ")]
        return told[0].removeprefix(f"{name} ").rstrip(".") if told else "does not hold any more"

    def because(code: str, place: str, message: str, remedy: str = judge) -> ReleaseProblem:
        return ReleaseProblem(code, place, message, remedy)

    problems = []
    if found.verdict is None:
        problems.append(because("gate_missing", gate, "there is no verdict"))
    elif decisions.verdict is None:
        problems.append(because("gate_stale", gate, told_of("gate.json")))
    elif found.deployment is None:
        message = "there is none, so no duty would be watched"
        problems.append(because("deployment_missing", record, message))
    elif decisions.deployment is None:
        problems.append(because("deployment_stale", record, told_of("deployment.json")))
    verdict, deployment = found.verdict, found.deployment
    has_failed = verdict is not None and verdict.outcome == "FAIL"
    if has_failed or (deployment is not None and deployment.status == "rejected"):
        message = "the verdict is FAIL" if has_failed else "deployment.json says rejected"
        remedy = "do not serve this model: mend what the gate names, and judge again"
        problems.append(because("gate_failed", gate if has_failed else record, message, remedy))
    if verdict is not None and verdict.vacuous:
        message = f"{', '.join(verdict.vacuous)} meets every required criterion: no verdict"
        problems.append(because("gate_vacuous", gate, message, f"change the criteria, and {judge}"))
    elif verdict is not None and verdict.outcome == "REVIEW":
        message = "the verdict is REVIEW: a required criterion is undecided"
        action = None if deployment is None else deployment.next_action
        remedy = "settle it before others rely on the answers" if action is None else action
        problems.append(because("gate_review", gate, message, remedy))
    return problems


def _golden_problems(
    path: Path, golden: Golden | None, there: Binding, weights: str | None
) -> list[ReleaseProblem]:
    place = str(path / GOLDEN)
    remedy = f"`evenhand evaluate {path} --data FILE --name NEW` writes them with a new evaluation"
    if golden is None:
        message = "there are no golden rows, so nothing can be replayed"
        return [ReleaseProblem("golden_missing", place, message, remedy)]
    if not is_of(golden, there, weights):
        message = "its rows were scored by a model with other hashes than the one in the folder"
        return [ReleaseProblem("golden_stale", place, message, remedy)]
    return []


def base_problems(verified: Verified, hashed: Callable[[], dict[str, str]]) -> list[ReleaseProblem]:
    """Compare the model as it was loaded with what the manifest records of the base.

    ``hashed`` is :func:`evenhand.finetune.models.hash_model` of the loaded model.
    """
    if verified.run.config.tuning == "full":  # the run's own weights, compared above
        return []
    recorded = verified.results.manifest.get("base") or {}
    there = hashed()
    words = {"model": "weights", "tokenizer": "tokenizer"}
    differ = [words[key] for key in words if there[key] != recorded.get(key)]
    if not differ:
        return []
    message = f"its {' and '.join(differ)} differ from those that manifest.json records"
    remedy = "put the base model of the training back, or train and judge again with this one"
    place = verified.run.config.model_name_or_path
    return [ReleaseProblem("base_changed", place, message, remedy)]
