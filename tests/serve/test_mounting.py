from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from tests.serve.conftest import make_settings

from evenhand.serve.app import create_app
from evenhand.serve.service import Service


@pytest.fixture
def whole(make_service: Callable[..., Service]) -> TestClient:
    settings = make_settings()
    return TestClient(
        create_app(make_service(settings, keyless=False), settings), base_url="http://localhost"
    )


def test_review_pages_stand_beside_the_api_under_rules_of_their_own(whole: TestClient) -> None:
    with whole as http:
        page = http.get("/review/login")
        assert page.status_code == 200  # a login, not a key
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert http.get("/review", follow_redirects=False).status_code in (303, 307)
        assert http.get("/review/static/style.css").status_code == 200
        assert http.post("/v1/classify", json={}).status_code == 401
        metrics = http.app.state.serving.metrics.render().decode()  # pyright: ignore
    assert 'route="/review/login",status="200"' in metrics


def test_review_pages_are_no_part_of_the_schema(whole: TestClient) -> None:
    with whole as http:
        paths = http.get("/openapi.json").json()["paths"]
    assert not any(path.startswith("/review") for path in paths)
