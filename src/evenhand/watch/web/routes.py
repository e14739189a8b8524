"""The review pages as one router: who may ask for what, and what a refusal looks like."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple

import anyio
import numpy as np
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.errors import InputError, StorageError
from evenhand.watch.reviewing.users import find_login
from evenhand.watch.store.database import Database
from evenhand.watch.web import (
    adjudicating,
    dashboard_pages,
    history_pages,
    labelling,
    own_settings,
    signing_in,
)
from evenhand.watch.web.security import LOGIN_COOKIE, is_from_here, protect
from evenhand.watch.web.site import (
    STATIC,
    Refusal,
    Role,
    SignInFirst,
    Site,
    Visit,
    go_to,
    render,
    static_file,
)

_LOG = logging.getLogger(__name__)
_FORM_FIELDS = 100
_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
_NO_FORM = FormData()

Handler = Callable[[Visit], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


# Of the threads and database connections that all requests share: pages must leave some to the
# checking of callers' keys, without which no post is answered.
_PAGE_THREADS = 12
# A password takes 64 MiB and a good part of a second, and anybody can send one.
_PASSWORD_THREADS = 2
_PASSWORDS_AT_ONCE = 16


class Page(NamedTuple):
    """One address: who may use it, and what answers.

    Attributes:
        writes: whether it has a transaction that may write.
        takes_password: whether a password is checked; so many at once are refused.
    """

    method: str
    path: str
    role: Role
    handler: Handler
    writes: bool = True
    takes_password: bool = False


PAGES = (
    Page("GET", "/login", "anyone", signing_in.show, writes=False),
    Page("POST", "/logout", "reviewer", signing_in.sign_out),
    Page("GET", "/", "reviewer", labelling.show),
    Page("POST", "/label", "reviewer", labelling.label),
    Page("POST", "/skip", "reviewer", labelling.skip_item),
    Page("POST", "/undo", "reviewer", labelling.undo_last),
    Page("GET", "/history", "reviewer", history_pages.show, writes=False),
    Page("GET", "/adjudicate", "admin", adjudicating.show, writes=False),
    Page("POST", "/adjudicate", "admin", adjudicating.decide),
    Page("GET", "/dashboard", "reviewer", dashboard_pages.show, writes=False),
    Page("POST", "/alarms/close", "admin", dashboard_pages.close_alarm),
    Page("GET", "/settings", "reviewer", own_settings.show, writes=False),
    Page("POST", "/settings/opt-outs", "reviewer", own_settings.save_opt_outs),
    # These two check a password first, in no transaction that keeps others from writing.
    Page("POST", "/login", "anyone", signing_in.sign_in, False, True),
    Page("POST", "/settings/password", "reviewer", own_settings.save_password, False, True),
    Page("POST", "/settings/break", "reviewer", own_settings.begin_break),
)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def review_router(
    database: Database,
    settings: ProductionConfig,
    release_id: str,
    rng: np.random.Generator,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> APIRouter:
    """Return the pages for reviewers and admins, to be included under ``/review``.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> def add_pages(database, settings, release_id):
    ...     router = review_router(database, settings, release_id, np.random.default_rng())
    ...     app.include_router(router, prefix="/review")
    """
    site = Site(database, settings, release_id, rng, clock)
    router = APIRouter(include_in_schema=False)
    pages = anyio.CapacityLimiter(_PAGE_THREADS)
    passwords = anyio.CapacityLimiter(_PASSWORD_THREADS)
    router.add_api_route("/static/{name}", _static, methods=["GET"])
    for page in PAGES:
        limiter = passwords if page.takes_password else pages
        router.add_api_route(page.path, _endpoint(site, page, limiter), methods=[page.method])
    router.add_api_route("/{rest:path}", _missing, methods=["GET", "POST"])
    return router


def _endpoint(site: Site, page: Page, limiter: anyio.CapacityLimiter) -> Endpoint:
    begin = site.database.session if page.writes else site.database.reading
    inside = 0

    def work(request: Request, fields: FormData) -> Response:
        with begin() as session:
            return page.handler(_admit(site, request, session, fields, page.role))

    async def answer(request: Request) -> Response:
        nonlocal inside
        try:
            fields = await _read_form(request) if request.method == "POST" else _NO_FORM
            if page.takes_password and inside >= _PASSWORDS_AT_ONCE:
                raise Refusal(429, "Too many at once", "Try again in a moment.", seconds=5)
            inside += 1
            try:
                # The database is not asynchronous; a page must not stop the answering of posts.
                done = await anyio.to_thread.run_sync(work, request, fields, limiter=limiter)
            finally:
                inside -= 1
            return protect(done)
        except SignInFirst:
            return protect(go_to("/login"))
        except Refusal as refusal:
            return _refuse(refusal)
        except InputError as error:
            told = " ".join(f"{one.place}: {one.message}." for one in error.problems)
            return _refuse(Refusal(422, "That was not saved", told or error.message))
        except (StorageError, SQLAlchemyError) as error:
            # By its name alone: a database's message quotes what was to be stored.
            _LOG.error("review page failed: %s", type(error).__name__)
            message = "The database did not answer. Nothing was saved; try again in a moment."
            return _refuse(Refusal(503, "Not available at the moment", message, seconds=5))

    return answer


def _admit(site: Site, request: Request, session: Session, fields: FormData, role: Role) -> Visit:
    """Return the visit of somebody who may ask for the page, in the form's own name."""
    now = site.clock()
    token = request.cookies.get(LOGIN_COOKIE)
    login = find_login(session, token, now=now) if token else None
    visit = Visit(site, request, session, now, login, fields)
    if role == "anyone":
        return visit
    who = visit.who
    if request.method == "POST" and not who.accepts(visit.text("csrf")):
        raise Refusal(403, "Form out of date", "Open the page again and send the form once more.")
    if role == "admin" and not visit.is_admin:
        raise Refusal(403, "For admins", "Only an admin can open this page.")
    return visit


async def _read_form(request: Request) -> FormData:
    if not is_from_here(request):
        raise Refusal(403, "Sent from another site", "This form was not sent by this server.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _FORM_TYPES:
        raise Refusal(415, "Not a form", "This address takes forms only.")
    try:
        return await request.form(max_files=0, max_fields=_FORM_FIELDS, max_part_size=65_536)
    except HTTPException as error:
        raise Refusal(
            error.status_code, "Unreadable form", "The form could not be read."
        ) from error


async def _static(name: str) -> Response:
    if name not in STATIC:
        return _refuse(Refusal(404, "Not found", "There is no such file."))
    response = Response(
        static_file(name),
        headers={"Content-Type": STATIC[name], "Cache-Control": "public, max-age=86400"},
    )
    return protect(response, is_stored=True)


async def _missing(rest: str) -> Response:  # noqa: ARG001 - names the place in the route
    return _refuse(Refusal(404, "Not found", "There is no such page."))


def _refuse(refusal: Refusal) -> Response:
    html = render("refusal.html", title=refusal.title, message=refusal.message)
    response = HTMLResponse(html, status_code=refusal.status)
    if refusal.seconds is not None:
        response.headers["Retry-After"] = str(refusal.seconds)
    return protect(response)
