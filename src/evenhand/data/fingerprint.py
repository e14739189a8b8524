"""One form for texts that differ only in case, width, spacing, mentioned user or link."""

from __future__ import annotations

import re
import unicodedata

from evenhand.core.paths import sha256_text

_URL = re.compile(r"(?:https?://|\bwww\.)\S+")
_MENTION = re.compile(r"(?<!\w)@\w+")


def normalise(text: str) -> str:
    r"""Return the text as it is compared: NFKC, case folded, spaces collapsed, placeholders.

    User mentions become ``<user>`` and links ``<url>``, as corpora write them. Unicode's own
    recipe for caseless matching (Unicode Standard, section 3.13) needs NFKC after folding too.

    >>> normalise("  Thank you,\n@Someone: https://example.org/a ")
    'thank you, <user>: <url>'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_MENTION.sub("<user>", _URL.sub("<url>", folded)).split())


def fingerprint(text: str) -> str:
    """Return 32 hex digits that equal texts share, equal meaning the same :func:`normalise`.

    >>> fingerprint("A  post") == fingerprint("a post")
    True
    """
    return sha256_text(normalise(text))[:32]
