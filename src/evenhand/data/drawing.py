"""Which rows of a training file a phase trains on."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import Row
from evenhand.core.seeding import rng_for


def draw_train_rows(rows: Sequence[Row], config: PhaseConfig) -> tuple[Row, ...]:
    """Return the rows to train on: all, or ``max_train_rows`` drawn with the seed, in file order.

    Raises:
        ConfigError: no row is left, or a row has no label.
    """
    chosen = tuple(rows)
    if config.max_train_rows is not None and config.max_train_rows < len(rows):
        drawn = rng_for(config.seed, "max_train_rows").permutation(len(rows))
        chosen = tuple(rows[place] for place in sorted(drawn[: config.max_train_rows]))
    if not chosen or any(row.label is None for row in chosen):
        message = "has no rows" if not chosen else "has rows without a label"
        raise ConfigError("the training data", [Problem("train_file", message)])
    return chosen
