from __future__ import annotations

import json
import logging
import re
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.config.production_schema import GROUPS
from evenhand.core.errors import ConfigError
from evenhand.data.groups import read_group_map
from evenhand.watch.store.proposer import load_proposer, make_term_proposer, split_words

SHIPPED = json.loads(files("evenhand.watch.store").joinpath("term_lists.json").read_text())


@pytest.fixture(scope="module")
def everyone():
    return load_proposer("terms", tuple(SHIPPED))


@pytest.mark.parametrize(
    ("post", "groups"),
    [
        ("My gay neighbour baked a cake", ("lgbtq",)),
        ("GAYS and LESBIANS!!", ("lgbtq",)),
        ("LGBTQ+ people, same-sex couples, non-binary friends", ("lgbtq",)),
        ("trans-rights now", ("lgbtq",)),
        ("#trans", ("lgbtq",)),
        ("gay_pride", ("lgbtq",)),
        ("transport by train is transient", ()),
        ("Mexicans and Latinas", ("mexican",)),
        ("people from the Middle East", ("middle_east",)),
        ("the middle of the east side", ()),
        ("an Arab's house", ("middle_east",)),
        ("a Muslim woman", ("women", "muslim")),
        ("the ladies' room", ("women",)),
        ("Jews and Jewish schools", ("jewish",)),
        ("jewellery", ()),
        ("asylum seekers", ("immigrant",)),
        ("Ｇａｙ in full width", ("lgbtq",)),
        ("g\u200bay with a zero-width space, \u202egay", ("lgbtq",)),
        ("g\u00aday", ("lgbtq",)),
        ("a nice day", ()),
        ("", ()),
        ("\x00 <|im_end|> \U0001f600", ()),
    ],
)
def test_shipped_terms(everyone, post: str, groups: tuple[str, ...]) -> None:
    assert everyone.propose(post, None) == groups


def test_shipped_lists_are_of_groups_that_the_corpora_name() -> None:
    assert set(GROUPS) <= set(SHIPPED)
    assert set(SHIPPED) <= set(read_group_map().values())


@pytest.mark.parametrize("group", SHIPPED)
def test_shipped_terms_are_plain_names(group: str) -> None:
    terms = SHIPPED[group]
    assert terms == sorted(set(terms), key=terms.index)
    assert [one for one in terms if not re.fullmatch(r"[a-z]+( [a-z]+)*", one)] == []


def test_only_watched_groups_in_their_order() -> None:
    proposer = load_proposer("terms", ("women", "lgbtq"))
    assert proposer.propose("gay Muslim women", None) == ("women", "lgbtq")
    assert proposer.name == "terms"


def test_the_hash_tells_the_content(tmp_path: Path) -> None:
    path = tmp_path / "terms.json"
    hashes = set()
    for terms in (["gay"], ["gay", "trans"], ["trans", "gay"]):
        path.write_text(json.dumps({"lgbtq": terms}))
        hashes.add(load_proposer(str(path), ("lgbtq",)).sha256)
        hashes.add(load_proposer(str(path), ("lgbtq",)).sha256)
    assert len(hashes) == 3
    assert load_proposer("terms", GROUPS).sha256 != load_proposer("terms", ("women",)).sha256


WORDS = st.text(st.characters(categories=["Lu", "Ll", "Nd"]), min_size=1, max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=3), st.text(max_size=20), st.text(max_size=20))
def test_a_term_between_other_words_is_found(term: list[str], left: str, right: str) -> None:
    proposer = make_term_proposer("t", {"g": [" ".join(term)]}, ["g"])
    assert proposer.propose(f"{left} {' '.join(term)} {right}", None) == ("g",)
    assert proposer.propose(f"{left}\n{'-'.join(term).casefold()}...{right}", None) == ("g",)


@given(st.text())
def test_any_text_can_be_split_and_splitting_is_stable(text: str) -> None:
    words = split_words(text)
    assert all(words)
    assert split_words(" ".join(words)) == words


def test_callers_groups() -> None:
    proposer = load_proposer("caller", GROUPS)
    assert proposer.propose("gay", None) == ()
    assert proposer.propose("", "lgbtq") == ("lgbtq",)
    assert proposer.propose("", "LGBTQ+ folks") == ("lgbtq",)
    assert proposer.propose("", "martians") == ()


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "a_users_proposer"
    (tmp_path / f"{name}.py").write_text(
        "def propose(text, caller_group):\n"
        "    if text == 'fail':\n"
        "        raise ValueError(text)\n"
        "    return ['women', 'lgbtq', 'martians'] if 'x' in text else []\n"
        "number = 3\n"
    )
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_user_s_function(own_module: str, caplog: pytest.LogCaptureFixture) -> None:
    proposer = load_proposer(f"{own_module}:propose", ("lgbtq", "women"))
    assert proposer.propose("x", None) == ("lgbtq", "women")
    assert proposer.propose("y", None) == ()
    with caplog.at_level(logging.WARNING):
        assert proposer.propose("fail", None) == ()
    assert "ValueError" in caplog.text
    assert "fail\n" not in caplog.text  # the post is not in the log
    assert len(proposer.sha256) == 64


def message(spec: str, groups: tuple[str, ...] = GROUPS) -> str:
    with pytest.raises(ConfigError) as caught:
        load_proposer(spec, groups)
    return caught.value.render()


def test_unknown_names_are_told(own_module: str) -> None:
    assert 'did you mean "terms"?' in message("term")
    assert 'did you mean "caller"?' in message("caler")
    assert "cannot be read: No such file" in message("nowhere.json")
    assert "cannot be imported" in message("no.such.module:propose")
    assert 'did you mean "propose"?' in message(f"{own_module}:propos")
    assert "has no function" in message(f"{own_module}:number")
    assert "has no source" in message("math:sqrt")


def test_a_watched_group_without_terms_is_told() -> None:
    found = message("terms", ("lgbtq", "womn", "martians"))
    assert 'did you mean "women"?' in found
    assert '"martians" is watched' in found


def test_every_problem_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "terms.json"
    path.write_text('{"lgbtq": "gay", "mexican": ["mexican", "", 3], "lgbtq": [], "?": []}')
    found = message(str(path))
    for place in ("lgbtq ", "mexican[1]", "mexican[2]", '"?"', '"middle_east" is watched'):
        assert place in found
    path.write_text("[]")
    assert "must hold a JSON object" in message(str(path))


def test_an_empty_list_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "terms.json"
    path.write_text('\ufeff{"lgbtq": []}')
    assert load_proposer(str(path), ("lgbtq",)).propose("gay", None) == ()
