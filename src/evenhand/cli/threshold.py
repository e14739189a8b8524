"""``evenhand threshold``: one decision threshold within limits on each group's false positives."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from evenhand.core.decisions import Threshold
    from evenhand.decide.threshold import FittedThreshold, GroupShortfall, NoThreshold
    from evenhand.experiment.deciding import Tuned

_NOT_SATISFIED = 4
_POOR_RECALL = 0.75
"""Below this the reference would not deploy; the threshold is written all the same."""


class Maximise(StrEnum):
    """What the allowed thresholds compete on."""

    F1 = "f1"
    RECALL = "recall"


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with scores.")],
    fit_on: Annotated[str, typer.Option(help="The evaluation to fit on, by name.")],
    report_on: Annotated[str, typer.Option(help="The evaluation to report on, by name.")],
    max_group_fpr: Annotated[
        float | None, typer.Option(help="Highest FPR of any group, 0.30 for example.")
    ] = None,
    max_fpr_gap: Annotated[
        float | None, typer.Option(help="Highest excess of a group's FPR over the other rows.")
    ] = None,
    maximise: Annotated[
        Maximise, typer.Option(help="What the allowed thresholds compete on.")
    ] = Maximise.F1,
    confidence: Annotated[
        float, typer.Option(help="How sure the limits are to hold on new rows.")
    ] = 0.95,
    candidates: Annotated[
        int,
        typer.Option(
            min=1,
            help="Models that the fit rows chose this one among: phases x checkpoints.",
        ),
    ] = 1,
    fit_share: Annotated[
        float | None,
        typer.Option(help="Fit on this share of the one set, and report on the rest of it."),
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Tune the decision threshold so that limits on false positives hold on new rows.

    Writes threshold.json and threshold_report.json to RUN; where no threshold satisfies the limits,
    writes nothing, says how many labels are missing, and exits 4.

    Example: evenhand threshold RUN --fit-on validation --report-on test --max-group-fpr 0.3
    """
    from evenhand.decide.threshold import NoThreshold, threshold_rule
    from evenhand.experiment.deciding import tune
    from evenhand.experiment.results import open_results
    from evenhand.experiment.runs import hold
    from evenhand.finetune.processes import World

    rule = threshold_rule(
        maximise=maximise.value,
        max_group_fpr=max_group_fpr,
        max_fpr_gap=max_fpr_gap,
        confidence=confidence,
        n_candidates=candidates,
    )
    found = open_results(run)
    with hold(run, world=World()):
        tuned = tune(
            found,
            fit_on=fit_on,
            report_on=report_on,
            rule=rule,
            fit_share=fit_share,
        )
    if as_json:
        print_json(_document(tuned))
    elif isinstance(tuned.fitted, NoThreshold):
        typer.echo(_render_shortfall(tuned.fitted))
    else:
        typer.echo(_render(tuned, tuned.fitted))
    if not isinstance(tuned.fitted, NoThreshold):
        return 0
    earlier = found.decisions.threshold
    if earlier is not None:
        typer.echo(_earlier(earlier, run), err=True)
    return _NOT_SATISFIED


def _earlier(threshold: Threshold, run: Path) -> str:
    """Say which threshold of an earlier search stays, and how to be rid of it."""
    from evenhand.config.files import shown
    from evenhand.report.wording import decimal, one_line

    files = " ".join(
        shlex.quote(shown(run / name)) for name in ("threshold.json", "threshold_report.json")
    )
    return (
        f"warning: the earlier threshold {decimal(threshold.value, digits=4)} (fitted on "
        f"{one_line(threshold.fitted_on.set)}, {threshold.created[:10]}) stays in place and goes "
        f"on being used; to return to the default: rm {files}"
    )


def _document(tuned: Tuned) -> dict[str, Any]:
    parts = {"fitted": tuned.fitted, "threshold": tuned.threshold, "report": tuned.report}
    return {
        name: None if part is None else part.model_dump(mode="json") for name, part in parts.items()
    }


def _render(tuned: Tuned, fitted: FittedThreshold) -> str:
    from evenhand.report.decided import (
        reported_calibration_table,
        threshold_facts,
        threshold_tables,
    )
    from evenhand.report.wording import cell, counted, decimal, percent, terminal

    assert tuned.threshold is not None
    assert tuned.report is not None
    part = "" if tuned.report.share is None else f" ({percent(tuned.report.share, digits=0)} of it)"
    rows = f"{cell(tuned.report.set)}{part}, {counted(tuned.report.n, 'row')}"
    blocks = [
        "\n".join(f"{name}: {value}" for name, value in threshold_facts(tuned.threshold)),
        "On the rows it was fitted on (FPR with its one-sided upper bound):",
        _points_table(fitted),
        *_remarks(fitted),
        f"On {rows}:",
        *threshold_tables(tuned.report),
    ]
    calibration, after = tuned.threshold.calibration, reported_calibration_table(tuned.report)
    if calibration is not None and after is not None:
        blocks += [
            f"Calibration on {rows}, before and after temperature scaling "
            f"({decimal(calibration.temperature)}, fitted on "
            f"{counted(calibration.n, 'row')} of {cell(tuned.threshold.fitted_on.set)}):",
            after,
        ]
    return terminal("\n\n".join(blocks))


