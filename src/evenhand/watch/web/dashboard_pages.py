"""The dashboard: what is known of the release in production, and closing an alarm."""

from __future__ import annotations

from starlette.responses import Response

from evenhand.watch.alarm_book import close_alarm as close_in_book
from evenhand.watch.monitor import read_report
from evenhand.watch.web import dashboard
from evenhand.watch.web.site import Refusal, Visit, go_to

_REASON_CHARS = 2000


def show(visit: Visit) -> Response:
    """Show the report as it stands now."""
    site = visit.site
    report = read_report(site.database, site.release_id, site.settings, now=visit.now)
    return visit.page(
        "dashboard.html",
        report=report,
        confidence=site.settings.watch.confidence,
        alarms=dashboard.alarm_views(report),
        duties=dashboard.duty_views(report),
        groups=dashboard.group_views(visit.session, report),
        reviewers=dashboard.reviewer_view(visit.session) if visit.is_admin else None,
        curve_days=dashboard.CURVE_DAYS,
        reason_chars=_REASON_CHARS,
    )


def close_alarm(visit: Visit) -> Response:
    """Close an alarm, with the reason that an admin gives."""
    reason = visit.text("reason", longest=_REASON_CHARS)
    if not reason:
        raise Refusal(422, "A reason is needed", "Say why the alarm may be closed.")
    number = visit.number("alarm")
    close_in_book(visit.session, number, reason=reason, now=visit.now, user_id=visit.who.user.id)
    return go_to("/dashboard")
