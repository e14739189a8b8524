"""What the tests of the pages share: a site with cheap password hashes."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher
from tests.watch.made_up import make_settings, start_intake
from tests.watch.web.made_up_site import MadeUpSite

from evenhand.core.production import Release
from evenhand.watch.reviewing import users
from evenhand.watch.reviewing.lock_out import LockOut
from evenhand.watch.store.database import Database


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash fast, and forget the failed logins of other tests."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(users, "HASHER", hasher)
    defaults = dict(users.authenticate.__kwdefaults__, lock_out=LockOut())
    monkeypatch.setattr(users.authenticate, "__kwdefaults__", defaults)


@pytest.fixture
def site(database: Database, release: Release) -> MadeUpSite:
    """The pages of a release that has been started; no golden items."""
    settings = make_settings("review.golden_share=0")
    start_intake(database, release, settings)
    return MadeUpSite(database, settings, release.sha256)
