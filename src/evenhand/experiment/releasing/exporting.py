"""``evenhand export``: a run's model as a folder for other programs, verified, with a card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, ModelError, Problem
from evenhand.core.paths import atomic_dir, write_json, write_text
from evenhand.experiment.binding import current_binding
from evenhand.experiment.releasing.card import Card, render_card
from evenhand.experiment.releasing.golden import golden_posts, silent
from evenhand.experiment.releasing.problems import ReleaseProblem
from evenhand.experiment.releasing.verify import Verified, verify_run
from evenhand.experiment.runs import machine, now
from evenhand.finetune.export import ExportedModel, Form, base_name, export_model

FLOAT32_TOLERANCE = 1e-4
LOW_PRECISION_TOLERANCE = 0.05
"""Rounding merged weights to 16 bits changes scores by more than the order of a sum does."""

_OF_THE_MODEL = frozenset({"adapter_changed", "prompt_changed", "weights_changed"})


@dataclass(frozen=True)
class Exported:
    """What ``export.json`` holds, and what was left out of the folder because it does not hold."""

    path: Path
    document: Mapping[str, Any]
    warnings: tuple[str, ...]


def export_run(path: Path, out: Path, *, form: Form = "merged") -> Exported:
    """Write a run's model to a folder, which appears only if its scores are the run's.

    Golden posts are scored with the written files, loaded anew, and with the run's model, both in
    float32 on the CPU. Beside the model lie ``prompt.json``, ``threshold.json``, ``gate.json`` and
    ``deployment.json`` as far as they hold, ``export.json`` and a card, ``README.md``.

    Args:
        path: the run folder.
        out: the folder to make; it must not be there, or be empty.
        form: ``merged`` (a whole model) or ``adapter``.

    Raises:
        ConfigError: there is no run that can be exported so, or ``out`` holds something.
        ModelError: the written files do not give the run's scores; nothing is left behind.
    """
    _check_out(out)
    verified = verify_run(path)
    if isinstance(verified, ReleaseProblem):
        raise ConfigError(
            str(path), [Problem(verified.code, verified.text)], consequence="nothing was exported"
        )
    _check(verified, form)
    run = verified.run
    with atomic_dir(out) as staging:
        model = export_model(
            run.path,
            run.config,
            run.prompt,
            out=staging,
            form=form,
            posts=golden_posts(),
            advance=silent,
        )
        tolerance = FLOAT32_TOLERANCE if model.dtype == "float32" else LOW_PRECISION_TOLERANCE
        if not model.max_difference <= tolerance:
            raise ModelError(
                f"the exported files give p(hate) that differs from the run's by up to "
                f"{model.max_difference:.2g} (allowed {tolerance:g}); nothing was written",
                hint="a base model in 16 bits rounds the merged weights: --form adapter keeps them",
            )
        document = _document(verified, model, tolerance)
        _write_records(verified, staging)
        write_json(staging / "export.json", document)
        card = Card(verified=verified, model=model, tolerance=tolerance)
        write_text(staging / "README.md", render_card(card))
    warnings = tuple(one.text for one in verified.problems if one.code.endswith("_stale"))
    return Exported(out, document, warnings)


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{out} is there and not empty; choose another folder"
        raise ConfigError(
            "the command", [Problem("--out", message)], consequence="nothing was exported"
        )


def _check(verified: Verified, form: Form) -> None:
    """Refuse what would export another model than the one that was trained."""
    problems = [
        Problem(one.code, one.text) for one in verified.problems if one.code in _OF_THE_MODEL
    ]
    config = verified.run.config
    if form == "adapter" and not config.uses_adapter:
        message = f'is for a run with an adapter; its tuning is "{config.tuning}": use merged'
        problems.append(Problem("--form", message))
    if problems:
        raise ConfigError(str(verified.run.path), problems, consequence="nothing was exported")


def _document(verified: Verified, model: ExportedModel, tolerance: float) -> dict[str, Any]:
    threshold = verified.decisions.threshold
    verdict = verified.decisions.verdict
    return {
        "created": now(),
        "run": verified.results.name,
        "form": model.form,
        "dtype": model.dtype,
        "base_model": base_name(verified.run.config),
        "task": verified.run.config.task,
        "binding": current_binding(verified.results).model_dump(mode="json"),
        "weights": verified.weights,
        "threshold": None if threshold is None else threshold.value,
        "gate": None if verdict is None else verdict.outcome,
        "verified": {
            "rows": model.rows,
            "max_difference": model.max_difference,
            "tolerance": tolerance,
            "computed_in": "float32 on the CPU",
        },
        "scoring": dict(model.procedure),
        "versions": machine(),
    }


def _write_records(verified: Verified, staging: Path) -> None:
    decisions, source = verified.decisions, verified.run.path
    write_json(staging / "prompt.json", verified.run.prompt.to_json())
    holds = {
        "threshold.json": decisions.threshold,
        "gate.json": decisions.verdict,
        "deployment.json": decisions.deployment,
    }
    for name, record in holds.items():
        if record is not None:
            shutil.copyfile(source / name, staging / name)
