"""The settings of production: serving, monitoring, review. All defaults are here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from evenhand.config.schema import StrictModel
from evenhand.config.values import Positive
from evenhand.core.registry import suggest

Share = Annotated[float, Field(gt=0, lt=1)]
GROUPS = ("lgbtq", "mexican", "middle_east")


class ServeConfig(StrictModel):
    """The limits of the server."""

    max_batch_rows: Positive = Field(default=64, description="Posts that are scored in one batch.")
    max_wait_ms: float = Field(
        default=5.0, ge=0, description="How long a batch waits for further posts when all is idle."
    )
    max_waiting_rows: Positive = Field(
        default=512, description="Posts that may wait; a request beyond them is answered 429."
    )
    max_request_rows: Positive = Field(default=256, description="Posts in one request.")
    max_text_chars: Positive = Field(default=20_000, description="Characters of one post.")
    max_body_bytes: Positive = Field(
        default=2_097_152, description="Bytes of a request's body; more is answered 413."
    )
    timeout_seconds: float = Field(
        default=30.0, gt=0, description="A request that waits longer is answered 503."
    )
    drain_seconds: float = Field(
        default=30.0, gt=0, description="After SIGTERM, how long accepted requests may take."
    )
    golden_tolerance: float | None = Field(
        default=None,
        gt=0,
        description="How far p(hate) of a golden row may be from its offline score; null: 0.001 "
        "in float32, 0.05 in 16-bit formats.",
    )


class AlarmConfig(StrictModel):
    """What raises an alarm."""

    max_group_fpr: Share | Mapping[str, Share] = Field(
        default=0.30, description="Bound on each group's FPR, or an object with one per group."
    )
    max_fpr_gap: float = Field(
        default=0.20, gt=0, le=1, description="Bound on a group's FPR above that of all others."
    )
    max_error_rate: Share = Field(
        default=0.01, description="Bound on the share of posts that could not be scored."
    )
    min_score_drift: float = Field(
        default=0.10,
        gt=0,
        description="Population stability index of the scores from which a proven drift alarms.",
    )
    min_mix_drift: float = Field(
        default=0.10, gt=0, description="The same for the mix of proposed groups."
    )
    alpha: Share = Field(
        default=0.05,
        description="The chance of a false alarm of each kind, over a release's whole life.",
    )


class WatchConfig(StrictModel):
    """What is stored, what is sampled for review, and what is estimated."""

    text: Literal["keep", "hmac", "drop"] = Field(
        default="keep",
        description="Keep posts, keep a keyed HMAC of them, or drop them; review needs kept text.",
    )
    retention_days: float = Field(
        default=30.0, gt=0, description="After these days a post's text and metadata are erased."
    )
    groups: tuple[str, ...] = Field(
        default=GROUPS,
        strict=False,
        min_length=1,
        description="The groups whose error rates are watched.",
    )
    proposer: str = Field(
        default="terms",
        min_length=1,
        description="Who proposes a post's groups: terms (the shipped lists), a JSON file with "
        "terms by group, caller (the request's own group), or module:function.",
    )
    labels_per_day: float = Field(
        default=200.0, gt=0, description="The labelling budget: posts that are reviewed a day."
    )
    posts_per_day: float = Field(
        default=1000.0, gt=0, description="Expected traffic, until traffic has been seen."
    )
    min_inclusion: Share = Field(
        default=0.01,
        description="No stratum is reviewed at a lower rate; bounds the weights of estimates.",
    )
    band_width: Share = Field(
        default=0.15, description="Scores this near the threshold are a stratum of their own."
    )
    plan_every_posts: Positive = Field(
        default=1000, description="The sampling rates are set anew after so many posts."
    )
    confidence: Share = Field(default=0.95, description="Of the time-uniform confidence sequences.")
    check_every_seconds: float = Field(
        default=60.0, gt=0, description="How often estimates and alarms are brought up to date."
    )
    alarms: AlarmConfig = Field(default_factory=AlarmConfig, description="What raises an alarm.")

    @model_validator(mode="after")
    def _bounds_are_of_watched_groups(self) -> Self:
        bounds = self.alarms.max_group_fpr
        unknown = (
            [] if isinstance(bounds, (int, float)) else [o for o in bounds if o not in self.groups]
        )
        if unknown:
            text = "; ".join(
                f'alarms.max_group_fpr names "{one}", which groups does not list'
                f"{suggest(one, self.groups)}"
                for one in unknown
            )
            raise PydanticCustomError("evenhand", "{message}", {"message": text})
        return self


class ReviewConfig(StrictModel):
    """How reviewers work."""

    second_review_share: float = Field(
        default=0.2, ge=0, le=1, description="Share of posts that two reviewers label."
    )
    golden_share: float = Field(
        default=0.05, ge=0, le=0.5, description="Share of a reviewer's posts with a known answer."
    )
    session_items: Positive = Field(default=60, description="Posts before a break is due.")
    session_minutes: float = Field(default=50.0, gt=0, description="Minutes before a break is due.")
    break_minutes: float = Field(default=10.0, ge=0, description="The length of a break.")
    day_items: Positive = Field(default=250, description="Posts a reviewer may label in a day.")
    login_hours: float = Field(default=10.0, gt=0, description="How long a login lasts.")
    lease_minutes: float = Field(
        default=15.0, gt=0, description="How long a post is kept for the reviewer who opened it."
    )


class ProductionConfig(StrictModel):
    """The settings file of ``evenhand serve``."""

    serve: ServeConfig = Field(default_factory=ServeConfig, description="Limits of the server.")
    watch: WatchConfig = Field(default_factory=WatchConfig, description="Storing and monitoring.")
    review: ReviewConfig = Field(default_factory=ReviewConfig, description="Reviewers' work.")
