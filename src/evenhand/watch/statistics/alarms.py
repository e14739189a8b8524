"""What raises an alarm. Each kind's chance of a false one, ever, is at most the configured alpha.

Within a kind alpha is shared equally among the watched groups. What an alarm rests on is in its
evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evenhand.config.production_schema import AlarmConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.watch.statistics.drift import Window, error_excess, mix_drift, score_drift
from evenhand.watch.statistics.estimates import draws_of
from evenhand.watch.statistics.sequences import Draws, log_alarm_wealth, lower_end, upper_end

if TYPE_CHECKING:
    from evenhand.watch.statistics.sample import ReviewedSample

AlarmKind = Literal["fpr", "gap", "score", "mix", "errors"]
ALL_POSTS = "all posts"


@dataclass(frozen=True)
class Alarm:
    """Something that a person should look at.

    Attributes:
        kind: what sort of alarm.
        subject: the group, or ``all posts``.
        message: a plain sentence with the figures.
        evidence: the figures by name, as JSON can hold them.
    """

    kind: AlarmKind
    subject: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def group_bounds(config: AlarmConfig, *, groups: Sequence[str]) -> dict[str, float]:
    """Return the bound on each group's FPR; a group that a mapping leaves out has none.

    Raises:
        ConfigError: a bound names a group that is not watched.
    """
    bounds = config.max_group_fpr
    if not isinstance(bounds, Mapping):
        bounds = dict.fromkeys(groups, bounds)
    place = "watch.alarms.max_group_fpr"
    problems = [
        Problem(f"{place}.{name}", f"is not a watched group; those are {', '.join(groups)}")
        for name in bounds
        if name not in groups
    ]
    if problems:
        raise ConfigError("the production configuration", problems)
    return {group: float(bounds[group]) for group in groups if group in bounds}


def find_alarms(
    sample: ReviewedSample,
    windows: Sequence[Window],
    *,
    config: AlarmConfig,
    groups: Sequence[str],
    since: Mapping[tuple[str, str], datetime] | None = None,
) -> tuple[Alarm, ...]:
    """Return every alarm that the evidence so far supports.

    Args:
        sample: the reviewed sample of the release, in queue order.
        windows: full windows of posts, by number, the release's first among them. All full windows,
            or the first and those that were not tested before.
        config: what alarms.
        groups: the watched groups.
        since: when the last alarm of a (kind, subject) was closed. What was posted before does not
            count again: a new watch begins, with its own alpha.

    Raises:
        ConfigError: a bound names a group that is not watched.
    """
    bounds = group_bounds(config, groups=groups)
    closed = since or {}
    alarms = []
    for group in groups:
        if group in bounds:
            part = _after(sample, closed.get(("fpr", group)))
            alarms.append(
                _fpr_alarm(part, group=group, bound=bounds[group], alpha=config.alpha / len(bounds))
            )
        part = _after(sample, closed.get(("gap", group)))
        alarms.append(
            _gap_alarm(
                part, group=group, bound=config.max_fpr_gap, alpha=config.alpha / len(groups)
            )
        )
    alarms += _window_alarms(windows, config=config, closed=closed)
    return tuple(alarm for alarm in alarms if alarm is not None)


def _fpr_alarm(part: _Part, *, group: str, bound: float, alpha: float) -> Alarm | None:
    draws = part.draws(group=group)
    wealth = log_alarm_wealth(draws, bound)
    if not len(wealth) or wealth.max() < -math.log(alpha):
        return None
    first = int(np.argmax(wealth >= -math.log(alpha)))
    place = int(draws.above.ends[first]) - 1
    value = draws.value
    message = (
        f"The FPR of posts about {group} has been above {bound:.2f}: {draws.labels} reviewed "
        f"normal posts, estimate {value:.2f} over all of them."
    )
    evidence = {
        "bound": bound,
        "alpha": alpha,
        "log_wealth": float(wealth.max()),
        "value": value,
        "labels": draws.labels,
        "shown_by": part.time(place),
    }
    return Alarm("fpr", group, message, evidence)


def _gap_alarm(part: _Part, *, group: str, bound: float, alpha: float) -> Alarm | None:
    inside, outside = part.draws(group=group), part.draws(group=group, outside=True)
    # Half of alpha for each end, so that both hold together with 1 - alpha.
    low, high = lower_end(inside, alpha=alpha / 2), upper_end(outside, alpha=alpha / 2)
    if low - high <= bound:
        return None
    message = (
        f"The FPR of posts about {group} is more than {100 * bound:.0f} pp above that of the other "
        f"posts: at least {low:.2f} against at most {high:.2f}."
    )
    evidence = {
        "bound": bound,
        "alpha": alpha,
        "low": low,
        "high_of_others": high,
        "labels": inside.labels,
        "labels_of_others": outside.labels,
    }
    return Alarm("gap", group, message, evidence)


def _window_alarms(
    windows: Sequence[Window],
    *,
    config: AlarmConfig,
    closed: Mapping[tuple[str, str], datetime],
) -> list[Alarm]:
    """Return at most one alarm of each kind: that of the first window that shows it."""
    ordered = sorted(windows, key=lambda window: window.number)
    found: dict[str, Alarm] = {}
    for window in ordered:
        for kind in ("score", "mix", "errors"):
            if kind in found or _is_before(window, closed.get((kind, ALL_POSTS))):
                continue
            alarm = _window_alarm(kind, ordered[0], window, config=config)
            if alarm is not None:
                found[kind] = alarm
    return list(found.values())


def _window_alarm(
    kind: AlarmKind, first: Window, window: Window, *, config: AlarmConfig
) -> Alarm | None:
    span = f"{window.posts} posts" + ("" if window.end is None else f" up to {window.end:%Y-%m-%d}")
    if kind == "errors":
        test = error_excess(window, bound=config.max_error_rate, alpha=config.alpha)
        floor = config.max_error_rate
        message = (
            f"{window.errors} of {span} could not be scored, more than the "
            f"{100 * config.max_error_rate:g}% that are allowed."
        )
    elif first.number != 1 or window.number == 1:
        return None
    elif kind == "score":
        test = score_drift(first, window, alpha=config.alpha)
        floor = config.min_score_drift
        message = (
            f"The scores of {span} differ from those of the release's first {first.posts}: "
            f"stability index {test.size:.2f}."
        )
    else:
        test = mix_drift(first, window, alpha=config.alpha)
        floor = config.min_mix_drift
        message = (
            f"The proposed groups of {span} differ from those of the release's first "
            f"{first.posts}: stability index {test.size:.2f}."
        )
    if not test.proven or test.size < floor:
        return None
    evidence = {
        "window": window.number,
        "p_value": test.p_value,
        "level": test.level,
        "size": test.size,
        "floor": floor,
    }
    return Alarm(kind, ALL_POSTS, message, evidence)


def _is_before(window: Window, time: datetime | None) -> bool:
    return time is not None and window.start is not None and window.start <= time


@dataclass(frozen=True, eq=False)
class _Part:
    """The items from a place in the queue on."""

    sample: ReviewedSample
    start: int

    def draws(self, *, group: str, outside: bool = False) -> Draws:
        return draws_of(self.sample, metric="fpr", group=group, outside=outside).since(self.start)

    def time(self, place: int) -> str:
        return f"{np.datetime_as_string(self.sample.time[self.start + place], unit='s')}Z"


def _after(sample: ReviewedSample, time: datetime | None) -> _Part:
    """Return the items from the first on that was posted after a time."""
    if time is None:
        return _Part(sample, 0)
    later = sample.time > np.datetime64(time.astimezone(UTC).replace(tzinfo=None))
    return _Part(sample, int(np.argmax(later)) if later.any() else len(later))
