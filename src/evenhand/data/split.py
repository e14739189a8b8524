"""Splits that keep duplicates and templates together and each label and group in proportion."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import Row
from evenhand.data.fingerprint import fingerprint


def split_rows(
    rows: Sequence[Row], *, fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, tuple[Row, ...]]:
    """Divide rows into named splits of the given fractions.

    Rows with the same fingerprint or the same cluster stay together. The label, each group and
    each combination of both are kept in proportion as far as that allows. The result depends on
    the rows, their order and ``rng`` only; each split keeps the rows' order.

    Raises:
        ConfigError: a fraction is not positive, or they do not add up to 1.
    """
    _check_fractions(fractions)
    blocks = _blocks(rows)
    order = rng.permutation(len(blocks))
    # Large blocks first: small ones can still even out what those upset.
    ordered = sorted((blocks[index] for index in order), key=len, reverse=True)
    totals = Counter(trait for row in rows for trait in _traits(row))
    placed: dict[str, Counter[Hashable]] = {name: Counter() for name in fractions}
    chosen: dict[str, list[int]] = {name: [] for name in fractions}
    for block in ordered:
        traits = Counter(trait for index in block for trait in _traits(rows[index]))
        name = max(
            fractions,
            key=lambda split: _room(traits, placed[split], totals, fractions[split]),
        )
        placed[name].update(traits)
        chosen[name] += block
    return {
        name: tuple(rows[index] for index in sorted(indices)) for name, indices in chosen.items()
    }


def _room(
    traits: Counter[Hashable],
    placed: Counter[Hashable],
    totals: Counter[Hashable],
    fraction: float,
) -> float:
    """Return how much of its share a split still lacks when the block's last row comes in."""
    room = 0.0
    for trait, count in traits.items():
        wanted = fraction * totals[trait]
        room += (wanted - placed[trait] - (count - 1)) / wanted
    return room


def _traits(row: Row) -> list[Hashable]:
    """Return what is kept in proportion: all rows, the label, each group, both together."""
    return [
        "all",
        ("label", row.label),
        *(("group", group) for group in row.groups),
        ("both", row.label, row.groups),
    ]


def _blocks(rows: Sequence[Row]) -> list[list[int]]:
    """Return the positions of rows that must stay together, by first occurrence."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, row in enumerate(rows):
        keys = [("text", fingerprint(row.text))]
        if row.cluster is not None:
            keys.append(("cluster", row.cluster))
        for key in keys:
            parent[root(index)] = root(first.setdefault(key, index))
    blocks: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(rows)):
        blocks[root(index)].append(index)
    return list(blocks.values())


def _check_fractions(fractions: Mapping[str, float]) -> None:
    problems = [
        Problem(f"fractions.{name}", f"{value} is not above 0")
        for name, value in fractions.items()
        if not value > 0
    ]
    total = math.fsum(fractions.values())
    if not problems and not math.isclose(total, 1.0, abs_tol=1e-9):
        problems.append(Problem("fractions", f"they add up to {total:g}, not to 1"))
    if problems:
        raise ConfigError("the split", problems)
