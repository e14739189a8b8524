"""What a server is made of: the release, who scores, where answers are stored, what was proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from evenhand.core.production import Answer, Release
from evenhand.serve.scoring import Scorer
from evenhand.watch.store.database import Database


@dataclass(frozen=True, slots=True)
class Readiness:
    """What was proved before the server took its first request.

    Attributes:
        golden_rows: posts that were scored again and compared with their offline scores.
        golden_max_difference: the largest difference of p(hate) among them.
        golden_tolerance: the difference that was allowed.
        adapter_difference: the largest difference of p(hate) with and without the adapter; None
            where the model has no adapter.
        adapter_proof: in words, how it is known that the adapter answers.
    """

    golden_rows: int
    golden_max_difference: float
    golden_tolerance: float
    adapter_difference: float | None
    adapter_proof: str


class Recorder(Protocol):
    """Who stores answers: :class:`evenhand.watch.store.intake.Intake`."""

    def record(self, answers: Sequence[Answer]) -> None:
        """Store the answers in one transaction, or raise."""
        ...


@dataclass(frozen=True)
class Service:
    """All that :func:`evenhand.serve.app.create_app` needs.

    Attributes:
        scorer: called from one thread alone.
        database: where keys, posts and reviews are; open.
        intake: stores answers; called from one thread alone.
        keyless: whether requests without a key are answered while the database has never had a
            key. Only for a server that is bound to a loopback address.
        rng: the randomness of the review pages.
    """

    release: Release
    scorer: Scorer
    database: Database
    intake: Recorder
    readiness: Readiness
    keyless: bool = False
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
