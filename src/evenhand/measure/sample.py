"""Predictions as arrays: the rows of one evaluation, or of one part of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from evenhand.core.errors import DataError, Problem
from evenhand.core.evaluation import Confusion
from evenhand.core.predictions import Predictions
from evenhand.core.records import HATE


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows as arrays of shape (n,).

    Attributes:
        hate: the label is hate.
        flagged: the decision is hate; False where the row is not scored.
        ok: the row is scored (status ok).
        failed: the status is error (a row that is neither ok nor failed is unparseable).
        score: p(hate), NaN where there is none.
        clusters: cluster number; None where rows are independent.
    """

    hate: np.ndarray
    flagged: np.ndarray
    ok: np.ndarray
    failed: np.ndarray
    score: np.ndarray
    clusters: np.ndarray | None

    def __len__(self) -> int:
        return len(self.hate)

    def where(self, mask: np.ndarray) -> Sample:
        """Return the rows where ``mask`` holds."""
        clusters = None if self.clusters is None else self.clusters[mask]
        return Sample(
            self.hate[mask],
            self.flagged[mask],
            self.ok[mask],
            self.failed[mask],
            self.score[mask],
            clusters,
        )

    def counts(self) -> dict[str, int]:
        """Return ``n``, ``n_scored``, ``n_unparseable`` and ``n_error``."""
        scored, failed = int(self.ok.sum()), int(self.failed.sum())
        return {
            "n": len(self),
            "n_scored": scored,
            "n_unparseable": len(self) - scored - failed,
            "n_error": failed,
        }

    def confusion(self) -> Confusion:
        """Return the confusion counts of the scored rows."""
        cell = np.bincount(2 * self.hate[self.ok] + self.flagged[self.ok], minlength=4)
        return Confusion(tn=int(cell[0]), fp=int(cell[1]), fn=int(cell[2]), tp=int(cell[3]))


def ordered_frame(predictions: Predictions) -> pd.DataFrame:
    """Return the rows by id, so that no number depends on the order in which they arrived."""
    frame = predictions.frame
    if frame["id"].is_monotonic_increasing:
        return frame
    return frame.sort_values("id", kind="stable", ignore_index=True)


def group_masks(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return each group's rows as a boolean mask, shape (n,), by name; a row may be in several."""
    column = frame["group"]
    sizes = np.fromiter(map(len, column), dtype=np.int64, count=len(column))
    row = np.repeat(np.arange(len(column)), sizes)
    code, names = pd.factorize(np.array(list(chain.from_iterable(column)), dtype=object))
    masks = {}
    for name in sorted(names):
        masks[str(name)] = np.zeros(len(column), dtype=bool)
    for number, name in enumerate(names):
        masks[str(name)][row[code == number]] = True
    return masks


def sample_from_frame(frame: pd.DataFrame, *, threshold: float | None) -> Sample:
    """Return a frame of predictions as arrays.

    Args:
        frame: from :func:`ordered_frame`.
        threshold: the least score that is decided hate; None: the decisions as they are, for which
            no scores are needed.

    Raises:
        DataError: rows without a label, or (with a threshold) scored rows without a score.
    """
    ok = (frame["status"] == "ok").to_numpy(dtype=bool)
    score = frame["score"].to_numpy(dtype=float)
    problems = []
    unlabelled = int(frame["label"].isna().sum())
    if unlabelled:
        problems.append(
            Problem(
                "label",
                f"{unlabelled} of {len(frame)} rows have no label; add the labels, or leave these "
                "rows out of the evaluation set",
            )
        )
    if threshold is not None and np.isnan(score[ok]).any():
        problems.append(
            Problem(
                "score",
                f"{int(np.isnan(score[ok]).sum())} scored rows have no score; give scores, or "
                'evaluate the decisions with method "generate" or "import"',
            )
        )
    if problems:
        raise DataError("predictions", problems, consequence="nothing was evaluated")
    if threshold is None:
        flagged = (frame["decision"] == HATE).to_numpy(dtype=bool)
    else:
        flagged = ok & (score >= threshold)
    return Sample(
        hate=(frame["label"] == HATE).to_numpy(dtype=bool),
        flagged=flagged,
        ok=ok,
        failed=(frame["status"] == "error").to_numpy(dtype=bool),
        score=score,
        clusters=_cluster_codes(frame["cluster"]),
    )


def _cluster_codes(column: pd.Series) -> np.ndarray | None:
    """Number the clusters; a row without one stands alone; None if every row stands alone."""
    codes, names = pd.factorize(column)
    alone = codes < 0
    codes = codes.astype(np.int64)
    codes[alone] = len(names) + np.arange(int(alone.sum()))
    return None if len(np.unique(codes)) == len(codes) else codes
