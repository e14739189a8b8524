"""What every page needs: the database, who asks, the form they sent, and how a page is made."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.orm import Session
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from evenhand.config.production_schema import ProductionConfig
from evenhand.watch.reviewing.acts import LARGEST_ID
from evenhand.watch.reviewing.users import Login
from evenhand.watch.store.database import Database
from evenhand.watch.web import display
from evenhand.watch.web.security import BASE

Role = Literal["anyone", "reviewer", "admin"]

STATIC = {
    "htmx.min.js": "text/javascript; charset=utf-8",
    "review.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "THIRD_PARTY.txt": "text/plain; charset=utf-8",
}
"""The files that are handed out, and nothing else."""


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """A request that is answered with a page that says why it was not done."""

    def __init__(
        self, status: int, title: str, message: str, *, seconds: int | None = None
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.message = message
        self.seconds = seconds


class SignInFirst(Exception):  # noqa: N818 - a way out, not an error
    """A request without a login: the browser is sent to the login page."""


@dataclass(frozen=True)
class Site:
    """The pages of one server.

    Attributes:
        clock: gives the time in UTC.
        rng: which item comes next; drawn from under a lock, since requests run in threads.
    """

    database: Database
    settings: ProductionConfig
    release_id: str
    rng: np.random.Generator
    clock: Callable[[], datetime]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def draw_rng(self) -> np.random.Generator:
        """Return a generator that belongs to one request alone."""
        with self._lock:
            return np.random.default_rng(self.rng.integers(2**63))


@dataclass(frozen=True)
class Visit:
    """One request, inside one transaction.

    Attributes:
        login: who asks; None on the login page alone.
        fields: the form that was sent; empty for a page that is only read.
    """

    site: Site
    request: Request
    session: Session
    now: datetime
    login: Login | None
    fields: FormData

    @property
    def who(self) -> Login:
        """Whoever is logged in.

        Raises:
            SignInFirst: nobody is.
        """
        if self.login is None:
            raise SignInFirst
        return self.login

    @property
    def is_admin(self) -> bool:
        """Whether an admin asks."""
        return self.login is not None and self.login.user.role == "admin"

    def text(self, name: str, *, longest: int = 2000) -> str:
        """Return a field of the form without surrounding space; "" where there is none.

        Null characters, which PostgreSQL cannot store, become a visible sign.

        Raises:
            Refusal: it is longer than the page allows, or a file.
        """
        value = self.fields.get(name, "")
        if not isinstance(value, str) or len(value) > longest:
            raise Refusal(422, "Too long", f'"{name}" may have at most {longest} characters.')
        return value.replace("\0", "\N{SYMBOL FOR NULL}").strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all values of a field."""
        return tuple(one for one in self.fields.getlist(name) if isinstance(one, str))

    def number(self, name: str) -> int:
        """Return a field that holds a whole number.

        Raises:
            Refusal: it does not, or none that a database can hold.
        """
        text = self.text(name)
        is_number = text.isascii() and text.isdigit() and len(text) <= 10
        if not is_number or int(text) > LARGEST_ID:
            raise Refusal(422, "Incomplete form", f'The form\'s "{name}" is missing or no number.')
        return int(text)

    def sealed(self, item_id: int) -> str:
        """Return what stands for an item in a reviewer's form, from which the id cannot be told.

        The key is one that reviewers do not know and that all servers of a database share.
        """
        key = self.who.user.password_hash.encode()
        return hmac.new(key, f"item {item_id}".encode(), hashlib.sha256).hexdigest()[:32]

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page made from a template."""
        html = render(
            template,
            login=self.login,
            is_admin=self.is_admin,
            csrf="" if self.login is None else self.login.csrf,
            now=self.now,
            **values,
        )
        return HTMLResponse(html, status_code=status)


def render(template: str, **values: Any) -> str:
    """Return a template's HTML; every value is escaped."""
    return _environment().get_template(template).render(base=BASE, **values)


def go_to(place: str) -> Response:
    """Send the browser to another page, after a form too."""
    return RedirectResponse(f"{BASE}{place}", status_code=303)


@cache
def static_file(name: str) -> bytes:
    """Return the content of one of the files in :data:`STATIC`."""
    return files("evenhand.watch.web").joinpath("static", name).read_bytes()


def static_url(name: str) -> str:
    """Return where a file is, with its hash, so that a new version is never the stored old one."""
    version = hashlib.sha256(static_file(name)).hexdigest()[:12]
    return f"{BASE}/static/{name}?v={version}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evenhand.watch.web"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Callable[..., Any]] = {
        "visible": display.visible,
        "clock": display.clock_time,
        "day": display.day,
        "group": display.group_name,
        "share": display.share,
    }
    environment.filters.update(filters)
    environment.globals.update({"static": static_url, "interval": display.interval})
    return environment
