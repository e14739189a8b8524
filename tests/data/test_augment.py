"""Rows added to training rows: where they come from, how many, and never from evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.config.schema import AugmentConfig
from evenhand.core.errors import ConfigError
from evenhand.core.records import Dataset, Row
from evenhand.data.augmenting.augment import (
    Augmented,
    augment_rows,
    method_of,
    with_provenance,
)
from evenhand.data.fingerprint import normalise
from evenhand.data.overlap import Texts, overlaps
from evenhand.data.sources import read_dataset, write_rows
from evenhand.data.starter import generate, templates

WORDS = ("tea", "chess", "rain", "jazz", "cats", "trains", "soup", "tennis", "maths", "paint")
UNSEEN = generate(0)["test"][:60]
BY_ID = {template.id: template for template in templates()}


def posts(n: int, *, group: str = "lgbtq", start: int = 0) -> tuple[Row, ...]:
    """Rows of one group, of both labels in turn; the even ones can be swapped."""
    noun = {"lgbtq": "gay people", "mexican": "Mexicans"}[group]
    return tuple(
        Row(
            f"{group}-{at}",
            f"{noun} enjoy {WORDS[at % 10]} with {WORDS[at // 10 % 10]} number {at}."
            if at % 2 == 0
            else f"I hate {noun} so much {at}",
            "normal" if at % 2 == 0 else "hate",
            (group,),
        )
        for at in range(start, start + n)
    )


def dataset(rows: Sequence[Row], name: str = "test") -> Dataset:
    return Dataset(name, tuple(rows))


def config(*methods: str, **fields) -> AugmentConfig:
    if "corpus" in methods:
        fields["corpus"] = "file.csv"
    return AugmentConfig(methods=methods, **fields)


def augment(
    rows: Sequence[Row], *methods: str, evaluation: Sequence[Row] = (), corpus=None, **fields
) -> Augmented:
    return augment_rows(
        rows,
        config(*methods, **fields),
        evaluation={"test": dataset(evaluation)},
        corpus=None if corpus is None else dataset(corpus, "more"),
    )


TRAIN = (*posts(40), *posts(40, group="mexican"))


@settings(max_examples=20)
@given(
    methods=st.lists(st.sampled_from(["templates", "swaps"]), min_size=1, unique=True),
    groups=st.none() | st.lists(st.sampled_from(["lgbtq", "mexican", "women"]), min_size=1,
                                unique=True),
    labels=st.lists(st.sampled_from(["hate", "normal"]), min_size=1, unique=True),
    ratio=st.floats(0.01, 1.5),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_what_holds_for_every_augmentation(methods, groups, labels, ratio, seed) -> None:
    chosen = {"groups": groups, "labels": labels, "ratio": ratio, "seed": seed}
    evaluation = (*UNSEEN, *posts(6, group="mexican"))
    found = augment(TRAIN, *methods, evaluation=evaluation, **chosen)
    assert found == augment(TRAIN, *methods, evaluation=evaluation, **chosen)
    # The ratio is never exceeded, and what is short of it is told by method.
    assert found.wanted <= ratio * len(TRAIN) + 1e-6
    assert len(found.added) <= found.wanted
    assert sum(found.counts.values()) == len(found.added)
    assert len(found.added) + sum(found.short_of.values()) == found.wanted
    # As the audit checks: nothing is shared with the evaluation set, or repeated.
    shared = overlaps(Texts(found.added), Texts(evaluation))
    assert not shared.exact
    assert not shared.near
    texts = [normalise(row.text) for row in (*TRAIN, *found.added)]
    assert len(set(texts)) == len(texts)
    ids = [row.id for row in (*TRAIN, *found.added)]
    assert len(set(ids)) == len(ids)
    for row in found.added:
        assert row.groups[0] in (groups or ["lgbtq", "mexican"])
        assert row.label in labels
        assert row.extra["provenance"].startswith(f"{method_of(row)}: ")
        assert row.id.startswith(f"augment-{method_of(row)}-")
        if method_of(row) == "templates":
            assert BY_ID[row.cluster].split == "train"
            assert BY_ID[row.cluster].functionality.name == row.fine_label


def test_templates_are_spread_evenly_and_filled_beyond_the_fixed_corpus() -> None:
    rows = generate(0)["train"]
    found = augment(rows, "templates", groups=("lgbtq", "women"), ratio=0.4)
    assert found.short_of == {"templates": 0}
    cells = Counter((row.groups, row.fine_label) for row in found.added)
    assert max(cells.values()) - min(cells.values()) <= 5
    assert len({row.fine_label for row in found.added}) > 10
    # More than the fixed corpus has of these groups.
    fixed = sum(row.label == "normal" and row.groups in (("lgbtq",), ("women",)) for row in rows)
    assert len(found.added) > fixed
    assert augment(rows, "templates", ratio=0.01, seed=1) != augment(rows, "templates", ratio=0.01)


def test_the_words_of_the_templates_run_out() -> None:
    rows = tuple(Row(str(at), f"A post about {at}.", "normal", ("women",)) for at in range(6000))
    found = augment(rows, "templates", ratio=2.0)
    assert found.short_of["templates"] > 0
    assert len(found.added) == found.wanted - found.short_of["templates"]


def test_evaluation_rows_are_kept_out_exactly_and_nearly() -> None:
    clean = augment(TRAIN, "templates", ratio=0.5)
    exact, near = clean.added[0], clean.added[1]
    evaluation = [
        Row("x", exact.text.upper(), None),
        Row("y", near.text + "!!", None),
    ]
    found = augment(TRAIN, "templates", ratio=0.5, evaluation=evaluation)
    assert found.left_out["test"] >= 2
    texts = {row.text for row in found.added}
    assert exact.text not in texts
    assert near.text not in texts
    # Others take their place.
    assert len(found.added) == len(clean.added)


def test_swaps_are_about_the_asked_group_and_made_once_a_row() -> None:
    rows = (*posts(20, start=60), *posts(40, group="mexican"))
    found = augment(rows, "swaps", groups=("lgbtq",), ratio=4.0)
    assert len(found.added) == 20
    assert {row.cluster for row in found.added} == {f"mexican-{at}" for at in range(0, 40, 2)}
    assert {row.groups for row in found.added} == {("lgbtq",)}
    assert found.short_of == {"swaps": found.wanted - 20}


def test_groups_are_called_as_the_training_rows_call_them() -> None:
    rows = [Row("1", "Some post.", "normal", ("Homosexual",)), *posts(9, group="mexican")]
    found = augment(rows, "templates", "swaps", groups=("Homosexual",), ratio=1.0)
    assert {row.groups for row in found.added} == {("Homosexual",)}
    assert set(found.counts) == {"templates", "swaps"}


def test_a_corpus_fills_the_shortest_cells_first() -> None:
    train = [row for row in TRAIN if row.groups == ("lgbtq",) or row.label == "hate"]
    corpus = [
        Row(f"c{group}{at}", f"{WORDS[at % 10]} {at * 7919} {group} {WORDS[at // 10]} {at * 31337}",
            label, (group,))
        for group in ("lgbtq", "mexican", "women") for label in ("normal", "hate")
        for at in range(0 if label == "normal" else 30, 30 if label == "normal" else 60)
    ]  # fmt: skip
    # Of normal rows, lgbtq has 20 and mexican none: mexican gets all 12.
    found = augment(train, "corpus", corpus=corpus, ratio=0.2)
    assert found.wanted == 12
    assert found.table() == {"corpus": {"mexican": {"normal": 12}}}
    # Beyond that the two rise together.
    found = augment(train, "corpus", corpus=corpus, ratio=0.5)
    assert found.table() == {"corpus": {"mexican": {"normal": 25}, "lgbtq": {"normal": 5}}}
    assert found.added[0].source == "augment:corpus"
    assert found.added[0].id.startswith("augment-corpus-c")


def test_a_corpus_repeats_neither_training_rows_nor_itself() -> None:
    train = posts(20)
    long = "we walked along the river for an hour and then we had tea with my aunt in the garden"
    corpus = [
        Row("equal", train[0].text.upper(), "normal", ("lgbtq",)),
        Row("near-train", train[2].text + "!", "normal", ("lgbtq",)),
        Row("a", long, "normal", ("lgbtq",)),
        Row("b", long + ".", "normal", ("lgbtq",)),
        Row("other-group", "a post of women", "normal", ("women",)),
        Row("other-label", "a hateful post", "hate", ("lgbtq",)),
        Row("unlabelled", "an unlabelled post", None, ("lgbtq",)),
    ]
    found = augment(train, "corpus", corpus=corpus, ratio=1.0)
    assert [row.id for row in found.added] in (["augment-corpus-a"], ["augment-corpus-b"])
    assert found.repeated == 3


def test_several_methods_share_the_ratio() -> None:
    found = augment(TRAIN, "templates", "swaps", ratio=0.1)
    assert found.counts == {"templates": 4, "swaps": 4}


@pytest.mark.parametrize("groups", [("martians",), ("lgbtq", "wommen")])
def test_an_unknown_group_is_named(groups: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        augment(TRAIN, "templates", groups=groups)
    assert groups[-1] in error.value.render()
    assert "disabled" in error.value.render()


def test_rows_without_a_known_group_are_an_error() -> None:
    with pytest.raises(ConfigError, match="1 problem"):
        augment([Row("1", "A post.", "normal")], "swaps")


def test_a_corpus_goes_with_its_method() -> None:
    with pytest.raises(ValueError, match="corpus"):
        augment(TRAIN, "templates", corpus=TRAIN)


def test_an_augmented_file_can_be_augmented_again(tmp_path) -> None:
    first = augment(TRAIN, "templates", ratio=0.2)
    path = tmp_path / "more.jsonl"
    write_rows(with_provenance([*TRAIN, *first.added]), path)
    read = read_dataset(path)
    assert read.rows == tuple(with_provenance([*TRAIN, *first.added]))
    again = augment(read.rows, "templates", ratio=0.2, seed=5)
    ids = [row.id for row in (*read.rows, *again.added)]
    assert len(set(ids)) == len(ids)


def test_real_data(shared_data) -> None:
    unified = shared_data / "unified"
    train = read_dataset(unified / "unified_train.json").rows
    sets = {
        "test": read_dataset(unified / "unified_test.json"),
        "hatecheck": read_dataset(shared_data / "hatecheck_sample" / "test_suite_cases_sample.csv"),
    }
    found = augment_rows(train, config("templates", "swaps"), evaluation=sets)
    assert found.wanted == 725
    assert found.counts["templates"] == 363
    assert 20 <= found.counts["swaps"] <= 150
    for data in sets.values():
        shared = overlaps(Texts(found.added), data)
        assert not (shared.exact or shared.near)
    # The production rows as a corpus, with themselves to keep out: nothing is left.
    none = augment_rows(
        train, config("corpus"), evaluation={"test": sets["test"]}, corpus=sets["test"]
    )
    assert none.added == ()
    assert none.left_out["test"] > 0
