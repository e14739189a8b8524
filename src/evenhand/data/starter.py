"""The starter corpus: rows made from the project's own templates, so that a demo needs no download.

The templates and the words of their slots are data (``starter_templates/*.toml``). A template's
split is fixed by its functionality and number, whatever the seed: a model trained on the train
part of one seed has not seen the functional or test templates of any other.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import cycle
from typing import Any

import numpy as np

from evenhand.core.paths import sha256_text
from evenhand.core.records import HATE, LABELS, NORMAL, Row
from evenhand.core.seeding import rng_for

SOURCE = "starter"
SPLITS = ("train", "validation", "test", "functional")

# The split of each template in a round of 20, by initial: 10 train, 3 validation, 4 test and 3
# functional, interleaved because the first templates of a functionality tend to be its plainest.
_ROUND = "tevtfttevttefttvetft"
_SPLIT_BY_INITIAL = {"t": "train", "v": "validation", "e": "test", "f": "functional"}

# Rows drawn from each template. Hate templates get as many as normal ones that name a group, so
# that each group is balanced; those that name none add normal rows, 8% of the corpus.
_ROWS_PER_TEMPLATE = {"train": 8, "validation": 6, "test": 6, "functional": 5}
_ROWS_PER_UNGROUPED_TEMPLATE = {"train": 5, "validation": 4, "test": 4, "functional": 4}

FILLING_TRIES = 200
"""Draws of a template's words before it counts as used up, where more than its share is asked."""

_SLOT = re.compile(r"\{(?P<article>[aA]_)?(?P<name>[A-Za-z]+)\}")
_GROUP_SLOTS = frozenset({"plural", "person", "adjective", "trope", "event"})


@dataclass(frozen=True, slots=True)
class Functionality:
    """One kind of text that a detector must get right.

    Attributes:
        name: unique; the ``fine_label`` of its rows.
        label: ``hate`` or ``normal``, the same for all its rows.
        family: what it has in common with others (``counter_speech``, ``identity``, ...).
        description: one phrase for a table.
    """

    name: str
    label: str
    family: str
    description: str


@dataclass(frozen=True, slots=True)
class Template:
    """A text with slots, the functionality it expresses, and the split it is kept for."""

    id: str
    text: str
    functionality: Functionality
    split: str

    @property
    def slots(self) -> frozenset[str]:
        """The names of its slots, in lower case, without articles."""
        return frozenset(match["name"].lower() for match in _SLOT.finditer(self.text))

    @property
    def names_group(self) -> bool:
        """Whether the text speaks of a target group."""
        return not self.slots.isdisjoint(_GROUP_SLOTS)


def functionalities() -> tuple[Functionality, ...]:
    """Return every functionality, the hateful ones first.

    >>> next(item for item in functionalities() if item.name == "negated_hate").label
    'normal'
    """
    return tuple(dict.fromkeys(template.functionality for template in templates()))


@functools.cache
def templates() -> tuple[Template, ...]:
    """Return every template in the order of the data files.

    >>> {template.split for template in templates()} == set(SPLITS)
    True
    """
    found = []
    for label in LABELS:
        for entry in _read(label)["functionality"]:
            name = entry["name"]
            functionality = Functionality(name, label, entry["family"], entry["description"])
            for number, line in enumerate(entry["templates"].strip().splitlines(), start=1):
                found.append(
                    Template(f"{name}-{number:02d}", line, functionality, _split(name, number))
                )
    return tuple(found)


def target_groups() -> tuple[str, ...]:
    """Return the names of the target groups.

    >>> target_groups()[:3]
    ('lgbtq', 'mexican', 'middle_east')
    """
    return tuple(_read("slots")["groups"])


def generate(seed: int = 0) -> dict[str, tuple[Row, ...]]:
    """Return the corpus: ``train``, ``validation``, ``test`` and ``functional``, shuffled.

    The functional part is for functional testing and is never trained on. The seed chooses the
    words and the order, not the templates of a split. No text occurs twice.

    >>> corpus = generate(seed=0)
    >>> list(corpus), len(corpus["train"])
    (['train', 'validation', 'test', 'functional'], 2680)
    """
    return dict(_corpus(seed))


@functools.lru_cache(maxsize=4)
def _corpus(seed: int) -> dict[str, tuple[Row, ...]]:
    used: set[str] = set()
    corpus: dict[str, tuple[Row, ...]] = {}
    for split in SPLITS:
        rows = [row for label in LABELS for row in _rows(split, label, seed=seed, used=used)]
        order = rng_for(seed, f"starter/{split}").permutation(len(rows))
        corpus[split] = tuple(rows[position] for position in order)
    return corpus


def starter_card(seed: int = 0) -> str:
    """Return the counts of the corpus as Markdown tables: splits, groups, functionalities."""
    corpus = generate(seed)
    everything = tuple(row for rows in corpus.values() for row in rows)
    rows_of = Counter(row.fine_label for row in everything)
    templates_of = Counter(template.functionality.name for template in templates())
    splits = [
        (name, len(rows), len({row.cluster for row in rows}), *_label_counts(rows))
        for name, rows in (*corpus.items(), ("all", everything))
    ]
    groups = [
        (group or "(none)", *(_group_counts(rows, group) for rows in corpus.values()))
        for group in (*target_groups(), None)
    ]
    kinds = [
        (f.name, f.label, f.family, f.description, templates_of[f.name], rows_of[f.name])
        for f in functionalities()
    ]
    return "\n\n".join(
        [
            _table(("split", "rows", "templates", HATE, NORMAL), splits),
            _table(("group: hate / normal", *corpus), groups),
            _table(("functionality", "label", "family", "what", "templates", "rows"), kinds),
        ]
    )


