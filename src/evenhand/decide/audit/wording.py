"""Figures in the sentences of findings. Full figures stand in a finding's evidence."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.core.evaluation import MetricValue

SHOWN = 5
"""How many ids or values a sentence names."""


def percent(share: float) -> str:
    """Return a share in percent.

    >>> percent(0.794), percent(0.9999)
    ('79%', '99.99%')
    """
    digits = 0 if 0.01 <= share <= 0.99 or share in (0.0, 1.0) else 2
    return f"{100 * share:.{digits}f}%"


def decimal(value: float | None) -> str:
    """Return a metric with four decimals, as evaluations are usually quoted."""
    return "undefined" if value is None else f"{value:.4f}"


def ratio(value: MetricValue) -> str:
    """Return a ratio with its interval.

    >>> ratio(MetricValue(value=1.091, low=0.92, high=1.3, method="x"))
    '1.09 [0.92, 1.30]'
    """
    if value.value is None:
        return f"undefined ({value.reason})"
    if value.low is None or value.high is None:
        return f"{value.value:.2f}"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def rows(number: int) -> str:
    """Return a number of rows in words."""
    return f"{number:,} row" if number == 1 else f"{number:,} rows"


def verb(subjects: Sequence[object], one: str, several: str) -> str:
    """Return the form of a verb that goes with so many subjects."""
    return one if len(subjects) == 1 else several


def listed(names: Sequence[str], *, shown: int | None = None) -> str:
    """Return names as one phrase, with the number of those that are left out.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b", "c"], shown=2)
    ('a', 'a, b and c', 'a, b and 1 more')
    """
    if shown is not None and len(names) > shown:
        return f"{', '.join(names[:shown])} and {len(names) - shown:,} more"
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
