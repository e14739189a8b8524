"""POST /v1/classify: score, calibrated probability and decision of each post."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from evenhand.core.production import Release
from evenhand.serve.answering import answer_posts, check_count, check_lengths, serving_of
from evenhand.serve.schemas import (
    BaseHashes,
    ClassifyAnswer,
    ClassifyRequest,
    ErrorAnswer,
    ModelAnswer,
    PostResult,
)
from evenhand.serve.scoring import AskedPost

router = APIRouter(tags=["classify"])

ERRORS = {
    401: {"model": ErrorAnswer, "description": "The key is missing or not valid."},
    408: {"model": ErrorAnswer, "description": "The body did not arrive in time."},
    413: {"model": ErrorAnswer, "description": "The body is too large, or has too many posts."},
    429: {"model": ErrorAnswer, "description": "Too many posts wait; see Retry-After."},
    500: {"model": ErrorAnswer, "description": "The model could not score the request."},
    503: {
        "model": ErrorAnswer,
        "description": "Timeout, or the answer could not be stored; see Retry-After.",
    },
}


async def refuse_too_many(request: Request) -> None:
    """Count the posts; dependencies run before the body is held against its schema.

    Raises:
        ApiError: 413.
    """
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        return  # the schema's own check says so
    if isinstance(body, dict):
        check_count(body.get("posts"), place="posts", settings=serving_of(request).settings)


@router.post(
    "/v1/classify",
    response_model=ClassifyAnswer,
    dependencies=[Depends(refuse_too_many)],
    responses={
        **ERRORS,
        400: {"model": ErrorAnswer, "description": "The body is not readable."},
        422: {"model": ErrorAnswer, "description": "The body does not fit; each place is named."},
    },
)
async def classify(request: Request, body: ClassifyRequest) -> Response:
    """Classify posts.

    Every answer has been stored before it is given. A request that failed may be sent again; posts
    that had been stored are then stored a second time under new ids.
    """
    serving = serving_of(request)
    check_lengths(
        [post.text for post in body.posts],
        place="posts[{}].text",
        settings=serving.settings,
        status=422,
    )
    now = datetime.now(UTC)
    asked = [
        AskedPost(serving.ids.make(now), post.text, post.id, post.group, post.metadata)
        for post in body.posts
    ]
    answers = await answer_posts(request, asked)
    release = serving.service.release
    content = ClassifyAnswer(
        id=request.state.request_id,
        results=tuple(
            PostResult.model_construct(
                id=answer.caller_id,
                post_id=answer.id,
                score=answer.score,
                probability=answer.probability,
                decision=answer.decision,
                threshold=release.threshold,
            )
            for answer in answers
        ),
        model=hashes_of(release),
    )
    return Response(content.model_dump_json(), media_type="application/json")


@router.get("/v1/model", response_model=ModelAnswer, responses={401: ERRORS[401]}, tags=["release"])
async def model(request: Request) -> ModelAnswer:
    """Return the release that answers: hashes, threshold, gate, duties."""
    release = serving_of(request).service.release
    deployment = release.deployment
    return ModelAnswer(
        **hashes_of(release).model_dump(),
        binding=release.binding,
        threshold=release.threshold,
        temperature=release.temperature,
        outcome=release.outcome,
        conditions=() if deployment is None else deployment.conditions,
        next_action=None if deployment is None else deployment.next_action,
        due=None if deployment is None else deployment.due,
    )


def hashes_of(release: Release) -> BaseHashes:
    """Return which model answers."""
    return BaseHashes(
        name=release.model,
        release=release.sha256,
        adapter=release.binding.adapter,
        prompt=release.binding.prompt,
        base=release.binding.base,
    )
