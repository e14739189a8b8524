"""The official client, unchanged, against a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openai
import pytest
from fastapi.testclient import TestClient
from tests.serve.conftest import Live, make_release

from evenhand.serve.moderations import CATEGORIES

NAMES = {
    "harassment",
    "harassment_threatening",
    "hate",
    "hate_threatening",
    "illicit",
    "illicit_violent",
    "self_harm",
    "self_harm_instructions",
    "self_harm_intent",
    "sexual",
    "sexual_minors",
    "violence",
    "violence_graphic",
}


@pytest.fixture
def ask(live: Callable[..., Live]) -> Iterator[Callable[..., openai.OpenAI]]:
    clients: list[openai.OpenAI] = []

    def make(*, api_key: str = "none", **changes: Any) -> openai.OpenAI:
        server = live(**changes)
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=api_key, max_retries=0)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def test_client_gets_every_category_of_its_own_types(ask: Callable[..., openai.OpenAI]) -> None:
    answer = ask().moderations.create(
        input=["score=0.9", "score=0.2"], model="omni-moderation-latest"
    )
    assert answer.id.startswith("modr-")
    assert answer.model == "tiny"
    assert answer.model_extra == {"evaluated": ["hate"]}
    hate, normal = answer.results
    assert (hate.flagged, hate.categories.hate) == (True, True)
    assert (normal.flagged, normal.categories.hate) == (False, False)
    assert hate.category_scores.hate == pytest.approx(0.75)  # the calibrated probability
    for result in answer.results:
        assert set(type(result.categories).model_fields) == NAMES
        for name in NAMES - {"hate"}:
            assert getattr(result.categories, name) is False
            assert getattr(result.category_scores, name) == 0
            assert getattr(result.category_applied_input_types, name) == []
        assert result.category_applied_input_types.hate == ["text"]


def test_categories_are_those_that_the_client_knows() -> None:
    from openai.types.moderation import Categories

    known = {field.alias or name for name, field in Categories.model_fields.items()}
    assert set(CATEGORIES) == known


def test_flagged_follows_the_threshold_not_the_probability(
    ask: Callable[..., openai.OpenAI],
) -> None:
    release = make_release(threshold=0.9, temperature=None)
    (result,) = ask(release=release).moderations.create(input="score=0.8").results
    assert result.category_scores.hate == 0.8
    assert result.flagged is False
    release = make_release(threshold=0.3, temperature=4.0)
    (result,) = ask(release=release).moderations.create(input="score=0.35").results
    assert result.category_scores.hate < 0.5
    assert result.flagged is True


def test_parts_are_one_input_and_one_result(ask: Callable[..., openai.OpenAI]) -> None:
    seen: list[str] = []

    def scorer(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.full(len(texts), 0.5)

    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    answer = ask(scorer=scorer).moderations.create(input=parts)  # pyright: ignore
    assert len(answer.results) == 1
    assert seen == ["one\ntwo"]


UNUSABLE: list[tuple[Any, str, str]] = [
    (
        [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ],
        "input[1]",
        "image_not_supported",
    ),
    ("", "input", "invalid_body"),
    (["a", " \n"], "input[1]", "invalid_body"),
    ([], "input", "invalid_body"),
    ([1, 2], "input[0]", "invalid_body"),
    ([{"type": "video"}], "input[0].type", "invalid_body"),
    ([{"type": "text"}], "input[0].text", "invalid_body"),
    ([{"type": "text", "text": "a"}, "b"], "input[1]", "invalid_body"),
    ({"type": "text", "text": "a"}, "input", "invalid_body"),
]


def test_unusable_input_is_a_400_that_the_client_understands(
    ask: Callable[..., openai.OpenAI],
) -> None:
    client = ask()
    for sent, param, code in UNUSABLE:
        with pytest.raises(openai.BadRequestError) as caught:
            client.moderations.create(input=sent)
        error = caught.value
        assert (error.type, error.param, error.code) == ("invalid_request_error", param, code)
        assert error.request_id is not None
        assert error.request_id.startswith("req_")


def test_client_sees_its_own_exceptions(ask: Callable[..., openai.OpenAI]) -> None:
    def broken(_: Sequence[str]) -> np.ndarray:
        raise RuntimeError("damaged")

    with pytest.raises(openai.AuthenticationError):
        ask(keyless=False, api_key="eh_wrong").moderations.create(input="a")
    with pytest.raises(openai.InternalServerError):
        ask(scorer=broken).moderations.create(input="a")
    with pytest.raises(openai.BadRequestError, match="at most 3"):
        ask(max_text_chars=3).moderations.create(input="four")


def test_unknown_fields_are_ignored_as_openai_does(client: Callable[..., TestClient]) -> None:
    body = {"input": "a", "user": "someone"}
    assert client().post("/v1/moderations", json=body).status_code == 200
