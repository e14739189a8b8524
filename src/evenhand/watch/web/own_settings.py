"""A reviewer's own settings: groups to stay away from, the password, a break at once."""

from __future__ import annotations

from starlette.responses import Response

from evenhand.core.errors import ConfigError
from evenhand.watch.reviewing.queue import start_break
from evenhand.watch.reviewing.users import (
    MIN_PASSWORD_CHARS,
    check_password,
    hash_password,
    set_opt_outs,
    set_password_hash,
)
from evenhand.watch.store.tables import UserRow
from evenhand.watch.web.site import Refusal, Visit, go_to

_DONE = {
    "opt-outs": "Saved: you will not be offered posts that seem to be about these groups.",
    "password": "The password is changed.",
}


def show(visit: Visit) -> Response:
    """Show the settings, and what was just saved."""
    return _settings(visit, done=_DONE.get(visit.request.query_params.get("saved", ""), ""))


def save_opt_outs(visit: Visit) -> Response:
    """Save the groups that the reviewer does not want to see; others on record stay."""
    watched = visit.site.settings.watch.groups
    chosen = visit.texts("group")
    unlisted = [one for one in visit.who.user.opted_out if one not in watched]
    set_opt_outs(
        visit.session, visit.who.user, [*(one for one in watched if one in chosen), *unlisted]
    )
    return go_to("/settings?saved=opt-outs")


def save_password(visit: Visit) -> Response:
    """Change the password, given the present one."""
    user, fields = visit.who.user, visit.fields
    current, new, again = (fields.get(name, "") for name in ("current", "new", "again"))
    if not (isinstance(current, str) and isinstance(new, str) and isinstance(again, str)):
        raise Refusal(422, "Unreadable form", "The passwords could not be read.")
    if new != again:
        return _settings(visit, problem="The two new passwords differ.")
    if not check_password(user, current):
        return _settings(visit, problem="The present password is wrong.")
    try:
        new_hash = hash_password(new)
    except ConfigError as error:
        told = " ".join(f"The new password {one.message}." for one in error.problems)
        return _settings(visit, problem=told)
    with visit.site.database.session() as session:
        own = session.get_one(UserRow, user.id)
        set_password_hash(session, own, new_hash, now=visit.now, keep=visit.who)
    return go_to("/settings?saved=password")


def begin_break(visit: Visit) -> Response:
    """Begin a break; the open post goes back to the queue."""
    start_break(visit.session, visit.who.user, visit.site.settings.review, now=visit.now)
    return go_to("/")


def _settings(visit: Visit, *, done: str = "", problem: str = "") -> Response:
    minutes = visit.site.settings.review.break_minutes
    return visit.page(
        "settings.html",
        done=done,
        problem=problem,
        groups=visit.site.settings.watch.groups,
        shortest=MIN_PASSWORD_CHARS,
        break_words=f"{minutes:g} minute{'' if minutes == 1 else 's'}",
        status=422 if problem else 200,
    )
