"""Errors as callers see them: OpenAI's shape, for every route of the API.

``{"error": {"message", "type", "param", "code", "request_id", "problems"?}}``. No answer repeats
what the caller sent: it may be a post.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from evenhand.core.errors import Problem
from evenhand.serve.schemas import LONE_SURROGATE

REVIEW_PATH = "/review"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_FIELDS = frozenset({"posts", "text", "id", "group", "metadata", "input", "model"})
_MOST_PROBLEMS = 20


class ApiError(Exception):
    """Ends a request with a status and a message for the caller.

    Attributes:
        code: a short name that a program can compare.
        param: the field at fault.
        problems: each place at fault with what is wrong there.
        retry_after_seconds: for 429 and 503.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        problems: Sequence[Problem] = (),
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.problems = tuple(problems)
        self.retry_after_seconds = retry_after_seconds

    def response(
        self, request_id: str | None, *, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        """Return the answer."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": _TYPES.get(self.status, "server_error"),
            "param": self.param,
            "code": self.code,
            "request_id": request_id,
        }
        if self.problems:
            error["problems"] = [
                {"place": one.place, "message": one.message} for one in self.problems
            ]
        sent = dict(headers or {})
        if self.retry_after_seconds is not None:
            sent["Retry-After"] = str(self.retry_after_seconds)
        if self.status == HTTPStatus.UNAUTHORIZED:
            sent["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": error}, self.status, headers=sent)


def plain_error(status: int) -> ApiError:
    """Return the error for a status that needs no more words."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return ApiError(status, phrase, code=phrase.lower().replace(" ", "_").replace("-", "_"))


def validation_error(errors: Sequence[Mapping[str, Any]], *, status: int) -> ApiError:
    """Return the error for a body that does not fit its schema, with every place at fault."""
    if any(error["type"] == "json_invalid" for error in errors):
        return unreadable_body()
    return problems_error(
        [Problem(_place(error["loc"]), _words(error)) for error in errors], status=status
    )


def problems_error(problems: Sequence[Problem], *, status: int) -> ApiError:
    """Return the error for these problems; the first place is the error's ``param``."""
    shown = problems[:_MOST_PROBLEMS]
    message = "; ".join(f"{one.place}: {one.message}" for one in shown)
    if len(problems) > len(shown):
        message += f"; and {len(problems) - len(shown)} more"
    return ApiError(status, message, code="invalid_body", param=shown[0].place, problems=shown)


def unreadable_body() -> ApiError:
    """Return the error for a body that is not JSON at all."""
    return ApiError(400, "the body is not valid JSON in UTF-8", code="invalid_json")


def _place(location: Sequence[Any]) -> str:
    """Write ``("body", "posts", 3, "text")`` as ``posts[3].text``.

    A key that the caller made up is not repeated.
    """
    place = ""
    for part in location[1:]:
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            name = part if part in _FIELDS else "(unknown field)"
            place += f".{name}" if place else name
    return place or "body"


def _words(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind in ("model_attributes_type", "dict_type") and len(error["loc"]) == 1:
        return "must be a JSON object, sent with Content-Type: application/json"
    if kind == "string_unicode":
        return LONE_SURROGATE
    if kind == "extra_forbidden":
        return "is not known here"
    if kind == "string_pattern_mismatch":
        return "has control characters"
    # The words of all other kinds are pydantic's, about lengths, types and missing fields.
    return str(error["msg"])
