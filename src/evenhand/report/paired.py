"""A paired comparison in words and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evenhand.core.decisions import Comparison, Pair, PairedTest
from evenhand.measure.intervals import MIN_LABELS
from evenhand.report.comparison import comparison_table, evaluated, model_words
from evenhand.report.configuration import best_loss
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.tables import (
    VERDICT_WORDS,
    efficiency_table,
    p_value_words,
    performance_comparison,
)
from evenhand.report.wording import (
    cell,
    count,
    decimal,
    listed,
    metric_name,
    points,
    points_with_interval,
    reason_words,
    table,
)


def pair_sentence(pair: Pair, comparison: Comparison) -> str:
    """Return a pair's verdict in one or two sentences of plain text, with its figures.

    The verdict is that of F1; differences in the other metrics that hold after Holm's correction
    are named after it.
    """
    first, second = model_words(pair.first), model_words(pair.second)
    subject = f"{second} against {first} on {comparison.set}"
    f1 = pair.test("f1")
    if f1 is None or f1.verdict == "undefined":
        reason = None if f1 is None else f1.difference.reason
        return f"{subject}: F1 cannot be compared ({reason_words(reason)})."
    verdict = VERDICT_WORDS[f1.verdict]
    limit = ""
    if f1.verdict == "no_evidence" and f1.minimum_detectable is not None:
        missed = points(f1.minimum_detectable).removeprefix("+")
        limit = (
            f"; differences under about {missed} may go unnoticed with these {_rows(comparison)}"
        )
    others = listed(
        f"{test.verdict} {_named(test)} ({_figures(test)})"
        for test in pair.tests
        if test is not f1 and test.verdict in ("better", "worse")
    )
    rest = f" It has {others}." if others else ""
    return f"{subject}: {verdict} in F1 ({_figures(f1)}{limit}).{rest}"


def paired_table(pair: Pair) -> str:
    """Return a pair's tests as rows: values, difference, p-values, what could be detected."""
    return table(
        [
            "Metric",
            pair.first,
            pair.second,
            "Difference [95% interval]",
            "p",
            "p after Holm",
            "Detectable difference",
            "Rows",
            "Differing answers",
            "Verdict",
        ],
        [
            [
                metric_name(test.metric) + ("" if test.group is None else f", {test.group}"),
                "-" if test.first is None else decimal(test.first, digits=4),
                "-" if test.second is None else decimal(test.second, digits=4),
                points_with_interval(test.difference),
                _p_value(test.p_value),
                _p_value(test.p_holm),
                _detectable(test),
                count(test.n),
                "-" if test.n_discordant is None else count(test.n_discordant),
                VERDICT_WORDS[test.verdict] + (", too few rows" if test.n < MIN_LABELS else ""),
            ]
            for test in pair.tests
        ],
    )


def comparison_verdicts(comparison: Comparison) -> str:
    """Return what was compared and each pair's sentence, as Markdown."""
    sentences = "\n".join(f"- {cell(pair_sentence(pair, comparison))}" for pair in comparison.pairs)
    return f"{cell(' '.join(_remarks(comparison)))}\n\n{sentences}".strip()


def comparison_section(comparison: Comparison, *, level: int = 3) -> str:
    """Return a whole comparison as Markdown: what was compared, verdicts, one table per pair.

    Args:
        comparison: the comparison.
        level: the level of the heading over each pair's table.
    """
    parts = [comparison_verdicts(comparison)]
    for pair in comparison.pairs:
        parts += [f"{'#' * level} {cell(pair.second)} against {cell(pair.first)}"]
        parts += [paired_table(pair)]
    return "\n\n".join(parts)


def render_comparison(summary: Summary, comparison: Comparison) -> str:
    """Return the comparison of some runs on one set: efficiency, performance, paired tests."""
    one = comparison.set
    return "\n\n".join(
        [
            f"# Comparison on {cell(one)}",
            "## Training efficiency",
            efficiency_table(summary),
            "## Performance",
            performance_comparison(summary, one),
            "## Paired tests",
            comparison_section(comparison),
        ]
    )


def comparison_document(summary: Summary, comparison: Comparison) -> dict[str, Any]:
    """Return the same as plain data, unrounded."""
    models = evaluated(summary, comparison.set)
    return {
        "set": comparison.set,
        "efficiency": [
            {**_efficiency(phase), "f1": models[phase.name].metrics.f1.model_dump()}
            for phase in summary.phases
            if phase.name in models
        ],
        "performance": comparison_table(summary)["sets"][comparison.set],
        "comparison": comparison.model_dump(mode="json"),
        "sentences": [pair_sentence(pair, comparison) for pair in comparison.pairs],
    }


def _efficiency(phase: PhaseReport) -> dict[str, Any]:
    training = phase.training or {}
    return {
        "run": phase.name,
        "run_dir": phase.run_dir,
        "rank": phase.config.get("lora_r"),
        "modules": phase.config.get("lora_target_modules"),
        "trainable_parameters": training.get("trainable_parameters"),
        "total_parameters": training.get("total_parameters"),
        "runtime_seconds": training.get("runtime_seconds"),
        "best_eval_loss": best_loss(training),
    }


def _remarks(comparison: Comparison) -> Iterator[str]:
    yield f"Over the same {_rows(comparison)} of {comparison.set}."
    if comparison.n_left_out:
        left_out = comparison.n_left_out
        yield (
            "1 more row is left out, since not every model answered it."
            if left_out == 1
            else f"{count(left_out)} more rows are left out, since not every model answered them."
        )
    for name, runs in comparison.replicates.items():
        yield f"{name} is the mean over {listed(runs)}."
    tests = sum(test.p_value is not None for pair in comparison.pairs for test in pair.tests)
    yield (
        f"Differences are second minus first, in percentage points. Verdicts are at "
        f"{comparison.alpha:g}, from p-values that are adjusted over all {count(tests)} tests "
        "(Holm); the intervals are not adjusted. The detectable difference is the true one that "
        "these rows find with 80% power in a single test at 5%."
    )


def _rows(comparison: Comparison) -> str:
    text = f"{count(comparison.n)} rows"
    if comparison.n_clusters is not None:
        text += f" in {count(comparison.n_clusters)} clusters"
    return text


def _named(test: PairedTest) -> str:
    name = test.metric if test.metric == "accuracy" else metric_name(test.metric)
    return name if test.group is None else f"{name} of {test.group}"


def _figures(test: PairedTest) -> str:
    p_value = "" if test.p_holm is None else f", p {p_value_words(test.p_holm)} after Holm"
    return f"{points_with_interval(test.difference)}{p_value}"


def _detectable(test: PairedTest) -> str:
    if test.minimum_detectable is None:
        return "-"
    return points(test.minimum_detectable).removeprefix("+")


def _p_value(value: float | None) -> str:
    return "-" if value is None else p_value_words(value).removeprefix("= ")
