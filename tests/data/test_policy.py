from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.errors import ConfigError
from evenhand.core.records import Row
from evenhand.data.policy import apply_label_policy

ROWS = (
    Row("a", "one", "hate", fine_label="hatespeech"),
    Row("b", "two", "normal", fine_label="offensive", groups=("women",)),
    Row("c", "three", "normal", fine_label="normal"),
    Row("d", "four", "normal"),
)


def labels(rows):
    return {row.id: row.label for row in rows}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, {"a": "hate", "b": "normal", "c": "normal", "d": "normal"}),
        ({"offensive": "hate"}, {"a": "hate", "b": "hate", "c": "normal", "d": "normal"}),
        ({"offensive": "normal"}, {"a": "hate", "b": "normal", "c": "normal", "d": "normal"}),
        ({"offensive": "drop"}, {"a": "hate", "c": "normal", "d": "normal"}),
        (
            {"offensive": "hate", "hatespeech": "drop"},
            {"b": "hate", "c": "normal", "d": "normal"},
        ),
    ],
)
def test_policy_relabels_and_drops(policy, expected):
    found = apply_label_policy(ROWS, policy)
    assert labels(found) == expected
    assert [row.id for row in found] == sorted(expected)


def test_a_relabelled_row_keeps_all_but_label_and_chat():
    chat = (("user", "two"), ("assistant", "normal"))
    rows = [Row("b", "two", "normal", ("women",), "s", "offensive", "c", chat, {"k": 1}), *ROWS]
    found = apply_label_policy(rows, {"offensive": "hate"})[0]
    assert found == Row("b", "two", "hate", ("women",), "s", "offensive", "c", None, {"k": 1})
    kept = apply_label_policy(rows, {"offensive": "normal"})[0]
    assert kept is rows[0]


def test_unknown_fine_labels_are_named_with_those_there_are():
    with pytest.raises(ConfigError) as caught:
        apply_label_policy(ROWS, {"offensiv": "hate", "offensive": "hate", "zzz": "drop"})
    one, other = caught.value.problems
    assert one.place == "label_policy.offensiv"
    assert 'did you mean "offensive"?' in one.message
    assert '"hatespeech", "normal", "offensive"' in one.message
    assert other.place == "label_policy.zzz"
    assert "did you mean" not in other.message


def test_of_many_fine_labels_ten_are_named():
    rows = [
        Row(f"{n}", "t", ("hate", "normal")[n % 2], fine_label=f"kind{n:02}") for n in range(13)
    ]
    with pytest.raises(ConfigError) as caught:
        apply_label_policy(rows, {"x": "hate"})
    assert caught.value.problems[0].message.endswith('"kind08", "kind09" and 3 more')


def test_rows_without_fine_labels_have_nothing_to_name():
    with pytest.raises(ConfigError, match="problem") as caught:
        apply_label_policy([Row("a", "t", "hate"), Row("b", "t", "normal")], {"offensive": "hate"})
    assert "have no fine labels" in caught.value.problems[0].message


@pytest.mark.parametrize(
    ("policy", "lost"),
    [
        ({"hatespeech": "normal"}, '"hate"'),
        ({"hatespeech": "drop"}, '"hate"'),
    ],
)
def test_a_policy_must_leave_both_labels(policy, lost):
    with pytest.raises(ConfigError) as caught:
        apply_label_policy(ROWS, policy)
    problem = caught.value.problems[0]
    assert problem.place == "label_policy"
    assert lost in problem.message


def test_a_policy_that_drops_everything_says_so():
    with pytest.raises(ConfigError) as caught:
        apply_label_policy(ROWS[:2], {"hatespeech": "drop", "offensive": "drop"})
    assert '"hate" and "normal"' in caught.value.problems[0].message


@given(
    fine=st.lists(st.sampled_from(["x", "y", "z", None, ""]), min_size=1, max_size=20),
    policy=st.dictionaries(
        st.sampled_from(["x", "y", ""]), st.sampled_from(["hate", "normal", "drop"])
    ),
)
def test_rows_end_where_the_policy_puts_them(fine, policy):
    rows = [Row(f"{n}", "t", ("hate", "normal")[n % 2], fine_label=f) for n, f in enumerate(fine)]
    # Both labels are left, and every fine label is known, whatever was drawn.
    rows += [Row("h", "t", "hate"), Row("n", "t", "normal")]
    rows += [Row(f"known-{name}", "t", "hate", fine_label=name) for name in policy]
    wanted = {
        row.id: policy.get(row.fine_label, row.label) if row.fine_label is not None else row.label
        for row in rows
    }
    found = labels(apply_label_policy(rows, policy))
    assert found == {key: label for key, label in wanted.items() if label != "drop"}
