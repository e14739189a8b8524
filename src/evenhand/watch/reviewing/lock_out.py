"""Delays after failed logins, in the memory of one server process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from evenhand.core.errors import EvenhandError


class LoginError(EvenhandError):
    """A name and password that do not open a login; says no more than that."""


class LockedOutError(LoginError):
    """A name with too many failures; ``until`` is when it may be tried again."""

    def __init__(self, *, until: datetime, now: datetime) -> None:
        seconds = max(1, round((until - now).total_seconds()))
        super().__init__(f"too many failed attempts; try again in {seconds} seconds")
        self.until = until


class LockOut:
    """Delays after repeated failures of a name, in memory: doubling from the fifth on.

    Args:
        free_failures: failures before the first delay.
        first_seconds: the first delay.
        longest_seconds: no delay is longer, so that nobody can be locked out for good.
        names: how many names are remembered; the oldest are forgotten first.
    """

    def __init__(
        self,
        *,
        free_failures: int = 5,
        first_seconds: float = 15.0,
        longest_seconds: float = 900.0,
        names: int = 10_000,
    ) -> None:
        self._free_failures = free_failures
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._names = names
        self._failures: OrderedDict[str, tuple[int, datetime]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, name: str, *, now: datetime) -> None:
        """Count an attempt as failed until it succeeds, so that parallel ones are counted too.

        Raises:
            LockedOutError: the name must wait.
        """
        with self._lock:
            failures, until = self._failures.get(name, (0, now))
            if now < until:
                raise LockedOutError(until=until, now=now)
            failures += 1
            beyond = failures - self._free_failures
            if beyond >= 0:
                # 2 ** 20 already exceeds every sensible longest delay.
                seconds = self._first_seconds * 2.0 ** min(beyond, 20)
                until = now + timedelta(seconds=min(seconds, self._longest_seconds))
            self._failures[name] = (failures, until)
            self._failures.move_to_end(name)
            while len(self._failures) > self._names:
                self._failures.popitem(last=False)

    def succeed(self, name: str) -> None:
        """Forget the failures of a name."""
        with self._lock:
            self._failures.pop(name, None)
