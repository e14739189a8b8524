from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from evenhand.core.errors import DataError
from evenhand.core.evaluation import Slice
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.measure.sample import group_masks, ordered_frame, sample_from_frame
from evenhand.measure.slices import DEFAULT_SLICES, Crossing, check_slices, slices

Make = Callable[..., Predictions]


def sliced(
    predictions: Predictions, by: tuple[Crossing, ...] = DEFAULT_SLICES
) -> tuple[Slice, ...]:
    frame = ordered_frame(predictions)
    sample = sample_from_frame(frame, threshold=0.5)
    return slices(frame, sample, group_masks(frame), by=by)


def test_every_crossing_divides_the_rows(make_predictions: Make) -> None:
    predictions = make_predictions(200)
    frame = predictions.frame
    found = sliced(predictions)
    by_columns = Counter(tuple(part.keys) for part in found)
    assert set(by_columns) == set(DEFAULT_SLICES)
    for part in found:
        wanted = np.array(
            [
                all(
                    value in row["group"] if key == "group" else value == (row[key] or "(missing)")
                    for key, value in part.keys.items()
                )
                for _, row in frame.iterrows()
            ]
        )
        hate, flagged = (frame[name][wanted] == "hate" for name in ("label", "decision"))
        assert part.n == wanted.sum() > 0
        assert part.accuracy.value == pytest.approx(accuracy_score(hate, flagged))
        assert part.confusion.fp == (flagged & ~hate).sum()
    assert [part.keys for part in found] == sorted(
        (part.keys for part in found),
        key=lambda keys: (DEFAULT_SLICES.index(tuple(keys)), tuple(keys.values())),
    )


def test_empty_columns_and_crossings_that_add_nothing_are_left_out() -> None:
    rows = [
        Row(id=str(i), text="t", label="hate", groups=("a", "b")[: i % 3], fine_label=f"f{i % 2}")
        for i in range(12)
    ]
    score = np.full(12, 0.7)
    assert {tuple(part.keys) for part in sliced(predictions_from_rows(rows, scores=score))} == {
        ("fine_label",),
        ("group", "fine_label"),
    }
    # Each fine label comes from one source, so crossing with the source shows the same slices.
    nested = [replace(row, source=f"of {row.fine_label}") for row in rows]
    found = sliced(predictions_from_rows(nested, scores=score))
    assert ("group", "source", "fine_label") not in {tuple(part.keys) for part in found}
    crossed = [replace(row, source=f"s{i % 5}") for i, row in enumerate(rows)]
    found = sliced(predictions_from_rows(crossed, scores=score))
    assert ("group", "source", "fine_label") in {tuple(part.keys) for part in found}
    ungrouped = [replace(row, groups=(), fine_label=None) for row in rows]
    assert sliced(predictions_from_rows(ungrouped, scores=score)) == ()
    assert sliced(predictions_from_rows([], scores=np.empty(0))) == ()


def test_further_columns_may_be_crossed_with_any_other() -> None:
    rows = [
        Row(
            id=str(i),
            text="t",
            label=("hate", "normal")[i % 2],
            groups=("g",) if i < 6 else (),
            extra={"split": ("dev", "eval", None)[i % 3], "agreement": 0.5},
        )
        for i in range(12)
    ]
    predictions = predictions_from_rows(rows, scores=np.full(12, 0.7))
    found = sliced(predictions, (("split",), ("split", "label"), ("group", "split"), ("split",)))
    assert [tuple(part.keys.values()) for part in found] == [
        *(("(missing)",), ("dev",), ("eval",)),
        *((s, x) for s in ("(missing)", "dev", "eval") for x in ("hate", "normal")),
        *(("g", "(missing)"), ("g", "dev"), ("g", "eval")),
    ]
    assert [part.n for part in found] == [4] * 3 + [2] * 6 + [2] * 3


def test_a_column_that_no_row_has_is_named_with_the_nearest() -> None:
    rows = [Row(id="a", text="t", label="hate", source="s", extra={"split": "dev"})]
    predictions = predictions_from_rows(rows, scores=np.array([0.7]))
    with pytest.raises(DataError) as caught:
        sliced(predictions, (*DEFAULT_SLICES, ("splitt",), ("source", "zzz"), ("group", "split")))
    text = caught.value.render()
    assert 'slice by "splitt"' in text
    assert 'did you mean "split"?' in text
    assert "there are: decision, label, source, split, status" in text
    assert 'slice by "group"' in text
    check_slices(predictions.frame, (*DEFAULT_SLICES, ("split", "source")))


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([None, "x"]),
            st.sets(st.sampled_from(["g", "h"])),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_slices_without_groups_add_up_to_the_set(cells: list[tuple]) -> None:
    rows = [
        Row(
            id=str(i),
            text="t",
            label="hate",
            groups=tuple(sorted(groups)),
            source=source,
            fine_label=fine,
        )
        for i, (source, fine, groups) in enumerate(cells)
    ]
    predictions = predictions_from_rows(rows, scores=np.full(len(rows), 0.7))
    found = sliced(predictions)
    for crossing in {tuple(part.keys) for part in found}:
        expected = sum(len(row.groups) for row in rows) if "group" in crossing else len(rows)
        assert sum(part.n for part in found if tuple(part.keys) == crossing) == expected
