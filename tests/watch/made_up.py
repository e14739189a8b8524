"""Releases, posts and labels that tests of the monitor make up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from evenhand.config.production import load_production
from evenhand.config.production_schema import ProductionConfig
from evenhand.core.decisions import Binding
from evenhand.core.production import Answer, Release
from evenhand.watch.store.database import Database
from evenhand.watch.store.intake import Intake
from evenhand.watch.store.proposer import Proposer, make_term_proposer
from evenhand.watch.store.tables import ItemRow

START = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
"""When made-up releases are first served."""

TERMS = {"lgbtq": ["gay", "trans"], "mexican": ["mexican"], "middle_east": ["arab"]}


def make_release(*, threshold: float = 0.5, run: str = "a" * 64, **changes: object) -> Release:
    """Return a release without a verdict."""
    binding = Binding(run=run, adapter="b" * 64, prompt="c" * 64, base="d" * 64)
    return Release(
        model="high_capacity",
        binding=binding,
        threshold=threshold,
        temperature=None,
        outcome=None,
        deployment=None,
    ).model_copy(update=changes)


def make_settings(*overrides: str) -> ProductionConfig:
    """Return the default settings with ``path=value`` changes."""
    return load_production(overrides=overrides)


def make_proposer(groups: Sequence[str] = tuple(TERMS)) -> Proposer:
    """Return a proposer of few terms."""
    return make_term_proposer("few", TERMS, groups)


def make_answer(
    number: int,
    text: str = "a post",
    *,
    score: float | None = 0.2,
    threshold: float = 0.5,
    time: datetime | None = None,
    caller_id: str | None = None,
    **more: object,
) -> Answer:
    """Return the answer to one post; without a score it is an error."""
    decided = None if score is None else ("hate" if score >= threshold else "normal")
    fields = {
        "id": f"post-{number:08d}",
        "time": time or START + timedelta(seconds=number),
        "text": text,
        "status": "error" if score is None else "ok",
        "score": score,
        "probability": score,
        "decision": decided,
        "caller_id": caller_id,
    }
    return Answer(**{**fields, **more})  # pyright: ignore[reportArgumentType]


def make_answers(n: int, *, rng: np.random.Generator, first: int = 0) -> list[Answer]:
    """Return the answers to ``n`` posts, some of them about each group."""
    words = rng.choice(["a gay friend", "a mexican friend", "an arab friend", "a friend"], size=n)
    scores = rng.beta(0.6, 1.4, size=n)
    return [
        make_answer(first + i, f"{words[i]} number {first + i}", score=float(scores[i]))
        for i in range(n)
    ]


def start_intake(
    database: Database,
    release: Release | None = None,
    settings: ProductionConfig | None = None,
    *,
    seed: int = 0,
    text_key: bytes | None = None,
    now: datetime = START,
) -> Intake:
    """Return a started intake with the proposer of few terms."""
    settings = settings or make_settings()
    intake = Intake(
        database,
        release or make_release(),
        settings,
        make_proposer(),
        rng=np.random.default_rng(seed),
        text_key=text_key,
    )
    intake.start(now, reference={"set": "production", "fpr": {"lgbtq": 0.3}}, versions={})
    return intake


def settle(
    database: Database,
    item_ids: Iterable[int],
    *,
    label: str = "normal",
    groups: Sequence[str] = (),
    now: datetime = START + timedelta(days=1),
) -> None:
    """Give items a settled label directly, without reviews."""
    with database.session() as session:
        for item_id in item_ids:
            item = session.get_one(ItemRow, item_id)
            item.state, item.label, item.groups, item.closed = "done", label, list(groups), now
