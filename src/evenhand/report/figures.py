"""The plots of a summary as SVG with text alternatives.

Colours are those of Okabe and Ito (2008), told apart with any colour vision; every series also has
a marker or a line style of its own. The same summary gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from evenhand.core.evaluation import BaselineEvaluation, Evaluation, MetricValue
from evenhand.report.comparison import (
    BASELINE_PREFIX,
    group_names,
    main_set,
    set_baselines,
)
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.wording import is_number, listed, metric_name, one_line, percent

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")
_WIDTH_INCHES = 6.4
_POINTS_SHOWN = 400
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Picture:
    """One plot: its name, its title, what it shows in words, and the SVG document."""

    name: str
    title: str
    description: str
    svg: str


def draw_pictures(summary: Summary) -> tuple[Picture, ...]:
    """Return every plot for which the summary has figures."""
    drawings: tuple[Callable[[Summary], Iterator[Picture]], ...] = (
        _loss_curves,
        _group_rates,
        _differences,
        _curves,
        _reliability,
        _heat_map,
    )
    with mpl.rc_context(STYLE):
        return tuple(picture for draw in drawings for picture in draw(summary))


def _loss_curves(summary: Summary) -> Iterator[Picture]:
    curves = [(phase, *_losses(phase)) for phase in _shown(summary)]
    curves = [one for one in curves if one[1] or one[2]]
    if not curves:
        return
    figure, axes = _figure(3.4)
    told = []
    for index, (phase, train, held_out) in enumerate(curves):
        colour, marker = _series(index)
        if train:
            axes.plot(*zip(*train, strict=True), color=colour, alpha=0.45, linewidth=1)
        if held_out:
            axes.plot(
                *zip(*held_out, strict=True),
                color=colour,
                marker=marker,
                linestyle=_DASHES[index % len(_DASHES)],
                label=one_line(f"{phase.name}: evaluation"),
            )
            lowest = min(held_out, key=lambda point: point[1])
            told.append(f"{phase.name} {lowest[1]:.4f} at step {lowest[0]:g}")
    axes.set_xlabel("Step")
    axes.set_ylabel("Loss (thin: training)")
    if told:
        axes.legend()
    text = f"Loss by training step. Lowest evaluation loss: {'; '.join(told) or 'not recorded'}."
    yield _picture("loss", "Loss curves", text, figure)


def _shown(summary: Summary) -> list[PhaseReport]:
    """Return one phase of each setting: a plot of every seed of every phase cannot be read."""
    return [setting.phases[0] for setting in summary.settings]


def _losses(phase: PhaseReport) -> tuple[list[Any], list[Any]]:
    """Return (step, loss) of training and of evaluation."""
    train = [
        (line["step"], line["loss"])
        for line in phase.history
        if is_number(line.get("step")) and is_number(line.get("loss"))
    ]
    checkpoints = (phase.training or {}).get("checkpoints") or ()
    held_out = [
        (line["step"], line["eval_loss"])
        for line in checkpoints
        if is_number(line.get("step")) and is_number(line.get("eval_loss"))
    ]
    return train, held_out


def _group_rates(summary: Summary) -> Iterator[Picture]:
    for set_name in summary.set_names():
        found = {
            phase.name: phase.evaluations[set_name]
            for phase in _shown(summary)
            if set_name in phase.evaluations
        }
        models: dict[str, Evaluation | BaselineEvaluation] = {**found}
        groups = group_names(found)
        if not groups or summary.role(set_name) == "train":
            continue
        models |= {
            f"{BASELINE_PREFIX}{name}": item
            for name, item in set_baselines(summary, set_name).items()
            if not name.startswith("always_")
        }
        height = 1.6 + 0.22 * len(groups) * (len(models) + 1)
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        told = []
        for axes, rate in zip(figure.subplots(1, 2, sharey=True), ("fpr", "fnr"), strict=True):
            for index, (name, item) in enumerate(models.items()):
                at = [
                    (g, item.groups[group])
                    for g, group in enumerate(groups)
                    if group in item.groups
                ]
                offset = (index + 1) / (len(models) + 1) - 0.5
                rates = [getattr(part, rate) for _, part in at]
                _bars(axes, [g + offset for g, _ in at], rates, index=index, label=one_line(name))
                told += [
                    f"{name} {groups[g]} {rate.upper()} {percent(value.value)}"
                    for (g, _), value in zip(at, rates, strict=True)
                    if value.value is not None
                ]
            axes.set_yticks(range(len(groups)), [one_line(group) for group in groups])
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.set_xlim(-2, 102)
            axes.set_xlabel(f"{rate.upper()} (%), 95% interval")
            axes.grid(axis="y", visible=False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
        text = f"FPR and FNR per target group on {set_name}. {'; '.join(told)}."
        yield _picture(f"groups-{set_name}", f"FPR and FNR per group on {set_name}", text, figure)


def _differences(summary: Summary) -> Iterator[Picture]:
    for comparison in summary.comparisons:
        shown = [
            (pair, test)
            for pair in comparison.pairs
            for test in pair.tests
            if test.difference.value is not None and test.difference.low is not None
        ]
        if not shown:
            continue
        figure, axes = _figure(1.2 + 0.26 * len(shown))
        pairs = list(dict.fromkeys((pair.first, pair.second) for pair, _ in shown))
        labels = []
        for place, (pair, test) in enumerate(shown):
            index = pairs.index((pair.first, pair.second))
            label = one_line(f"{pair.second} - {pair.first}")
            known = label in axes.get_legend_handles_labels()[1]
            _bars(axes, [place], [test.difference], index=index, label=None if known else label)
            group = f", {test.group}" if test.group else ""
            labels.append(one_line(f"{metric_name(test.metric)}{group}"))
        axes.axvline(0, color="#444444", linewidth=1)
        axes.set_yticks(range(len(shown)), labels)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel("Difference (percentage points), 95% interval")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper center", ncols=1)
        apart = [
            f"{metric_name(test.metric)}{f' ({test.group})' if test.group else ''} of "
            f"{pair.second} against {pair.first}"
            for pair, test in shown
            if test.verdict in ("better", "worse")
        ]
        text = (
            f"Paired differences on {comparison.set} with 95% intervals. After Holm's correction "
            f"{listed(apart) + ' differ' if apart else 'no difference is shown'}."
        )
        title = f"Paired differences on {comparison.set}"
        yield _picture(f"differences-{comparison.set}", title, text, figure)


def _curves(summary: Summary) -> Iterator[Picture]:
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None or set_name not in phase.scored:
        return
    rows = phase.scored[set_name]
    if rows.is_hate.all() or not rows.is_hate.any():
        return
    figure = Figure(figsize=(_WIDTH_INCHES, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    precision, recall, _ = precision_recall_curve(rows.is_hate, rows.score)
    fpr, tpr, _ = roc_curve(rows.is_hate, rows.score)
    left.plot(*_thinned(100 * recall, 100 * precision), color=_COLOURS[0])
    left.axhline(100 * rows.is_hate.mean(), color="#777777", linestyle=":", linewidth=1)
    right.plot(*_thinned(100 * fpr, 100 * tpr), color=_COLOURS[0])
    right.plot([0, 100], [0, 100], color="#777777", linestyle=":", linewidth=1)
    told = []
    for index, (word, threshold) in enumerate(_thresholds(phase, set_name), start=1):
        decided = rows.score >= threshold
        hits = (decided & rows.is_hate).sum()
        found, flagged = hits / rows.is_hate.sum(), hits / max(decided.sum(), 1)
        alarms = (decided & ~rows.is_hate).sum() / (~rows.is_hate).sum()
        style: dict[str, Any] = {"color": _COLOURS[index], "marker": _MARKERS[index], "zorder": 5}
        left.plot(100 * found, 100 * flagged, linestyle="", label=word, **style)
        right.plot(100 * alarms, 100 * found, linestyle="", label=word, **style)
        told.append(
            f"at the {word} recall {percent(found)}, precision {percent(flagged)}, "
            f"FPR {percent(alarms)}"
        )
    for axes, x, y in ((left, "Recall (%)", "Precision (%)"), (right, "FPR (%)", "Recall (%)")):
        axes.set(xlabel=x, ylabel=y, xlim=(-2, 102), ylim=(-2, 102))
    if told:
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    text = f"Precision-recall and ROC curves of {phase.name} on {set_name}: {'; '.join(told)}."
    title = f"Precision-recall and ROC curves of {phase.name} on {set_name}"
    yield _picture("curves", title, text, figure)


def _thresholds(phase: PhaseReport, set_name: str) -> list[tuple[str, float]]:
    default = phase.evaluations[set_name].threshold
    found = [] if default is None else [(f"default threshold {default:g}", default)]
    if phase.threshold is not None:
        found.append((f"tuned threshold {phase.threshold.value:.3f}", phase.threshold.value))
    return found


def _reliability(summary: Summary) -> Iterator[Picture]:
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None:
        return
    bins = [part for part in phase.evaluations[set_name].reliability if part.n]
    shown = [part for part in bins if part.mean_score is not None]
    if not shown:
        return
    figure, axes = _figure(3.3)
    axes.plot([0, 100], [0, 100], color="#777777", linestyle=":", label="perfectly calibrated")
    for part in shown:
        _bars(
            axes,
            [100 * (part.mean_score or 0.0)],
            [part.hate_rate],
            index=0,
            label=one_line(phase.name) if part is shown[0] else None,
            upright=True,
        )
    axes.set(xlabel="Mean p(hate) (%)", ylabel="Hate (%), 95% interval")
    axes.set(xlim=(-2, 102), ylim=(-2, 102))
    axes.legend(loc="upper left")
    told = [
        f"{percent(part.mean_score)} predicted, {percent(part.hate_rate.value)} hate of {part.n}"
        for part in shown
    ]
    text = f"Reliability of {phase.name} on {set_name}: {'; '.join(told)}."
    yield _picture("reliability", f"Reliability of {phase.name} on {set_name}", text, figure)


def _heat_map(summary: Summary) -> Iterator[Picture]:
    phase = summary.chosen
    set_name = None if phase is None else main_set(summary, phase)
    if phase is None or set_name is None:
        return
    cells = {
        (part.keys["group"], part.keys["fine_label"]): part.fpr
        for part in phase.evaluations[set_name].slices
        if set(part.keys) == {"group", "fine_label"} and part.fpr.denominator
    }
    if not cells:
        return
    groups = sorted({group for group, _ in cells})
    labels = sorted({label for _, label in cells})
    values = np.full((len(groups), len(labels)), np.nan)
    for (group, label), fpr in cells.items():
        values[groups.index(group), labels.index(label)] = 100 * (fpr.value or 0.0)
    figure, axes = _figure(1.6 + 0.45 * len(groups))
    edges = np.arange(len(labels) + 1) - 0.5, np.arange(len(groups) + 1) - 0.5
    shown = np.ma.masked_invalid(values)
    axes.pcolormesh(*edges, shown, cmap="cividis", vmin=0, vmax=100, edgecolors="white")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xticks(range(len(labels)), [one_line(label).replace("_", "\n", 1) for label in labels])
    axes.set_yticks(range(len(groups)), [one_line(group) for group in groups])
    told = []
    for (group, label), fpr in cells.items():
        x, y = labels.index(label), groups.index(group)
        text = f"{percent(fpr.value, digits=0)}\n{fpr.numerator} of {fpr.denominator}"
        ink = "black" if values[y, x] > 55 else "white"
        axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=8.5)
        told.append(f"{group}, {label}: {percent(fpr.value)} of {fpr.denominator}")
    title = f"FPR of {phase.name} by group and fine label on {set_name}"
    yield _picture("slices", title, f"{title}. {'; '.join(told)}.", figure)


def _bars(
    axes: Any,
    places: Sequence[float],
    rates: Sequence[MetricValue],
    *,
    index: int,
    label: str | None,
    upright: bool = False,
) -> None:
    """Draw values with their intervals, in per cent; what is undefined is left out."""
    colour, marker = _series(index)
    known = [
        (place, 100 * rate.value, 100 * (rate.value - (rate.low or 0.0)), 100 * _above(rate))
        for place, rate in zip(places, rates, strict=True)
        if rate.value is not None
    ]
    if not known:
        return
    place, value, below, above = (list(column) for column in zip(*known, strict=True))
    errors = np.maximum([below, above], 0.0)
    spread = {"yerr": errors} if upright else {"xerr": errors}
    x, y = (place, value) if upright else (value, place)
    axes.errorbar(
        x, y, **spread, color=colour, marker=marker, markersize=5, linestyle="", label=label
    )


def _above(rate: MetricValue) -> float:
    return 0.0 if rate.high is None or rate.value is None else rate.high - rate.value


def _series(index: int) -> tuple[str, str]:
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most a few hundred points of a curve, both ends included."""
    if len(x) <= _POINTS_SHOWN:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, _POINTS_SHOWN).round().astype(int))
    return x[kept], y[kept]


def _figure(height_inches: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    return figure, figure.subplots()


def _picture(name: str, title: str, description: str, figure: Figure) -> Picture:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return Picture(
        name, one_line(title), one_line(description), _tidied(buffer.getvalue().decode(), name=name)
    )


def _tidied(svg: str, *, name: str) -> str:
    """Take out what a picture inside a page must not have, and make its ids the picture's own.

    The style element would hold for the whole page, and ids repeat from picture to picture.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*</defs>\s*", "", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    return svg.replace("<svg ", '<svg stroke-linejoin="round" ', 1)
