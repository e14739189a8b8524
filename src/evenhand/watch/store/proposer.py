"""Which groups a post may speak of: a proposal that steers sampling, never the truth.

What a proposer misses or names wrongly costs precision, not correctness: estimates take the groups
from reviewers. The shipped lists hold the names that people use for groups, and no slurs: on the
reference's 3,628 training posts they find about half of the posts about a group (46% for lgbtq, 40%
for middle_east, 28% for mexican) and are hardly ever wrong. Slurs make up most of what they miss: a
file of your own that adds them finds more.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, cast

from evenhand.config.files import shown
from evenhand.config.strict_json import parse_object
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.paths import sha256_json, sha256_text
from evenhand.core.registry import suggest
from evenhand.data.groups import group_slug, map_groups, read_group_map

SHIPPED = ("terms", "caller")
_PLACE = "watch.proposer"
_WORD = re.compile(r"[^\W_]+")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# Soft hyphens, joiners, direction marks: invisible, and used to break words apart.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")

Term = tuple[str, ...]

log = logging.getLogger(__name__)


class Proposer(Protocol):
    """Names the groups that a post may speak of."""

    @property
    def name(self) -> str:
        """What the settings call it."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of everything that its proposals depend on."""
        ...

    def propose(self, text: str, caller_group: str | None) -> tuple[str, ...]:
        """Return the groups, each once, in the order in which they are watched."""
        ...


@dataclass(frozen=True)
class TermProposer:
    """Proposes a group where a post contains one of the group's terms.

    Posts and terms are compared as words: NFKC, case-folded, without invisible characters, split
    at everything that is neither letter nor digit. Scripts that write no spaces between words need
    ``module:function``.

    >>> terms = {"lgbtq": ["gay", "same sex"], "women": ["woman", "women"]}
    >>> proposer = make_term_proposer("mine", terms, ["women", "lgbtq"])
    >>> proposer.propose("Gays and women; same-sex marriage", None)
    ('women', 'lgbtq')
    >>> proposer.propose("a gayety of romans", None)
    ()
    """

    name: str
    sha256: str
    words: Mapping[str, frozenset[str]]
    phrases: Mapping[str, frozenset[Term]]

    def propose(self, text: str, caller_group: str | None) -> tuple[str, ...]:  # noqa: ARG002
        """Return the groups whose terms occur in the post."""
        words = split_words(text)
        found = set(words)
        return tuple(
            group
            for group, singles in self.words.items()
            if not singles.isdisjoint(found) or _has_phrase(words, found, self.phrases[group])
        )


@dataclass(frozen=True)
class CallerProposer:
    """Proposes the group that the caller names; corpus names of groups are understood."""

    groups: tuple[str, ...]
    known: Mapping[str, str | None]
    sha256: str
    name: str = "caller"

    def propose(self, text: str, caller_group: str | None) -> tuple[str, ...]:  # noqa: ARG002
        """Return the caller's group where it is a watched one."""
        if caller_group is None:
            return ()
        named = {caller_group, *map_groups([caller_group], self.known)}
        return tuple(group for group in self.groups if group in named)


@dataclass(frozen=True)
class FunctionProposer:
    """Proposes what a user's function returns; where it fails, nothing."""

    name: str
    sha256: str
    groups: tuple[str, ...]
    function: Callable[[str, str | None], Iterable[str]]

    def propose(self, text: str, caller_group: str | None) -> tuple[str, ...]:
        """Return the watched groups among those of the function."""
        try:
            named = set(self.function(text, caller_group))
        except Exception as error:  # an answer is worth more than its stratum
            # The message is left out: it may quote the post.
            log.warning("the proposer %s failed: %s", self.name, type(error).__name__)
            return ()
        return tuple(group for group in self.groups if group in named)


def load_proposer(spec: str, groups: Sequence[str]) -> Proposer:
    """Return the proposer that the settings name: terms, FILE.json, caller or module:function.

    Raises:
        ConfigError: there is none of that name, its file has problems, or a watched group has
            no terms.
    """
    if spec == "terms":
        text = files("evenhand.watch.store").joinpath("term_lists.json").read_text(encoding="utf-8")
        return _from_json(spec, text, groups, source="the shipped term lists")
    if spec == "caller":
        known = read_group_map()
        return CallerProposer(tuple(groups), known, sha256_json([dict(known), list(groups)]))
    path = Path(spec).expanduser()
    if path.suffix == ".json":
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise _refuse(f'"{spec}" cannot be read: {reason}') from error
        return _from_json(spec, text, groups, source=shown(path))
    if _FUNCTION.fullmatch(spec):
        return _from_function(spec, groups)
    raise _refuse(
        f'"{spec}" is none of terms, caller, a file FILE.json, or module:function'
        f"{suggest(spec, SHIPPED)}"
    )


