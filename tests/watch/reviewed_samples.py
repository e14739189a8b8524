"""Reviewed samples that tests of the statistics make up."""

from __future__ import annotations

import numpy as np

from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.statistics.sampling import Plan

GROUPS = ("lgbtq", "mexican")
PLAN = Plan(
    rates={
        "lgbtq/hate/far": 0.8,
        "lgbtq/normal/far": 0.4,
        "none/hate/far": 0.4,
        "none/normal/far": 0.1,
    },
    default_rate=0.4,
    expected={
        "lgbtq/hate/far": 40.0,
        "lgbtq/normal/far": 60.0,
        "none/hate/far": 200.0,
        "none/normal/far": 700.0,
    },
    labels_per_day=200.0,
)


def make_sample(
    n: int,
    *,
    fpr: float,
    fnr: float = 0.2,
    hate: float = 0.3,
    share: float = 0.5,
    others_fpr: float = 0.1,
    seed: int = 0,
    late: float = 0.0,
    minutes: float = 10.0,
    misproposed: float = 0.1,
) -> ReviewedSample:
    """Return ``n`` reviewed posts that were drawn with the plan's rates from traffic.

    ``share`` of the traffic is about lgbtq, with a false-positive rate of ``fpr``.
    """
    rng = np.random.default_rng(seed)
    is_in = rng.random(20 * n + 200) < share
    hateful = rng.random(len(is_in)) < hate
    flagged = rng.random(len(is_in)) < np.where(hateful, 1 - fnr, np.where(is_in, fpr, others_fpr))
    proposed = is_in & (rng.random(len(is_in)) >= misproposed)
    stratum = np.char.add(
        np.where(proposed, "lgbtq", "none"), np.where(flagged, "/hate/far", "/normal/far")
    )
    inclusion = np.array([PLAN.rate(one) for one in stratum.tolist()])
    chosen = np.flatnonzero(rng.random(len(is_in)) < inclusion)[:n]
    assert len(chosen) == n
    state = np.where(rng.random(n) < late, "pending", "labelled")
    labelled = state == "labelled"
    return ReviewedSample(
        item=np.arange(n),
        post=np.array([f"post-{i}" for i in chosen], dtype=object),
        plan=np.zeros(n, dtype=np.int64),
        inclusion=inclusion[chosen],
        score=np.where(flagged, 0.9, 0.1)[chosen],
        flagged=flagged[chosen],
        stratum=stratum[chosen].astype(object),
        time=np.datetime64("2026-11-02T00:00:00", "us")
        + (np.arange(n) * minutes * 60e6).astype("timedelta64[us]"),
        state=state,
        hate=hateful[chosen] & labelled,
        groups=tuple(
            ("lgbtq", "women") if known and here else ()
            for here, known in zip(is_in[chosen], labelled, strict=True)
        ),
        plans=(PLAN,),
    )
