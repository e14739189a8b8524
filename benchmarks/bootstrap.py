"""Count metrics of 1,000,000 rows, bootstrapped: wall time and peak memory.

10,000 replicates of accuracy, precision, recall, F1, FPR and FNR, overall, in each of three
overlapping groups and as gaps to the rows outside the group, from a table of predictions (made
from a seed) to intervals:
    python benchmarks/bootstrap.py [--rows 1000000] [--replicates 10000] [--clusters 0] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd

from evenhand.core.predictions import Predictions
from evenhand.measure.classification import evaluate
from evenhand.measure.counts import COUNT_METRICS, CountBootstrap
from evenhand.measure.sample import group_masks, ordered_frame, sample_from_frame

MEMBERSHIPS = ([], ["alpha"], ["beta"], ["gamma"], ["alpha", "beta"], ["alpha", "beta", "gamma"])


def make_frame(n: int, *, n_clusters: int, rng: np.random.Generator) -> pd.DataFrame:
    member = rng.integers(len(MEMBERSHIPS), size=n)
    hate = rng.random(n) < 0.35 + 0.05 * (member % 3)
    noise = rng.normal(size=n)
    score = 1 / (1 + np.exp(-(1.2 * hate - 0.8 + 0.3 * (member == 1) + noise)))
    status = np.where(rng.random(n) < 0.01, "error", "ok").astype(object)
    unscored = status != "ok"
    decision = np.where(score >= 0.5, "hate", "normal").astype(object)
    decision[unscored], score[unscored] = None, np.nan
    cluster = [None] * n if not n_clusters else [f"c{i}" for i in rng.integers(n_clusters, size=n)]

    def objects(values: list) -> pd.Series:
        return pd.Series(values, dtype=object)

    return pd.DataFrame(
        {
            "id": objects([f"row-{i:09}" for i in range(n)]),
            "label": objects(np.where(hate, "hate", "normal").tolist()),
            "group": objects([MEMBERSHIPS[i] for i in member]),
            "source": objects(["one" if i % 3 else "two" for i in range(n)]),
            "fine_label": objects([None] * n),
            "cluster": objects(cluster),
            "score": score,
            "decision": objects(decision.tolist()),
            "status": objects(status.tolist()),
            "raw_response": objects([None] * n),
        }
    )


def bootstrap_everything(predictions: Predictions, *, replicates: int, seed: int) -> int:
    """Return how many intervals were made."""
    frame = ordered_frame(predictions)
    sample = sample_from_frame(frame, threshold=0.5)
    members = group_masks(frame)
    rng = np.random.default_rng(seed)
    counts = CountBootstrap(sample, members, n_bootstrap=replicates, rng=rng)
    values = [counts.value(metric) for metric in COUNT_METRICS]
    for group in members:
        values += [counts.value(metric, group=group) for metric in COUNT_METRICS]
        values += [counts.gap(metric, group=group) for metric in COUNT_METRICS]
    assert all(value.low is not None for value in values)
    return len(values)


@contextmanager
def timed(name: str, steps: list[dict[str, object]]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_gib = peak / (2**30 if sys.platform == "darwin" else 2**20)
    seconds = time.perf_counter() - start
    steps.append({"step": name, "seconds": seconds, "peak_gib_so_far": peak_gib})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--clusters", type=int, default=0, help="0: rows are independent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    steps: list[dict[str, object]] = []
    rng = np.random.default_rng(options.seed)
    with timed("make the rows", steps):
        frame = make_frame(options.rows, n_clusters=options.clusters, rng=rng)
    with timed("check them as predictions", steps):
        predictions = Predictions(frame)
    del frame
    with timed("bootstrap every count metric", steps):
        intervals = bootstrap_everything(
            predictions, replicates=options.replicates, seed=options.seed
        )
    with timed("evaluate (everything, 2,000 replicates)", steps):
        evaluate(predictions, name="bench", rng=np.random.default_rng(options.seed))
    if options.json:
        machine = f"{os.cpu_count()} cores, {platform.machine()}"
        print(json.dumps({**vars(options), "machine": machine, "steps": steps}))
        return
    print(f"{options.rows:,} rows, {options.replicates:,} replicates, {intervals} intervals\n")
    print("| step | seconds | peak memory so far, GiB |\n|---|---|---|")
    for step in steps:
        print(f"| {step['step']} | {step['seconds']:.1f} | {step['peak_gib_so_far']:.2f} |")


if __name__ == "__main__":
    main()