def post_from(
    template: Template, group: str, *, rng: np.random.Generator, used: set[str]
) -> str | None:
    """Return a post that fills a template, None where its words seem to be used up.

    ``used`` has the normalised texts of the posts so far, before their style; it gets this one's.

    >>> post_from(templates()[0], "lgbtq", rng=rng_for(0, "example"), used=set()) is None
    False
    """
    try:
        text = _unused_text(template, group, rng=rng, used=used, tries=FILLING_TRIES)
    except LookupError:
        return None
    return _post(text, rng=rng)


def normalise(text: str) -> str:
    """Return a text's words in lower case: what counts as the same text here.

    >>> normalise("Hello,  World!")
    'hello world'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def _split(name: str, number: int) -> str:
    # The round starts elsewhere for each functionality, or all the plainest would be trained on.
    start = int(sha256_text(name)[:8], 16)
    return _SPLIT_BY_INITIAL[_ROUND[(start + number) % len(_ROUND)]]


def _rows(split: str, label: str, *, seed: int, used: set[str]) -> Iterator[Row]:
    """Yield one split's rows of one label; adds each normalised text to ``used``."""
    chosen = [t for t in templates() if t.split == split and t.functionality.label == label]
    order = rng_for(seed, f"starter/{split}/{label}/groups").permutation(len(target_groups()))
    rotation = cycle([target_groups()[position] for position in order])
    for template in chosen:
        rng = rng_for(seed, f"starter/{template.id}")
        counts = _ROWS_PER_TEMPLATE if template.names_group else _ROWS_PER_UNGROUPED_TEMPLATE
        seen: Counter[str] = Counter()
        for _ in range(counts[split]):
            group = next(rotation) if template.names_group else None
            part = group or "none"
            seen[part] += 1
            yield Row(
                id=f"{SOURCE}-{template.id}-{part}-{seen[part]}",
                text=_post(_unused_text(template, group, rng=rng, used=used), rng=rng),
                label=label,
                groups=() if group is None else (group,),
                source=SOURCE,
                fine_label=template.functionality.name,
                cluster=template.id,
            )


def _unused_text(
    template: Template,
    group: str | None,
    *,
    rng: np.random.Generator,
    used: set[str],
    tries: int = 1000,
) -> str:
    for _ in range(tries):
        text = _fill(template.text, _words(group, rng=rng))
        key = normalise(text)
        if key not in used:
            used.add(key)
            return text
    raise LookupError(f"template {template.id} has too few different fillings for {group}")


def _words(group: str | None, *, rng: np.random.Generator) -> dict[str, str]:
    """Draw one word for every slot, the same wherever the slot stands in the text."""
    data = _read("slots")

    def draw(options: Sequence[Any]) -> Any:
        return options[int(rng.integers(len(options)))]

    words = {name: draw(options) for name, options in data["fillers"].items()}
    if group is not None:
        entry = data["groups"][group]
        words["plural"], words["person"], words["adjective"] = draw(entry["forms"])
        words["trope"], words["event"] = draw(entry["trope"]), draw(entry["event"])
    return words


def _fill(text: str, words: Mapping[str, str]) -> str:
    """Fill the slots: ``{plural}``, ``{Plural}``, ``{PLURAL}``, ``{a_person}``, ``{A_person}``."""

    def word(match: re.Match[str]) -> str:
        name = match["name"]
        value = words[name.lower()]
        if match["article"]:
            value = f"{match['article'][0]}{'n' if value[0].lower() in 'aeiou' else ''} {value}"
        elif name.isupper():
            value = value.upper()
        elif name[0].isupper():
            value = value[0].upper() + value[1:]
        return value

    return _SLOT.sub(word, text)


def _post(text: str, *, rng: np.random.Generator) -> str:
    """Write a text as people post: now and then in lower case, unpunctuated, or to someone."""
    styles: list[tuple[float, Callable[[str], str]]] = [
        (0.15, str.lower),
        (0.15, lambda t: t.rstrip(".")),
        (0.08, lambda t: f"@user {t}"),
    ]
    for share, style in styles:
        if rng.random() < share:
            text = style(text)
    return text


@functools.cache
def _read(name: str) -> dict[str, Any]:
    folder = resources.files("evenhand.data") / "starter_templates"
    return tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))


def _label_counts(rows: Sequence[Row]) -> tuple[int, int]:
    hateful = sum(row.label == HATE for row in rows)
    return hateful, len(rows) - hateful


def _group_counts(rows: Sequence[Row], group: str | None) -> str:
    wanted = () if group is None else (group,)
    return "{} / {}".format(*_label_counts([row for row in rows if row.groups == wanted]))


def _table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
