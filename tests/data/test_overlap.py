from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.core.records import Dataset, Row
from evenhand.data.fingerprint import normalise
from evenhand.data.overlap import exact_matches, overlaps
from evenhand.data.sources import read_dataset

LETTERS = "abcdefghijklmnopqrstuvwxyz"
texts = st.lists(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1),
    min_size=1,
    max_size=12,
).map(" ".join)


def dataset(*posts: str, name: str = "data") -> Dataset:
    return Dataset(name, tuple(Row(f"{name}-{at}", post) for at, post in enumerate(posts)))


def shingles(text: str) -> set[str]:
    text = normalise(text)
    return {text[at : at + 5] for at in range(max(len(text) - 4, 1))}


def jaccard(first: str, second: str) -> float:
    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other)


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=8), st.data())
def test_a_copied_row_is_always_found(posts, data):
    copied = data.draw(st.sampled_from(posts))
    spaced = "  ".join(copied.upper().split(" ")) + "\n"
    found = overlaps(dataset(*posts, name="train"), dataset("unrelated", copied, spaced))
    rows = set(found.exact_rows)
    assert "data-1" in rows
    # Some characters have no way back from upper case; those that do are found.
    assert "data-2" in rows or normalise(spaced) != normalise(copied)
    assert all(match.similarity == 1.0 for match in found.exact)


@settings(max_examples=40)
@given(
    st.lists(st.text(LETTERS[:13], min_size=5, max_size=60), min_size=1, max_size=6),
    st.lists(st.text(LETTERS[13:], min_size=5, max_size=60), min_size=1, max_size=6),
)
def test_texts_without_a_common_letter_are_not_found(ours, theirs):
    found = overlaps(dataset(*ours), dataset(*theirs), threshold=0.05)
    assert found.exact == found.near == ()


@settings(max_examples=40)
@given(st.lists(st.text("ab c", min_size=1, max_size=30), min_size=1, max_size=6),
       st.lists(st.text("ab c", min_size=1, max_size=30), min_size=1, max_size=6),
       st.sampled_from([0.3, 0.5, 0.8]))  # fmt: skip
def test_every_near_match_is_one_and_hardly_one_is_missed(ours, theirs, threshold):
    ours, theirs = [[t for t in ts if t.strip()] or ["x"] for ts in (ours, theirs)]
    found = overlaps(dataset(*ours), dataset(*theirs), threshold=threshold)
    assert all(match.similarity >= threshold for match in found.near)
    near = {pair for match in found.near for pair in match.pairs}
    expected = {
        (f"data-{i}", f"data-{j}")
        for i, one in enumerate(ours)
        for j, other in enumerate(theirs)
        if normalise(one) != normalise(other) and jaccard(one, other) >= threshold
    }
    assert near <= expected
    # Far above the threshold a pair has no chance to be missed.
    sure = {
        (i, j)
        for i, j in expected
        if jaccard(ours[int(i[5:])], theirs[int(j[5:])]) >= min(1.0, threshold + 0.15)
    }
    assert sure <= near


def test_near_duplicates_short_texts_and_repeated_rows():
    post = "the neighbours moved out of the old town before the winter came"
    train = dataset(post, post, "ok", "a text about something else entirely", name="train")
    test = dataset(post.replace("old", "odd"), post.upper(), "OK", "no", name="test")
    found = overlaps(train, test)
    assert [(match.train, match.evaluation) for match in found.exact] == [
        (("train-0", "train-1"), ("test-1",)),
        (("train-2",), ("test-2",)),
    ]
    [near] = found.near
    assert near.train == ("train-0", "train-1")
    assert near.similarity == jaccard(test.rows[0].text, post)
    assert found.near_rows == ("test-0",)
    assert list(near.pairs) == [("train-0", "test-0"), ("train-1", "test-0")]
    assert exact_matches(train, test) == found.exact


def test_empty_sets_and_a_wrong_threshold():
    assert overlaps(dataset(), dataset("a post")).near == ()
    assert overlaps(dataset("a post"), dataset()).exact == ()
    with pytest.raises(ValueError, match="threshold is 0"):
        overlaps(dataset("a"), dataset("a"), threshold=0)


def test_a_post_with_a_lone_surrogate_is_compared_too():
    assert overlaps(dataset("broken \ud83d pair"), dataset("Broken \ud83d  pair")).exact


def test_the_reference_files(shared_data: Path):
    train = read_dataset(shared_data / "finetune/train.jsonl")
    canned = read_dataset(shared_data / "canned/canned_100_size_varied.json")
    production = read_dataset(shared_data / "unified/unified_test.json")
    whole = read_dataset(shared_data / "unified/unified_train.json")
    assert len(overlaps(train, canned).exact_rows) == 73
    assert len(overlaps(whole, canned).exact_rows) == 100
    start = time.perf_counter()
    assert len(overlaps(train, production).exact_rows) == 1
    overlaps(whole, production)  # 3,628 x 1,009 rows
    assert time.perf_counter() - start < 20
