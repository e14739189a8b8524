"""Where answered posts enter: strata, the draw of the review sample, storage in one transaction."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import func, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from evenhand.config.production_schema import ProductionConfig, WatchConfig
from evenhand.core.production import Answer, Release
from evenhand.watch.statistics.sampling import Plan, make_plan, stratum_of
from evenhand.watch.store.database import Database, storage_error
from evenhand.watch.store.proposer import Proposer
from evenhand.watch.store.tables import ItemRow, PlanRow, PostRow, ReleaseRow, StartRow, Table
from evenhand.watch.store.texts import check_text_key, keep_text, storable

SECONDS_A_DAY = 86_400.0
PRIOR_DAYS = 1.0
"""How many days of observation the previous plan's expectation counts for."""

# The traffic that is expected before any was seen; wrong shares cost precision for one plan.
_PROPOSED_SHARE = 0.5
_SHARE_PER_GROUP = 0.1
_HATE_SHARE = 0.2
_NEAR_SHARE = 0.25


@dataclass(slots=True)
class _InForce:
    """The plan in force and the traffic since it was made; replaced only after a commit."""

    plan_id: int
    plan: Plan
    since: datetime
    seen: Counter[str]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one post belongs; ``inclusion`` is None where it cannot be reviewed."""

    proposed: tuple[str, ...]
    stratum: str | None
    inclusion: float | None


class Intake:
    """Stores answered posts and draws the review sample; one per server and release.

    Whether a post is reviewed is decided by one coin per post, whose probability the plan in force
    fixed before the post came: it depends on the post's stratum, never on a label. Only scored
    posts whose text is kept can be reviewed; with the policies ``hmac`` and ``drop`` there is no
    sample, and posts bear no inclusion probability.

    Threads may call :meth:`record` at once; they take turns.
    """

    def __init__(
        self,
        database: Database,
        release: Release,
        settings: ProductionConfig,
        proposer: Proposer,
        *,
        rng: np.random.Generator,
        text_key: bytes | None,
    ) -> None:
        check_text_key(settings.watch, text_key)
        self._database = database
        self._release = release
        self._release_id = release.sha256
        self._settings = settings
        self._proposer = proposer
        self._rng = rng
        self._text_key = text_key
        self._in_force: _InForce | None = None
        self._turn = threading.Lock()

    def start(
        self, now: datetime, *, reference: Mapping[str, Any], versions: Mapping[str, Any]
    ) -> None:
        """Register the release and this start, and take up the release's last plan.

        A plan that the present settings would not make is replaced, so that a changed budget or a
        newly watched group counts from this start on.

        Raises:
            StorageError: the database cannot be written.
            ConfigError: no sampling plan can be made with these settings.
        """
        with self._turn, self._database.session() as session:
            row = session.get(ReleaseRow, self._release_id)
            if row is None:
                row = ReleaseRow(id=self._release_id, first_started=now)
                session.add(row)
            # A release that was judged again has other duties: those of its last start hold.
            row.release = self._release.model_dump(mode="json")
            row.reference = dict(reference)
            session.flush()
            session.add(
                StartRow(
                    release_id=self._release_id,
                    time=now,
                    settings=self._settings.model_dump(mode="json"),
                    overrides=[one.model_dump_json() for one in self._release.overrides],
                    proposer={"name": self._proposer.name, "sha256": self._proposer.sha256},
                    versions=dict(versions),
                )
            )
            in_force = self._resume(session, now)
        self._in_force = in_force

    def record(self, answers: Sequence[Answer]) -> None:
        """Store answered posts and queue those that are drawn, all or none of them.

        Raises:
            StorageError: they could not be stored; nothing of them was.
        """
        if not answers:
            return
        with self._turn:
            in_force = self._started()
            places = [self._place(answer, in_force.plan) for answer in answers]
            draws = self._rng.random((len(answers), 2))
            sampled = [
                place.inclusion is not None and float(draw) < place.inclusion
                for place, draw in zip(places, draws[:, 0], strict=True)
            ]
            posts = [
                self._post(answer, place, in_force.plan_id, is_sampled)
                for answer, place, is_sampled in zip(answers, places, sampled, strict=True)
            ]
            share = self._settings.review.second_review_share
            items = [
                _item(answer, reviews_needed=2 if draw < share else 1)
                for answer, is_sampled, draw in zip(answers, sampled, draws[:, 1], strict=True)
                if is_sampled
            ]
            new = Counter(place.stratum for place in places if place.stratum is not None)
            now = max(answer.time for answer in answers)
            try:
                with self._database.session() as session:
                    session.connection().execute(_ADD_POSTS, posts)
                    if items:
                        session.connection().execute(_ADD_ITEMS, items)
                    in_force = self._after(session, in_force, in_force.seen + new, now)
            except SQLAlchemyError as error:
                raise storage_error(error, self._database.shown) from error
            self._in_force = in_force

    @property
    def plan(self) -> Plan:
        """The sampling plan in force."""
        return self._started().plan

    def _started(self) -> _InForce:
        if self._in_force is None:
            raise RuntimeError("start() comes first")
        return self._in_force

    def _place(self, answer: Answer, plan: Plan) -> _Place:
        proposed = self._proposer.propose(answer.text, answer.caller_group)
        if answer.status != "ok" or answer.score is None or answer.decision is None:
            return _Place(proposed, None, None)
        watch = self._settings.watch
        stratum = stratum_of(
            proposed,
            answer.decision,
            answer.score,
            threshold=self._release.threshold,
            band_width=watch.band_width,
            groups=watch.groups,
        )
        return _Place(proposed, stratum, plan.rate(stratum) if watch.text == "keep" else None)

    def _post(
        self, answer: Answer, place: _Place, plan_id: int, is_sampled: bool
    ) -> dict[str, Any]:
        kept = keep_text(
            answer.text,
            answer.metadata,
            watch=self._settings.watch,
            key=self._text_key,
            now=answer.time,
        )
        return {
            "id": answer.id,
            "time": answer.time,
            "release_id": self._release_id,
            "plan_id": plan_id,
            "caller_id": _storable(answer.caller_id),
            "caller_group": _storable(answer.caller_group),
            "status": answer.status,
            "score": answer.score,
            "probability": answer.probability,
            "decision": answer.decision,
            "proposed": list(place.proposed),
            "stratum": place.stratum,
            "inclusion": place.inclusion,
            "sampled": is_sampled,
            "text": kept.text,
            "text_hmac": kept.text_hmac,
            "meta": kept.meta,
            "text_until": kept.text_until,
        }

    def _resume(self, session: Session, now: datetime) -> _InForce:
        """Return the release's last plan with the traffic since, or a new one."""
        watch = self._settings.watch
        last = session.scalars(
            select(PlanRow)
            .where(PlanRow.release_id == self._release_id)
            .order_by(PlanRow.id.desc())
            .limit(1)
        ).first()
        if last is None:
            return self._new_plan(session, first_traffic(watch), now)
        plan = plan_of(last)
        remade = self._make(last.expected)
        if (remade.rates, remade.default_rate) != (plan.rates, plan.default_rate):
            return self._new_plan(session, last.expected, now)
        counted = session.execute(
            select(PostRow.stratum, func.count())
            .where(PostRow.plan_id == last.id, PostRow.stratum.is_not(None))
            .group_by(PostRow.stratum)
        )
        seen = Counter({stratum: count for stratum, count in counted if stratum is not None})
        return _InForce(last.id, plan, last.time, seen)

    def _after(
        self, session: Session, in_force: _InForce, seen: Counter[str], now: datetime
    ) -> _InForce:
        """Return what is in force for the posts to come; a new plan is written where one is due."""
        if seen.total() < self._settings.watch.plan_every_posts:
            return _InForce(in_force.plan_id, in_force.plan, in_force.since, seen)
        days = (now - in_force.since).total_seconds() / SECONDS_A_DAY
        expected = expected_traffic(in_force.plan.expected, seen, days=days)
        return self._new_plan(session, expected, now)

    def _new_plan(self, session: Session, traffic: Mapping[str, float], now: datetime) -> _InForce:
        plan = self._make(traffic)
        row = PlanRow(
            release_id=self._release_id,
            time=now,
            rates=dict(plan.rates),
            default_rate=plan.default_rate,
            expected=dict(traffic),
            labels_per_day=self._settings.watch.labels_per_day,
        )
        session.add(row)
        session.flush()
        return _InForce(row.id, plan, now, Counter())

    def _make(self, traffic: Mapping[str, float]) -> Plan:
        watch = self._settings.watch
        return make_plan(
            traffic,
            labels_per_day=watch.labels_per_day,
            min_inclusion=watch.min_inclusion,
            groups=watch.groups,
        )


