"""What every request passes first and last: its id, headers, its log line, the last resort."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evenhand.serve.answering import CLIENT_GONE
from evenhand.serve.errors import REVIEW_PATH, ApiError
from evenhand.serve.ids import IdMaker
from evenhand.serve.logs import log_failure, log_request
from evenhand.serve.metrics import Metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Set on every answer that does not set them itself."""


class Edge:
    """Gives a request its id, and sees to it that it is answered, counted and logged.

    It stands outside of all else that the app does.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, ids: IdMaker) -> None:
        self.app = app
        self.metrics = metrics
        self.ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = f"req_{self.ids.make(datetime.now(UTC))}"
        status = 0  # nothing has been sent

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["app"].state.serving.is_draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        except Exception as error:  # the last resort: a caller gets an answer, the log the place
            log_failure("request failed", error, request_id=request_id)
            if status:
                raise RuntimeError("an answer was broken off; see the line before") from None
            message = f"this should not have happened; the server's log says more of {request_id}"
            await ApiError(500, message, code="internal_error").response(request_id)(
                scope, receive, send_marked
            )
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            self.metrics.requests.labels(route, str(status or CLIENT_GONE)).inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            log_request(
                request_id=request_id,
                route=route,
                method=scope["method"] if scope["method"] in METHODS else "other",
                status=status or CLIENT_GONE,
                seconds=seconds,
                **{name: state[name] for name in ("rows", "key") if state.get(name) is not None},
            )


def _route(scope: Scope) -> str:
    """Return the route's pattern: what a caller made up must not reach logs or labels."""
    path = getattr(scope.get("route"), "path", "unmatched")
    if scope["path"].startswith(f"{REVIEW_PATH}/") and not path.startswith(REVIEW_PATH):
        return REVIEW_PATH + path
    return path
