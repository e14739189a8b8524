"""From an experiment's result to the files a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evenhand.config.files import shown
from evenhand.core.paths import write_json, write_text
from evenhand.core.records import HATE, Dataset
from evenhand.experiment.runner import ExperimentResult, PhaseResult
from evenhand.experiment.runs import machine, now
from evenhand.report.records import PhaseReport, SetReport, Summary
from evenhand.report.summary import comparison_table, render_summary


def summarise(result: ExperimentResult) -> Summary:
    """Return the summary's content."""
    experiment = result.experiment
    prompted = [one for one in result.phases if one.run.config.task == "causal_lm"]
    skipped = [
        f"{name}: {len(data.skipped)} of {len(data) + len(data.skipped)} rows could not be used"
        for name, data in result.sets.items()
        if data.skipped
    ]
    return Summary(
        name=experiment.config.name,
        description=experiment.config.description,
        created=now()[:10],
        phases=tuple(_phase(one) for one in result.phases),
        sets=tuple(_set(one.name, one.role, result.sets[one.name]) for one in experiment.sets),
        selection=result.selection,
        prompt=_prompt(prompted),
        machine=machine(),
        command=result.command,
        notes=(*result.notes, *skipped, *_other_prompts(prompted)),
    )


def write_summary(summary: Summary, out: Path) -> Path:
    """Write ``summary.md`` and ``comparison.json``; return the summary's path."""
    write_json(out / "comparison.json", comparison_table(summary))
    write_text(out / "summary.md", render_summary(summary))
    return out / "summary.md"


def _prompt(prompted: Sequence[PhaseResult]) -> dict[str, str]:
    if not prompted:
        return {"file": "none; a sequence classifier reads the bare text"}
    prompt = prompted[0].run.manifest["prompt"]
    return {
        "file": prompt["origin"],
        "strategy": prompt["strategy"],
        "sha256": prompt["sha256"],
    }


def _other_prompts(prompted: Sequence[PhaseResult]) -> list[str]:
    """Name the phases whose prompt is not the first one's."""
    return [
        f"{one.phase.name} has another prompt ({one.run.manifest['prompt']['origin']}) than "
        f"{prompted[0].phase.name}: they differ in more than their configuration."
        for one in prompted
        if one.run.prompt.sha256 != prompted[0].run.prompt.sha256
    ]


def _phase(result: PhaseResult) -> PhaseReport:
    phase = result.phase
    return PhaseReport(
        name=phase.name,
        hypothesis=phase.hypothesis,
        config=result.run.config.model_dump(mode="json"),
        config_source=shown(phase.path),
        run_dir=str(result.run.path),
        training=result.run.training,
        evaluations=result.evaluations,
        warnings=result.warnings,
        parent=phase.continue_from,
    )


def _set(name: str, role: str, data: Dataset) -> SetReport:
    return SetReport(
        name=name,
        role=role,
        file="" if data.path is None else shown(data.path),
        sha256=data.sha256,
        rows=len(data),
        n_hate=sum(row.label == HATE for row in data.rows),
        groups=Counter(group for row in data.rows for group in row.groups),
    )
