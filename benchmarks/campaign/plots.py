"""The plots of docs/results.md as SVG, in the report's colours (Okabe and Ito 2008).

They stand on white, so that they can be read on a dark page too; every series has a marker of its
own. The same record gives the same bytes with one version of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from benchmarks.campaign.catalogue import GROUP, HELD_OUT, PRODUCTION, VALIDATION
from benchmarks.campaign.words import Record, find_test, model_name, with_one_baseline
from matplotlib.figure import Figure

from evenhand.report.figures import STYLE

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "D")
_WIDTH_INCHES = 7.2


@dataclass(frozen=True)
class Plot:
    """One plot: its file's stem, what it shows in words, and the SVG document."""

    name: str
    description: str
    svg: str


@dataclass(frozen=True)
class Panel:
    """Values with intervals, one a row, all in one unit; ``zero`` marks no difference."""

    label: str
    values: Mapping[str, Record]
    zero: bool


def draw(record: Record) -> dict[str, Plot]:
    """Return every plot for which the record has figures, by name."""
    experiments = record["experiments"]
    with mpl.rc_context(STYLE):
        drawn = [
            _against(experiments["modules"], "modules", "Adapters against the control"),
            _against(experiments["ranks"], "ranks", "Ranks against the control"),
            _against(experiments["mitigation"], "mitigation", "Mitigations against the control"),
            _floor(with_one_baseline(record["recall_floor"])),
            _curve(experiments["learning_curve"]),
        ]
    return {plot.name: plot for plot in drawn if plot is not None}


def _against(facts: Record, name: str, title: str) -> Plot | None:
    found = (facts.get("comparisons") or {}).get(HELD_OUT)
    if not found:
        return None
    tested = [("f1", None, "F1"), ("fpr", GROUP, "LGBTQ+ FPR"), ("fnr", GROUP, "LGBTQ+ FNR")]
    panels = []
    for metric, group, label in tested:
        values = {
            pair["second"]: {**test, "value": test["difference"]}
            for pair in found["pairs"]
            if (test := find_test(pair, metric, group)) is not None
            and test["difference"] is not None
        }
        if values:
            panels.append(Panel(f"{label}, difference (pp)", values, zero=True))
    text = f"{title} on held-out rows: paired differences with 95% intervals"
    return _forest(name, text, panels) if panels else None


def _floor(found: Record) -> Plot | None:
    on = PRODUCTION if any(PRODUCTION in one["sets"] for one in found.values()) else HELD_OUT
    known = {model_name(name): one["sets"][on] for name, one in found.items() if on in one["sets"]}
    panels = [
        Panel(
            "LGBTQ+ FPR (%)", {n: one["groups"][GROUP]["fpr"] for n, one in known.items()}, False
        ),
        Panel("Recall (%)", {n: one["recall"] for n, one in known.items()}, False),
    ]
    text = (
        f"LGBTQ+ FPR and recall on {on} rows at the threshold that finds 75% of validation's hate"
    )
    return _forest("recall_floor", text, panels) if known else None


def _forest(name: str, text: str, panels: Sequence[Panel]) -> Plot:
    names = list(dict.fromkeys(key for panel in panels for key in panel.values))
    size = (_WIDTH_INCHES, 1.0 + 0.28 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    for index, axes in enumerate(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]):
        panel = panels[index]
        for place, key in enumerate(names):
            if (value := panel.values.get(key)) is not None and value["value"] is not None:
                _point(axes, value, place, index=index)
        if panel.zero:
            axes.axvline(0, color="#444444", linewidth=1)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(panel.label)
        axes.grid(axis="y", visible=False)
    return _saved(name, text, figure)


def _point(axes: Any, value: Record, place: float, *, index: int, upright: bool = False) -> None:
    middle = 100 * value["value"]
    low = middle if value["low"] is None else 100 * value["low"]
    high = middle if value["high"] is None else 100 * value["high"]
    errors = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
    style: dict[str, Any] = {"yerr": errors} if upright else {"xerr": errors}
    x, y = (place, middle) if upright else (middle, place)
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
    axes.errorbar(x, y, **style, color=colour, marker=marker, markersize=5, capsize=2)


def _curve(facts: Record) -> Plot | None:
    known = sorted(
        (one["training"]["rows"], one["sets"][VALIDATION])
        for one in (facts.get("entries") or {}).values()
        if VALIDATION in one["sets"] and one["training"].get("rows")
    )
    if len(known) < 2:
        return None
    figure = Figure(figsize=(_WIDTH_INCHES, 3.0), layout="constrained")
    for index, (axes, metric) in enumerate(
        zip(figure.subplots(1, 2), ("f1", "roc_auc"), strict=True)
    ):
        for rows, found in known:
            _point(axes, found[metric], rows, index=index, upright=True)
        middle = [100 * found[metric]["value"] for _, found in known]
        axes.plot([rows for rows, _ in known], middle, color=_COLOURS[index], linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks([rows for rows, _ in known], [f"{rows:,}" for rows, _ in known])
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.set_xlabel("Training rows")
        axes.set_ylabel(f"{'F1' if metric == 'f1' else 'ROC AUC'} (x 100), 95% interval")
    return _saved("learning_curve", "F1 and ROC AUC on validation rows by training rows", figure)


def _saved(name: str, text: str, figure: Figure) -> Plot:
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None, "Title": text}
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata=metadata)
    lines = [line.rstrip() for line in buffer.getvalue().decode().splitlines()]
    return Plot(name, text, "\n".join(lines) + "\n")
