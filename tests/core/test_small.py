from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.records import HATE, LABELS, NORMAL, Dataset, Row
from evenhand.core.registry import suggest
from evenhand.core.seeding import rng_for


def test_streams_of_different_purposes_differ_and_do_not_move_each_other() -> None:
    first = rng_for(1, "bootstrap").random(4).tolist()
    rng_for(1, "shuffle").random(100)
    assert rng_for(1, "bootstrap").random(4).tolist() == first
    assert rng_for(1, "shuffle").random(4).tolist() != first
    assert rng_for(2, "bootstrap").random(4).tolist() != first


@given(st.lists(st.text(), max_size=5), st.text())
def test_suggestion_is_empty_or_names_a_known_name(known: list[str], name: str) -> None:
    answer = suggest(name, known)
    assert answer == "" or any(f'"{candidate}"' in answer for candidate in known)


def test_dataset_counts_its_rows() -> None:
    rows = (Row(id="1", text="a", label=HATE), Row(id="2", text="b", label=NORMAL))
    assert len(Dataset(name="tiny", rows=rows)) == 2
    assert {row.label for row in rows} == set(LABELS)
