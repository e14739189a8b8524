from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from evenhand.watch.store.database import Database
from evenhand.watch.store.keys import KeyRing, add_key, revoke_key

Start = Callable[..., TestClient]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BODY = {"posts": [{"text": "a"}]}
GUARDED = [
    ("POST", "/v1/classify"),
    ("POST", "/v1/moderations"),
    ("GET", "/v1/model"),
    ("GET", "/metrics"),
    ("GET", "/v1/nothing"),
]


@pytest.fixture
def key(database: Database) -> str:
    with database.session() as session:
        return add_key(session, "forum", now=NOW)


@pytest.fixture(autouse=True)
def _read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are read anew for every request, so that no test waits."""
    plain = KeyRing.__init__
    monkeypatch.setattr(
        KeyRing, "__init__", lambda self, database: plain(self, database, seconds=0.0)
    )


def test_a_valid_key_opens_and_its_name_is_known(client: Start, key: str) -> None:
    http = client(keyless=False)
    for given in (f"Bearer {key}", f"bearer  {key} "):
        answer = http.post("/v1/classify", json=BODY, headers={"Authorization": given})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Basic eh_x", "missing_api_key"),
        ("Bearer eh_" + "x" * 43, "invalid_api_key"),
        ("Bearer " + "x" * 5000, "missing_api_key"),
        ("Bearer \xe9\xff", "invalid_api_key"),
    ],
)
@pytest.mark.usefixtures("key")
def test_nothing_else_does(client: Start, given: str | None, code: str) -> None:
    http = client()  # would be open, had there never been a key
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for method, path in GUARDED:
        answer = http.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.usefixtures("key")
def test_the_key_is_asked_for_before_the_body_is_read(client: Start) -> None:
    http = client(max_body_bytes=10)
    assert http.post("/v1/classify", content=b"not json, and long").status_code == 401


def test_probes_and_the_reference_need_no_key(client: Start) -> None:
    http = client(keyless=False)
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert http.get(path).status_code == 200


def test_without_any_key_a_loopback_server_is_open_until_the_first_is_made(
    client: Start, database: Database
) -> None:
    http = client()
    assert http.post("/v1/classify", json=BODY).status_code == 200
    with database.session() as session:
        key = add_key(session, "forum", now=NOW)
    headers = {"Authorization": f"Bearer {key}"}
    assert http.post("/v1/classify", json=BODY).status_code == 401
    assert http.post("/v1/classify", json=BODY, headers=headers).status_code == 200
    with database.session() as session:
        revoke_key(session, "forum", now=NOW)
    # Revoking the last key closes the server, it does not open it.
    assert http.post("/v1/classify", json=BODY, headers=headers).status_code == 401
    assert http.post("/v1/classify", json=BODY).status_code == 401


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000"])
def test_an_open_server_answers_under_local_names(client: Start, host: str) -> None:
    assert client().post("/v1/classify", json=BODY, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example"])
def test_an_open_server_does_not_answer_under_foreign_names(client: Start, host: str) -> None:
    answer = client().post("/v1/classify", json=BODY, headers={"Host": host})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "host_not_local"


def test_unreadable_keys_are_a_503(
    client: Start, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("the database is gone")

    http = client(keyless=False)
    monkeypatch.setattr(KeyRing, "check", broken)
    answer = http.post("/v1/classify", json=BODY, headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
