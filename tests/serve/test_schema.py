"""Requests made from the OpenAPI schema, sound and unsound: none is a 500, all as documented."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from tests.serve.conftest import Live

from evenhand.watch.store.database import Database
from evenhand.watch.store.keys import add_key

WITHOUT_BODY = {"GET /v1/model", "GET /healthz", "GET /readyz", "GET /metrics"}
WITH_BODY = {"POST /v1/classify", "POST /v1/moderations"}
# How an unsound body may be refused. Too many posts are a 413, which is not expected by default.
REFUSED = [400, 401, 413, 415, 422]


@pytest.fixture
def headers(database: Database) -> dict[str, str]:
    """A valid key: the checks also ask without it, and with a wrong one."""
    with database.session() as session:
        key = add_key(session, "forum", now=datetime(2026, 1, 1, tzinfo=UTC))
    return {"Authorization": f"Bearer {key}"}


def operations_of(server: Live) -> dict[str, Any]:
    checks = {"negative_data_rejection": {"expected-statuses": REFUSED}}
    config = schemathesis.config.SchemathesisConfig.from_dict({"checks": checks})
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)
    return {one.ok().label: one.ok() for one in schema.get_all_operations()}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
def test_bodies_are_answered_as_the_schema_says(
    live: Callable[..., Live], headers: dict[str, str], mode: GenerationMode
) -> None:
    operations = operations_of(live(max_request_rows=3, keyless=False))
    assert set(operations) == WITH_BODY | WITHOUT_BODY
    for label in sorted(WITH_BODY):
        check, statuses = checked(operations[label].as_strategy(generation_mode=mode), headers)
        check()
        if mode == GenerationMode.POSITIVE:
            assert statuses == {200}
        else:
            assert statuses & {400, 422}


def checked(strategy: Any, headers: dict[str, str]) -> tuple[Callable[[], None], set[int]]:
    """Return a test of one operation, and the set that it fills with the statuses it got."""
    statuses: set[int] = set()

    @settings(
        max_examples=8,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def check(case: Any) -> None:
        statuses.add(case.call_and_validate(headers=headers).status_code)

    return check, statuses


def test_routes_without_a_body_answer_as_the_schema_says(
    live: Callable[..., Live], headers: dict[str, str]
) -> None:
    operations = operations_of(live(keyless=False))
    for label in sorted(WITHOUT_BODY):
        assert operations[label].Case().call_and_validate(headers=headers).status_code == 200
