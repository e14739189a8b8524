"""The words with which tables of answers say that there is no answer, and how each row went."""

from __future__ import annotations

from collections.abc import Mapping

from evenhand.core.records import Status
from evenhand.data.labels import label_table, label_word

UNPARSEABLE = "unparseable"
NO_ANSWER = frozenset(
    ("", "unknown", "error", "none", "nan", "null", "n/a", "na", "<na>", "invalid", "failed",
     "unparsed", "unparseable", "parse_error", "parse_failed")
)  # fmt: skip
"""Words in a column of predicted labels that say that there is none."""

STATUS_WORDS: Mapping[str, Status] = {
    **dict.fromkeys(("ok", "success", "succeeded", "done", "complete", "completed"), "ok"),
    **dict.fromkeys(("unparseable", "unparsed", "parse_error", "invalid"), "unparseable"),
    **dict.fromkeys(("error", "failed", "failure", "timeout", "exception"), "error"),
}  # fmt: skip


def answer_words(given: Mapping[str, str]) -> tuple[Mapping[str, str], frozenset[str]]:
    """Return the label words, and those that say that there is no answer; the user's go first.

    >>> answer_words({"toxic": "hate", "Refused": "unparseable"})[0]["toxic"]
    'hate'

    Raises:
        ConfigError: a word is mapped to something that is neither a label nor ``unparseable``.
    """
    plain = {label_word(word): label for word, label in given.items()}
    no_answer = {word for word, label in plain.items() if label_word(label) == UNPARSEABLE}
    table = label_table({word: label for word, label in plain.items() if word not in no_answer})
    words = {word: label for word, label in table.items() if word not in no_answer}
    return words, (NO_ANSWER | no_answer) - set(words)
