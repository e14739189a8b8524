"""A small site for the tests of the pages: people, posts in the queue, a clock that can be set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from tests.watch.made_up import START

from evenhand.config.production_schema import ProductionConfig
from evenhand.watch.reviewing.users import add_user
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import ItemRow, PlanRow, PostRow, UserRow
from evenhand.watch.web.routes import review_router

PASSWORD = "correct horse battery"
_CSRF = re.compile(r'name="csrf" value="([^"]+)"')
_ITEM = re.compile(r'name="item" value="([^"]+)"')


@dataclass
class Clock:
    """A clock that stands still until it is moved on."""

    now: datetime = START + timedelta(hours=1)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **units: float) -> None:
        self.now += timedelta(**units)


@dataclass
class MadeUpSite:
    """The pages over a database, and what tests put in it."""

    database: Database
    settings: ProductionConfig
    release_id: str
    clock: Clock = field(default_factory=Clock)

    def app(self) -> FastAPI:
        app = FastAPI()
        router = review_router(
            self.database,
            self.settings,
            self.release_id,
            np.random.default_rng(7),
            clock=self.clock,
        )
        app.include_router(router, prefix="/review")
        return app

    def add_person(self, name: str, *, role: str = "reviewer") -> UserRow:
        with self.database.session() as session:
            return add_user(session, name, role=role, password=PASSWORD, now=START)

    def add_posts(
        self, texts: Sequence[str], *, proposed: Sequence[str] = (), needed: int = 1
    ) -> list[int]:
        """Put posts in the queue and return their items."""
        with self.database.session() as session:
            first = session.scalar(select(func.count()).select_from(PostRow)) or 0
            plan = session.scalar(select(func.max(PlanRow.id)))
            posts = [
                PostRow(
                    id=f"post-{first + place:04d}",
                    time=START + timedelta(seconds=first + place),
                    release_id=self.release_id,
                    plan_id=plan,
                    status="ok",
                    score=0.7,
                    decision="hate",
                    proposed=list(proposed),
                    stratum="none/hate/far",
                    inclusion=0.5,
                    sampled=True,
                    text=text,
                )
                for place, text in enumerate(texts)
            ]
            session.add_all(posts)
            session.flush()
            items = [
                ItemRow(kind="sample", post_id=post.id, created=post.time, reviews_needed=needed)
                for post in posts
            ]
            session.add_all(items)
            session.flush()
            return [item.id for item in items]

    def client(self, *, secure: bool = False) -> Person:
        scheme = "https" if secure else "http"
        return Person(TestClient(self.app(), base_url=f"{scheme}://testserver"))

    def signed_in(self, name: str, *, role: str = "reviewer") -> Person:
        """Add a person and log them in."""
        self.add_person(name, role=role)
        person = self.client()
        assert person.log_in(name).status_code == 200
        return person


@dataclass
class Person:
    """A browser without script."""

    client: TestClient
    csrf: str = ""

    def get(self, path: str) -> httpx.Response:
        answer = self.client.get(f"/review{path}")
        self._read(answer)
        return answer

    def post(self, path: str, **fields: object) -> httpx.Response:
        """Send a form as the page before would, and follow where it leads."""
        answer = self.client.post(f"/review{path}", data={"csrf": self.csrf, **fields})
        self._read(answer)
        return answer

    def log_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        self.get("/login")
        return self.post("/login", name=name, password=password)

    def open_item(self) -> str:
        """Return the item on the queue page."""
        found = _ITEM.search(self.get("/").text)
        assert found is not None
        return found[1]

    def label(self, label: str = "normal", group: object = "", **more: object) -> httpx.Response:
        """Label the open post."""
        return self.post("/label", item=self.open_item(), label=label, group=group, **more)

    def _read(self, answer: httpx.Response) -> None:
        found = _CSRF.search(answer.text)
        self.csrf = found[1] if found else self.csrf
