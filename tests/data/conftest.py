"""Small corpora in the raw formats, written by the tests; no text of the real ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

WORDS = ("slow", "kind", "loud", "warm", "late", "tall", "calm", "odd", "neat", "shy")


def _write_hatexplain(folder: Path, *, posts: int = 120) -> Path:
    folder.mkdir(parents=True)
    data = {}
    for index in range(posts):
        label = ("hatespeech", "offensive", "normal")[index % 3]
        votes = [label, label, label if index % 2 else "normal"]
        target = ["Homosexual", "Hispanic", "Arab", "None"][index % 4]
        tokens = ["they", "of", "the", "group", "are", WORDS[index % 10], f"n{index}"]
        data[f"{index}_x"] = {
            "post_id": f"{index}_x",
            "annotators": [
                {"label": vote, "annotator_id": n, "target": [target]}
                for n, vote in enumerate(votes)
            ],
            "rationales": [] if label == "normal" else [[0] * 5 + [1, 0], [0] * 5 + [1, 1]],
            "post_tokens": tokens,
        }
    data["tie_x"] = {
        "post_id": "tie_x",
        "annotators": [
            {"label": label, "annotator_id": 1, "target": ["Women"]}
            for label in ("hatespeech", "offensive", "normal")
        ],
        "rationales": [],
        "post_tokens": ["no", "majority"],
    }
    (folder / "dataset.json").write_text(json.dumps(data))
    divisions = {"train": ["0_x", "1_x"], "val": ["2_x"], "test": []}
    (folder / "post_id_divisions.json").write_text(json.dumps(divisions))
    return folder


def _write_toxigen(path: Path, *, posts: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "target_group", "toxicity_ai", "toxicity_human"])
        for index in range(posts):
            group = ["lgbtq+ folks", "mexican folks", "middle eastern folks", "martians"][index % 4]
            text = f"a sentence about {WORDS[index % 10]} people " + "and more " * (index % 7)
            writer.writerow([f"{text}{index}", group, 1.0, 4.5 if index % 2 else 3.0])
    return path


@pytest.fixture
def write_hatexplain():
    return _write_hatexplain


@pytest.fixture
def write_toxigen():
    return _write_toxigen