def make_term_proposer(
    name: str, terms: Mapping[str, Sequence[str]], groups: Sequence[str]
) -> TermProposer:
    """Return a proposer of these terms, with their English plurals, for the watched groups."""
    forms = {
        group: {form for term in terms[group] for form in _forms(split_words(term))}
        for group in groups
    }
    return TermProposer(
        name=name,
        sha256=sha256_json({group: list(terms[group]) for group in groups}),
        words={g: frozenset(t[0] for t in found if len(t) == 1) for g, found in forms.items()},
        phrases={g: frozenset(t for t in found if len(t) > 1) for g, found in forms.items()},
    )


def split_words(text: str) -> Term:
    r"""Return a text's words in the form in which posts and terms are compared.

    >>> split_words("LGBTQ+ \u0130stanbul's  same-sex_couple")
    ('lgbtq', 'i', 'stanbul', 's', 'same', 'sex', 'couple')
    """
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", plain.casefold())))


def _forms(term: Term) -> list[Term]:
    """Return a term and the plurals of its last word: man men, lady ladies, church churches."""
    *start, last = term
    found = [last]
    if re.search("[a-z]$", last):
        found.append(f"{last}es" if re.search("(?:s|x|z|ch|sh)$", last) else f"{last}s")
        if re.search("[^aeiou]y$", last):
            found.append(f"{last[:-1]}ies")
        if re.search("(?:^|trans|wo)man$", last):
            found.append(f"{last[:-2]}en")
    return [(*start, word) for word in found]


def _has_phrase(words: Term, found: set[str], phrases: frozenset[Term]) -> bool:
    candidates = [phrase for phrase in phrases if found.issuperset(phrase)]
    return any(
        words[i : i + len(phrase)] == phrase
        for phrase in candidates
        for i in range(len(words) - len(phrase) + 1)
    )


def _from_json(spec: str, text: str, groups: Sequence[str], *, source: str) -> TermProposer:
    terms, problems = parse_object(text)
    lists = terms or {}
    problems = [
        *problems,
        *(problem for group, value in lists.items() for problem in _check_terms(group, value)),
    ]
    if terms is not None:
        problems += [
            Problem(
                "watch.groups",
                f'"{group}" is watched, but {source} has no terms for it'
                f"{suggest(group, lists)}; a file of your own may give it an empty list",
            )
            for group in groups
            if group not in lists
        ]
    if problems:
        raise ConfigError(
            source,
            problems,
            hint='a proposer\'s file is an object of lists of terms: {"lgbtq": ["gay", ...], ...}',
            consequence="nothing was started",
        )
    return make_term_proposer(spec, lists, groups)


def _check_terms(group: str, value: Any) -> list[Problem]:
    if not group_slug(group):
        return [Problem(f'"{group}"', "is no group's name")]
    if not isinstance(value, list):
        return [Problem(group, 'must be a list of terms such as ["gay", "same sex"]')]
    return [
        Problem(f"{group}[{i}]", "must be a text with at least one letter or digit")
        for i, term in enumerate(value)
        if not (isinstance(term, str) and split_words(term))
    ]


def _from_function(spec: str, groups: Sequence[str]) -> FunctionProposer:
    module_name, _, function_name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way
        raise _refuse(f'"{module_name}" cannot be imported: {error}') from error
    function = getattr(module, function_name, None)
    if not callable(function):
        message = f'"{module_name}" has no function "{function_name}"'
        raise _refuse(f"{message}{suggest(function_name, dir(module))}")
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError) as error:
        message = f'"{module_name}" has no source to be hashed; name a module written in Python'
        raise _refuse(message) from error
    proposing = cast("Callable[[str, str | None], Iterable[str]]", function)
    return FunctionProposer(spec, sha256_text(f"{spec}\n{source}"), tuple(groups), proposing)


def _refuse(message: str) -> ConfigError:
    return ConfigError(
        "the production configuration",
        [Problem(_PLACE, message)],
        consequence="nothing was started",
    )
