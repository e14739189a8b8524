"""Reading a free answer strictly: a JSON object or the bare label, else unparseable."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

# gpt-oss answers in harmony channels; only the last ``final`` message is the answer. Servers that
# strip special tokens leave the channel's name ("final", "assistantfinal") in front of it, often
# with stray punctuation before a JSON object. Any other word in front makes it no answer.
_FINAL = "<|channel|>final<|message|>"
_END = re.compile(r"<\|(?:return|end|im_end|eot_id|endoftext)\|>.*\Z", re.DOTALL)
_RESIDUE = re.compile(r"\A(?:[^\w{}]|[\d_]|assistant|final|name)*(?=\{)|\A(?:assistant)?final")
_KEYS = ("classification", "label")


def parse_answer(raw: str, *, labels: Mapping[str, str]) -> str | None:
    """Return the canonical label that an answer gives, or None where it is unparseable.

    Accepted: a JSON object with ``classification`` (or ``label``) equal to a label string, alone or
    in a Markdown fence, or the bare label string, upper or lower case, with a final full stop.
    Anything else, several different objects included, is unparseable: no substring is searched.

    >>> words = {"hate": "hate", "normal": "normal"}
    >>> parse_answer('final{"classification": "hate", "rationale": "attacks"}', labels=words)
    'hate'
    >>> parse_answer("Normal.", labels=words)
    'normal'
    >>> parse_answer("This is not hate", labels=words) is None
    True
    """
    text = raw.rsplit(_FINAL, 1)[-1] if _FINAL in raw else raw
    text = _END.sub("", text).strip()
    for candidate in (text, _RESIDUE.sub("", text, count=1).strip()):
        label = _read(candidate, labels)
        if label is not None:
            return label
    return None


def _read(text: str, labels: Mapping[str, str]) -> str | None:
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        text = re.sub(r"\A```(?:json)?|```\Z", "", text).strip()
    answer = text
    if text.startswith("{"):
        try:
            # As pairs, so that a key that is given twice is seen twice.
            pairs = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError):
            return None
        given = [value for key, value in pairs if key in _KEYS]
        if len(given) != 1 or not isinstance(given[0], str):
            return None
        answer = given[0]
    folded = _fold(answer)
    matches = [name for name, string in labels.items() if _fold(string) == folded]
    return matches[0] if len(matches) == 1 else None


def _fold(answer: str) -> str:
    return answer.strip().removesuffix(".").strip("\"'").casefold()
