"""``evenhand audit``: what is wrong with an experiment, a run, or data files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.options import (
    Columns,
    DataFormat,
    JsonFlag,
    Labels,
    SkipBadRows,
    column_map,
    key_values,
    print_json,
)

if TYPE_CHECKING:
    from evenhand.core.decisions import Audit
    from evenhand.decide.audit.inputs import AuditSet, Role, Target, TargetMetric
    from evenhand.experiment.inputs import DataSource
    from evenhand.prompts.template import PromptTemplate


def command(
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="EXPERIMENT.json|RUN", help="An experiment, or the folder of a finished run."
        ),
    ] = None,
    train: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Training rows; repeatable.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Evaluation rows; repeatable.")
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The prompt of the evaluation; a run has its own."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Strategy of --prompt-file.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="A bar to try on constants: f1=0.615; also accuracy, precision, recall.",
        ),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ROLE",
            help="What a run's evaluation set is: validation, test or production; repeatable.",
        ),
    ] = None,
    format: DataFormat = None,
    column: Columns = None,
    label: Labels = None,
    skip_bad_rows: SkipBadRows = False,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write the offending rows' ids there.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Look for leaks, drift, vacuous bars and other faults; exits 5 on an error.

    With --train and --evaluation alone, the data files are audited by themselves.

    Example: evenhand audit --train train.jsonl --evaluation test.json --rows shared.csv
    """
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.experiment.inputs import DataSource
    from evenhand.prompts.template import load_prompt

    def source(path: Path) -> DataSource:
        return DataSource(
            path=path,
            format=format,
            columns=column_map(column),
            labels=dict(key_values(label, "--label")),
            on_bad_row="skip" if skip_bad_rows else "stop",
        )

    if what is None and not (train and evaluation):
        message = "name an experiment or a run, or give both --train and --evaluation"
        raise ConfigError("the command", [Problem("EXPERIMENT.json|RUN", message)])
    prompt = None
    if prompt_file is not None or strategy is not None:
        prompt = load_prompt(prompt_file, strategy=strategy)
    files = _Files([source(one) for one in train or ()], [source(one) for one in evaluation or ()])
    found = _audit(what, files, prompt, _targets(target), _roles(role))
    if rows is not None:
        _write_rows(found, rows)
    if as_json:
        print_json({**found.model_dump(mode="json"), "n_errors": len(found.errors)})
    else:
        _print(found)
        if rows is not None:
            typer.echo(f"rows: {rows}")
    return 5 if found.errors else 0


class _Files:
    """The data files of the command line."""

    def __init__(self, train: list[DataSource], evaluation: list[DataSource]) -> None:
        self.train = train
        self.evaluation = evaluation

    def sets(self) -> tuple[AuditSet, ...]:
        """Read them; the problems of all files are told at once."""
        from evenhand.core.errors import DataError, Problem
        from evenhand.experiment.auditing import named_sets

        read: list[Any] = []
        errors: list[DataError] = []
        for kind, sources in (("train", self.train), ("test", self.evaluation)):
            for one in sources:
                try:
                    read.append((kind, one.read()))
                except DataError as error:
                    errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            problems = [
                Problem(f"{error.source}, {one.place}", one.message)
                for error in errors
                for one in error.problems
            ]
            raise DataError("the data", problems, hint=errors[0].hint)
        return named_sets(read)


