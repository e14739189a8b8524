"""The words by which posts name people of a group, and those beside which none is exchanged."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from evenhand.core.paths import sha256_json, sha256_text
from evenhand.data.groups import group_slug, read_group_map

Role = Literal["plural", "singular", "adjective"]

LONGEST_FORM = 5
"""The most words of a form: "people from the Middle East"."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*\+?")


@dataclass(frozen=True, slots=True)
class Variant:
    """One wording of a group: the adjective, and the nouns for several people and for one.

    Attributes:
        after_verb: whether the adjective can follow "I am".
        gender: ``female`` where it speaks of women only.
        written: whether a swap may write it, or only read it.
    """

    group: str
    adjective: str
    plural: str
    singular: str
    after_verb: bool
    gender: str | None
    written: bool

    @property
    def is_name(self) -> bool:
        """Whether it is written with a capital wherever it stands."""
        return self.adjective[0].isupper()


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a text in lower case, and where it stands."""

    word: str
    start: int
    end: int


@dataclass(frozen=True)
class Terms:
    """The shipped lists, ready to be looked up.

    Attributes:
        variants: by group.
        forms: words in lower case -> what they are; a word may be noun and adjective.
        names: a data set's name of a group -> the group, where they differ.
        grammar: lists of words by what they do in a sentence.
        refused: words beside which a normal row stays as it is.
        stems: parts of further such words.
        hateful: the only words that may stand beside the group in a hateful row.
        refused_hashes: the slurs, hashed.
    """

    variants: Mapping[str, tuple[Variant, ...]]
    forms: Mapping[tuple[str, ...], Mapping[Role, Variant]]
    names: Mapping[str, str]
    grammar: Mapping[str, frozenset[str]]
    refused: frozenset[str]
    stems: tuple[str, ...]
    hateful: frozenset[str]
    refused_hashes: frozenset[str]

    def refuses(self, word: str) -> bool:
        """Tell whether a word forbids to exchange the group of a normal row beside it."""
        bare = word.removesuffix("'s").removesuffix("s'").rstrip("+")
        spellings = {word, bare, bare.removesuffix("s"), bare.removesuffix("es")}
        return (
            not spellings.isdisjoint(self.refused)
            or any(stem in word for stem in self.stems)
            or any(sha256_text(one)[:16] in self.refused_hashes for one in spellings)
        )


def tokens_of(text: str) -> list[Token]:
    """Return the words of a text.

    >>> [token.word for token in tokens_of("It's the LGBTQ+ choir!")]
    ["it's", 'the', 'lgbtq+', 'choir']
    """
    return [
        Token(match[0].lower().replace("’", "'"), *match.span()) for match in _WORD.finditer(text)
    ]


def terms_sha256() -> str:
    """Return the hash of the shipped lists, which decide what can be swapped and for what."""
    return sha256_json([_read("identity_terms.toml"), _read("refused_words.txt")])


@functools.cache
def identity_terms() -> Terms:
    """Return the shipped lists of terms."""
    data = tomllib.loads(_read("identity_terms.toml"))
    hashes = _read("refused_words.txt").splitlines()
    variants: dict[str, tuple[Variant, ...]] = {}
    forms: dict[tuple[str, ...], dict[Role, Variant]] = {}
    for group, entry in data["groups"].items():
        variants[group] = tuple(_variant(group, one) for one in entry["variants"])
        for variant, one in zip(variants[group], entry["variants"], strict=True):
            _add(forms, "adjective", variant, [variant.adjective])
            _add(forms, "plural", variant, [variant.plural, *one.get("reads_plural", ())])
            _add(forms, "singular", variant, [variant.singular, *one.get("reads_singular", ())])
    refused = data["refused"]
    grammar = {
        name: frozenset(_phrases(words) if "|" in words else words.split())
        for name, words in _as_texts(data["grammar"]).items()
    }
    return Terms(
        variants=variants,
        forms=forms,
        names={
            name: group for group, one in data["groups"].items() for name in one.get("names", ())
        },
        grammar=grammar,
        refused=frozenset(f"{refused['identities']} {refused['tied']} {refused['harm']}".split()),
        stems=tuple(refused["stems"].split()),
        hateful=frozenset(data["hate"]["words"].split()),
        refused_hashes=frozenset(line for line in hashes if not line.startswith("#")),
    )


def known_group(name: str) -> str:
    """Return a group as the project's own lists call it; an unknown name in slug form.

    >>> known_group("Homosexual"), known_group("disability"), known_group("Martians")
    ('lgbtq', 'disabled', 'martians')
    """
    terms = identity_terms()
    slug = group_slug(name)
    mapped = slug if slug in terms.variants else _group_map().get(slug) or slug
    return terms.names.get(mapped, mapped)


def _read(name: str) -> str:
    return (resources.files("evenhand.data.augmenting") / name).read_text(encoding="utf-8")


@functools.cache
def _group_map() -> Mapping[str, str | None]:
    return read_group_map()


def _variant(group: str, entry: Mapping[str, Any]) -> Variant:
    return Variant(
        group=group,
        adjective=entry["adjective"],
        plural=entry["plural"],
        singular=entry["singular"],
        after_verb=entry.get("after_verb", False),
        gender=entry.get("gender"),
        written=entry.get("written", True),
    )


def _add(
    forms: dict[tuple[str, ...], dict[Role, Variant]],
    role: Role,
    variant: Variant,
    phrases: list[str],
) -> None:
    for phrase in phrases:
        words = tuple(token.word for token in tokens_of(phrase))
        forms.setdefault(words, {})[role] = variant


def _phrases(text: str) -> list[str]:
    return [" ".join(phrase.split()) for phrase in text.split("|")]


def _as_texts(lists: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: words if isinstance(words, str) else " ".join(words) for name, words in lists.items()
    }
