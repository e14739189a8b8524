"""Whether a group's FPR gap is which kinds of posts the group has, as far as the rows can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evenhand.core.evaluation import Evaluation, RateRatio
from evenhand.report.wording import count, listed, ratio

_MUCH = 0.5
"""Composition is named as the reason of a gap from this share of it."""


@dataclass(frozen=True)
class GapReading:
    """What stratifying says of a group's FPR.

    Attributes:
        kind: ``composed`` where it takes away at least half of the ratio, over at least half of the
            group's rows; ``beyond`` where the interval of what is left excludes 1; else
            ``undetermined``.
        missing: what would tell, for an undetermined one: ``strata`` or ``labels``.
    """

    kind: Literal["composed", "beyond", "undetermined"]
    missing: Literal["", "strata", "labels"] = ""


def read_gap(item: Evaluation, group: str) -> GapReading:
    """Return whether a group's higher FPR is composition, is beyond it, or cannot be told."""
    found = item.composition.get(group)
    if found is None or not _is_comparable(item, group, found.fpr):
        return GapReading("undetermined", "strata")
    rates = found.fpr
    if rates.adjusted.low is None or rates.adjusted.high is None:
        return GapReading("undetermined", "labels")
    if rates.adjusted.low > 1:
        return GapReading("beyond")
    if rates.explained is not None and rates.explained >= _MUCH:
        return GapReading("composed")
    return GapReading("undetermined", "labels")


def composition_words(item: Evaluation, group: str) -> str:
    """Say how much of a group's FPR ratio is which kinds of posts it has, and over which rows."""
    found = item.composition.get(group)
    if found is None:
        return "whether it is composition cannot be said without sources or fine labels"
    rates, labels = found.fpr, _labels(item, group)
    kinds = listed(key.replace("_", " ") for key in found.by)
    compared = f"{count(labels - rates.left_out)} of its {count(labels)} normal rows"
    if not _is_comparable(item, group, rates):
        if rates.left_out:
            return (
                f"whether it is composition cannot be said, since only {compared} have rows of "
                f"the same {kinds} outside the group"
            )
        return f"among rows of the same {kinds} the ratio is undefined"
    if rates.adjusted.value is None or rates.adjusted.low is None or rates.adjusted.high is None:
        return f"among rows of the same {kinds} the ratio is undefined"
    crude = "" if rates.crude.value is None else f"{ratio(rates.crude)} times the other rows', "
    over = f", over {compared}" if rates.left_out else ""
    text = f"{crude}{ratio(rates.adjusted)} times among rows of the same {kinds}{over}"
    if rates.adjusted.low > 1:
        return f"{text}: higher beyond composition"
    if rates.adjusted.high < 1:
        return f"{text}: lower once composition is taken into account"
    none = f"{text}: no difference beyond composition is shown"
    if rates.explained is None:
        return none
    if rates.explained < _MUCH:
        return f"{none}, nor that composition explains the gap"
    return f"{none} (composition explains much of the gap, about {min(rates.explained, 1.0):.0%})"


def missing_words(item: Evaluation, group: str) -> str:
    """Say what would tell whether a group's gap is composition, as a request."""
    if group not in item.composition:
        return f"Record source and original label of the posts about {group}."
    kinds = listed(key.replace("_", " ") for key in item.composition[group].by)
    if read_gap(item, group).missing == "strata":
        return (
            f"Label normal posts that are not about {group} but of the same {kinds} as those that "
            "are: most of these have nothing to be compared with."
        )
    return (
        f"Label more normal posts about {group} and others of the same {kinds}: the interval of "
        "the ratio is too wide to tell composition from bias."
    )


def _is_comparable(item: Evaluation, group: str, rates: RateRatio) -> bool:
    """Whether at least half of the group's rows stand in a stratum with rows outside it."""
    return rates.strata > 0 and 2 * rates.left_out <= _labels(item, group)


def _labels(item: Evaluation, group: str) -> int:
    return item.groups[group].negatives.labels
