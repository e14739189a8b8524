"""``evenhand preflight``: look at a training on this machine before it is started."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.options import (
    Columns,
    DataFormat,
    JsonFlag,
    Labels,
    Overrides,
    SkipBadRows,
    column_map,
    key_values,
    print_json,
)

if TYPE_CHECKING:
    from evenhand.experiment.preflight import Preflight

PROBLEM = 2


class DeviceChoice(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"


def command(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.json", help="A phase's configuration, or an experiment."),
    ],
    out: Annotated[Path | None, typer.Option(help="Where the run folder will be.")] = None,
    overrides: Overrides = None,
    device: Annotated[
        DeviceChoice | None, typer.Option(help="Instead of the configuration's device.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Training steps to measure after a first one; 0: none.")
    ] = 3,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of the planned training; else one a GPU."),
    ] = None,
    hourly_price: Annotated[
        float | None, typer.Option(min=0, help="Price of one process's device for an hour.")
    ] = None,
    format: DataFormat = None,
    column: Columns = None,
    label: Labels = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: JsonFlag = False,
) -> int:
    """Check a training before it starts: memory, kernels, time, cost, disk, schedule, processes.

    Attention and experts kernels are compared with the plain ones on a small random model, output
    and gradient. If the weights are on this machine, a few real training steps are measured;
    nothing but a model's config.json is downloaded or kept. Ends with 2 if there is a problem.

    Example: evenhand preflight configs/cpu/default.json --set train_file=train.csv
    """
    from evenhand.cli.session import open_session
    from evenhand.config.load import load_experiment, load_phase
    from evenhand.config.strict_json import read_object
    from evenhand.experiment.inputs import PHASE_FILES, DataSource
    from evenhand.experiment.preflight import (
        PreflightOptions,
        preflight_experiment,
        preflight_phase,
    )
    from evenhand.finetune.preflight.launch import take_one_gpu

    given = list(overrides or ())
    is_experiment = config.is_file() and "phases" in (read_object(config)[0] or {})
    if device is not None:
        given.append(f"{'phases.*.' if is_experiment else ''}device={device.value}")
    gpus = take_one_gpu()
    if is_experiment:
        experiment = load_experiment(config, overrides=given, check_files=False)
        session = open_session(device=experiment.phases[0].config.device)
    else:
        phase = load_phase(config, overrides=given, check_files=False)
        session = open_session(device=phase.config.device)
    planned = session.world.size if session.world.size > 1 else gpus
    options = PreflightOptions(
        processes=processes or max(planned, 1),
        gpus=gpus,
        steps=steps,
        hourly_price=hourly_price,
        out=out,
    )
    if is_experiment:
        found = preflight_experiment(experiment, options)
    else:
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
        found = preflight_phase(phase, sources, options)
    if session.world.is_first:
        if as_json:
            print_json(found.to_json())
        else:
            typer.echo(_render(found))
    return PROBLEM if found.status == "problem" else 0


def _render(found: Preflight) -> str:
    lines = []
    several = len(found.phases) > 1
    groups = [(phase.name, phase.checks) for phase in found.phases]
    if found.together:
        groups.append(("all phases", found.together))
    width = max(len(check.name) for _, checks in groups for check in checks)
    for name, checks in groups:
        if several:
            lines += [name, ""]
        for check in checks:
            lines.append(f"{check.status:<8} {check.name:<{width}}  {check.message}")
            if check.remedy and check.status != "ok":
                lines.append(f"{'':<8} {'':<{width}}  {check.remedy}")
        lines.append("")
    counts = [check.status for _, checks in groups for check in checks]
    told = [f"{counts.count(one)} {one}" for one in ("problem", "warning", "unknown", "ok")]
    return "\n".join([*lines, ", ".join(told)])
