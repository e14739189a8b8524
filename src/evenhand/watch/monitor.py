"""One look at production: what is estimated, what alarms, what is due; written down by a check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.production import Release
from evenhand.watch.alarm_book import (
    KeptAlarm,
    Key,
    Raised,
    closed_since,
    is_new,
    open_alarms,
    read_alarms,
)
from evenhand.watch.duties import Duty, duties_of, overdue
from evenhand.watch.statistics.alarms import find_alarms, group_bounds
from evenhand.watch.statistics.estimates import RateEstimate, estimate
from evenhand.watch.statistics.needed import LEAST_LABELS, Claim, labels_needed, planned_labels
from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.statistics.sampling import Plan
from evenhand.watch.store.database import Database
from evenhand.watch.store.erasing import erase_due
from evenhand.watch.store.intake import plan_of
from evenhand.watch.store.reviewed import read_reviewed
from evenhand.watch.store.served import Served, read_served
from evenhand.watch.store.tables import EstimateRow, PlanRow, UserRow
from evenhand.watch.traffic import Budget, Queue, Traffic, read_queue, read_traffic
from evenhand.watch.windows import read_windows

TRAFFIC_DAYS = 14
ESTIMATES_EVERY = timedelta(hours=1)
"""An estimate that moved by pending posts alone is written down no more often than this."""


@dataclass(frozen=True)
class MonitorReport:
    """What is known of a release in production at one time.

    Attributes:
        release_id: ``Release.sha256``.
        release: the release itself, with its gate outcome, overrides and deployment.
        time: when this was read.
        first_started: when the release was first served.
        estimates: FPR and FNR, of each watched group and of all posts (group None).
        offline: the evaluation's rates by (metric, group); ("fpr", None) is over all rows.
        offline_set: the name of that evaluation set; None where none was recorded.
        bounds: the bound on each watched group's FPR that alarms go by.
        alarms: open alarms, the latest first.
        needed: plain sentences: how many more labels which claim would need.
        notes: plain sentences on what the figures rest on, texts that are not kept for example.
        traffic: posts by day, decision and proposed group.
        budget: labels planned and used.
        queue: the review queue by state.
        duties: of the deployment record, the earliest due first.
    """

    release_id: str
    release: Release
    time: datetime
    first_started: datetime
    estimates: tuple[RateEstimate, ...]
    offline: Mapping[tuple[str, str | None], float]
    offline_set: str | None
    bounds: Mapping[str, float]
    alarms: tuple[KeptAlarm, ...]
    needed: tuple[str, ...]
    notes: tuple[str, ...]
    traffic: Traffic
    budget: Budget
    queue: Queue
    duties: tuple[Duty, ...]

    @property
    def error_rate(self) -> float | None:
        """The share of posts that could not be scored; None without posts."""
        return self.traffic.error_rate


def check(
    database: Database, release_id: str, settings: ProductionConfig, *, now: datetime
) -> MonitorReport:
    """Bring a release's estimates and alarms up to date, erase what is due, return the report.

    Two processes may do this at once; a check that finds nothing new writes nothing.

    Raises:
        ConfigError: the database knows no such release, or the settings name unknown groups.
        StorageError: the database cannot be read or written.
    """
    with database.session() as session:
        erase_due(session, now=now)
    with database.reading() as session:
        look = _look(session, release_id, settings, now)
        raised = _raised(session, look, settings)
        is_news = bool(_moved(session, look.report))
    new = [one for one in raised if is_new(one, look.alarms)]
    if not new and not is_news:
        return look.report
    with database.session() as session:
        open_alarms(session, look.report.release_id, new, known=look.closed, now=now)
        # Looked at again under the lock: another process may have written the same point.
        session.add_all(_moved(session, look.report))
        alarms = read_alarms(session, look.report.release_id)
    return replace(look.report, alarms=alarms)


def read_report(
    database: Database, release_id: str, settings: ProductionConfig, *, now: datetime
) -> MonitorReport:
    """Return what :func:`check` would find, and write nothing; raises as it does.

    The alarms are those that earlier checks opened.
    """
    with database.reading() as session:
        return _look(session, release_id, settings, now).report


@dataclass(frozen=True)
class _Look:
    """What one look at the database found."""

    report: MonitorReport
    sample: ReviewedSample
    alarms: tuple[KeptAlarm, ...]  # closed ones too

    @property
    def closed(self) -> dict[Key, datetime]:
        return closed_since(self.alarms)


def _look(session: Session, release_id: str, settings: ProductionConfig, now: datetime) -> _Look:
    watch = settings.watch
    bounds = group_bounds(watch.alarms, groups=watch.groups)
    served = read_served(session, release_id)
    sample = read_reviewed(session, served.release_id)
    estimates = estimate(sample, groups=watch.groups, confidence=watch.confidence)
    alarms = read_alarms(session, served.release_id, with_closed=True)
    traffic = read_traffic(session, served.release_id, now=now, days=TRAFFIC_DAYS)
    queue = read_queue(session, served.release_id)
    plan = _plan(session, served.release_id)
    offline = _offline(served)
    today = traffic.days[-1]
    report = MonitorReport(
        release_id=served.release_id,
        release=served.release,
        time=now,
        first_started=served.first_started,
        estimates=estimates,
        offline=offline,
        offline_set=served.reference.get("set"),
        bounds=bounds,
        alarms=tuple(one for one in alarms if one.closed is None),
        needed=_needed(sample, estimates, plan, offline, bounds, settings),
        notes=_notes(session, estimates, queue, plan, settings),
        traffic=traffic,
        budget=Budget(watch.labels_per_day, today.labels, today.sampled),
        queue=queue,
        duties=duties_of(served.release, now=now),
    )
    return _Look(report, sample, alarms)


def _raised(session: Session, look: _Look, settings: ProductionConfig) -> tuple[Raised, ...]:
    """What should be open alarms, by the evidence and by the calendar."""
    watch = settings.watch
    found = find_alarms(
        look.sample,
        read_windows(session, look.report.release_id),
        config=watch.alarms,
        groups=watch.groups,
        since=look.closed,
    )
    return (
        *(Raised(one.kind, one.subject, one.message, one.evidence) for one in found),
        *overdue(look.report.duties),
    )


def _plan(session: Session, release_id: str) -> Plan | None:
    row = session.scalars(
        select(PlanRow).where(PlanRow.release_id == release_id).order_by(PlanRow.id.desc()).limit(1)
    ).first()
    return None if row is None else plan_of(row)


def _offline(served: Served) -> dict[tuple[str, str | None], float]:
    """The offline rates; the record calls all rows by the empty name."""
    return {
        (metric, group or None): float(rate)
        for metric in ("fpr", "fnr")
        for group, rate in served.reference.get(metric, {}).items()
    }


def _needed(
    sample: ReviewedSample,
    estimates: Sequence[RateEstimate],
    plan: Plan | None,
    offline: Mapping[tuple[str, str | None], float],
    bounds: Mapping[str, float],
    settings: ProductionConfig,
) -> tuple[str, ...]:
    """How far the claim is that each group's FPR is below its bound, group by group."""
    watch = settings.watch
    if watch.text != "keep":
        return ()  # nothing can be reviewed
    labels = {one.group: one.labels for one in estimates if one.metric == "fpr"}
    sentences = []
    for group, bound in bounds.items():
        claim, rate = Claim(below=bound), offline.get(("fpr", group))
        if labels[group] < LEAST_LABELS and plan is not None and rate is not None and rate < bound:
            needed = planned_labels(
                plan, group=group, rate=rate, claim=claim, confidence=watch.confidence
            )
        else:
            needed = labels_needed(
                sample,
                group=group,
                claim=claim,
                confidence=watch.confidence,
                labels_per_day=watch.labels_per_day,
            )
        sentences.append(needed.sentence)
    return tuple(sentences)


