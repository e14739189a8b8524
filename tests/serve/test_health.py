from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.serve.conftest import make_release, make_settings

from evenhand.core.production import Override
from evenhand.serve.app import create_app
from evenhand.serve.logs import LOGGERS, JsonLines, start_logging
from evenhand.serve.service import Service
from evenhand.watch.store.database import Database
from evenhand.watch.store.keys import add_key

Start = Callable[..., TestClient]
BODY = {"posts": [{"text": "private words"}, {"text": "hate"}]}


def test_readiness_says_what_was_proved_and_accepted(client: Start) -> None:
    override = Override(code="gate_failed", message="gate.json: FAIL", reason="a trial")
    release = make_release(overrides=(override,), outcome="FAIL")
    body = client(release=release).get("/readyz").json()
    assert body == {
        "status": "ready",
        "reasons": [],
        "model": "tiny",
        "release": release.sha256,
        "outcome": "FAIL",
        "golden": {"rows": 24, "max_difference": 0.0, "tolerance": 0.001},
        "adapter": {
            "difference": 0.4,
            "proof": "p(hate) differs by up to 0.4 with the adapter switched off",
        },
        "overrides": [{"code": "gate_failed", "message": "gate.json: FAIL", "reason": "a trial"}],
    }


def test_a_server_that_stops_or_lost_its_database_is_not_ready(
    client: Start, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = client()
    app: Any = http.app
    app.state.serving.begin_drain()

    def unreachable() -> Iterator[None]:
        raise OSError("gone")

    monkeypatch.setattr(type(database), "reading", lambda _: unreachable())
    answer = http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == [
        "the server is stopping",
        "the database cannot be reached",
    ]
    assert http.get("/healthz").headers["connection"] == "close"


def test_model_names_the_release(client: Start) -> None:
    body = client().get("/v1/model").json()
    assert body["release"] == make_release().sha256
    assert body["binding"] == {
        "run": "1" * 64,
        "adapter": "a" * 64,
        "prompt": "c" * 64,
        "base": "b" * 64,
    }
    assert (body["threshold"], body["temperature"], body["outcome"]) == (0.6, 2.0, "PASS")
    assert body["evaluated"] == ["hate"]


def test_metrics_count_what_happened(client: Start) -> None:
    http = client()
    http.post("/v1/classify", json=BODY)
    http.post("/v1/classify", json={"posts": []})
    http.get("/private-words")
    text = http.get("/metrics").text
    for line in (
        'evenhand_requests_total{route="/v1/classify",status="200"} 1.0',
        'evenhand_requests_total{route="/v1/classify",status="422"} 1.0',
        'evenhand_requests_total{route="unmatched",status="404"} 1.0',
        'evenhand_decisions_total{decision="hate"} 1.0',
        'evenhand_decisions_total{decision="normal"} 1.0',
        "evenhand_batch_rows_sum 2.0",
        "evenhand_scoring_seconds_count 1.0",
        "evenhand_store_seconds_count 1.0",
        "evenhand_waiting_rows 0.0",
    ):
        assert line in text
    assert "private" not in text


def test_each_request_is_one_json_line_without_any_text(client: Start, database: Database) -> None:
    with database.session() as session:
        key = add_key(session, "forum", now=datetime(2026, 1, 1, tzinfo=UTC))
    stream = io.StringIO()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    try:
        start_logging(stream)
        http = client()
        answer = http.post(
            "/v1/classify?q=private", json=BODY, headers={"Authorization": f"Bearer {key}"}
        )
        http.request("PRIVATE", "/private")
    finally:
        for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
            one.handlers[:], one.propagate = handlers, propagate
            one.setLevel(level)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["event"] == "request"
    assert first["request_id"] == answer.headers["x-request-id"]
    assert (first["route"], first["method"], first["status"]) == ("/v1/classify", "POST", 200)
    assert (first["rows"], first["key"]) == (2, "forum")
    assert first["latency_ms"] > 0
    assert (second["route"], second["method"], second["status"]) == ("unmatched", "other", 404)
    assert "private" not in stream.getvalue()
    assert key not in stream.getvalue()


def test_what_other_libraries_say_beyond_the_first_line_is_not_logged() -> None:
    words = "Task exception was never retrieved\nfuture: ValueError('private words')"
    line = JsonLines().format(
        logging.LogRecord("asyncio", logging.ERROR, "x", 1, words, None, None)
    )
    assert json.loads(line)["event"] == "Task exception was never retrieved"
    assert "private" not in line


def test_a_logged_exception_has_places_but_not_its_message() -> None:
    try:
        raise ValueError("private words")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "x", 1, "failed", None, (type(error), error, error.__traceback__)
        )
    line = JsonLines().format(record)
    assert json.loads(line)["error"] == "ValueError"
    assert "test_health.py" in line
    assert "private" not in line


def test_an_unforeseen_fault_is_a_500_with_an_id(
    client: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = client()
    monkeypatch.setattr("evenhand.serve.classify.answer_posts", None)
    answer = http.post("/v1/classify", json=BODY)
    assert answer.status_code == 500
    assert answer.json()["error"]["request_id"] in answer.json()["error"]["message"]


def test_every_answer_has_the_headers_that_protect_it(client: Start) -> None:
    http = client()
    for path in ("/healthz", "/nothing", "/v1/model", "/docs"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"].startswith("req_")
        assert "server" not in headers


def test_the_reference_names_every_route_and_loads_nothing(client: Start) -> None:
    http = client()
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in http.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert "I hate [group]." in page.text
    assert not re.search(r"<script|<link|<img|\bsrc=|url\(|https?://", page.text)
    names = set(re.findall(r'id="([^"]+)"', page.text))
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= names


def test_the_monitor_runs_beside_the_answers(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    import evenhand.watch.monitor as monitor

    asked: list[Any] = []

    def check(_: Any, release_id: str, *__: Any, now: datetime) -> Any:
        asked.append((release_id, now.tzinfo))
        if len(asked) == 1:
            raise RuntimeError("private words")
        return type("Report", (), {"alarms": (1, 2)})

    monkeypatch.setattr(monitor, "check", check)
    settings = make_settings()
    watch = settings.watch.model_copy(update={"check_every_seconds": 0.01})
    settings = settings.model_copy(update={"watch": watch})
    app: FastAPI = create_app(make_service(settings), settings, with_review=False)
    with TestClient(app, base_url="http://localhost") as http:
        for _ in range(500):
            text = http.get("/metrics").text
            if 'outcome="ok"' in text:
                break
    assert 'evenhand_monitor_checks_total{outcome="failed"} 1.0' in text
    assert "evenhand_open_alarms 2.0" in text
    assert asked[0] == (make_release().sha256, UTC)
