"""Tables that look into one evaluation: slices, composition, calibration, what is reachable."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.core.evaluation import Evaluation, MetricValue, Reachable, Slice
from evenhand.report.comparison import BASELINE_PREFIX, evaluated, set_baselines
from evenhand.report.records import Summary
from evenhand.report.wording import (
    count,
    decimal,
    estimate,
    interval,
    percent,
    rate,
    ratio,
    table,
    with_interval,
)


def reachable_table(summary: Summary, set_name: str) -> str | None:
    """Return the lowest FPRs that each model and baseline reaches at the floor of recall."""
    models: dict[str, Reachable | None] = {
        name: item.reachable for name, item in evaluated(summary, set_name).items()
    }
    models |= {
        f"{BASELINE_PREFIX}{name}": item.reachable
        for name, item in set_baselines(summary, set_name).items()
        if not name.startswith("always_")
    }
    known = {name: item for name, item in models.items() if item is not None}
    if not known:
        return None
    groups = sorted({group for item in known.values() for group in item.groups})
    rows = [
        [
            name,
            "as decided" if item.threshold is None else decimal(item.threshold),
            estimate(item.recall, as_percent=True),
            with_interval(item.fpr, as_percent=True),
            *(
                with_interval(item.groups[group], as_percent=True) if group in item.groups else "-"
                for group in groups
            ),
        ]
        for name, item in known.items()
    ]
    header = ["Model", "Threshold", "Recall", "FPR", *(f"{group} FPR" for group in groups)]
    return table(header, rows)


def agreement_table(evaluation: Evaluation) -> str | None:
    """Return the mean share of annotators that gave a row its label, or None."""
    if not evaluation.agreement:
        return None
    return table(
        ["Rows", "Mean annotator agreement"],
        [[group or "all", rate(share)] for group, share in evaluation.agreement.items()],
    )


def bias_auc_table(evaluation: Evaluation) -> str | None:
    """Return the bias AUCs per group and their generalised means, or None."""
    aucs = evaluation.bias_aucs
    if aucs is None:
        return None
    rows = [
        [name, *(with_interval(getattr(item, key)) for key in ("subgroup", "bpsn", "bnsp"))]
        for name, item in [*aucs.groups.items(), ("generalised mean (power -5)", aucs.mean)]
    ]
    return table(["Target group", "Subgroup AUC", "BPSN AUC", "BNSP AUC"], rows)


def reliability_table(evaluation: Evaluation) -> str | None:
    """Return the bins of the score that have rows, or None where there are no scores."""
    rows = [
        [
            f"{part.low:.1f} to {part.high:.1f}",
            count(part.n),
            decimal(part.mean_score),
            with_interval(part.hate_rate, as_percent=True),
        ]
        for part in evaluation.reliability
        if part.n
    ]
    return table(["p(hate)", "Rows", "Mean p(hate)", "Hate"], rows) if rows else None


def composition_table(evaluation: Evaluation) -> str | None:
    """Return each group's rate ratio before and after stratifying, or None."""
    rows = []
    for group, item in evaluation.composition.items():
        for name, found in (("FPR", item.fpr), ("FNR", item.fnr)):
            left = f"{count(found.strata)} ({count(found.left_out)} rows left out)"
            shares = (ratio(found.crude), ratio(found.adjusted), _explained(found.explained))
            rows.append([group, name, *shares, left])
    header = ["Target group", "Rate", "Crude ratio to the rest", "Mantel-Haenszel ratio"]
    return table([*header, "Explained by composition", "Strata"], rows) if rows else None


def slices_table(slices: Sequence[Slice]) -> str:
    """Return the rates of slices, with the labels that the small ones would need."""
    rows = []
    for part in slices:
        small = [
            f"{name} (needs {count(size.needed)})"
            for name, size in (("FPR", part.negatives), ("FNR", part.positives))
            if size.too_small and size.labels
        ]
        rows.append(
            [
                ", ".join(f"{key}: {value}" for key, value in part.keys.items()),
                count(part.n),
                *_rate_cells(part.fpr),
                count(part.negatives.labels),
                *_rate_cells(part.fnr),
                count(part.positives.labels),
                ", ".join(small) or "-",
            ]
        )
    header = ["Slice", "Samples", "FPR", "95% interval", "Negatives"]
    return table([*header, "FNR", "95% interval", "Positives", "Too small"], rows)


def suite_table(slices: Sequence[Slice]) -> str:
    """Return the accuracy of each functionality of a functional suite."""
    return table(
        ["Functionality", "Expected", "Cases", "Accuracy", "95% interval", "Too small"],
        [
            [
                part.keys["fine_label"],
                "hate" if part.confusion.positives else "normal",
                count(part.n),
                estimate(part.accuracy, as_percent=True),
                interval(part.accuracy, as_percent=True),
                "yes" if part.n_scored < 30 else "-",
            ]
            for part in slices
        ],
    )


def _rate_cells(value: MetricValue) -> tuple[str, str]:
    if value.denominator == 0:
        return "-", "-"
    return estimate(value, as_percent=True), interval(value, as_percent=True)


def _explained(share: float | None) -> str:
    if share is None:
        return "-"
    return percent(min(share, 1.0), digits=0) if share > 0 else "none"
