"""What is kept of a post: the text itself, a keyed HMAC of it, or nothing; and for how long."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from evenhand.config.production_schema import WatchConfig
from evenhand.core.errors import ConfigError, Problem

TextPolicy = Literal["keep", "hmac", "drop"]

KEY_VARIABLE = "EVENHAND_TEXT_KEY"
KEY_BYTES = 32

# PostgreSQL cannot store U+0000; this is the visible symbol for it.
_NUL, _SYMBOL_FOR_NUL = "\x00", "\u2400"


@dataclass(frozen=True, slots=True)
class KeptText:
    """What is stored of one post, in the columns' names; ``text_until`` is when it is erased."""

    text: str | None
    text_hmac: str | None
    meta: dict[str, Any] | None
    text_until: datetime | None


def read_text_key(watch: WatchConfig, environment: Mapping[str, str]) -> bytes | None:
    """Return the key of the HMAC policy from ``EVENHAND_TEXT_KEY``; None for other policies.

    Raises:
        ConfigError: the policy needs the key, and it is missing or shorter than 32 bytes.
    """
    if watch.text != "hmac":
        return None
    key = environment.get(KEY_VARIABLE, "").encode("utf-8", "surrogateescape")
    check_text_key(watch, key or None)
    return key


def check_text_key(watch: WatchConfig, key: bytes | None) -> None:
    """Refuse the HMAC policy without a key that is long enough (:class:`ConfigError`)."""
    if watch.text != "hmac" or (key is not None and len(key) >= KEY_BYTES):
        return
    found = "is not set" if key is None else f"has {len(key)} bytes"
    raise ConfigError(
        "the production configuration",
        [
            Problem(
                "watch.text",
                f'"hmac" needs a key of at least {KEY_BYTES} bytes in the environment variable '
                f"{KEY_VARIABLE}, which {found}",
            )
        ],
        hint="make one, and keep it as you keep passwords: "
        "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        consequence="nothing was started",
    )


def keep_text(
    text: str, metadata: Mapping[str, Any], *, watch: WatchConfig, key: bytes | None, now: datetime
) -> KeptText:
    """Return what the policy lets be stored of a post that was answered at ``now``.

    Metadata is kept with kept text only: it may say as much about a person as the text.
    """
    if watch.text == "drop":
        return KeptText(None, None, None, None)
    until = now + timedelta(days=watch.retention_days)
    if watch.text == "hmac":
        if key is None:
            raise ValueError("the policy hmac needs a key")
        return KeptText(None, text_hmac(text, key), None, until)
    meta = _storable_json(metadata) if metadata else None
    return KeptText(storable(text), None, meta, until)


def text_hmac(text: str, key: bytes) -> str:
    """Return the HMAC-SHA256 (RFC 2104) of a text in UTF-8, in hex.

    Who holds the key can ask whether a given text was posted; nobody can read it back.

    >>> text_hmac("what do ya want for nothing?", b"Jefe")
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'
    """
    return hmac.new(key, text.encode("utf-8"), hashlib.sha256).hexdigest()


def storable(text: str) -> str:
    r"""Return a text in the form in which every database stores it: U+0000 becomes U+2400.

    >>> storable("a\x00b") == "a\u2400b"
    True
    """
    return text.replace(_NUL, _SYMBOL_FOR_NUL)


def _storable_json(value: Any) -> Any:
    """Return a JSON value without U+0000, and null for numbers that JSON has no word for."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable(str(key)): _storable_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable_json(item) for item in value]
    return value