def _audit(
    what: Path | None,
    files: _Files,
    prompt: PromptTemplate | None,
    targets: list[Target],
    roles: dict[str, Role],
) -> Audit:
    from evenhand.config.load import load_experiment
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.experiment.auditing import (
        audit_experiment,
        audit_files,
        audit_results,
        read_for_audit,
    )
    from evenhand.experiment.results import open_results

    if what is None:
        return audit_files(files.sets(), prompt=prompt, targets=targets)
    if what.is_dir():
        return audit_results(
            open_results(what), sets=files.sets(), prompt=prompt, targets=targets, roles=roles
        )
    given = {
        "--train": files.train,
        "--evaluation": files.evaluation,
        "--prompt-file": prompt,
        "--target": targets,
        "--role": roles,
    }
    if what.is_file() and what.suffix.lower() != ".json":
        message = (
            f"{what} is neither an experiment nor a run; for data files use --train and "
            "--evaluation"
        )
        raise ConfigError("the command", [Problem("EXPERIMENT.json|RUN", message)])
    problems = [
        Problem(name, "an experiment names it itself; use it with a run or with files")
        for name, value in given.items()
        if value
    ]
    if problems:
        raise ConfigError("the command", problems)
    experiment = load_experiment(what)
    return audit_experiment(experiment, read_for_audit(experiment))


def _targets(values: list[str] | None) -> list[Target]:
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.core.registry import suggest
    from evenhand.decide.audit.inputs import TARGET_METRICS, Target

    known: dict[str, TargetMetric] = {metric: metric for metric in TARGET_METRICS}
    found, problems = [], []
    for metric, value in key_values(values, "--target"):
        try:
            bar = float(value)
        except ValueError:
            bar = -1.0
        if metric not in known:
            message = f'"{metric}" is not one of {", ".join(known)}{suggest(metric, known)}'
            problems.append(Problem("--target", message))
        elif not 0.0 <= bar <= 1.0:
            problems.append(Problem("--target", f'"{value}" is not a fraction from 0 to 1'))
        else:
            found.append(Target(known[metric], bar))
    if problems:
        raise ConfigError("the command", problems)
    return found


def _roles(values: list[str] | None) -> dict[str, Role]:
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.decide.audit.inputs import ROLES

    known: dict[str, Role] = {role: role for role in ROLES if role != "train"}
    pairs = key_values(values, "--role")
    problems = [
        Problem("--role", f'"{name}={role}": the role must be {", ".join(known)}')
        for name, role in pairs
        if role not in known
    ]
    if problems:
        raise ConfigError("the command", problems)
    return {name: known[role] for name, role in pairs}


def _print(audit: Audit) -> None:
    """Print the findings, the worst first, and what was not looked at."""
    from evenhand.report.audited import SEVERITIES, audit_summary, first_rows
    from evenhand.report.wording import signs

    for finding in sorted(audit.findings, key=lambda one: SEVERITIES.index(one.severity)):
        word = finding.severity if finding.accepted is None else f"accepted {finding.severity}"
        typer.echo(f"{word}: {finding.check} ({finding.subject})")
        typer.echo(f"  {signs(finding.message)}")
        rows = first_rows(finding)
        if rows is not None:
            typer.echo(f"  rows: {rows}")
        if finding.accepted is not None:
            typer.echo(f"  accepted: {finding.accepted}")
        typer.echo(f"  remedy: {finding.remedy}\n")
    typer.echo(audit_summary(audit))
    for check, why in audit.skipped.items():
        typer.echo(f"not checked: {check}: {why}")


def _write_rows(audit: Audit, path: Path) -> None:
    """Write the offending rows, one pair or conflict a line, as CSV."""
    import csv
    import io
    import itertools

    from evenhand.core.paths import write_text

    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["check", "subject", "set", "row", "other_set", "other_row", "similarity"])
    for finding in audit.findings:
        head = [finding.check, finding.subject]
        for match in finding.evidence.get("matches", ()):
            (first, ours), (second, theirs) = match["rows"].items()
            for one, other in itertools.product(ours, theirs):
                writer.writerow([*head, first, one, second, other, match["similarity"]])
        for conflict in finding.evidence.get("conflicts", ()):
            told = [
                (name, row, label)
                for name, labels in conflict["rows"].items()
                for row, label in labels.items()
            ]
            for (first, one, label), (second, other, another) in itertools.combinations(told, 2):
                if label != another:
                    writer.writerow([*head, first, one, second, other, 1.0])
    write_text(path, stream.getvalue())
