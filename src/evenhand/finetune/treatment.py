"""What training is told of each row besides its text: its weight, and its counterfactual.

Both work against a group's false positives without a new row. They concern training alone: the
validation loss and all evaluations take every row as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import NORMAL, Row
from evenhand.core.seeding import rng_for
from evenhand.data.augmenting.swaps import counterfactual
from evenhand.data.weighing import cell_of, group_label_weights
from evenhand.finetune.encoding import EncodedRow
from evenhand.finetune.objective import Objective


@dataclass(frozen=True, slots=True)
class TreatedRow:
    """A training row with its weight and, if it has one, its counterfactual."""

    row: Row
    weight: float = 1.0
    counterfactual: Row | None = None


def treat_rows(rows: Sequence[Row], config: PhaseConfig) -> tuple[TreatedRow, ...]:
    """Return the training rows with what ``row_weights`` and ``counterfactual_pairing`` ask for.

    A row's counterfactual depends on the seed and on the row's id alone, so that it is the same in
    every process and in a resumed training.
    """
    weights: Sequence[float] = [1.0] * len(rows)
    if config.row_weights is not None:
        weights = group_label_weights(rows).tolist()
    pairs: Sequence[Row | None] = [None] * len(rows)
    if config.counterfactual_pairing is not None:
        pairs = [_find_pair(row, config.seed) for row in rows]
    return tuple(TreatedRow(*one) for one in zip(rows, weights, pairs, strict=True))


def check_treated(treated: Sequence[TreatedRow], config: PhaseConfig) -> None:
    """Refuse pairing without a pair, which would train as if it were not asked for.

    Raises:
        ConfigError: counterfactuals are asked for and no normal row has one.
    """
    if config.counterfactual_pairing is None or any(one.counterfactual for one in treated):
        return
    message = (
        "no normal training row has a counterfactual (an identity term that can be exchanged for "
        "another group's), so nothing could be paired; leave this out, or add benign rows that "
        "name groups"
    )
    raise ConfigError("the training data", [Problem("counterfactual_pairing", message)])


def _find_pair(row: Row, seed: int) -> Row | None:
    # Normal rows alone: in a hateful one the group may be what makes it so (Garg et al. 2019).
    if row.label != NORMAL:
        return None
    return counterfactual(row, rng=rng_for(seed, f"counterfactual pairing {row.id}"))


def encode_treated(treated: Sequence[TreatedRow], objective: Objective) -> list[EncodedRow]:
    """Return the rows' tokens with their weights and pairs.

    A pair whose tokens are the row's (both texts were cut before they differ) is left out.
    """
    return [_encode(one, objective) for one in treated]


def _encode(one: TreatedRow, objective: Objective) -> EncodedRow:
    encoded = objective.encode(one.row)
    pair = None if one.counterfactual is None else objective.encode(one.counterfactual)
    if pair is not None and pair.ids == encoded.ids:
        pair = None
    if pair is None and one.weight == 1.0:
        return encoded
    return replace(encoded, weight=one.weight, pair=pair)


def treatment_statistics(
    treated: Sequence[TreatedRow], encoded: Sequence[EncodedRow], config: PhaseConfig
) -> dict[str, Any]:
    """Return what was done to the rows, for the run's record; None where nothing was.

    ``row_weights`` has the number of cells (combination of groups x label), of distinct weights,
    the extremes, and ``effective_rows``: as many rows of equal weight would give as certain a mean
    (Kish 1965).
    """
    weights = np.array([one.weight for one in treated])
    weighed = {
        "cells": len({cell_of(one.row) for one in treated}),
        "distinct": len(np.unique(weights.round(12))),
        "min": float(weights.min()),
        "max": float(weights.max()),
        "effective_rows": float(weights.sum() ** 2 / (weights**2).sum()),
    }
    paired = sum(one.pair is not None for one in encoded)
    return {
        "row_weights": None if config.row_weights is None else weighed,
        "paired_rows": None if config.counterfactual_pairing is None else paired,
    }
