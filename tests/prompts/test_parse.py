from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.prompts.parse import parse_answer

WORDS = {"hate": "hate", "normal": "normal"}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("hate", "hate"),
        (" Normal.\n", "normal"),
        ('"hate"', "hate"),
        ("HATE", "hate"),
        ('{"classification": "hate"}', "hate"),
        ('{"label": "normal", "rationale": "hate is not meant"}', "normal"),
        ('{"classification": "Hate.", "confidence": 0.9}', "hate"),
        # harmony, whole and with its special tokens stripped
        ("<|channel|>final<|message|>normal<|return|>", "normal"),
        (
            '<|channel|>analysis<|message|>hate?<|end|><|channel|>final<|message|>{"label":"hate"}',
            "hate",
        ),
        ('final{"classification": "hate", "rationale": "x"}', "hate"),
        ('\n\nfinal{"classification": "normal"}', "normal"),
        ('assistantfinal {"classification": "hate"}', "hate"),
        ("finalnormal", "normal"),
        ('",final{"classification": "hate"}', "hate"),
        ('1-name{"classification": "normal"}', "normal"),
        ('not final{"classification": "hate"}', None),
        ('no: {"classification": "hate"}', None),
        ('{"classification": "hate"}final', None),
        ('final{"a": 1}final{"classification": "hate"}', None),
        # ends of turn
        ("hate<|im_end|>\nhate", "hate"),
        ("normal<|endoftext|>hate", "normal"),
        ("<|im_end|>hate", None),
        # fences
        ('```json\n{"classification": "hate"}\n```', "hate"),
        ("```\nnormal\n```", "normal"),
        ("```hate```", "hate"),
        ("``````", None),
        # nothing is searched for
        ("", None),
        ("final", None),
        ("This is hate", None),
        ("not hate", None),
        ("hateful", None),
        ("hate or normal", None),
        ("The answer is: normal", None),
        ("abnormal", None),
        ('{{"classification": "hate"}}', None),
        ('{"classification": "hate"} {"classification": "normal"}', None),
        ('{"classification": "hate"}\n{"classification": "hate"}', None),
        ('{"classification": "hate", "classification": "normal"}', None),
        ('{"classification": "hate", "label": "normal"}', None),
        ('{"classification": null, "label": "hate"}', None),
        ('{"classification": true}', None),
        ('{"classification": ["hate"]}', None),
        ('{"verdict": "hate"}', None),
        ('{"classification": "hate"', None),
        ('["hate"]', None),
        ("{" * 100_000, None),
        ('{"a":' * 100_000, None),
        ('{"classification": ' + "1" * 10_000 + "}", None),
    ],
)
def test_answers(raw: str, expected: str | None) -> None:
    assert parse_answer(raw, labels=WORDS) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("not_hate", "normal"),
        ("hate", "hate"),
        ("hate!", None),
        ("normal", None),
        ("harmful", None),
    ],
)
def test_other_label_words(raw: str, expected: str | None) -> None:
    assert parse_answer(raw, labels={"hate": " hate", "normal": "not_hate"}) == expected


def test_labels_that_differ_in_case_only_cannot_be_told_apart() -> None:
    assert parse_answer("yes", labels={"hate": "Yes", "normal": "yes"}) is None


pieces = st.sampled_from(
    ("final", "assistant", "{", "}", '"classification"', ":", '"hate"', "normal", "```", "name")
)


@given(st.text(max_size=40) | st.lists(pieces, max_size=12).map("".join))
def test_any_answer_is_a_label_or_unparseable(raw: str) -> None:
    assert parse_answer(raw, labels=WORDS) in {"hate", "normal", None}


def test_reference_responses_can_be_read(shared_data: Path) -> None:
    # The reference's own parser read hardly any of these: harmony residue stands before the JSON.
    folder = shared_data / "reference_runs" / "production_high_capacity"
    (file,) = folder.glob("intermediate_results_*.jsonl")
    answers = [json.loads(line)["raw_response"] for line in file.read_text().splitlines()]
    read = [parse_answer(answer or "", labels=WORDS) for answer in answers]
    assert len(read) == 253
    assert sum(label is not None for label in read) >= 235
