"""Several models' answers on one set of rows, side by side; other rows are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from evenhand.core.errors import DataError, Problem
from evenhand.core.predictions import Predictions
from evenhand.measure.sample import group_masks, ordered_frame, sample_from_frame

_SHOWN = 3
_REMEDY = (
    "evaluate the runs on the same file; results from elsewhere take its ids from "
    "`evenhand import --data FILE`"
)


@dataclass(frozen=True, eq=False)
class Answers:
    """The rows that every model answered, by id.

    Attributes:
        names: the models, in the order of ``flagged``.
        hate: the label is hate, shape (n,).
        flagged: the decision is hate, shape (models, n).
        groups: for each target group its rows, shape (n,).
        clusters: cluster number per row, shape (n,); None where rows are independent.
        n_left_out: rows that at least one model did not decide; they are not among the n.
    """

    names: tuple[str, ...]
    hate: np.ndarray
    flagged: np.ndarray
    groups: Mapping[str, np.ndarray]
    clusters: np.ndarray | None
    n_left_out: int

    def __len__(self) -> int:
        return len(self.hate)

    @property
    def n_clusters(self) -> int | None:
        """Independent clusters; None where rows are independent."""
        return None if self.clusters is None else len(np.unique(self.clusters))


def align(
    models: Mapping[str, Predictions], *, unanswered: Literal["left_out", "wrong"] = "left_out"
) -> Answers:
    """Return the models' decisions on the same rows, in the order of the ids.

    A model whose rows name no group (or no cluster) takes the other models'.

    Args:
        models: predictions by model.
        unanswered: ``left_out`` keeps the rows that every model decided; ``wrong`` keeps all and
            counts a missing decision as a wrong one.

    Raises:
        DataError: the ids, labels, groups or clusters differ, or rows have no label.
    """
    frames = {name: ordered_frame(predictions) for name, predictions in models.items()}
    _refuse(list(_id_problems(frames)))
    _refuse(list(_content_problems(frames)))
    group = _known(frames, "group")
    cluster = _known(frames, "cluster")
    samples = [
        sample_from_frame(frame.assign(cluster=cluster), threshold=None)
        for frame in frames.values()
    ]
    decided = np.all([sample.ok for sample in samples], axis=0)
    if unanswered == "wrong":
        decided = np.ones_like(decided)
    clusters = samples[0].clusters
    return Answers(
        names=tuple(frames),
        hate=samples[0].hate[decided],
        flagged=np.stack([np.where(s.ok, s.flagged, ~s.hate)[decided] for s in samples]),
        groups=group_masks(pd.DataFrame({"group": group[decided]})),
        clusters=None if clusters is None else clusters[decided],
        n_left_out=int((~decided).sum()),
    )


def _id_problems(frames: Mapping[str, pd.DataFrame]) -> Iterator[Problem]:
    (first, reference), *others = frames.items()
    known = set(reference["id"])
    for name, frame in others:
        own = set(frame["id"])
        more, fewer = sorted(own - known), sorted(known - own)
        if not more and not fewer:
            continue
        parts = [f"has {len(own):,} rows and {first} has {len(known):,}"]
        if more:
            parts.append(f"{_ids(more)} only in {name}")
        if fewer:
            parts.append(f"{_ids(fewer)} only in {first}")
        yield Problem(name, "; ".join(parts))


def _content_problems(frames: Mapping[str, pd.DataFrame]) -> Iterator[Problem]:
    (first, _), *others = frames.items()
    for column, noun in (("label", "labels"), ("group", "groups"), ("cluster", "clusters")):
        reference = _known(frames, column).map(_comparable)
        for name, frame in others:
            own = frame[column].map(_comparable)
            if column != "label" and not own.map(bool).any():
                continue
            other = frame["id"][(own != reference).to_numpy()].tolist()
            if other:
                yield Problem(name, f"the {noun} of {_ids(other)} are not those in {first}")


def _ids(ids: list[str]) -> str:
    """Return how many ids there are and the first few of them."""
    noun = "id" if len(ids) == 1 else "ids"
    more = ", ..." if len(ids) > _SHOWN else ""
    return f"{len(ids):,} {noun} ({', '.join(ids[:_SHOWN])}{more})"


def _known(frames: Mapping[str, pd.DataFrame], column: str) -> pd.Series:
    """Return a column from the first model that has anything in it."""
    columns = [frame[column] for frame in frames.values()]
    return next((one for one in columns if one.map(_comparable).map(bool).any()), columns[0])


def _comparable(value: Any) -> Any:
    """Return a cell as something that equality and truth work on: empty is falsy."""
    if isinstance(value, list):
        return tuple(sorted(value))
    return value or ""


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise DataError(
            "the comparison",
            problems,
            hint=_REMEDY,
            consequence="models are compared on the same rows only",
        )
