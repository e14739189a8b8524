"""One chat of a fine-tuning file: the post, its persona and its label."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_USER_TURN = re.compile(r'(?P<head>.*?)^Text:[ \t]*"(?P<text>.*)"\s*', re.DOTALL | re.MULTILINE)
_PERSONA = re.compile(r"^Persona:[ \t]*(?P<persona>.*\S)", re.MULTILINE)
LABEL_KEYS = ("classification", "label")


def read_chat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``text``, ``persona`` (lower case), ``label`` word, ``id`` and the chat itself.

    The last user turn holds ``Text: "..."`` and perhaps a ``Persona:`` line before it; the
    assistant turn after it holds the label, alone or in a JSON object. A target that was written
    through a template by mistake, ``{{...}}``, is read as the object it stands for, and
    ``messages`` keeps it unchanged.

    Raises:
        ValueError: the chat is not of this form; the message says in what.
    """
    turns = _turns(fields.get("messages"))
    asked = [position for position, (role, _) in enumerate(turns) if role == "user"]
    if not asked:
        raise ValueError("messages has no user turn")
    found = _USER_TURN.fullmatch(turns[asked[-1]][1])
    if found is None:
        raise ValueError('the user turn has no line Text: "..."')
    persona = _PERSONA.search(found["head"])
    answers = [said for role, said in turns[asked[-1] + 1 :] if role == "assistant"]
    return {
        "id": fields.get("id"),
        "text": found["text"],
        "persona": persona["persona"].lower() if persona else None,
        "label": target_label(answers[0]) if answers else None,
        "messages": fields["messages"],
    }


def target_label(target: str) -> str:
    """Return the label word of an assistant turn.

    >>> target_label('{{"classification": "not_hate"}}'), target_label("normal")
    ('not_hate', 'normal')
    """
    answer = target.strip()
    if not answer.startswith("{"):
        return answer
    if answer.startswith("{{") and answer.endswith("}}"):
        answer = answer[1:-1]
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the assistant turn is malformed JSON: {error}") from None
    for key in LABEL_KEYS:
        if isinstance(value.get(key), str):
            return value[key]
    raise ValueError(f"the assistant turn has no {' or '.join(LABEL_KEYS)}")


def _turns(messages: Any) -> list[tuple[str, str]]:
    if not isinstance(messages, list):
        raise ValueError("messages is not a list")
    turns = []
    for turn in messages:
        if not isinstance(turn, Mapping) or not all(
            isinstance(turn.get(key), str) for key in ("role", "content")
        ):
            raise ValueError("messages has a turn without role and content as strings")
        turns.append((turn["role"], turn["content"]))
    return turns
