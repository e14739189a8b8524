from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.core.errors import ConfigError
from evenhand.core.records import Row
from evenhand.data.fingerprint import fingerprint
from evenhand.data.split import split_rows

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def rng(seed=0):
    return np.random.default_rng(seed)


@st.composite
def row_lists(draw):
    size = draw(st.integers(0, 40))
    return [
        Row(
            id=str(index),
            text=draw(st.sampled_from("abcdefgh")) * draw(st.integers(1, 3)),
            label=draw(st.sampled_from(["hate", "normal", None])),
            groups=tuple(draw(st.lists(st.sampled_from("xyz"), max_size=2, unique=True))),
            cluster=draw(st.none() | st.sampled_from("12345")),
        )
        for index in range(size)
    ]


@settings(max_examples=80)
@given(rows=row_lists(), seed=st.integers(0, 5))
def test_nothing_is_lost_and_what_belongs_together_stays(rows, seed):
    splits = split_rows(rows, fractions=FRACTIONS, rng=rng(seed))
    assert list(splits) == list(FRACTIONS)
    ids = [row.id for part in splits.values() for row in part]
    assert sorted(ids) == sorted(row.id for row in rows)
    for key in (lambda row: fingerprint(row.text), lambda row: row.cluster):
        where: dict[str, set[str]] = {}
        for name, part in splits.items():
            assert [int(row.id) for row in part] == sorted(int(row.id) for row in part)
            for row in part:
                if key(row) is not None:
                    where.setdefault(key(row), set()).add(name)
        assert all(len(names) == 1 for names in where.values())


def test_labels_and_groups_keep_their_proportions():
    mix = [("hate", "a")] * 300 + [("normal", "a")] * 500 + [("hate", "b")] * 40
    rows = [
        Row(id=str(i), text=f"post {i}", label=label, groups=(group,))
        for i, (label, group) in enumerate(mix)
    ]
    splits = split_rows(rows, fractions=FRACTIONS, rng=rng())
    whole = Counter((row.label, row.groups) for row in rows)
    for name, part in splits.items():
        counts = Counter((row.label, row.groups) for row in part)
        for stratum, n in whole.items():
            assert abs(counts[stratum] - FRACTIONS[name] * n) <= 1


def test_clusters_do_not_upset_the_sizes():
    rows = [
        Row(id=str(i), text=f"post {i}", label="hate", cluster=str(i // 10)) for i in range(500)
    ]
    sizes = {k: len(v) for k, v in split_rows(rows, fractions=FRACTIONS, rng=rng()).items()}
    assert sizes == {"train": 350, "validation": 50, "test": 100}


def test_the_generator_decides():
    rows = [Row(id=str(i), text=f"post {i}", label="hate") for i in range(60)]
    once, again, other = (split_rows(rows, fractions=FRACTIONS, rng=rng(s)) for s in (1, 1, 2))
    assert once == again
    assert once != other


@pytest.mark.parametrize("fractions", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {}])
def test_fractions_must_be_positive_and_add_up(fractions):
    with pytest.raises(ConfigError):
        split_rows([], fractions=fractions, rng=rng())
