"""``evenhand train``: one phase from its configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evenhand.cli.options import (
    Columns,
    ConfigFile,
    DataFormat,
    JsonFlag,
    Labels,
    Overrides,
    SkipBadRows,
    column_map,
    key_values,
    print_json,
)


def command(
    config: ConfigFile,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; without it, the file's output_dir.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the run folder.")
    ] = False,
    format: DataFormat = None,
    column: Columns = None,
    label: Labels = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: JsonFlag = False,
) -> None:
    """Train one phase into a run folder: adapter, checkpoints, history, statistics.

    Early stopping and the best checkpoint go by the validation file. Several GPUs or processes:
    torchrun --nproc_per_node 2 -m evenhand train ...

    Example: evenhand train phase.json --out runs/phase --set train_file=train.csv
    --set validation_file=validation.csv
    """
    from evenhand.cli.session import open_session
    from evenhand.config.load import load_phase
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.experiment.inputs import PHASE_FILES, DataSource
    from evenhand.experiment.plan import plan_phase
    from evenhand.experiment.runs import hold, open_run
    from evenhand.experiment.stages import train_run

    phase = load_phase(config, overrides=overrides or ())
    folder = out or (Path(phase.config.output_dir) if phase.config.output_dir else None)
    if folder is None:
        problem = Problem("--out", "is missing, and the file has no output_dir")
        raise ConfigError(str(config), [problem])
    sources = {
        key: DataSource(
            path=phase.files[key],
            format=format,
            columns=column_map(column),
            labels=dict(key_values(label, "--label")),
            on_bad_row="skip" if skip_bad_rows else "stop",
        )
        for key in PHASE_FILES
        if key in phase.files
    }
    session = open_session(device=phase.config.device)
    inputs = plan_phase(phase, sources)
    with hold(folder, world=session.world):
        train_run(inputs, folder, resume=resume, session=session)
    if not session.world.is_first:
        return
    training = open_run(folder).training
    if as_json:
        print_json(training)
    else:
        typer.echo(_digest(training, folder))


def _digest(training: dict[str, Any] | None, folder: Path) -> str:
    if training is None:
        return f"nothing was trained; the run folder is {folder}"
    lines = [
        f"training rows         {training['rows']:,}",
        f"validation rows       {training['validation_rows']:,}",
        f"effective batch size  {training['effective_batch_size']} "
        f"({training['per_device_train_batch_size']} per device x {training['processes']} "
        f"x {training['gradient_accumulation_steps']} accumulation)",
        f"steps                 {training['steps_run']} of {training['total_steps']} "
        f"({training['steps_per_epoch']} per epoch)",
        f"trainable parameters  {training['trainable_parameters']:,} "
        f"({training['trainable_percent']:.3f}% of {training['total_parameters']:,})",
        f"run time              {training['runtime_seconds']:.1f} s "
        f"({training['rows_per_second']:.2f} rows/s)",
    ]
    for one in training["checkpoints"]:
        change = one["relative_improvement"]
        change_text = ""
        if change is not None:
            change_text = f"  {100 * abs(change):.1f}% {'lower' if change >= 0 else 'higher'}"
        best = "  best" if one["best"] else ""
        lines.append(
            f"  epoch {one['epoch']:.2f}  step {one['step']}  validation loss "
            f"{one['eval_loss']:.4f}{change_text}{best}"
        )
    return "\n".join([*lines, f"run folder            {folder}"])