def _notes(
    session: Session,
    estimates: Sequence[RateEstimate],
    queue: Queue,
    plan: Plan | None,
    settings: ProductionConfig,
) -> tuple[str, ...]:
    """What a reader of the figures has to know about where they come from."""
    watch = settings.watch
    notes = []
    if watch.text != "keep":
        notes.append(
            f'Texts are not kept (watch.text is "{watch.text}"): no post can be reviewed, so '
            "nothing can be said of production's error rates."
        )
    if queue.second and _reviewers(session) < 2:
        notes.append(
            f"{queue.second} posts have one label and wait for a second person's, but there is "
            "only one reviewer: the first label counts, unchecked, until there is another."
        )
    if queue.erased:
        notes.append(
            f"{queue.erased} sampled posts were erased before anybody labelled them: each counts "
            "as the worst that it could be."
        )
    if plan is not None and plan.excess_labels > 0.5:
        notes.append(
            f"The least sampling rate ({watch.min_inclusion:g}) asks for "
            f"{plan.expected_labels:.0f} reviews a day at the expected traffic, beyond the budget "
            f"of {watch.labels_per_day:g}."
        )
    notes += [
        f"The {one.metric.upper()} of {_whose(one.group)} seems to have moved: earlier and "
        "later reviews disagree."
        for one in estimates
        if one.drifted
    ]
    return tuple(notes)


def _whose(group: str | None) -> str:
    return "all posts" if group is None else f"posts about {group}"


def _reviewers(session: Session) -> int:
    query = select(func.count()).select_from(UserRow).where(UserRow.is_active.is_(True))
    return session.scalar(query) or 0


def _moved(session: Session, report: MonitorReport) -> list[EstimateRow]:
    """The estimates that are worth a new point of their curves."""
    latest = (
        select(func.max(EstimateRow.id))
        .where(EstimateRow.release_id == report.release_id)
        .group_by(EstimateRow.metric, EstimateRow.group)
    )
    rows = session.scalars(select(EstimateRow).where(EstimateRow.id.in_(latest)))
    before = {(row.metric, row.group): row for row in rows}
    return [
        EstimateRow(
            release_id=report.release_id,
            time=report.time,
            metric=one.metric,
            group=one.group,
            value=one.value,
            low=one.low,
            high=one.high,
            labels=one.labels,
            pending=one.pending,
        )
        for one in report.estimates
        if _has_moved(one, before.get((one.metric, one.group)), report.time)
    ]


def _has_moved(one: RateEstimate, before: EstimateRow | None, now: datetime) -> bool:
    if before is None:
        return one.labels > 0
    if (one.labels, one.value) != (before.labels, before.value):
        return True
    is_same = (one.low, one.high, one.pending) == (before.low, before.high, before.pending)
    return not is_same and now - before.time >= ESTIMATES_EVERY