def _points_table(fitted: FittedThreshold) -> str:
    from evenhand.report.wording import decimal, percent, table

    points = {
        "default": fitted.default,
        "tuned": fitted.chosen,
        "best F1, no limit": fitted.unlimited,
    }
    if fitted.rule.maximise == "recall":
        points = {"default": fitted.default, "tuned": fitted.chosen}
    groups = list(fitted.chosen.groups)
    rows = []
    for name, point in points.items():
        counts = point.confusion
        found = 2 * counts.tp + counts.fp + counts.fn
        rates = [point.groups[group] for group in groups]
        rows.append(
            [
                name,
                decimal(point.threshold),
                decimal(2 * counts.tp / found if found else None),
                percent(counts.tp / counts.positives),
                *(
                    "no normal posts"
                    if rate.fpr is None
                    else f"{percent(rate.fpr)} (at most {percent(rate.fpr_upper)})"
                    for rate in rates
                ),
            ]
        )
    header = ["Threshold", "Value", "F1", "Recall", *(f"FPR {group}" for group in groups)]
    return table(header, rows)


def _remarks(fitted: FittedThreshold) -> list[str]:
    from evenhand.report.wording import counted, percent

    recall = fitted.chosen.confusion.tp / fitted.chosen.confusion.positives
    before = fitted.default.confusion.tp / fitted.default.confusion.positives
    lines = []
    if recall < _POOR_RECALL and recall < before:
        lines.append(
            f"The limits cost recall: {percent(recall)} of the hateful posts are found, against "
            f"{percent(before)} at {fitted.default.threshold:g}."
        )
    if fitted.n_left_out:
        verbs = ("has", "was") if fitted.n_left_out == 1 else ("have", "were")
        lines.append(
            f"{counted(fitted.n_left_out, 'row')} {verbs[0]} no score and {verbs[1]} left out."
        )
    return lines


def _render_shortfall(missing: NoThreshold) -> str:
    from evenhand.report.wording import percent, table, terminal

    rule = missing.rule
    limits = [
        text
        for text, limit in (
            ("each group's FPR at most {}", rule.max_group_fpr),
            ("each group's FPR at most {} above that of the other rows", rule.max_fpr_gap),
        )
        if limit is not None
        for text in [text.format(percent(limit))]
    ]
    what = {
        "not_certified": "no threshold satisfies the limits",
        "no_hate_found": "the thresholds that satisfy the limits find no hateful post at all",
    }[missing.reason]
    rows = [_shortfall_row(name, one) for name, one in missing.groups.items()]
    header = [
        "Group",
        "Normal posts",
        "FPR, at most",
        "Gap, at most",
        "Meets the limits",
        "Needed without a false positive",
        "Needed at the FPR of the default threshold",
    ]
    return terminal(
        "\n\n".join(
            [
                f"{what[0].upper()}{what[1:]}: {' and '.join(limits)}, with "
                f"{percent(rule.confidence, digits=0)} confidence. Nothing was written.",
                f"At {missing.stopped_at:g}, where the search stopped:",
                table(header, rows),
                *_clustered_words(missing),
            ]
        )
    )


def _clustered_words(missing: NoThreshold) -> list[str]:
    from evenhand.report.wording import decimal, listed

    effects = [
        f"{name} {decimal(one.design_effect, digits=1)}"
        for name, one in missing.groups.items()
        if one.design_effect is not None
    ]
    if not effects:
        return []
    return [
        "Rows come in clusters. What is needed is in rows of such clusters; one independent row is "
        f"worth so many of them at the default threshold: {listed(effects)}."
    ]


def _shortfall_row(name: str, one: GroupShortfall) -> list[str]:
    from evenhand.report.wording import count, percent, points

    if one.fpr_at_default is None:
        at_default = "-"
    elif one.needed_at_default is None:
        at_default = f"no number would do ({percent(one.fpr_at_default)})"
    else:
        at_default = f"{count(one.needed_at_default)} ({percent(one.fpr_at_default)})"
    return [
        name,
        count(one.rate.negatives),
        "unknown" if one.rate.fpr_upper is None else percent(one.rate.fpr_upper),
        "unknown" if one.rate.gap_upper is None else points(one.rate.gap_upper),
        "yes" if one.meets else "no" if one.reason is None else f"no ({one.reason})",
        count(one.needed_at_zero),
        at_default,
    ]
