"""Production as it could be: posts of known truth, scored, stored, sampled and reviewed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import select
from tests.watch.made_up import START, make_answer, make_settings, start_intake

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.production import Answer, Release
from evenhand.watch.store.database import Database
from evenhand.watch.store.intake import Intake
from evenhand.watch.store.tables import ItemRow

WORDS = {"lgbtq": "a gay friend", "mexican": "a mexican friend", "middle_east": "an arab friend"}
SHARES = {"lgbtq": 0.25, "mexican": 0.15, "middle_east": 0.15, "none": 0.45}
Truth = Mapping[str, tuple[bool, str]]
"""By post id: whether it is hate, and the group that it speaks of."""


def simulated_answers(
    n: int,
    *,
    rng: np.random.Generator,
    threshold: float = 0.5,
    lift: Mapping[str, float] | None = None,
    first: int = 0,
    start: datetime = START,
    seconds: float = 60.0,
) -> tuple[list[Answer], dict[str, tuple[bool, str]]]:
    """Posts whose scores tell hate from normal; ``lift`` raises the logit of a group's posts."""
    names = list(SHARES)
    answers, truth = [], {}
    for number in range(first, first + n):
        group = names[rng.choice(len(names), p=list(SHARES.values()))]
        hate = bool(rng.random() < 0.3)
        logit = rng.normal() + (1.6 if hate else -1.6) + (lift or {}).get(group, 0.0)
        seen = names[rng.integers(len(names))] if rng.random() < 0.1 else group
        answer = make_answer(
            number,
            WORDS.get(seen, "a friend"),
            score=float(1 / (1 + np.exp(-logit))),
            threshold=threshold,
            time=start + timedelta(seconds=seconds * (number - first)),
        )
        answers.append(answer)
        truth[answer.id] = (hate, group)
    return answers, truth


def produce(
    database: Database,
    release: Release,
    n: int,
    *,
    seed: int = 0,
    settings: ProductionConfig | None = None,
    lift: Mapping[str, float] | None = None,
    labelled: float = 1.0,
    reference: Mapping[str, object] | None = None,
) -> Intake:
    """Serve ``n`` posts and settle the sampled ones, each with the probability ``labelled``."""
    rng = np.random.default_rng(seed)
    settings = settings or make_settings("watch.posts_per_day=2000")
    intake = start_intake(database, release, settings, seed=seed)
    if reference is not None:
        intake.start(START, reference=reference, versions={})
    answers, truth = simulated_answers(n, rng=rng, threshold=release.threshold, lift=lift)
    for at in range(0, n, 500):
        intake.record(answers[at : at + 500])
    review(database, truth, rng=rng, labelled=labelled)
    return intake


def review(
    database: Database, truth: Truth, *, rng: np.random.Generator, labelled: float = 1.0
) -> None:
    """Give open items of these posts their true label and group."""
    with database.session() as session:
        for item in session.scalars(select(ItemRow).where(ItemRow.state == "open")):
            if item.post_id not in truth or rng.random() >= labelled:
                continue
            hate, group = truth[item.post_id]
            item.state, item.label = "done", "hate" if hate else "normal"
            item.groups = [] if group == "none" else [group]
            item.closed = datetime(2026, 11, 5, tzinfo=UTC)
