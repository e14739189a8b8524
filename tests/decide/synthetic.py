"""Predictions and run folders of which the rates are known, for the tests of decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evenhand.core.evaluation import Evaluation, write_evaluation
from evenhand.core.paths import write_json
from evenhand.core.predictions import Predictions, predictions_from_rows, write_predictions
from evenhand.core.records import Row
from evenhand.measure.classification import evaluate

Counts = tuple[int, int, int, int]
"""tp, tn, fp, fn"""


def counted(
    groups: Mapping[str, Counts], *, unparseable: int = 0, scored: bool = True
) -> Predictions:
    """Predictions with the given confusion counts per group; the last ones have no answer."""
    rows: list[Row] = []
    decisions: list[str | None] = []
    for group, (tp, tn, fp, fn) in groups.items():
        kinds = [("hate", "hate")] * tp + [("normal", "normal")] * tn
        kinds += [("normal", "hate")] * fp + [("hate", "normal")] * fn
        for label, decision in kinds:
            rows.append(Row(id=f"r{len(rows):06}", text="-", label=label, groups=(group,)))
            decisions.append(decision)
    for _ in range(unparseable):
        rows.append(Row(id=f"r{len(rows):06}", text="-", label="hate", groups=tuple(groups)[:1]))
        decisions.append(None)
    scores = np.array([{"hate": 0.8, "normal": 0.2, None: np.nan}[d] for d in decisions])
    return predictions_from_rows(rows, scores=scores if scored else None, decisions=decisions)


def measured(
    groups: Mapping[str, Counts],
    *,
    name: str = "test",
    unparseable: int = 0,
    scored: bool = True,
    baselines: Mapping[str, Predictions] | None = None,
) -> Evaluation:
    """The evaluation of :func:`counted`."""
    return evaluate(
        counted(groups, unparseable=unparseable, scored=scored),
        name=name,
        rng=np.random.default_rng(0),
        n_bootstrap=200,
        method="import",
        baselines=baselines,
    )


def drawn(
    n: int,
    *,
    seed: int,
    groups: Sequence[str] = ("alpha", "beta"),
    lift: float = 2.0,
    clusters: int | None = None,
) -> Predictions:
    """Predictions with scores that rank hate above normal by ``lift`` on the logit scale."""
    rng = np.random.default_rng(seed)
    hate = rng.random(n) < 0.45
    logit = rng.normal(size=n) + lift * (hate - 0.5)
    member = rng.integers(len(groups), size=n)
    rows = [
        Row(
            id=f"s{seed}-{i:06}",
            text="-",
            label="hate" if hate[i] else "normal",
            groups=(groups[member[i]],),
            cluster=None if clusters is None else f"c{i % clusters}",
        )
        for i in range(n)
    ]
    return predictions_from_rows(rows, scores=1 / (1 + np.exp(-logit)))


def write_run(
    folder: Path,
    sets: Mapping[str, Predictions],
    *,
    stated: Mapping[str, object] | None = None,
    method: str = "score",
) -> Path:
    """Write a run folder as an import leaves it, with an adapter file beside."""
    hashes = {"adapter": "a" * 64}
    write_json(folder / "config.json", {"config": None, "train_source": None, "inputs": hashes})
    manifest = {
        "imported": {"evaluations": {}, "derived": {}},
        "inputs_sha256": "i" * 64,
        "created": "2026-01-01",
        "command": None,
        "prompt": None,
        "adapter_sha256": None,
        "base": None,
        "stated": dict(stated or {}),
        "data": {},
        "machine": {},
        "warnings": [],
    }
    write_json(folder / "manifest.json", manifest)
    for name, predictions in sets.items():
        path = folder / "evaluations" / name
        evaluation = evaluate(
            predictions,
            name=name,
            rng=np.random.default_rng(0),
            n_bootstrap=200,
            method="score" if method == "score" else "import",
        )
        write_predictions(predictions, path / "predictions.parquet")
        write_evaluation(evaluation, path / "evaluation.json")
        rows = f"{name}-{len(predictions)}-rows"
        inputs = {"run": "i" * 64, "rows": rows, "method": method}
        write_json(path / "inputs.json", {"inputs": inputs, "data": {}})
    return folder
