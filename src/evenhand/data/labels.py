"""The words that corpora use for the two labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import HATE, LABELS, NORMAL

ALIASES: Mapping[str, str] = {
    **dict.fromkeys(("hate", "hateful", "hate_speech", "hatespeech", "1", "true", "yes"), HATE),
    **dict.fromkeys(
        ("normal", "not_hate", "not_hateful", "not_hate_speech", "non_hate", "non_hateful",
         "nonhate", "no_hate", "not_hatespeech", "0", "false", "no"),
        NORMAL,
    ),
}  # fmt: skip
"""Known label words. *Offensive*, *toxic* and *abusive* are absent: whether they are hate is a
choice, so a user states it with a label map."""


def label_word(value: object) -> str:
    """Return a label cell as a comparable word.

    >>> label_word(" Non-Hateful "), label_word(True), label_word(1.0)
    ('non_hateful', 'true', '1')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"[\s_-]+", "_", str(value).strip().casefold())


def unknown_word(word: str) -> str:
    """Return the problem of a label word that is not known, with the ways of saying what it is.

    >>> print(unknown_word("toxic"))  # doctest: +NORMALIZE_WHITESPACE
    "toxic" is not known; say what it is: --label "toxic=hate" or =normal; in an experiment
    "labels": {"toxic": "hate"}
    """
    entry = json.dumps({word: HATE}, ensure_ascii=False)
    return (
        f'"{word}" is not known; say what it is: --label "{word}=hate" or =normal; in an '
        f'experiment "labels": {entry}'
    )


def label_table(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return word -> ``hate`` or ``normal``: the built-in aliases, overridden by the user's map.

    Raises:
        ConfigError: a value of the user's map is not a label.
    """
    table = dict(ALIASES)
    problems = []
    for word, label in (labels or {}).items():
        canonical = ALIASES.get(label_word(label))
        if canonical is None:
            problems.append(Problem(f"labels.{word}", f'"{label}" is not one of {list(LABELS)}'))
        else:
            table[label_word(word)] = canonical
    if problems:
        raise ConfigError("the label map", problems)
    return table
