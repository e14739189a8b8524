"""Login and logout."""

from __future__ import annotations

import secrets

from starlette.responses import Response

from evenhand.watch.reviewing.lock_out import LockedOutError, LoginError
from evenhand.watch.reviewing.users import authenticate, log_out
from evenhand.watch.web.security import (
    FORM_COOKIE,
    LOGIN_COOKIE,
    drop_cookie,
    is_same,
    set_cookie,
)
from evenhand.watch.web.site import Visit, go_to

_FORM_SECONDS = 3600


def show(visit: Visit) -> Response:
    """Show the login form, or go on where somebody is logged in."""
    return _form(visit) if visit.login is None else go_to("/")


def sign_in(visit: Visit) -> Response:
    """Check a name and a password and open a login."""
    name, password = visit.text("name", longest=200), visit.fields.get("password", "")
    if not is_same(visit.text("csrf"), visit.request.cookies.get(FORM_COOKIE)):
        return _form(visit, name=name, problem="The form was out of date. Try again.", status=403)
    if not isinstance(password, str):
        return _form(visit, name=name, problem="The password is missing.", status=422)
    hours = visit.site.settings.review.login_hours
    try:
        login = authenticate(visit.site.database, name, password, hours=hours, now=visit.now)
    except LockedOutError as error:
        response = _form(visit, name=name, problem=_sentence(error), status=429)
        response.headers["Retry-After"] = str(
            max(1, round((error.until - visit.now).total_seconds()))
        )
        return response
    except LoginError as error:
        return _form(visit, name=name, problem=_sentence(error), status=401)
    response = go_to("/")
    set_cookie(response, visit.request, LOGIN_COOKIE, login.token, seconds=round(hours * 3600))
    drop_cookie(response, visit.request, FORM_COOKIE)
    return response


def sign_out(visit: Visit) -> Response:
    """End the login."""
    log_out(visit.session, visit.who, now=visit.now)
    response = go_to("/login")
    drop_cookie(response, visit.request, LOGIN_COOKIE)
    return response


def _form(visit: Visit, *, name: str = "", problem: str = "", status: int = 200) -> Response:
    token = secrets.token_urlsafe(24)
    response = visit.page("login.html", form_token=token, name=name, problem=problem, status=status)
    set_cookie(response, visit.request, FORM_COOKIE, token, seconds=_FORM_SECONDS)
    return response


def _sentence(error: LoginError) -> str:
    return f"{error.message[:1].upper()}{error.message[1:]}."
