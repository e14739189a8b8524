from __future__ import annotations

from evenhand.core.records import BadRow, Dataset, Row
from evenhand.data.describe import describe, render_description

DATASET = Dataset(
    name="posts",
    rows=(
        Row(id="1", text="I hate [group]", label="hate", groups=("a", "b"), source="s"),
        Row(id="2", text="i HATE  [group]", label="normal", groups=("a",), fine_label="f"),
        Row(id="3", text="hello", label="normal"),
        Row(id="4", text="hello"),
    ),
    skipped=(BadRow("posts.csv", 9, "text is empty"),),
)


def test_counts():
    found = describe(DATASET)
    assert found.n == 4
    assert found.labels == {"normal": 2, "(none)": 1, "hate": 1}
    assert found.groups == {"(none)": 2, "a": 2, "b": 1}
    assert found.label_by_group["a"] == {"hate": 1, "normal": 1}
    assert found.rows_with_several_groups == 1
    assert found.duplicate_rows == 2
    assert found.conflicts == (("1", "2"),)  # 3 and 4: one label and none do not contradict
    assert found.skipped == 1
    assert (found.words.mean, found.words.median, found.words.max) == (2.0, 2.0, 3)
    assert found.characters.max == 15


def test_rendering_shows_counts_and_no_text():
    text = render_description(describe(DATASET))
    assert "posts: 4 rows, 1 skipped" in text
    assert "conflicting labels: 1 (ids 1, 2)" in text
    assert "[group]" not in text
