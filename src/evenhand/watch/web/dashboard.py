"""What the dashboard shows, in words and curves; nothing else here knows the monitor's report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from evenhand.core.evaluation import MetricValue
from evenhand.watch.duties import Duty
from evenhand.watch.monitor import MonitorReport
from evenhand.watch.reviewing.agreement import agreement, golden_scores
from evenhand.watch.statistics.estimates import METRICS, RateEstimate
from evenhand.watch.store.tables import EstimateRow
from evenhand.watch.web.curves import Curve, Point, draw_curve
from evenhand.watch.web.display import group_name, interval, share

CURVE_DAYS = 90
_TABLE_ROWS = 12
_RATES = {"fpr": "False-positive rate", "fnr": "False-negative rate"}
_CLASSES = {"fpr": "normal", "fnr": "hate"}
_KINDS = {
    "fpr": "False positives of",
    "gap": "Gap of",
    "score": "Score drift in",
    "errors": "Errors in",
    "mix": "Traffic mix of",
    "duty": "Duty:",
}
_REASONS = {
    "no_double_reviews": "no post has two labels yet",
    "one_label_only": "all labels are the same, so that chance alone would agree",
}


@dataclass(frozen=True)
class RateView:
    """One rate of one group: its sentence, its drawing, and the latest points as a table."""

    key: str
    name: str
    now: str
    interval: str
    detail: str
    is_over: bool
    curve: Curve | None
    points: tuple[Point, ...]


@dataclass(frozen=True)
class GroupView:
    """The rates of a group, or of all posts."""

    name: str
    rates: tuple[RateView, ...]


@dataclass(frozen=True)
class AlarmView:
    """An open alarm."""

    id: int
    title: str
    opened: datetime
    message: str


@dataclass(frozen=True)
class DutyView:
    """A duty of the deployment record; ``state`` says in words how its date stands."""

    duty: Duty
    state: str


@dataclass(frozen=True)
class ReviewerView:
    """Agreement and accuracy on golden items, for admins: (name, figure) in words."""

    agreement: tuple[tuple[str, str], ...]
    golden: tuple[tuple[str, str], ...]


def group_views(session: Session, report: MonitorReport) -> tuple[GroupView, ...]:
    """Return the rates of all posts and of each watched group, with their curves."""
    curves = _read_points(session, report)
    by_group: defaultdict[str | None, list[RateView]] = defaultdict(list)
    for metric in METRICS:
        for one in report.estimates:
            if one.metric == metric:
                points = curves.get((metric, one.group), [])
                by_group[one.group].append(_rate_view(one, report, points))
    return tuple(GroupView(group_name(group), tuple(views)) for group, views in by_group.items())


def alarm_views(report: MonitorReport) -> tuple[AlarmView, ...]:
    """Return the open alarms, the latest first."""
    return tuple(
        AlarmView(
            one.id,
            f"{_KINDS.get(one.kind, one.kind)} {group_name(one.subject)}",
            one.opened,
            one.message,
        )
        for one in report.alarms
    )


def duty_views(report: MonitorReport) -> tuple[DutyView, ...]:
    """Return the duties, each with how its date stands."""
    today = report.time.date()
    return tuple(DutyView(one, _due_words(one, today)) for one in report.duties)


def reviewer_view(session: Session) -> ReviewerView:
    """Return how reviewers agree, and their accuracy on golden items by pseudonym."""
    found = agreement(session)
    return ReviewerView(
        agreement=(
            ("Posts with two labels", f"{found.posts:,}"),
            ("Cohen's kappa of the label", _value(found.kappa, as_share=False)),
            ("Same label", _value(found.agreed)),
            ("Same groups", _value(found.same_groups)),
        ),
        golden=tuple((one.reviewer, _value(one.right)) for one in golden_scores(session)),
    )


def _rate_view(one: RateEstimate, report: MonitorReport, points: list[Point]) -> RateView:
    bound = _bound(one, report)
    offline = report.offline.get((one.metric, one.group))
    latest = Point(report.time, one.value, one.low, one.high)
    if not points or points[-1].time < latest.time:
        points = [*points, latest]
    told = [f"{_plural(one.labels, f'{_CLASSES[one.metric]} post')} reviewed"]
    if one.pending:
        told.append(f"{_plural(one.pending, 'post')} sampled without a label yet")
    if bound is not None:
        told.append(f"bound {share(bound)}")
    if offline is not None:
        told.append(f"offline {share(offline)} on {report.offline_set or 'the evaluation set'}")
    if one.drifted:
        told.append("it seems to have moved: earlier and later reviews disagree")
    return RateView(
        key=f"{one.metric}-{one.group or 'all'}",
        name=_RATES[one.metric],
        now=share(one.value),
        interval=interval(one.low, one.high),
        detail="; ".join(told),
        is_over=bound is not None and one.low > bound,
        curve=draw_curve(points, bound=bound, offline=offline),
        points=tuple(reversed(points[-_TABLE_ROWS:])),
    )


def _bound(one: RateEstimate, report: MonitorReport) -> float | None:
    if one.metric != "fpr" or one.group is None:
        return None
    return report.bounds.get(one.group)


def _read_points(
    session: Session, report: MonitorReport
) -> Mapping[tuple[str, str | None], list[Point]]:
    rows = session.execute(
        select(
            EstimateRow.metric,
            EstimateRow.group,
            EstimateRow.time,
            EstimateRow.value,
            EstimateRow.low,
            EstimateRow.high,
        )
        .where(
            EstimateRow.release_id == report.release_id,
            EstimateRow.time >= report.time - timedelta(days=CURVE_DAYS),
        )
        .order_by(EstimateRow.time, EstimateRow.id)
    )
    found: defaultdict[tuple[str, str | None], list[Point]] = defaultdict(list)
    for metric, group, time, value, low, high in rows:
        found[metric, group].append(Point(time, value, low, high))
    return found


def _due_words(duty: Duty, today: date) -> str:
    if duty.due is None:
        return "no date set"
    if duty.is_overdue:
        return f"overdue by {_plural((today - duty.due).days, 'day')}"
    days = (duty.due - today).days
    return "due today" if days == 0 else f"due in {_plural(days, 'day')}"


def _value(value: MetricValue, *, as_share: bool = True) -> str:
    if value.value is None or value.low is None or value.high is None:
        return f"undefined: {_REASONS.get(value.reason or '', value.reason)}"
    if as_share:
        ends = interval(value.low, value.high)
        return f"{share(value.value)} ({ends}), {value.numerator} of {value.denominator}"
    if math.isnan(value.low) or math.isnan(value.high):
        return f"{value.value:.2f}"
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
