"""One request's way through the queue, and what becomes of it when it cannot be answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.errors import Problem
from evenhand.core.production import Answer
from evenhand.serve.batching import Batcher, QueueFullError, StoppedError, StoringError
from evenhand.serve.errors import ApiError
from evenhand.serve.ids import IdMaker
from evenhand.serve.metrics import Metrics
from evenhand.serve.scoring import AskedPost, ScoringError
from evenhand.serve.service import Service

CLIENT_GONE = 499


@dataclass
class Serving:
    """What the routes of one app share.

    Attributes:
        draining_since: by the monotonic clock, when the server was told to stop.
        is_drained: whether all that was accepted has been answered and stored.
    """

    service: Service
    settings: ProductionConfig
    batcher: Batcher
    metrics: Metrics
    ids: IdMaker
    draining_since: float | None = None
    is_drained: bool = False

    @property
    def is_draining(self) -> bool:
        """Whether the server was told to stop."""
        return self.draining_since is not None

    def begin_drain(self) -> None:
        """Note that the server was told to stop."""
        if self.draining_since is None:
            self.draining_since = time.monotonic()

    @property
    def drain_seconds_left(self) -> float:
        """How long storing may still take: what is left of the drain, but at least a second."""
        spent = 0.0 if self.draining_since is None else time.monotonic() - self.draining_since
        return max(self.settings.serve.drain_seconds - spent, 1.0)


def serving_of(request: Request) -> Serving:
    """Return what the app shares."""
    return request.app.state.serving


def check_count(posts: object, *, place: str, settings: ProductionConfig) -> None:
    """Check the number of posts before anything is said of each of them.

    A body of two megabytes can hold a million wrong posts, and the list of all that is wrong with
    them took a minute to make, in which nobody else was answered.

    Raises:
        ApiError: 413.
    """
    most = settings.serve.max_request_rows
    if isinstance(posts, list) and len(posts) > most:
        message = f"{len(posts)} posts in one request; at most {most}"
        raise ApiError(
            413, message, code="too_many_posts", param=place, problems=[Problem(place, message)]
        )


def check_lengths(
    texts: Sequence[str], *, place: str, settings: ProductionConfig, status: int
) -> None:
    """Check the length of each post, all problems at once.

    ``place`` is where post number {0} stands in the body, ``posts[{0}].text`` for example.

    Raises:
        ApiError: ``status``.
    """
    limits = settings.serve
    problems = [
        Problem(
            place.format(number),
            f"has {len(text)} characters; at most {limits.max_text_chars}",
        )
        for number, text in enumerate(texts)
        if len(text) > limits.max_text_chars
    ]
    if problems:
        message = "; ".join(f"{one.place} {one.message}" for one in problems[:20])
        raise ApiError(
            status, message, code="text_too_long", param=problems[0].place, problems=problems[:20]
        )


async def answer_posts(request: Request, posts: Sequence[AskedPost]) -> tuple[Answer, ...]:
    """Have posts scored and stored, and return their answers in order.

    Raises:
        ApiError: 429 (too many wait), 503 (timeout, storage, stopping), 500 (the model failed).
    """
    serving = serving_of(request)
    request.state.rows = len(posts)
    rejected = serving.metrics.rejected
    try:
        future = serving.batcher.submit(posts)
    except QueueFullError as error:
        rejected.labels("queue_full").inc()
        raise ApiError(
            429,
            f"too many posts wait; try again in {error.retry_after_seconds} s",
            code="queue_full",
            retry_after_seconds=error.retry_after_seconds,
        ) from None
    except StoppedError:
        raise _stopping(serving) from None
    answers = asyncio.wrap_future(future)
    left = asyncio.ensure_future(_client_left(request))
    try:
        done, _ = await asyncio.wait(
            (answers, left),
            timeout=serving.settings.serve.timeout_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
    except asyncio.CancelledError:  # the server stops, and this took too long
        raise _stopping(serving) from None
    finally:
        left.cancel()
        answers.cancel()  # no effect on answers that are there; else posts in the queue leave it
    if answers in done:
        return _given(answers)
    reason = "client_gone" if left in done else "timeout"
    rejected.labels(reason).inc()
    if left in done:
        raise ApiError(CLIENT_GONE, "the client left", code=reason)
    raise ApiError(
        503,
        f"not answered within {serving.settings.serve.timeout_seconds:g} s",
        code=reason,
        retry_after_seconds=serving.batcher.retry_after_seconds,
    )


def _stopping(serving: Serving) -> ApiError:
    serving.metrics.rejected.labels("stopping").inc()
    return ApiError(503, "the server is stopping", code="stopping", retry_after_seconds=1)


def _given(answers: asyncio.Future[tuple[Answer, ...]]) -> tuple[Answer, ...]:
    try:
        return answers.result()
    except ScoringError:
        message = "the model could not score this request; the server's log has the request id"
        raise ApiError(500, message, code="scoring_failed") from None
    except StoringError:
        message = "the decisions could not be stored, so none is given; try again"
        raise ApiError(503, message, code="storing_failed", retry_after_seconds=5) from None


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
