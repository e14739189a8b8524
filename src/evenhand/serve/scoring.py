"""From posts to answers: scores, calibrated probabilities, decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from evenhand.core.errors import EvenhandError
from evenhand.core.production import Answer, Release
from evenhand.core.records import HATE, NORMAL

Scorer = Callable[[Sequence[str]], np.ndarray]
"""Returns p(hate) of each text, shape (n,), in order."""


class ScoringError(EvenhandError):
    """The model gave no usable scores."""


@dataclass(frozen=True, slots=True)
class AskedPost:
    """One post as a caller sent it, with the id that the server gave it."""

    id: str
    text: str
    caller_id: str | None = None
    caller_group: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Judge:
    """Scores posts and decides each at a release's threshold.

    ``calibrate`` turns scores into probabilities; None where no calibration was fitted.
    """

    scorer: Scorer
    threshold: float
    calibrate: Callable[[np.ndarray], np.ndarray] | None

    def judge(
        self, posts: Sequence[AskedPost], *, now: Callable[[], datetime]
    ) -> tuple[Answer, ...]:
        """Return the answers in order.

        Raises:
            ScoringError: there is not one finite number between 0 and 1 for each post. Whatever the
                scorer raises is passed on.
        """
        scores = np.asarray(self.scorer([post.text for post in posts]), dtype=np.float64)
        if scores.shape != (len(posts),):
            raise ScoringError(f"{len(posts)} posts were given scores of the shape {scores.shape}")
        if not ((scores >= 0) & (scores <= 1)).all():  # false for NaN as well
            raise ScoringError("a score is not a number between 0 and 1")
        probabilities = [None] * len(posts) if self.calibrate is None else self.calibrate(scores)
        time = now()
        return tuple(
            _answer(
                post,
                time=time,
                score=score,
                probability=None if probability is None else float(probability),
                decision=HATE if score >= self.threshold else NORMAL,
            )
            for post, score, probability in zip(posts, scores.tolist(), probabilities, strict=True)
        )


def make_judge(scorer: Scorer, release: Release) -> Judge:
    """Return the judge of a release."""
    if release.temperature is None:
        return Judge(scorer, release.threshold, None)
    # Imported where it is needed: scipy takes seconds to load.
    from evenhand.measure.calibration import calibrate

    return Judge(scorer, release.threshold, partial(calibrate, temperature=release.temperature))


def failed_answers(posts: Sequence[AskedPost], *, time: datetime) -> tuple[Answer, ...]:
    """Return what is stored of posts that could not be scored."""
    return tuple(
        _answer(post, time=time, score=None, probability=None, decision=None) for post in posts
    )


def _answer(
    post: AskedPost,
    *,
    time: datetime,
    score: float | None,
    probability: float | None,
    decision: str | None,
) -> Answer:
    return Answer(
        id=post.id,
        time=time,
        text=post.text,
        status="error" if score is None else "ok",
        score=score,
        probability=probability,
        decision=decision,
        caller_id=post.caller_id,
        caller_group=post.caller_group,
        metadata=post.metadata or {},
    )
