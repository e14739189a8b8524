"""Counterfactual identity swaps: the same post about another group.

Garg et al. (2019), *Counterfactual Fairness in Text Classification through Robustness*, exchange
identity terms and warn of asymmetric counterfactuals: posts whose label hangs on the group. Here
whatever might be one is refused; the rules are in ``docs/augmenting.md``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evenhand.core.records import HATE, NORMAL, Row
from evenhand.data.augmenting.terms import (
    LONGEST_FORM,
    Role,
    Terms,
    Token,
    Variant,
    identity_terms,
    known_group,
    tokens_of,
)
from evenhand.data.labels import label_word

SOURCE = "augment:swaps"

Kind = Literal["plural", "singular", "adjective", "predicate"]

# What annotators called neither hate nor normal; a corpus's or user's policy made it a label.
_UNDECIDED = frozenset({"offensive", "abusive", "toxic"})
# Letters hidden, a share stated: a word that cannot be read, a fact about one group.
_ODD = frozenset("*%")
_JOINED = frozenset("-/#@_'’&")
_SENTENCE_START = re.compile(r"(?:^|[.!?:…])[\s\"'“”‘(\[]*$")


@dataclass(frozen=True, slots=True)
class _Mention:
    """Where a text names people of a group: tokens ``first`` up to ``last``, then the ``head``."""

    first: int
    last: int
    variant: Variant
    kind: Kind
    head: str | None = None

    @property
    def end(self) -> int:
        """The token after it and its head."""
        return self.last + (self.head is not None)


@dataclass(frozen=True)
class _Post:
    """A text whose every mention of a group can be exchanged."""

    text: str
    tokens: Sequence[Token]
    mentions: Sequence[_Mention]

    @property
    def variant(self) -> Variant:
        return self.mentions[0].variant

    @property
    def others(self) -> list[str]:
        """The words that are no mention, nor the noun that one stands before."""
        inside = {at for one in self.mentions for at in range(one.first, one.end)}
        return [token.word for at, token in enumerate(self.tokens) if at not in inside]

    def genders(self, terms: Terms) -> set[str]:
        """Return the genders that the text speaks of, beside the mentions themselves."""
        words = {*self.others, *(one.head for one in self.mentions if one.head)}
        return {
            gender
            for gender in ("male", "female")
            if words & (terms.grammar[gender] | terms.grammar[f"{gender}_heads"])
        }


def counterfactual(
    row: Row, *, rng: np.random.Generator, to: Collection[str] | None = None
) -> Row | None:
    """Return the row with its group exchanged for another; None where that may change the label.

    The group is drawn among those of ``to``, or all known ones, that fit the sentence. Number,
    article and capitals are kept. The row's label must be ``hate`` or ``normal``.

    >>> row = Row("1", "My neighbour is a Mexican and loves chess.", "normal", ("mexican",))
    >>> found = counterfactual(row, rng=np.random.default_rng(0), to=["middle_east"])
    >>> found.text, found.groups
    ('My neighbour is an Iraqi and loves chess.', ('middle_east',))
    >>> tied = Row("2", "Mexicans like tacos.", "normal", ("mexican",))
    >>> counterfactual(tied, rng=np.random.default_rng(0)) is None
    True
    """
    terms = identity_terms()
    post = _swappable_post(row, terms)
    if post is None:
        return None
    genders = post.genders(terms)
    kinds: set[Kind] = {one.kind for one in post.mentions}
    fitting = {
        group: [one for one in variants if one.written and _fits(one, genders, kinds)]
        for group, variants in sorted(terms.variants.items())
        if group != post.variant.group and (to is None or group in to)
    }
    groups = [group for group, variants in fitting.items() if variants]
    if not groups:
        return None
    group = groups[int(rng.integers(len(groups)))]
    variant = fitting[group][int(rng.integers(len(fitting[group])))]
    return Row(
        id=f"augment-swaps-{row.id}-{group}",
        text=_exchange(post, variant),
        label=row.label,
        groups=(group,),
        source=SOURCE,
        fine_label=row.fine_label,
        cluster=row.cluster or row.id,
        extra={"provenance": f"swaps: row {row.id}, {post.variant.group} to {group}"},
    )


def is_swappable(row: Row) -> bool:
    """Tell whether the row's group may be exchanged at all; not every other group need fit.

    >>> is_swappable(Row("1", "I like Mexicans.", "normal", ("mexican",)))
    True
    """
    return _swappable_post(row, identity_terms()) is not None


def _swappable_post(row: Row, terms: Terms) -> _Post | None:
    post = _read(row, terms)
    if post is None or not _keeps_label(post, row, terms):
        return None
    return post if _fits(post.variant, post.genders(terms)) else None


def _read(row: Row, terms: Terms) -> _Post | None:
    """Find the mentions of the row's one group; None unless all are clear and alike."""
    groups = {known_group(name) for name in row.groups}
    if len(groups) != 1 or not groups <= terms.variants.keys() or _ODD & set(row.text):
        return None
    tokens = tokens_of(row.text)
    mentions: list[_Mention] = []
    at = 0
    while at < len(tokens):
        ahead = tuple(token.word for token in tokens[at : at + LONGEST_FORM])
        found = next((n for n in range(len(ahead), 0, -1) if ahead[:n] in terms.forms), None)
        if found is None:
            at += 1
            continue
        roles = terms.forms[ahead[:found]]
        mention = _mention(row.text, tokens, (at, at + found), roles, terms)
        if mention is None or _is_joined(row.text, tokens, mention):
            return None
        mentions.append(mention)
        at = mention.end
    variants = {one.variant for one in mentions}
    if len(variants) != 1 or {one.group for one in variants} != groups:
        return None
    return _Post(row.text, tokens, mentions)