def first_traffic(watch: WatchConfig) -> dict[str, float]:
    """Return the posts a day by stratum that are expected before any traffic was seen.

    A tenth of the posts for each watched group, but at most half for all of them; a fifth decided
    hate; a quarter near the threshold.

    >>> traffic = first_traffic(WatchConfig(groups=("lgbtq",), posts_per_day=1000))
    >>> round(traffic["lgbtq/hate/near"], 6), round(sum(traffic.values()), 6)
    (5.0, 1000.0)
    """
    each = min(_SHARE_PER_GROUP, _PROPOSED_SHARE / len(watch.groups))
    groups = dict.fromkeys(watch.groups, each) | {"none": 1 - each * len(watch.groups)}
    decisions = {"hate": _HATE_SHARE, "normal": 1 - _HATE_SHARE}
    bands = {"near": _NEAR_SHARE, "far": 1 - _NEAR_SHARE}
    return {
        f"{group}/{decision}/{band}": watch.posts_per_day * in_group * decided * near
        for group, in_group in groups.items()
        for decision, decided in decisions.items()
        for band, near in bands.items()
    }


def expected_traffic(
    previous: Mapping[str, float], seen: Mapping[str, int], *, days: float
) -> dict[str, float]:
    """Return the posts a day to expect, by stratum: those seen, shrunk towards the previous plan's.

    The previous expectation counts as one day of observation (the mean of a Gamma-Poisson model):
    a burst of seconds moves it little, a month of traffic replaces it.

    >>> expected_traffic({"none/normal/far": 100.0}, {"none/normal/far": 300}, days=1.0)
    {'none/normal/far': 200.0}
    """
    exposure = max(days, 0.0) + PRIOR_DAYS
    return {
        stratum: (seen.get(stratum, 0) + previous.get(stratum, 0.0) * PRIOR_DAYS) / exposure
        for stratum in dict.fromkeys([*previous, *seen])
    }


def plan_of(row: PlanRow) -> Plan:
    """Return a stored plan."""
    return Plan(
        rates=row.rates,
        default_rate=row.default_rate,
        expected=row.expected,
        labels_per_day=row.labels_per_day,
    )


def _item(answer: Answer, *, reviews_needed: int) -> dict[str, Any]:
    return {
        "kind": "sample",
        "post_id": answer.id,
        "created": answer.time,
        "state": "open",
        "reviews_needed": reviews_needed,
    }


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)


# The plain tables: an ORM insert would look at every row, on the path of every answer.
_ADD_POSTS = insert(Table.metadata.tables[PostRow.__tablename__])
_ADD_ITEMS = insert(Table.metadata.tables[ItemRow.__tablename__])
