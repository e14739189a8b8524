"""What keeps the pages to their own people: headers, cookies, and where a form came from."""

from __future__ import annotations

import hmac

from starlette.requests import Request
from starlette.responses import Response

BASE = "/review"
"""Where the pages live; the cookies go nowhere else."""

LOGIN_COOKIE = "evenhand_review"
FORM_COOKIE = "evenhand_review_form"
"""Ties the login form to the browser that asked for it, before there is a login."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers would then send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def protect(response: Response, *, is_stored: bool = False) -> Response:
    """Put the security headers on a response; only static files may be stored by anyone."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if not is_stored:
        response.headers["Cache-Control"] = "no-store"
    return response


def is_from_here(request: Request) -> bool:
    """Whether a request that changes something was sent by a page of this server.

    Browsers say so in ``Sec-Fetch-Site``, which no page can forge (on HTTPS and loopback), else in
    ``Origin``, of which only the host is compared: behind a proxy that ends TLS the scheme is not
    known here. A client that sends neither is no browser and holds nobody else's cookie; the form's
    token still counts.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host", "")


def is_same(given: str | None, expected: str | None) -> bool:
    """Compare two tokens in constant time; a missing one is never the same."""
    if not given or not expected:
        return False
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def set_cookie(
    response: Response, request: Request, name: str, value: str, *, seconds: int
) -> None:
    """Set a cookie that scripts cannot read and other sites cannot cause to be sent."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=BASE,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def drop_cookie(response: Response, request: Request, name: str) -> None:
    """Make the browser forget a cookie."""
    response.delete_cookie(
        name,
        path=BASE,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
