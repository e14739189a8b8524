"""Scores and written answers: each row once, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.finetune.classifier import Classifier, load_classifier
from evenhand.finetune.processes import World
from evenhand.finetune.score import hate_probability
from evenhand.prompts.template import PromptTemplate

MakeRows = Callable[..., tuple[Row, ...]]


@pytest.fixture(scope="module")
def load(
    make_config: Callable[..., PhaseConfig],
    prompt: PromptTemplate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Classifier]:
    def load_tiny(
        model: str = "llama", *, parameters: dict[str, Any] | None = None, **changes: Any
    ) -> Classifier:
        settings = {"tuning": "none", "max_seq_length": 256, **changes}
        used = prompt if parameters is None else dataclasses.replace(prompt, parameters=parameters)
        run = tmp_path_factory.mktemp("run")
        return load_classifier(run, make_config(model, **settings), used)

    return load_tiny


@pytest.mark.parametrize("model", ["llama", "gpt_oss", "bert"])
def test_scores_are_probabilities_in_the_order_of_the_rows(
    load: Callable[..., Classifier], make_rows: MakeRows, model: str
) -> None:
    changes = {"max_seq_length": 32} if model == "bert" else {}
    classifier = load(model, eval_tokens_per_batch=60, **changes)
    rows = make_rows(7)
    scores = classifier.score(rows)
    assert scores.shape == (7,)
    assert ((scores > 0) & (scores < 1)).all()
    assert classifier.score(rows[::-1]) == pytest.approx(scores[::-1], abs=1e-5)
    assert classifier.score([]).shape == (0,)


def test_shares_of_several_processes_make_up_the_whole(
    load: Callable[..., Classifier], make_rows: MakeRows
) -> None:
    classifier = load(eval_tokens_per_batch=40)
    rows = make_rows(5)
    whole = classifier.score(rows)

    shares: list[tuple[list[int], np.ndarray]] = []

    class StopHereError(Exception):
        pass

    class OneOfThree(World):
        def gather(self, value: Any) -> list[Any]:
            shares.extend(value)
            raise StopHereError

    for rank in range(3):
        with pytest.raises(StopHereError):
            classifier.score(rows, world=OneOfThree(rank, 3))
    assert sorted(place for places, _ in shares for place in places) == list(range(5))
    for places, values in shares:
        assert hate_probability(values) == pytest.approx(whole[places], abs=1e-6)


def test_hate_probability_is_normalised_and_does_not_overflow() -> None:
    found = hate_probability(np.array([[-1000.0, -1000.0], [-1.0, -1000.0], [-3.0, -2.0]]))
    assert found == pytest.approx([0.5, 1.0, 1 / (1 + np.e)])


def test_answers_are_texts_in_the_order_of_the_rows(
    load: Callable[..., Classifier], make_rows: MakeRows
) -> None:
    classifier = load(per_device_eval_batch_size=2)
    rows = make_rows(5)
    labels, raw = classifier.answer(rows)
    assert len(labels) == len(raw) == 5
    assert labels == [None] * 5  # a random model writes nothing that can be read
    alone = [classifier.answer([row])[1][0] for row in rows]
    assert raw == alone


def test_written_answer_is_cut_at_its_end_of_turn_and_read(
    load: Callable[..., Classifier], make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load(per_device_eval_batch_size=2)
    encoder = classifier.encoder
    assert encoder is not None
    answers = iter(
        [encoder.labels[0], encoder.labels[1], (*encoder.labels[0][:-1], *encoder.labels[1])]
    )
    seen: list[dict[str, Any]] = []

    def write(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(options)
        rows = [torch.tensor([*next(answers), 0, 0, 0][:6]) for _ in input_ids]
        written = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return torch.cat([input_ids, written], dim=1)

    monkeypatch.setattr(classifier.model, "generate", write)
    labels, raw = classifier.answer(make_rows(3))
    assert labels == ["hate", "normal", None]
    assert raw[:2] == ["hate", "normal"]
    assert seen[0]["max_new_tokens"] == 3
    assert seen[0]["do_sample"] is False
    assert encoder.labels[0][-1] in seen[0]["eos_token_id"]


def test_sampling_settings_of_the_prompt_are_used(
    load: Callable[..., Classifier], make_rows: MakeRows
) -> None:
    warm = load(parameters={"temperature": 5.0, "top_p": 0.9, "max_tokens": 6})
    cold = load(parameters={"temperature": 0, "max_tokens": 6})
    rows = make_rows(4)
    assert warm.answer(rows) == warm.answer(rows)  # seeded
    assert warm.answer(rows) != cold.answer(rows)
