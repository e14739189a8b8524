"""Figures of the record as text: the only place of the campaign where anything is rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
NOT_THERE = "-"
_CLAIM_SEEDS = 3
_SETS = {
    "unified_val": "validation",
    "held_out": "held-out",
    "production": "production",
    "functional": "functional cases",
    "hatecheck": "HateCheck sample",
}
_MODELS = {
    "tfidf_logreg": "TF-IDF",
    "baseline: tfidf_logreg": "TF-IDF",
    "untreated": "minilm_full (control of the mitigations)",
}


def number(value: Record | None, *, digits: int = 3) -> str:
    """Return a value with its interval.

    >>> number({"value": 0.7314, "low": 0.688, "high": 0.7721})
    '0.731 [0.688, 0.772]'
    """
    return _with_interval(value, lambda one: f"{one:.{digits}f}")


def share(value: Record | None) -> str:
    """Return a share with its interval, in per cent.

    >>> share({"value": 0.34, "low": 0.267, "high": 0.4221})
    '34.0% [26.7%, 42.2%]'
    """
    return _with_interval(value, lambda one: f"{100 * one:.1f}%")


def specificity(facts: Record) -> str:
    """Return the share of a set's normal rows that are taken for normal: 1 - FPR.

    >>> specificity({"fpr": {"value": 0.25, "low": 0.2, "high": 0.3}})
    '75.0% [70.0%, 80.0%]'
    """
    fpr = facts.get("fpr")
    if fpr is None or fpr["value"] is None:
        return NOT_THERE
    low, high = (None if fpr[end] is None else 1 - fpr[end] for end in ("high", "low"))
    return share({"value": 1 - fpr["value"], "low": low, "high": high})


def _with_interval(value: Record | None, write: Callable[[float], str]) -> str:
    if value is None or value.get("value") is None:
        return NOT_THERE
    text = write(value["value"])
    if value.get("low") is None:
        return text
    return f"{text} [{write(value['low'])}, {write(value['high'])}]"


def points(value: float | None) -> str:
    """Return a difference of shares in percentage points.

    >>> points(0.013), points(-0.0001)
    ('+1.3 pp', '0.0 pp')
    """
    return NOT_THERE if value is None else f"{_signed(value)} pp"


def difference(test: Record | None) -> str:
    """Return a paired difference with its interval, in percentage points.

    >>> difference({"difference": 0.013, "low": -0.008, "high": 0.036})
    '+1.3 pp [-0.8, +3.6]'
    """
    if test is None or test.get("difference") is None:
        return NOT_THERE
    if test.get("low") is None:
        return points(test["difference"])
    return f"{points(test['difference'])} [{_signed(test['low'])}, {_signed(test['high'])}]"


def as_test(value: Record | None) -> Record | None:
    """Return a value that is itself a difference in the form of a test, without a verdict.

    >>> difference(as_test({"value": -0.069, "low": -0.1, "high": -0.04}))
    '-6.9 pp [-10.0, -4.0]'
    """
    return None if value is None else {**value, "difference": value["value"], "verdict": None}


def p_value(value: float | None) -> str:
    """Return a p-value.

    >>> p_value(0.0000004), p_value(0.0312), p_value(1.0)
    ('< 0.001', '0.031', '1')
    """
    if value is None:
        return NOT_THERE
    if value < 0.001:
        return "< 0.001"
    return "1" if value >= 0.9995 else f"{value:.3f}"


def count(value: float | None) -> str:
    return NOT_THERE if value is None else f"{value:,.0f}"


def listed(names: Sequence[str], *, none: str = "none") -> str:
    """Return names as a phrase.

    >>> listed(["a", "b", "c"]), listed([])
    ('a, b and c', 'none')
    """
    if len(names) < 2:
        return names[0] if names else none
    return f"{', '.join(names[:-1])} and {names[-1]}"


def seeds_behind(facts: Record) -> str:
    """Return how many seeds an experiment's entries have, and what fewer than three are worth.

    >>> seeds_behind({"entries": {"a": {"seeds": [42, 43, 44]}}})
    '3 seeds'
    >>> seeds_behind({"entries": {"a": {"seeds": [42]}, "b": {"seeds": [42, 43]}}})
    '1 to 2 seeds each, which describe these trained models and not the methods'
    """
    counts = [len(one["seeds"]) for one in facts["entries"].values()]
    least, most = min(counts), max(counts)
    said = f"{least} to {most} seeds" if least != most else f"{most} seeds"
    if enough_seeds(facts):
        return said
    if most == 1:
        return "one seed each, which describes these trained models and not the methods"
    return f"{said} each, which describe these trained models and not the methods"


def enough_seeds(facts: Record) -> bool:
    """Whether every entry has the seeds that a claim about a method takes."""
    return all(len(one["seeds"]) >= _CLAIM_SEEDS for one in facts["entries"].values())


def set_name(name: str) -> str:
    return _SETS.get(name, name)


def model_name(name: str) -> str:
    """Return a model's name in tables.

    >>> model_name("small_models/minilm_full"), model_name("final_mpnet/tfidf_logreg")
    ('minilm_full', 'TF-IDF')
    """
    experiment, _, entry = name.rpartition("/")
    shown = _MODELS.get(entry, entry)
    return f"{shown} (final)" if experiment.startswith("final_") and shown == entry else shown


def shown_sets(name: str, sets: Record) -> dict[str, Any]:
    """Return a model's sets for a table: of a final one, no held-out rows.

    Its training is that of a seed of another experiment, whose held-out rows are there already.

    >>> list(shown_sets("final_mpnet/mpnet", {"unified_val": 1, "held_out": 2, "production": 3}))
    ['unified_val', 'production']
    """
    is_final = name.startswith("final_") and "production" in sets
    return {on: found for on, found in sets.items() if not (is_final and on == "held_out")}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left-aligned, the others right."""
    rule = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))


def command(text: str) -> str:
    """Return a command as a code block."""
    return f"```\n{text}\n```"


def find_test(pair: Record | None, metric: str, group: str | None = None) -> Record | None:
    """Return a pair's test of a metric over a group, or over all rows."""
    tests = [] if pair is None else pair["tests"]
    return next((one for one in tests if (one["metric"], one["group"]) == (metric, group)), None)


def with_one_baseline(by_model: Record) -> dict[str, Any]:
    """Leave all baselines out but the last: that on the rows of the last final model.

    >>> with_one_baseline({"final_a/m": 1, "final_a/tfidf_logreg": 2, "final_b/tfidf_logreg": 3})
    {'final_a/m': 1, 'final_b/tfidf_logreg': 3}
    """
    baselines = [name for name in by_model if name.endswith("/tfidf_logreg")]
    return {name: one for name, one in by_model.items() if name not in baselines[:-1]}


def turned(test: Record | None) -> Record | None:
    """Return a test with the two sides exchanged."""
    if test is None or test.get("difference") is None:
        return test
    verdict = {"better": "worse", "worse": "better"}.get(test["verdict"], test["verdict"])
    low, high = test["low"], test["high"]
    return {
        **test,
        "difference": -test["difference"],
        "low": None if high is None else -high,
        "high": None if low is None else -low,
        "verdict": verdict,
    }


def _signed(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return text if text.strip("+-0.") else text[1:]
