"""Candidates for rows to add, in cells that are to be filled evenly: one pool for each method."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evenhand.config.schema import AugmentConfig
from evenhand.core.records import Row
from evenhand.core.seeding import rng_for
from evenhand.data.augmenting.swaps import counterfactual, is_swappable
from evenhand.data.augmenting.terms import known_group
from evenhand.data.starter import Template, post_from, templates

Cell = tuple[str, ...]

TRAINING_PART = "train"
"""The one part of the starter corpus whose templates may be trained on."""


@dataclass
class Pools:
    """Candidates by cell, handed out from the cell that has the fewest rows.

    Attributes:
        cells: the candidates of each cell, in the order in which they are tried.
        counts: rows that each cell has already.
        order: which of equally short cells comes first.
    """

    cells: Mapping[Cell, Iterator[Row]]
    counts: Mapping[Cell, int] = field(default_factory=dict)
    order: Mapping[Cell, int] = field(default_factory=dict)
    _spent: set[Cell] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)

    def take(self, n: int, kept: Mapping[Cell, int]) -> list[tuple[Cell, Row]]:
        """Return up to ``n`` new candidates, given how many rows of each cell were kept so far."""
        filled = {
            cell: self.counts.get(cell, 0) + kept.get(cell, 0)
            for cell in self.cells
            if cell not in self._spent
        }
        taken: list[tuple[Cell, Row]] = []
        while filled and len(taken) < n:
            cell = min(filled, key=lambda one: (filled[one], self.order.get(one, 0), one))
            row = next((r for r in self.cells[cell] if r.id not in self._used), None)
            if row is None:
                self._spent.add(cell)
                del filled[cell]
                continue
            self._used.add(row.id)
            taken.append((cell, row))
            filled[cell] += 1
        return taken


def template_pools(groups: Mapping[str, str], config: AugmentConfig) -> Pools:
    """Return posts of the training templates by group and functionality.

    ``groups`` maps the project's own names of the groups onto those that the rows are to carry.
    """
    by_functionality: defaultdict[str, list[Template]] = defaultdict(list)
    for template in templates():
        kind = template.functionality
        if template.split == TRAINING_PART and template.names_group and kind.label in config.labels:
            by_functionality[kind.name].append(template)
    used: set[str] = set()
    cells = {
        (name, functionality): _posts(group, name, chosen, seed=config.seed, used=used)
        for group, name in groups.items()
        for functionality, chosen in by_functionality.items()
    }
    return Pools(cells, order=_shuffled(list(cells), config.seed, "templates"))


def swap_pools(groups: Mapping[str, str], config: AugmentConfig, rows: Sequence[Row]) -> Pools:
    """Return counterfactuals of the rows by the group that they are about and label."""
    swappable = functools.cache(lambda at: is_swappable(rows[at]))  # few are: each is read once
    cells = {
        (name, label): _swaps(group, name, label, rows, swappable, seed=config.seed)
        for group, name in groups.items()
        for label in config.labels
    }
    return Pools(cells, order=_shuffled(list(cells), config.seed, "swaps"))


def corpus_pools(
    names: Mapping[str, str], config: AugmentConfig, rows: Sequence[Row], corpus: Sequence[Row]
) -> Pools:
    """Return a corpus's rows by group and label, those of the training rows counted."""
    cells: defaultdict[Cell, list[Row]] = defaultdict(list)
    for row in corpus:
        named = _renamed(row, names)
        for group in named.groups:
            if group in names.values() and row.label in config.labels:
                cells[group, str(row.label)].append(_from_corpus(named))
    counts = Counter(
        (group, str(row.label)) for row in rows for group in _renamed(row, names).groups
    )
    pools: dict[Cell, Iterator[Row]] = {}
    for cell, members in cells.items():
        order = rng_for(config.seed, f"augment/corpus/{'/'.join(cell)}").permutation(len(members))
        pools[cell] = iter([members[at] for at in order])
    return Pools(pools, counts=counts)


def _posts(
    group: str, name: str, chosen: Sequence[Template], *, seed: int, used: set[str]
) -> Iterator[Row]:
    """Yield fillings of each template in turn while its words last."""
    rng = rng_for(seed, f"augment/templates/{group}/{chosen[0].functionality.name}")
    waiting = [chosen[at] for at in rng.permutation(len(chosen))]
    number = 0
    while waiting:
        number += 1
        for template in tuple(waiting):
            text = post_from(template, group, rng=rng, used=used)
            if text is None:
                waiting.remove(template)
                continue
            yield Row(
                id=f"augment-templates-{template.id}-{name}-{number}",
                text=text,
                label=template.functionality.label,
                groups=(name,),
                source="augment:templates",
                fine_label=template.functionality.name,
                cluster=template.id,
                extra={"provenance": f"templates: {template.id} about {group}, seed {seed}"},
            )


def _swaps(
    group: str,
    name: str,
    label: str,
    rows: Sequence[Row],
    swappable: Callable[[int], bool],
    *,
    seed: int,
) -> Iterator[Row]:
    rng = rng_for(seed, f"augment/swaps/{group}/{label}")
    for at in rng.permutation(len(rows)).tolist():
        row = rows[at]
        if row.label == label and swappable(at):
            swapped = counterfactual(row, rng=rng, to=[group])
            if swapped is not None:
                yield replace(swapped, groups=(name,))


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    """Return the row with its groups called as the asked ones are."""
    groups = tuple(dict.fromkeys(names.get(known_group(one), one) for one in row.groups))
    return replace(row, groups=groups)


def _from_corpus(row: Row) -> Row:
    return replace(
        row,
        id=f"augment-corpus-{row.id}",
        source="augment:corpus",
        messages=None,
        extra={"provenance": f"corpus: row {row.id}" + (f" of {row.source}" if row.source else "")},
    )


def _shuffled(cells: Sequence[Cell], seed: int, method: str) -> dict[Cell, int]:
    rng: np.random.Generator = rng_for(seed, f"augment/{method}/order")
    return dict(zip(cells, rng.permutation(len(cells)).tolist(), strict=True))
