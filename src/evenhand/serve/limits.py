"""Limits that hold before a body is parsed: its bytes, and the time it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evenhand.serve.errors import ApiError

_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class _BodyTooLargeError(Exception):
    pass


class BodyLimit:
    """Reads a request's whole body before the app sees it, up to a limit; chunked bodies too."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or 408, or pass the request on."""
        if scope["type"] != "http" or scope["method"] not in _METHODS_WITH_BODY:
            await self.app(scope, receive, send)
            return
        try:
            self._check_stated(scope)
            async with asyncio.timeout(self.timeout_seconds):
                body = await self._read(receive)
        except _BodyTooLargeError:
            error = ApiError(
                413, f"the body has more than {self.max_bytes} bytes", code="body_too_large"
            )
        except TimeoutError:
            error = ApiError(408, "the body did not arrive in time", code="body_timeout")
        else:
            if body is not None:  # None: the client left
                await self.app(scope, _replay(body, receive), send)
            return
        # The connection stays: the server throws away the rest of the body, and a client that is
        # still sending does get the answer.
        response = error.response(scope["state"].get("request_id"))
        await response(scope, receive, send)

    def _check_stated(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self.max_bytes:
                raise _BodyTooLargeError

    async def _read(self, receive: Receive) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self.max_bytes:
                raise _BodyTooLargeError
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    was_given = False

    async def replay() -> Message:
        nonlocal was_given
        if was_given:
            return await receive()
        was_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