def _mention(
    text: str,
    tokens: Sequence[Token],
    span: tuple[int, int],
    roles: Mapping[Role, Variant],
    terms: Terms,
) -> _Mention | None:
    """Return what the words of a span are in their sentence; None where that is not clear."""
    first, last = span
    grammar = terms.grammar
    following = _following(text, tokens, last)
    if "plural" in roles and not ("adjective" in roles and following in grammar["people"]):
        return _Mention(first, last, roles["plural"], "plural")
    if "adjective" in roles:
        variant = roles["adjective"]
        if following in grammar["people"]:
            return _Mention(first, last + 1, variant, "plural")
        if following in grammar["person"]:
            return _Mention(first, last + 1, variant, "singular")
        if following in grammar["heads"] | grammar["male_heads"] | grammar["female_heads"]:
            return _Mention(first, last, variant, "adjective", head=following)
    before = tokens[first - 1].word if first else None
    ends_phrase = following is None or following in grammar["after_noun"]
    is_noun = "adjective" not in roles or (before in grammar["determiners"] and ends_phrase)
    if "singular" in roles and is_noun:
        return _Mention(first, last, roles["singular"], "singular")
    if "adjective" in roles and roles["adjective"].after_verb:
        ends = following is None or following in grammar["after_adjective"]
        if ends and _is_said_of_a_person(tokens[:first], terms):
            return _Mention(first, last, roles["adjective"], "predicate")
    return None


def _following(text: str, tokens: Sequence[Token], last: int) -> str | None:
    """Return the word that follows in the same phrase, None where punctuation or nothing does."""
    if last == len(tokens) or text[tokens[last - 1].end : tokens[last].start].strip():
        return None
    return tokens[last].word


def _is_said_of_a_person(before: Sequence[Token], terms: Terms) -> bool:
    words = [token.word for token in before[-3:]]
    if words and words[-1] in terms.grammar["adverbs"]:
        words.pop()
    subjects = terms.grammar["subjects"]
    return " ".join(words[-1:]) in subjects or " ".join(words[-2:]) in subjects


def _is_joined(text: str, tokens: Sequence[Token], mention: _Mention) -> bool:
    """Tell whether the words are a part of a longer one: a tag, a compound, a possessive."""
    start, end = tokens[mention.first].start, tokens[mention.last - 1].end
    return bool(_JOINED & {text[max(start - 1, 0) : start], text[end : end + 1]})


def _keeps_label(post: _Post, row: Row, terms: Terms) -> bool:
    """Tell whether what the post says of one group is as hateful, or as harmless, of another."""
    if row.label == HATE:
        return all(word in terms.hateful or word.isdigit() for word in post.others)
    if row.label != NORMAL or label_word(row.fine_label or "") in _UNDECIDED:
        return False
    return not any(terms.refuses(word) for word in post.others)


def _fits(variant: Variant, genders: set[str], kinds: Collection[Kind] = ()) -> bool:
    """Tell whether a variant can stand in a text that speaks of these genders, in these ways."""
    if "predicate" in kinds and not variant.after_verb:
        return False
    if variant.gender is None:
        return True
    # "He is a woman", and for those who are nothing but women "women and their wives".
    return not genders if variant.group == "women" else "male" not in genders


def _exchange(post: _Post, variant: Variant) -> str:
    pieces: list[str] = []
    done = 0
    for mention in post.mentions:
        start, end = post.tokens[mention.first].start, post.tokens[mention.last - 1].end
        written = variant.plural if mention.kind == "plural" else variant.adjective
        written = variant.singular if mention.kind == "singular" else written
        before = post.tokens[mention.first - 1] if mention.first else None
        if before is not None and before.word in ("a", "an"):
            pieces += [post.text[done : before.start], _article(post, before, written)]
            done = before.end
        pieces += [post.text[done:start], _cased(written, post, mention.variant, (start, end))]
        done = end
    return "".join([*pieces, post.text[done:]])


def _article(post: _Post, before: Token, following: str) -> str:
    article = "an" if following[0].lower() in "aeiou" else "a"
    given = post.text[before.start : before.end]
    if given == "AN" or (given == "A" and post.text.isupper()):
        return article.upper()
    return article.capitalize() if given[0].isupper() else article


def _cased(written: str, post: _Post, old: Variant, span: tuple[int, int]) -> str:
    """Return the words with the capitals of those that they replace, where these mean anything."""
    given = post.text[slice(*span)]
    is_acronym = old.plural[:2].isupper()
    if post.text == post.text.lower() or (old.is_name and given == given.lower()):
        return written.lower()
    if given.isupper() and (not is_acronym or post.text.isupper()):
        return written.upper()
    starts = _SENTENCE_START.search(post.text[: span[0]]) is not None
    if given[0].isupper() and (starts or not (old.is_name or is_acronym)):
        return written[0].upper() + written[1:]
    return written
