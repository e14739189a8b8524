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
    unanswered_words,
)
from evenhand.report.wording import (
    cell,
    count,
    counted,
    decimal,
    listed,
    metric_name,
    percent,
    points,
    points_with_interval,
    reason_words,
    table,
)


def primary_level(comparison: Comparison) -> str:
    """Say at which level the first step of Holm's correction tests F1 over all rows."""
    tests = max(comparison.n_primary, 1)
    level = f"at a level of {percent(comparison.alpha / tests)}"
    if tests == 1:
        return level
    return f"{level} ({percent(comparison.alpha, digits=0)} over {tests} tests, Holm's first step)"


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
    limit += unanswered_words(f1).replace(", since", "; the verdict is open, since", 1)
    others = listed(
        f"{test.verdict} {_named(test)} ({effect_words(test)})"
        for test in pair.tests
        if test is not f1 and test.verdict in ("better", "worse")
    )
    rest = f" It has {others}." if others else ""
    return f"{subject}: {verdict} in F1 ({effect_words(f1)}{limit}).{rest}"


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
                VERDICT_WORDS[test.verdict]
                + (", too few rows" if test.n < MIN_LABELS else "")
                + unanswered_words(test),
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
        verb, them = ("is", "it") if left_out == 1 else ("are", "them")
        yield (
            f"{counted(left_out, 'row')} of the set {verb} left out, since not every model "
            f"answered {them}; a model's F1 in a table of its own is over all rows that it "
            "answered, so the two may differ."
        )
    for name, runs in comparison.replicates.items():
        yield f"{name} is the mean over {listed(runs)}."
    primary, other = counted(comparison.n_primary, "test"), counted(comparison.n_secondary, "test")
    yield (
        f"Differences are second minus first, in percentage points. Verdicts are at "
        f"{comparison.alpha:g}, from p-values that are adjusted (Holm) in two families: F1 over "
        f"all rows ({primary}), and everything else ({other}); a test that these rows could not "
        "decide either way does not count. The intervals are not adjusted. The detectable "
        "difference is the true one that these rows find in four cases of five at the first step "
        "of that correction."
    )


def _rows(comparison: Comparison) -> str:
    text = counted(comparison.n, "row")
    if comparison.n_clusters is not None:
        text += f" in {counted(comparison.n_clusters, 'cluster')}"
    return text


def _named(test: PairedTest) -> str:
    name = test.metric if test.metric == "accuracy" else metric_name(test.metric)
    return name if test.group is None else f"{name} of {test.group}"


def effect_words(test: PairedTest) -> str:
    """Return a paired difference with its interval and its p-value."""
    p_value = "" if test.p_holm is None else f", p {p_value_words(test.p_holm)} after Holm"
    return f"{points_with_interval(test.difference)}{p_value}"


def _detectable(test: PairedTest) -> str:
    if test.minimum_detectable is None:
        return "-"
    return points(test.minimum_detectable).removeprefix("+")


def _p_value(value: float | None) -> str:
    return "-" if value is None else p_value_words(value).removeprefix("= ")
