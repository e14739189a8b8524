from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from tests.serve.conftest import BrokenIntake, Live

from evenhand.core.errors import StorageError
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import PostRow

Start = Callable[..., TestClient]
BODY = {"posts": [{"text": "a"}]}


def test_overload_is_429_and_what_was_accepted_is_answered_and_stored(
    live: Callable[..., Live], database: Database
) -> None:
    def slow(texts: Sequence[str]) -> np.ndarray:
        time.sleep(0.01)
        return np.full(len(texts), 0.5)

    server = live(scorer=slow, max_waiting_rows=8, max_batch_rows=4)

    def ask(_: int) -> tuple[int, str, list[str]]:
        answer = client.post("/v1/classify", json={"posts": [{"text": "a"}] * 2})
        ids = [one["post_id"] for one in answer.json().get("results", [])]
        return answer.status_code, answer.headers.get("retry-after", ""), ids

    with httpx.Client(base_url=server.url) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(120)))
        metrics = client.get("/metrics").text
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 429}
    assert all(int(retry) >= 1 for status, retry, _ in answers if status == 429)
    with database.session() as session:
        stored = set(session.scalars(select(PostRow.id)))
    assert stored == {one for _, _, ids in answers for one in ids}
    assert f'evenhand_rejected_total{{reason="queue_full"}} {statuses.count(429)}.0' in metrics


class Blocked:
    """A scorer that stands still until ``leave`` is set."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.entered.set()
        assert self.leave.wait(30)
        return np.full(len(texts), 0.5)


@pytest.fixture
def blocked() -> Blocked:
    return Blocked()


def test_a_timeout_is_503_with_a_time_to_come_back(
    client: Start, blocked: Blocked, database: Database
) -> None:
    http = client(scorer=blocked, timeout_seconds=0.5)
    answer = http.post("/v1/classify", json=BODY)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "timeout"
    assert int(answer.headers["retry-after"]) >= 1
    waiting = http.post("/v1/classify", json=BODY)  # leaves the queue when it gives up
    assert waiting.status_code == 503
    blocked.leave.set()
    assert http.post("/v1/classify", json=BODY).status_code == 200
    with database.session() as session:
        assert len(session.scalars(select(PostRow.id)).all()) == 2


def test_a_client_that_leaves_breaks_nothing(
    live: Callable[..., Live],
    blocked: Blocked,
    database: Database,
) -> None:
    server = live(scorer=blocked, max_batch_rows=1)
    gone = 'evenhand_rejected_total{reason="client_gone"} 3.0'
    try:
        with httpx.Client(base_url=server.url) as client, ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/v1/classify", json=BODY, timeout=1.0)
            assert blocked.entered.wait(10)  # it is being scored; the others wait
            for _ in range(2):
                with pytest.raises(httpx.ReadTimeout):
                    client.post("/v1/classify", json=BODY, timeout=0.1)
            with pytest.raises(httpx.ReadTimeout):
                first.result(10)
            deadline = time.monotonic() + 10
            while gone not in client.get("/metrics").text:
                assert time.monotonic() < deadline
            blocked.leave.set()
            assert client.post("/v1/classify", json=BODY).status_code == 200
    finally:
        blocked.leave.set()
    with database.session() as session:  # the one that was being scored, and the last
        assert len(session.scalars(select(PostRow.id)).all()) == 2


def test_a_failing_model_is_a_500_with_the_request_id_and_rows_with_an_error(
    client: Start, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(texts: Sequence[str]) -> np.ndarray:
        raise ValueError(f"cannot take {texts[0]}")

    http = client(scorer=broken)
    answer = http.post("/v1/classify", json={"posts": [{"text": "private words"}]})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "scoring_failed"
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "private" not in answer.text
    assert any(record.message == "scoring failed" for record in caplog.records)
    with database.session() as session:
        (row,) = session.scalars(select(PostRow)).all()
    assert (row.status, row.score, row.decision, row.sampled) == ("error", None, None, False)


def test_a_failing_database_is_a_503_and_the_server_is_not_ready(client: Start) -> None:
    http = client(intake=BrokenIntake(StorageError("the disk is full")))
    answer = http.post("/v1/classify", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storing_failed")
    assert "results" not in answer.json()
    assert answer.headers["retry-after"] == "5"
    ready = http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["the last batch could not be stored"]
    assert http.get("/healthz").status_code == 200
