"""Ids that sort by time and cannot be guessed."""

from __future__ import annotations

import secrets
import threading
from datetime import datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80
_STEP_BITS = 64


class IdMaker:
    """Makes ULIDs: 48 bits of milliseconds, then 80 random bits, as 26 characters of base 32.

    An id is greater than every earlier one of this maker, also within a millisecond and when the
    clock is set back. Threads may share a maker. Specification: https://github.com/ulid/spec
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def make(self, now: datetime) -> str:
        """Return a new id for this time."""
        fresh = int(now.timestamp() * 1000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        with self._lock:
            if fresh <= self._last or fresh >> _RANDOM_BITS == self._last >> _RANDOM_BITS:
                # The step is random as well: an id does not tell its neighbours.
                fresh = self._last + 1 + secrets.randbits(_STEP_BITS)
            self._last = fresh
        return "".join(_ALPHABET[fresh >> shift & 31] for shift in range(125, -1, -5))
