"""API keys: ``Authorization: Bearer eh_...``, checked before a body is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from evenhand.serve.errors import ApiError
from evenhand.serve.logs import log_failure

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST_KEY = 256


class Keys(Protocol):
    """Who knows the keys: :class:`evenhand.watch.store.keys.KeyRing`."""

    @property
    def is_empty(self) -> bool:
        """Whether no key was ever made, revoked ones included."""
        ...

    def check(self, key: str) -> str | None:
        """Return the name of a valid key, in a time that does not depend on how wrong it is."""
        ...


class Door:
    """Decides who may enter; with ``keyless`` everybody, until the first key was made."""

    def __init__(self, keys: Keys, *, keyless: bool) -> None:
        self._keys = keys
        self._keyless = keyless

    def admit(self, headers: Headers) -> str | None:
        """Return the name of the caller's key; None for a caller who needs none.

        Raises:
            ApiError: 401.
        """
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip()
        is_key = scheme.lower() == "bearer" and 0 < len(key) <= _LONGEST_KEY
        if self._keyless and self._keys.is_empty:
            # A page that a browser on this machine shows must not ask under a name of its own.
            if _host_name(headers) not in LOOPBACK_NAMES:
                raise ApiError(
                    401, "without a key, address the server as localhost", code="host_not_local"
                )
            return None
        name = self._keys.check(key) if is_key and key.isascii() else None
        if name is None:
            message = "send a valid key: Authorization: Bearer eh_..."
            code = "invalid_api_key" if is_key else "missing_api_key"
            raise ApiError(401, message, code=code)
        return name


class RequireKey:
    """Lets requests to the given paths in with a key only."""

    def __init__(self, app: ASGIApp, *, door: Door, prefixes: Iterable[str]) -> None:
        self.app = app
        self.door = door
        self.prefixes = tuple(prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on with the key's name in its state."""
        if scope["type"] == "http" and scope["path"].startswith(self.prefixes):
            try:
                name = await run_in_threadpool(self.door.admit, Headers(scope=scope))
            except Exception as error:
                if not isinstance(error, ApiError):
                    log_failure("keys could not be read", error)
                    error = ApiError(
                        503,
                        "keys cannot be checked now; try again",
                        code="keys_unavailable",
                        retry_after_seconds=5,
                    )
                response = error.response(scope["state"].get("request_id"))
                await response(scope, receive, send)
                return
            scope["state"]["key"] = name
        await self.app(scope, receive, send)


def _host_name(headers: Headers) -> str:
    host = headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] or host if ":" in host else host
