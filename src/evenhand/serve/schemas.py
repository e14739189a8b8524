"""Bodies of requests and answers, as they stand in the OpenAPI schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from evenhand.core.decisions import Binding, Outcome
from evenhand.core.production import Override

# PostgreSQL stores no NUL, and no id or group has use for a control character.
_NAME_PATTERN = r"^[^\x00-\x1f\x7f]+$"
_VALUE_PATTERN = r"^[^\x00]*$"
_MOST_ENTRIES, _LONGEST_KEY, _LONGEST_VALUE = 32, 64, 1024
_LARGEST_NUMBER = 2**53  # beyond it JSON readers disagree about integers
_MOST_FIELDS = 8


def _check_text(text: str) -> str:
    if is_blank(text):
        raise PydanticCustomError("blank", BLANK)
    if not is_unicode(text):
        raise PydanticCustomError("surrogate", LONE_SURROGATE)
    return text


def is_blank(text: str) -> bool:
    """Whether a text says nothing: empty or white space."""
    return not text or text.isspace()


BLANK = "is empty or white space"
TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1, "pattern": r"\S"}
PostText = Annotated[str, AfterValidator(_check_text), WithJsonSchema(TEXT_SCHEMA)]
CallerId = Annotated[str, Field(min_length=1, max_length=256, pattern=_NAME_PATTERN)]
CallerGroup = Annotated[str, Field(min_length=1, max_length=64, pattern=_NAME_PATTERN)]


def _check_metadata(entries: dict[Any, Any]) -> dict[str, Any]:
    """Refuse entries that could not be stored everywhere; keys are not repeated in messages."""
    if len(entries) > _MOST_ENTRIES:
        raise _unfit(f"has {len(entries)} entries; at most {_MOST_ENTRIES}")
    for number, (key, value) in enumerate(entries.items()):
        if not (0 < len(key) <= _LONGEST_KEY and re.fullmatch(_NAME_PATTERN, key)):
            raise _unfit(
                f"entry {number}: a key has 1 to {_LONGEST_KEY} characters, no control characters"
            )
        if isinstance(value, str):
            fits = len(value) <= _LONGEST_VALUE and "\x00" not in value
        elif isinstance(value, int | float):
            fits = abs(value) <= _LARGEST_NUMBER  # false for NaN
        else:
            fits = value is None
        if not fits:
            raise _unfit(
                f"entry {number}: a value is a string of at most {_LONGEST_VALUE} characters "
                f"without NUL, a number up to 2^53, true, false or null"
            )
        if not (is_unicode(key) and is_unicode(str(value))):
            raise _unfit(f"entry {number}: {LONE_SURROGATE}")
    return entries


LONE_SURROGATE = "has a lone surrogate, which is no character: send valid Unicode"


def is_unicode(text: str) -> bool:
    r"""Whether a text can be encoded: JSON may name lone surrogates, which are no characters.

    >>> is_unicode("\ud83d"), is_unicode("😀")
    (False, True)
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _unfit(message: str) -> PydanticCustomError:
    return PydanticCustomError("metadata", "{message}", {"message": message})


Metadata = Annotated[
    dict[Any, Any],
    AfterValidator(_check_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": _MOST_ENTRIES,
            "propertyNames": {
                "minLength": 1,
                "maxLength": _LONGEST_KEY,
                "pattern": _NAME_PATTERN,
            },
            "additionalProperties": {
                "anyOf": [
                    {"type": "string", "maxLength": _LONGEST_VALUE, "pattern": _VALUE_PATTERN},
                    {
                        "type": "number",
                        "minimum": -_LARGEST_NUMBER,
                        "maximum": _LARGEST_NUMBER,
                    },
                    {"type": "boolean"},
                    {"type": "null"},
                ]
            },
        }
    ),
]


class Body(BaseModel):
    """A request's body: no unknown fields, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, data: Any) -> Any:
        # Each unknown field would be a problem of its own: a body can hold a quarter of a million.
        if isinstance(data, dict) and len(data) > _MOST_FIELDS:
            found, known = len(data), ", ".join(cls.model_fields)
            raise PydanticCustomError(
                "fields",
                "has {found} fields; those known are: {known}",
                {"found": found, "known": known},
            )
        return data


class Post(Body):
    """One post."""

    text: PostText = Field(description="The post, verbatim; not only white space.")
    id: CallerId | None = Field(
        default=None, description="Your own id of the post; stored, given back, never interpreted."
    )
    group: CallerGroup | None = Field(
        default=None, description="The group that you believe the post speaks of."
    )
    metadata: Metadata | None = Field(
        default=None,
        description="Up to 32 names with strings, numbers, true, false or null; stored with the "
        "text and erased with it.",
    )


class ClassifyRequest(Body):
    """Posts to classify."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "posts": [
                        {"id": "a-1", "text": "What a lovely parade that was."},
                        {"text": "I hate [group].", "metadata": {"forum": "news"}},
                    ]
                }
            ]
        }
    )

    posts: list[Post] = Field(min_length=1)


class Answered(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True)


class PostResult(Answered):
    """The answer for one post."""

    id: str | None = Field(description="Your own id of the post.")
    post_id: str = Field(description="The server's id of the post; ids sort by time.")
    score: float = Field(ge=0, le=1, description="p(hate), as the model gives it.")
    probability: float | None = Field(
        ge=0, le=1, description="The calibrated probability; null where no calibration was fitted."
    )
    decision: Literal["hate", "normal"] = Field(
        description="hate where the score is at least the threshold."
    )
    threshold: float


class BaseHashes(Answered):
    """Which model answered."""

    name: str = Field(description="The run's name.")
    release: str = Field(description="Hash of all that decides an answer.")
    adapter: str | None = Field(description="Hash of the adapter's weights; null without one.")
    prompt: str | None = Field(description="Hash of the prompt.")
    base: str | None = Field(description="Hash of the base model.")


class ClassifyAnswer(Answered):
    """Answers in the order of the posts."""

    id: str = Field(description="The request's id, also in the header X-Request-ID.")
    results: tuple[PostResult, ...]
    model: BaseHashes


class ModelAnswer(BaseHashes):
    """The release that answers."""

    binding: Binding
    threshold: float
    temperature: float | None
    outcome: Outcome | None = Field(description="The gate's verdict.")
    conditions: tuple[Mapping[str, str], ...] = Field(
        description="The duties of the deployment, with owner and due date."
    )
    next_action: str | None
    due: str | None
    evaluated: tuple[str, ...] = ("hate",)


class GoldenProof(Answered):
    """Posts that were scored again at the start and compared with their offline scores."""

    rows: int
    max_difference: float
    tolerance: float


class AdapterProof(Answered):
    """How it is known that the adapter answers, not the base model."""

    difference: float | None = Field(
        description="Largest difference of p(hate) with and without the adapter."
    )
    proof: str


class ReadyAnswer(Answered):
    """Whether requests are answered, and what was proved at the start."""

    status: Literal["ready", "not_ready"]
    reasons: tuple[str, ...]
    model: str
    release: str
    outcome: Outcome | None
    golden: GoldenProof
    adapter: AdapterProof
    overrides: tuple[Override, ...] = Field(
        description="Problems that the operator accepted at the start."
    )


class HealthAnswer(Answered):
    """The process runs."""

    status: Literal["ok", "failed"]


class ErrorProblem(Answered):
    """One thing that is wrong in a request."""

    place: str
    message: str


class ErrorDetail(Answered):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str | None
    problems: tuple[ErrorProblem, ...] | None = None


class ErrorAnswer(Answered):
    """Every error of the API has this form."""

    error: ErrorDetail
