"""Counterfactual swaps: grammar is kept, and what may change the label is refused."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.records import HATE, NORMAL, Row
from evenhand.data.augmenting.swaps import counterfactual
from evenhand.data.augmenting.terms import identity_terms, known_group, tokens_of
from evenhand.data.sources import read_dataset
from evenhand.data.starter import target_groups

GROUPS = tuple(identity_terms().variants)


def row(text: str, group: str = "lgbtq", label: str = NORMAL, **fields) -> Row:
    return Row("r1", text, label, (group,), **fields)


def swap(one: Row, *to: str, seed: int = 0) -> Row | None:
    return counterfactual(one, rng=np.random.default_rng(seed), to=to or None)


@pytest.mark.parametrize(
    ("text", "group", "to", "expected"),
    [
        ("Gay people like chess.", "lgbtq", "mexican", "Mexicans like chess."),
        ("gays like chess", "lgbtq", "mexican", "mexicans like chess"),
        ("My friend is a gay person.", "lgbtq", "mexican", "My friend is a Mexican."),
        ("I met an Arab.", "middle_east", "mexican", "I met a Mexican."),
        ("A Mexican was here.", "mexican", "immigrant", "(An immigrant|A refugee) was here."),
        ("I am gay.", "lgbtq", "mexican", "I am Mexican."),
        ("I'm Mexican and I like tea.", "mexican", "jewish", "I'm Jewish and I like tea."),
        ("Every Mexican has a cat.", "mexican", "muslim", "Every Muslim has a cat."),
        ("MEXICANS ROCK", "mexican", "jewish", "JEWISH PEOPLE ROCK"),
        ("I AM A MEXICAN", "mexican", "immigrant", "I AM (AN IMMIGRANT|A REFUGEE)"),
        ("The LGBTQ community sings.", "lgbtq", "mexican", "The Mexican community sings."),
        ("Two gay men and a dog.", "lgbtq", "mexican", "Two Mexican men and a dog."),
        ("People from Mexico sing.", "mexican", "jewish", "Jewish people sing."),
        ("Gays and lesbians sing.", "lgbtq", "mexican", "Mexicans sing."),
        ("I thank Mexicans, and Mexicans thank me.", "mexican", "women",
         "I thank women, and women thank me."),
        ("I know an elderly person with a disability.", "disability", "mexican",
         "I know an elderly Mexican."),
    ],
)  # fmt: skip
def test_grammar(text: str, group: str, to: str, expected: str) -> None:
    found = swap(row(text, group), to)
    assert found is not None
    assert re.fullmatch(expected, found.text), found.text
    assert found.groups == (to,)


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("We had a gay old time.", "lgbtq"),
        ("this update is so gay", "lgbtq"),
        ("that's gay", "lgbtq"),
        ("A Persian rug for sale", "middle_east"),
        ("The Arab Spring began in 2010.", "middle_east"),
        ("trans fats are unhealthy", "lgbtq"),
        ("I love Mexican food.", "mexican"),
        ("Mexicans bring drugs across the border.", "mexican"),
        ("Mexicans speak Spanish.", "mexican"),
        ("I flew to Mexico.", "mexican"),
        ("Arabs are not terrorists.", "middle_east"),
        ("Gay people may marry now.", "lgbtq"),
        ("Gay people and Mexicans live here.", "lgbtq"),
        ("Gay people and Black people live here.", "lgbtq"),
        ("Gay women and men sing.", "lgbtq"),
        ("Mexican Americans like chess.", "mexican"),
        ("#gay people like chess", "lgbtq"),
        ("an anti-gay person came", "lgbtq"),
        ("A Mexican car is parked there.", "mexican"),
        ("gays' houses are big", "lgbtq"),
        ("24% of gay people sing", "lgbtq"),
        ("those f*** Mexicans again", "mexican"),
        ("they are all kind people", "lgbtq"),
        ("Mexicans are lazy.", "mexican"),
        ("gay people at the pride march", "lgbtq"),
    ],
)
def test_what_may_not_go_with_another_group_is_refused(text: str, group: str) -> None:
    assert swap(row(text, group)) is None


def test_a_hateful_row_needs_a_predicate_that_fits_anyone() -> None:
    found = swap(row("I hate Mexicans, they are disgusting.", "mexican", HATE), "lgbtq")
    assert found is not None
    assert found.label == HATE
    assert "hate" in found.text
    for text in ("I hate Mexicans, they take our work.", "Mexicans belong behind a wall."):
        assert swap(row(text, "mexican", HATE)) is None


def test_rows_that_are_not_sure_of_group_or_label_are_refused() -> None:
    text = "Gay people like chess."
    assert swap(row(text, fine_label="offensive")) is None
    assert swap(Row("r", text, None, ("lgbtq",))) is None
    assert swap(Row("r", text, NORMAL)) is None
    assert swap(Row("r", text, NORMAL, ("lgbtq", "mexican"))) is None
    assert swap(Row("r", text, NORMAL, ("mexican",))) is None
    assert swap(Row("r", text, NORMAL, ("martians",))) is None
    assert swap(row(text), "lgbtq") is None


def test_genders_are_not_mixed() -> None:
    text = "He says that he is a Mexican."
    drawn = {found.text for seed in range(60) if (found := swap(row(text, "mexican"), seed=seed))}
    assert drawn
    assert not any("woman" in one or "lesbian" in one for one in drawn)


def test_slurs_are_refused_by_their_hash() -> None:
    terms = identity_terms()
    assert len(terms.refused_hashes) > 200
    assert all(re.fullmatch(r"[0-9a-f]{16}", one) for one in terms.refused_hashes)
    assert not any(terms.refuses(word) for word in ("chess", "neighbours", "very", "good"))


def test_the_row_says_where_it_comes_from() -> None:
    origin = row("Gay people sing.", "Homosexual", fine_label="normal", extra={"votes": 3})
    found = swap(origin, "mexican")
    assert found is not None
    assert found.id == "augment-swaps-r1-mexican"
    assert (found.source, found.cluster, found.fine_label) == ("augment:swaps", "r1", "normal")
    assert found.extra == {"provenance": "swaps: row r1, lgbtq to mexican"}


def test_every_group_of_the_generator_has_terms() -> None:
    assert set(GROUPS) == set(target_groups())
    assert {known_group(name) for name in GROUPS} == set(GROUPS)


WRITTEN = [
    one for variants in identity_terms().variants.values() for one in variants if one.written
]
SENTENCES = (
    "Three {plural} sing.",
    "I met {a} {singular} in town.",
    "My {adjective} friends sing.",
)


@given(
    variant=st.sampled_from(WRITTEN),
    sentence=st.sampled_from(SENTENCES),
    to=st.sampled_from(GROUPS),
    seed=st.integers(0, 2**16),
)
def test_swapping_back_restores_group_label_and_rest(variant, sentence, to, seed) -> None:
    article = "an" if variant.singular[0].lower() in "aeiou" else "a"
    text = sentence.format(
        plural=variant.plural, a=article, singular=variant.singular, adjective=variant.adjective
    )
    origin = row(text, variant.group)
    there = swap(origin, to, seed=seed)
    if to == variant.group:
        assert there is None
        return
    assert there is not None
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", there.text, re.IGNORECASE)
    back = swap(there, variant.group, seed=seed)
    assert back is not None
    assert (back.groups, back.label) == ((variant.group,), origin.label)
    # What is not about the group stays word for word.
    assert tokens_of(back.text)[-1].word == tokens_of(there.text)[-1].word
    assert tokens_of(text)[0].word == tokens_of(back.text)[0].word
    backs = {swap(there, variant.group, seed=one).text for one in range(60)}
    assert text in backs


@given(text=st.text(max_size=80), label=st.sampled_from([HATE, NORMAL]), seed=st.integers(0, 99))
def test_any_text_is_read(text, label, seed) -> None:
    once = swap(row(f"{text} gay people", label=label), seed=seed)
    again = swap(row(f"{text} gay people", label=label), seed=seed)
    assert once == again
    assert once is None or (once.groups != ("lgbtq",) and "gay people" not in once.text)


def test_how_many_real_rows_can_be_swapped(shared_data) -> None:
    """The table of docs/augmenting.md."""
    rows = read_dataset(shared_data / "unified" / "unified_train.json").rows
    cells = Counter((one.groups[0], one.label) for one in rows if swap(one, *GROUPS) is not None)
    assert cells == {
        ("lgbtq", HATE): 1, ("lgbtq", NORMAL): 24, ("mexican", HATE): 1,
        ("mexican", NORMAL): 8, ("middle_east", HATE): 3, ("middle_east", NORMAL): 7,
    }  # fmt: skip
