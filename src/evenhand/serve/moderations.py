"""POST /v1/moderations: the form of OpenAI's moderation API, for the one category judged here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from evenhand.core.errors import Problem
from evenhand.core.production import Answer
from evenhand.core.records import HATE
from evenhand.serve.answering import answer_posts, check_count, check_lengths, serving_of
from evenhand.serve.classify import ERRORS
from evenhand.serve.errors import ApiError, problems_error
from evenhand.serve.schemas import (
    BLANK,
    LONE_SURROGATE,
    TEXT_SCHEMA,
    Answered,
    ErrorAnswer,
    is_blank,
    is_unicode,
)
from evenhand.serve.scoring import AskedPost

router = APIRouter(tags=["moderation"])

PATH = "/v1/moderations"
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""The categories of OpenAI's omni-moderation models."""


def input_schemas(*, max_items: int, max_length: int) -> list[dict[str, Any]]:
    """Return the JSON schemas of the three forms that an input may have."""
    text = {**TEXT_SCHEMA, "maxLength": max_length}
    part = {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": text},
        "required": ["type", "text"],
    }
    return [
        text,
        {"type": "array", "items": text, "minItems": 1, "maxItems": max_items},
        {"type": "array", "items": part, "minItems": 1, "maxItems": max_items},
    ]


class ModerationRequest(BaseModel):
    """What to moderate. Unknown fields are ignored, as OpenAI's server ignores them."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [{"input": "I hate [group].", "model": "evenhand"}]},
    )

    input: Annotated[Any, WithJsonSchema({})] = Field(  # the app writes the schema, with limits
        description="One text, several texts, or the parts of one input: objects with type "
        '"text" and a text. Parts are joined by a line break and give one result. Images are '
        "refused."
    )
    model: str | None = Field(
        default=None, description="Accepted and ignored: one model is served, named in the answer."
    )


class ModerationResult(Answered):
    """The result of one input; only ``hate`` is judged."""

    flagged: bool = Field(description="Whether the decision is hate, at the release's threshold.")
    categories: dict[str, bool]
    category_scores: dict[str, float] = Field(
        description="hate: the calibrated probability where there is one, else the score."
    )
    category_applied_input_types: dict[str, tuple[Literal["text"], ...]] = Field(
        description='["text"] for a category that is judged, else empty.'
    )


class ModerationAnswer(Answered):
    """OpenAI's form, with ``evaluated`` naming the categories that are judged at all."""

    id: str
    model: str
    results: tuple[ModerationResult, ...]
    evaluated: tuple[Literal["hate"], ...]


@router.post(
    PATH,
    response_model=ModerationAnswer,
    responses={
        **ERRORS,
        400: {"model": ErrorAnswer, "description": "The body does not fit, or has an image."},
    },
)
async def moderate(request: Request, body: ModerationRequest) -> Response:
    """Moderate texts for hate, in the form of OpenAI's moderation API.

    **No replacement for a full moderation service**: twelve of the thirteen categories are not
    judged. They are false and 0 with empty `category_applied_input_types`, and `evaluated` names
    those that are judged.
    """
    serving = serving_of(request)
    check_count(body.input, place="input", settings=serving.settings)
    texts = _read_texts(body.input)
    check_lengths(texts, place="input[{}]", settings=serving.settings, status=400)
    now = datetime.now(UTC)
    asked = [AskedPost(serving.ids.make(now), text) for text in texts]
    answers = await answer_posts(request, asked)
    content = ModerationAnswer(
        id=f"modr-{request.state.request_id}",
        model=serving.service.release.model,
        results=tuple(_result(answer) for answer in answers),
        evaluated=("hate",),
    )
    return Response(content.model_dump_json(), media_type="application/json")


def _read_texts(value: Any) -> list[str]:
    """Return the texts to judge, one per result.

    Raises:
        ApiError: 400, with every place at fault.
    """
    if isinstance(value, str):
        found = [(value, "input")]
    elif isinstance(value, list) and value:
        found = [(one, f"input[{number}]") for number, one in enumerate(value)]
    else:
        message = "must be a text, or an array of texts or of parts with type and text"
        raise problems_error([Problem("input", message)], status=400)
    are_parts = isinstance(found[0][0], dict)
    texts = []
    problems = []
    for one, place in found:
        if are_parts and isinstance(one, dict):
            if one.get("type") == "image_url":
                message = "this model judges text only; image input is not supported"
                raise ApiError(400, message, code="image_not_supported", param=place)
            if one.get("type") != "text":
                problems.append(Problem(f"{place}.type", 'must be "text"'))
                continue
            text, place = one.get("text"), f"{place}.text"
        else:
            text = None if are_parts else one
        if not isinstance(text, str):
            problems.append(Problem(place, "must be a part" if are_parts else "must be a text"))
        elif is_blank(text):
            problems.append(Problem(place, BLANK))
        elif not is_unicode(text):
            problems.append(Problem(place, LONE_SURROGATE))
        else:
            texts.append(text)
    if problems:
        raise problems_error(problems, status=400)
    return ["\n".join(texts)] if are_parts else texts


def _result(answer: Answer) -> ModerationResult:
    flagged = answer.decision == HATE
    score = answer.score if answer.probability is None else answer.probability
    return ModerationResult.model_construct(
        flagged=flagged,
        categories={name: flagged and name == "hate" for name in CATEGORIES},
        category_scores={name: score if name == "hate" else 0.0 for name in CATEGORIES},
        category_applied_input_types={
            name: ("text",) if name == "hate" else () for name in CATEGORIES
        },
    )
