"""A tiny real model behind the server: what HTTP gives is what the classifier gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.finetune.conftest import make_config, make_rows, prompt, tiny
from tests.serve.test_adversarial import POSTS

from evenhand.core.records import Row
from evenhand.finetune.classifier import prepare

__all__ = ["make_config", "make_rows", "prompt", "tiny"]


def test_scores_do_not_depend_on_who_asks_at_the_same_time(
    client: Callable[..., TestClient], make_config: Any, make_rows: Any, prompt: Any
) -> None:
    classifier = prepare(make_config("llama"), prompt)

    def scorer(texts: Sequence[str]) -> np.ndarray:
        rows = [Row(id=str(number), text=text) for number, text in enumerate(texts)]
        return classifier.score(rows, advance=lambda *_, **__: None)

    texts = [row.text for row in make_rows(20)]
    texts += [post for post in POSTS.values() if len(post) < 200]
    http = client(scorer=scorer, max_batch_rows=8)

    def ask(text: str) -> float:
        answer = http.post("/v1/classify", json={"posts": [{"text": text}]})
        assert answer.status_code == 200
        return answer.json()["results"][0]["score"]

    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(ask, texts))
    assert scores == pytest.approx(scorer(texts).tolist(), abs=1e-4)
    assert len(set(scores)) > 10
