from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.records import Row
from evenhand.data.weighing import cell_of, group_label_weights

GROUPS = st.lists(st.sampled_from(["lgbtq", "women", "jewish"]), max_size=2, unique=True)
CELLS = st.lists(st.tuples(GROUPS, st.sampled_from(["hate", "normal"])), min_size=1, max_size=60)


def make_rows(cells):
    return [
        Row(id=str(place), text="t", label=label, groups=tuple(groups))
        for place, (groups, label) in enumerate(cells)
    ]


def aif360_weights(is_privileged, is_favourable):
    """AIF360's ``Reweighing.fit`` and ``transform``, line by line, for two groups."""
    n = len(is_privileged)
    n_p, n_up = is_privileged.sum(), (~is_privileged).sum()
    n_fav, n_unfav = is_favourable.sum(), (~is_favourable).sum()
    weights = np.ones(n)
    for group, n_group in ((is_privileged, n_p), (~is_privileged, n_up)):
        for label, n_label in ((is_favourable, n_fav), (~is_favourable, n_unfav)):
            cell = group & label
            if cell.any():
                weights[cell] = n_group * n_label / (n * cell.sum())
    return weights


def test_weights_of_a_counted_example():
    cells = [(["lgbtq"], "hate")] * 6 + [(["lgbtq"], "normal")] * 2
    cells += [([], "hate")] * 3 + [([], "normal")] * 9
    weights = group_label_weights(make_rows(cells))
    # By hand: P(lgbtq) = 8/20, P(hate) = 9/20; P(lgbtq, hate) = 6/20, and so on.
    expected = [8 * 9 / (20 * 6)] * 6 + [8 * 11 / (20 * 2)] * 2
    expected += [12 * 9 / (20 * 3)] * 3 + [12 * 11 / (20 * 9)] * 9
    assert weights == pytest.approx(expected)


@given(
    counts=st.tuples(*[st.integers(1, 20)] * 4),
    seed=st.integers(0, 5),
)
def test_weights_are_those_of_aif360(counts, seed):
    kinds = [("women", "normal"), ("women", "hate"), ("", "normal"), ("", "hate")]
    cells = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
    cells = [cells[place] for place in np.random.default_rng(seed).permutation(len(cells))]
    rows = make_rows([([group] if group else [], label) for group, label in cells])
    expected = aif360_weights(
        np.array([group == "women" for group, _ in cells]),
        np.array([label == "normal" for _, label in cells]),
    )
    assert group_label_weights(rows) == pytest.approx(expected)


@given(CELLS)
def test_weights_have_mean_one_and_are_alike_within_a_cell(cells):
    rows = make_rows(cells)
    weights = group_label_weights(rows)
    assert weights.shape == (len(rows),)
    assert weights.mean() == pytest.approx(1)
    assert (weights > 0).all()
    assert group_label_weights(rows[::-1])[::-1] == pytest.approx(weights)
    by_cell = {}
    for row, weight in zip(rows, weights, strict=True):
        by_cell.setdefault(cell_of(row), set()).add(weight)
    assert all(len(found) == 1 for found in by_cell.values())


@given(CELLS)
def test_under_the_weights_the_label_tells_nothing_of_the_group(cells):
    rows = make_rows(cells)
    weights = group_label_weights(rows)
    is_hate = np.array([row.label == "hate" for row in rows])
    for groups in {frozenset(row.groups) for row in rows}:
        inside = np.array([frozenset(row.groups) == groups for row in rows])
        if len(set(is_hate[inside])) < 2:
            continue  # one label: no weights can balance it
        share = weights[inside & is_hate].sum() / weights[inside].sum()
        assert share == pytest.approx(is_hate.mean())


def test_groups_are_a_combination_whatever_their_order():
    rows = make_rows([(["a", "b"], "hate"), (["b", "a"], "hate"), (["a"], "hate"), ([], "normal")])
    assert len({cell_of(row) for row in rows}) == 3


def test_independent_rows_weigh_one_and_no_rows_nothing():
    rows = make_rows([(["a"], "hate"), (["a"], "normal"), ([], "hate"), ([], "normal")])
    assert group_label_weights(rows).tolist() == [1, 1, 1, 1]
    assert group_label_weights([]).shape == (0,)
