"""Did-you-mean suggestions for names that a user mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``'; did you mean "x"?'`` for the nearest known name, or an empty string.

    >>> suggest("qproj", ["q_proj", "v_proj"])
    '; did you mean "q_proj"?'
    >>> suggest("zzz", ["q_proj"])
    ''
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{matches[0]}"?' if matches else ""
