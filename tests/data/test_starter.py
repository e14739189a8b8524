from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain, combinations
from pathlib import Path

import pytest

from evenhand.core.records import HATE, LABELS, NORMAL, Row
from evenhand.data.starter import (
    SPLITS,
    functionalities,
    generate,
    normalise,
    starter_card,
    target_groups,
    templates,
)

Corpus = Mapping[str, tuple[Row, ...]]
DATA_CARD = Path(__file__).parents[2] / "docs" / "starter-corpus.md"


@pytest.fixture(scope="module", params=[0, 7])
def corpus(request: pytest.FixtureRequest) -> Corpus:
    return generate(request.param)


def hate_share(rows: list[Row]) -> float:
    return sum(row.label == HATE for row in rows) / len(rows)


def test_sizes(corpus: Corpus) -> None:
    least = {"train": 2000, "validation": 400, "test": 500, "functional": 300}
    assert tuple(corpus) == SPLITS
    assert all(len(corpus[split]) >= count for split, count in least.items())
    assert sum(map(len, corpus.values())) >= 3000


def test_functionalities_are_many_distinct_and_of_both_labels() -> None:
    names = [item.name for item in functionalities()]
    assert len(names) == len(set(names)) >= 25
    assert Counter(item.label for item in functionalities()).keys() == set(LABELS)
    per_functionality = Counter(template.functionality.name for template in templates())
    assert min(per_functionality.values()) >= 12
    assert {"lgbtq", "mexican", "middle_east"} < set(target_groups())


def test_every_functionality_is_in_every_split(corpus: Corpus) -> None:
    expected = {item.name for item in functionalities()}
    for rows in corpus.values():
        assert {row.fine_label for row in rows} == expected


def test_templates_stay_in_one_split_whatever_the_seed() -> None:
    parts = [{row.cluster for seed in (0, 1) for row in generate(seed)[split]} for split in SPLITS]
    assert not any(left & right for left, right in combinations(parts, 2))
    assert set().union(*parts) == {template.id for template in templates()}


def test_same_seed_same_corpus_other_seed_other_texts() -> None:
    assert generate(3) == generate(3)
    assert [row.text for row in generate(3)["train"]] != [row.text for row in generate(4)["train"]]


def test_ids_and_texts_are_unique_over_all_splits(corpus: Corpus) -> None:
    rows = list(chain.from_iterable(corpus.values()))
    assert len({row.id for row in rows}) == len(rows)
    assert len({normalise(row.text.removeprefix("@user ")) for row in rows}) == len(rows)


def test_labels_are_balanced_overall_and_within_each_group(corpus: Corpus) -> None:
    for rows in corpus.values():
        assert 0.45 <= hate_share(list(rows)) <= 0.55
        for group in target_groups():
            of_group = [row for row in rows if group in row.groups]
            assert len(of_group) >= 40
            assert 0.45 <= hate_share(of_group) <= 0.55


def test_groups_are_of_equal_size(corpus: Corpus) -> None:
    for rows in corpus.values():
        sizes = Counter(row.groups[0] for row in rows if row.groups)
        assert max(sizes.values()) - min(sizes.values()) <= 2


def test_only_normal_rows_of_non_protected_targets_have_no_group(corpus: Corpus) -> None:
    family = {item.name: item.family for item in functionalities()}
    for row in chain.from_iterable(corpus.values()):
        assert (row.groups == ()) == (family[row.fine_label or ""] == "non_protected")
        assert row.groups or row.label == NORMAL


def test_row_fields_agree_with_the_template(corpus: Corpus) -> None:
    known = {template.id: template for template in templates()}
    for split, rows in corpus.items():
        for row in rows:
            template = known[row.cluster or ""]
            assert template.split == split
            assert (row.fine_label, row.label) == (
                template.functionality.name,
                template.functionality.label,
            )
            group = row.groups[0] if row.groups else "none"
            assert re.fullmatch(rf"starter-{template.id}-{group}-\d+", row.id)
            assert row.source == "starter"


def test_texts_are_clean(corpus: Corpus) -> None:
    for row in chain.from_iterable(corpus.values()):
        assert not re.search(r"[{}]|\s\s|^\s|\s$|\n", row.text), row.text
        assert row.text.isascii(), row.text


def test_articles_fit(corpus: Corpus) -> None:
    for row in chain.from_iterable(corpus.values()):
        if not (row.fine_label or "").startswith("spelling"):
            text = row.text.lower().replace("an hour", "")
            assert not re.search(r"\b(a|an|the) (a|an|the)\b", text), text
            assert not re.search(r"\ba [aeio]|\ban [^aeiou]", text), text


def test_texts_vary_in_length_and_case(corpus: Corpus) -> None:
    texts = [row.text for row in chain.from_iterable(corpus.values())]
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) <= 4
    assert max(lengths) >= 30
    assert 0.1 < sum(text.islower() for text in texts) / len(texts) < 0.6


@pytest.mark.parametrize("word", ["hate", "disgusting", "love", "proud", "vermin"])
def test_no_strong_word_gives_the_label_away(corpus: Corpus, word: str) -> None:
    with_word = {row.label for row in corpus["train"] if word in normalise(row.text).split()}
    assert with_word == set(LABELS)


def test_templates_differ_in_more_than_one_word() -> None:
    words = [frozenset(re.findall(r"[\w']+", item.text.lower())) for item in templates()]
    similar = [
        (left, right)
        for left, right in combinations(words, 2)
        if len(left & right) / len(left | right) > 0.8
    ]
    assert similar == []


def test_the_data_card_shows_the_present_counts() -> None:
    assert starter_card() in DATA_CARD.read_text(encoding="utf-8")
