"""The readers on the real files beside the project: counts only, never texts."""

from __future__ import annotations

from collections import Counter

import pytest

from evenhand.data.fingerprint import fingerprint
from evenhand.data.sources import read_dataset


def labels(dataset):
    return dict(Counter(row.label for row in dataset.rows))


@pytest.mark.parametrize(
    ("file", "n", "hate", "groups"),
    [
        ("unified_train", 3628, 1703, {"lgbtq": 1763, "middle_east": 1020, "mexican": 845}),
        ("unified_test", 1009, 455, {"lgbtq": 494, "middle_east": 306, "mexican": 209}),
    ],
)
def test_unified(shared_data, file, n, hate, groups):
    dataset = read_dataset(shared_data / "unified" / f"{file}.json")
    assert labels(dataset) == {"hate": hate, "normal": n - hate}
    assert Counter(row.groups[0] for row in dataset.rows) == groups
    assert {row.source for row in dataset.rows} == {"hatexplain", "toxigen"}
    assert len({row.id for row in dataset.rows}) == n


def test_the_one_empty_row_of_validation_is_found(shared_data):
    path = shared_data / "unified" / "unified_val.json"
    dataset = read_dataset(path, on_bad_row="skip")
    assert len(dataset) + len(dataset.skipped) == 514
    assert [(bad.line, bad.reason) for bad in dataset.skipped] == [(228, "text is empty")]


def test_fine_tuning_chats(shared_data):
    train = read_dataset(shared_data / "finetune" / "train.jsonl")
    assert labels(train) == {"hate": 1269, "normal": 1417}
    starts = Counter((row.label, row.messages[2][1][:2] == "{{") for row in train.rows)
    assert starts == {("normal", True): 1417, ("hate", False): 1269}
    assert {group for row in train.rows for group in row.groups} == {
        "lgbtq", "homosexual", "mexican", "hispanic", "middle_east", "arab"
    }  # fmt: skip
    assert len(read_dataset(shared_data / "finetune" / "validation.jsonl")) == 55


def test_hatecheck_sample(shared_data):
    path = shared_data / "hatecheck_sample" / "test_suite_cases_sample.csv"
    dataset = read_dataset(path)
    assert labels(dataset) == {"hate": 221, "normal": 88}
    assert len({row.cluster for row in dataset.rows}) == 76
    assert sum(not row.groups for row in dataset.rows) == 28


def test_known_leakage(shared_data):
    def texts(path, key):
        return [key(row.text) for row in read_dataset(shared_data / path).rows]

    for key in (str, fingerprint):
        trained = set(texts("finetune/train.jsonl", key))
        canned = texts("canned/canned_100_size_varied.json", key)
        assert sum(text in trained for text in canned) == 73
        assert set(canned) <= set(texts("unified/unified_train.json", key))
        assert sum(text in trained for text in texts("unified/unified_test.json", key)) == 1
