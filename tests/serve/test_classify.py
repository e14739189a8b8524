from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from tests.serve.conftest import make_release

from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import PostRow

Start = Callable[..., TestClient]


def test_answers_are_in_order_with_ids_decisions_and_hashes(client: Start) -> None:
    posts = [
        {"id": "a", "text": "score=0.6"},
        {"text": "score=0.599"},
        {"id": "a", "text": "score=1"},
    ]
    answer = client().post("/v1/classify", json={"posts": posts})
    assert answer.status_code == 200
    body = answer.json()
    assert body["id"] == answer.headers["x-request-id"]
    results = body["results"]
    assert [one["id"] for one in results] == ["a", None, "a"]
    assert [one["score"] for one in results] == [0.6, 0.599, 1.0]
    assert [one["decision"] for one in results] == ["hate", "normal", "hate"]  # at least 0.6
    assert {one["threshold"] for one in results} == {0.6}
    ids = [one["post_id"] for one in results]
    assert ids == sorted(ids) and len(set(ids)) == 3
    release = make_release()
    assert body["model"] == {
        "name": "tiny",
        "release": release.sha256,
        "adapter": "a" * 64,
        "prompt": "c" * 64,
        "base": "b" * 64,
    }


def test_probability_is_calibrated_or_null(client: Start) -> None:
    body = {"posts": [{"text": "score=0.9"}]}
    (one,) = client().post("/v1/classify", json=body).json()["results"]
    assert one["probability"] == pytest.approx(0.75)  # odds 9, to the power 1/2
    plain = client(release=make_release(temperature=None))
    (one,) = plain.post("/v1/classify", json=body).json()["results"]
    assert one["probability"] is None


def test_what_was_answered_is_stored(client: Start, database: Database) -> None:
    post = {"id": "mine", "text": "score=0.7", "group": "lgbtq", "metadata": {"a": 1, "b": None}}
    (one,) = client().post("/v1/classify", json={"posts": [post]}).json()["results"]
    with database.session() as session:
        (row,) = session.scalars(select(PostRow)).all()
    assert row.id == one["post_id"]
    assert (row.caller_id, row.caller_group, row.meta) == ("mine", "lgbtq", {"a": 1, "b": None})
    assert (row.score, row.decision, row.text) == (0.7, "hate", "score=0.7")
    assert row.release_id == make_release().sha256
