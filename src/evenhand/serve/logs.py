"""Structured logs: one JSON line per request, without a word of any post."""

from __future__ import annotations

import json
import logging
import math
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from evenhand.core.errors import EvenhandError

LOGGER = logging.getLogger("evenhand.serve")
LOGGERS = {
    LOGGER.name: logging.INFO,
    "evenhand.watch": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "asyncio": logging.WARNING,
}
"""Whose lines the server writes, and from which level on."""


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: ``time``, ``level``, ``event`` and the fields.

    Of an exception it writes the type and the places in the code, not the message: that of another
    library may quote the post that it failed on. Evenhand's own messages are written.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            # asyncio's further lines show an exception with its message.
            "event": record.getMessage().partition("\n")[0],
            **getattr(record, "fields", {}),
        }
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line |= describe_error(error)
        return json.dumps(line, ensure_ascii=True)


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return an exception's type and the places it came through, without foreign messages."""
    described: dict[str, Any] = {
        "error": type(error).__name__,
        "at": _places(error.__traceback__),
    }
    if isinstance(error, EvenhandError):
        described["message"] = error.message
    cause = error.__cause__ or error.__context__
    if cause is not None:
        described["cause"] = type(cause).__name__
    return described


def log_failure(event: str, error: BaseException, **fields: Any) -> None:
    """Log that something failed."""
    LOGGER.error(event, extra={"fields": fields}, exc_info=error)


def log_request(
    *, request_id: str, route: str, method: str, status: int, seconds: float, **fields: Any
) -> None:
    """Log one answered request; ``fields`` has ``rows`` and ``key`` where they are known."""
    LOGGER.info(
        "request",
        extra={
            "fields": {
                "request_id": request_id,
                "route": route,
                "method": method,
                "status": status,
                "latency_ms": math.ceil(seconds * 1e5) / 100,
                **fields,
            }
        },
    )


def start_logging(stream: TextIO | None = None) -> None:
    """Write the server's lines, and those of what it runs on, as JSON to ``stream`` (or stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in LOGGERS.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-8:]
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
