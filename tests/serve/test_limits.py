from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from tests.serve.conftest import Live

from evenhand.serve.limits import BodyLimit

Start = Callable[..., TestClient]


def chunks(total: int) -> Iterator[bytes]:
    yield b'{"posts":[{"text":"'
    for _ in range(total // 1000):
        yield b"a" * 1000


def test_a_body_over_the_limit_is_413_whether_its_length_was_stated_or_not(
    live: Callable[..., Live],
) -> None:
    server = live(max_body_bytes=50_000)
    with httpx.Client(base_url=server.url) as client:
        for body in (b"x" * 5_000_000, chunks(5_000_000)):
            answer = client.post("/v1/classify", content=body)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"
        # The connection is still good.
        assert client.post("/v1/classify", json={"posts": [{"text": "a"}]}).status_code == 200


def test_a_chunked_body_within_the_limit_is_read(live: Callable[..., Live]) -> None:
    content = json.dumps({"posts": [{"text": "a hateful post"}]}).encode()
    body = (content[place : place + 5] for place in range(0, len(content), 5))
    answer = httpx.post(
        f"{live().url}/v1/classify", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.json()["results"][0]["decision"] == "hate"


def test_a_body_that_never_ends_is_408(live: Callable[..., Live]) -> None:
    server = live(timeout_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408
        assert json.loads(answer.read())["error"]["code"] == "body_timeout"


def test_a_client_that_leaves_in_the_middle_is_not_passed_on() -> None:
    asked: list[str] = []

    async def app(*_: Any) -> None:
        asked.append("app")

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        asked.append("send")

    scope = {"type": "http", "method": "POST", "headers": [], "state": {}}
    asyncio.run(BodyLimit(app, max_bytes=10, timeout_seconds=1.0)(scope, receive, send))
    assert asked == []


def test_posts_and_characters_are_limited_with_their_places(client: Start) -> None:
    http = client(max_request_rows=2, max_text_chars=4)
    answer = http.post("/v1/classify", json={"posts": [{"text": "a"}] * 3})
    assert answer.status_code == 413
    assert answer.json()["error"]["problems"] == [
        {"place": "posts", "message": "3 posts in one request; at most 2"}
    ]
    answer = http.post("/v1/classify", json={"posts": [{"text": "five!"}, {"text": "12345678"}]})
    assert answer.status_code == 422
    assert [one["place"] for one in answer.json()["error"]["problems"]] == [
        "posts[0].text",
        "posts[1].text",
    ]
    assert http.post("/v1/classify", json={"posts": [{"text": "😀😀😀😀"}]}).status_code == 200
    answer = http.post("/v1/moderations", json={"input": ["a", "five!"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1]")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/classify", {"posts": [0] * 200_000}, 413),
        ("/v1/classify", {"posts": [{"text": "a", **{f"k{i}": 0 for i in range(100_000)}}]}, 422),
        ("/v1/classify", {"posts": [], **{f"k{i}": 0 for i in range(100_000)}}, 422),
        ("/v1/moderations", {"input": [0] * 200_000}, 413),
        ("/v1/moderations", {"input": [{}] * 200_000}, 413),
    ],
    ids=["posts", "fields of a post", "fields", "inputs", "parts"],
)
def test_a_body_with_more_faults_than_anyone_reads_is_refused_at_once(
    client: Start, path: str, body: object, status: int
) -> None:
    """Naming a million faults took a minute, in which the server answered nobody."""
    http = client()
    content = json.dumps(body)
    started = time.process_time()
    answer = http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert time.process_time() - started < 2
    assert answer.status_code == status
    assert len(answer.json()["error"]["problems"]) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HT",
        b"POST /v1/none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "half a body after the answer"],
)
def test_a_connection_that_asks_nothing_is_closed(live: Callable[..., Live], sent: bytes) -> None:
    server = live(timeout_seconds=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        end = time.monotonic() + 10
        while connection.recv(65_536):
            assert time.monotonic() < end
    # Somebody who does ask is not cut off in between.
    with httpx.Client(base_url=server.url) as client:
        for _ in range(8):
            assert client.get("/healthz").status_code == 200
            time.sleep(0.1)
