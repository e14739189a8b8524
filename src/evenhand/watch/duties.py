"""What the deployment record asks of people, and by when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from evenhand.core.decisions import Deployment
from evenhand.core.production import Release
from evenhand.watch.alarm_book import Raised

NEXT_ACTION = "next action"
"""The name of the duty that the deployment record as a whole asks for."""

_SUBJECT_CHARS = 64


@dataclass(frozen=True, slots=True)
class Duty:
    """One duty of a deployment.

    Attributes:
        name: the condition of the gate that it follows from, or ``next action``.
        monitor: what is to be watched; empty where the record names nothing.
        owner: who is to do it; empty where the record names nobody.
        action: what is to be done.
        due: until when; None where the record sets no date.
        is_overdue: whether that day has passed.
    """

    name: str
    monitor: str
    owner: str
    action: str
    due: date | None
    is_overdue: bool


def duties_of(release: Release, *, now: datetime) -> tuple[Duty, ...]:
    """Return a release's duties, the earliest first; none where it has no deployment record."""
    deployment = release.deployment
    if deployment is None:
        return ()
    today = now.date()
    found = [
        _duty(
            one.get("criterion", "condition"),
            one.get("monitor", ""),
            one.get("owner", ""),
            one.get("action", ""),
            _date(one.get("due")),
            today,
        )
        for one in deployment.conditions
    ]
    if _adds_next_action(deployment, found):
        found.append(
            _duty(NEXT_ACTION, "", "", deployment.next_action or "", _date(deployment.due), today)
        )
    return tuple(sorted(found, key=lambda one: (one.due is None, one.due or today)))


def overdue(duties: tuple[Duty, ...]) -> tuple[Raised, ...]:
    """Return an alarm for each duty whose day has passed."""
    return tuple(
        Raised(
            kind="duty",
            subject=one.name[:_SUBJECT_CHARS],
            message=f"overdue since {one.due}: {one.action or one.name}"
            + (f" (owner: {one.owner})" if one.owner else ""),
            evidence={"due": str(one.due), "owner": one.owner, "action": one.action},
        )
        for one in duties
        if one.is_overdue
    )


def _adds_next_action(deployment: Deployment, found: list[Duty]) -> bool:
    """Whether the record's next action is more than one of its conditions said again."""
    return deployment.next_action is not None and all(
        deployment.next_action != one.action for one in found
    )


def _duty(name: str, monitor: str, owner: str, action: str, due: date | None, today: date) -> Duty:
    return Duty(name, monitor, owner, action, due, due is not None and due < today)


def _date(text: str | None) -> date | None:
    """The date that a record states; None where it states none that can be read."""
    if not text:
        return None
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None
