"""The records of production: what is served, what it answers, and what reviewers found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from evenhand.core.decisions import Binding, Deployment, Outcome
from evenhand.core.evaluation import Record
from evenhand.core.paths import sha256_json

PostStatus = Literal["ok", "error"]


class Override(Record):
    """A problem that would have kept a server from starting, and why it started nevertheless.

    Attributes:
        code: the problem's short name, ``gate_failed`` for example.
        message: the problem in words, with its place.
        reason: what the operator gave as the reason.
    """

    code: str
    message: str
    reason: str


class Release(Record):
    """One model at one threshold, as it is served.

    Attributes:
        model: the run's name.
        binding: the hashes of the run's inputs, adapter, prompt and base model.
        threshold: decided hate from this p(hate) on.
        temperature: of the calibrated probability; None where no calibration was fitted.
        outcome: the gate's verdict; None where the server was told to start without one.
        deployment: status, conditions, duties and their dates; None likewise.
        overrides: what the operator accepted at this start.
    """

    model: str
    binding: Binding
    threshold: float
    temperature: float | None
    outcome: Outcome | None
    deployment: Deployment | None
    overrides: tuple[Override, ...] = ()

    @property
    def sha256(self) -> str:
        """The hash of all that decides an answer: two starts of one release share it."""
        return sha256_json(
            {
                "binding": self.binding.model_dump(mode="json"),
                "threshold": self.threshold,
                "temperature": self.temperature,
            }
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One post as it was answered, before it is stored.

    Attributes:
        id: the server's own id, unique; it sorts by time.
        time: when it was answered, in UTC.
        text: the post, verbatim.
        status: ``error`` where it could not be scored; score and decision are None then.
        score: p(hate).
        probability: the calibrated probability; None without a calibration.
        decision: ``hate`` or ``normal``.
        caller_id: the caller's own id of the post.
        caller_group: the group that the caller says it speaks of.
        metadata: what else the caller sent.
    """

    id: str
    time: datetime
    text: str
    status: PostStatus
    score: float | None
    probability: float | None
    decision: str | None
    caller_id: str | None = None
    caller_group: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
