"""Training rows added against a group's false positives, none of them in an evaluation set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evenhand.config.schema import AugmentConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import Dataset, Row
from evenhand.core.registry import suggest
from evenhand.data.augmenting.candidates import (
    Cell,
    Pools,
    corpus_pools,
    swap_pools,
    template_pools,
)
from evenhand.data.augmenting.terms import identity_terms, known_group
from evenhand.data.fingerprint import normalise
from evenhand.data.overlap import Texts, overlaps

# Candidates that are tried at once beyond the rows still wanted: some will be left out.
_SPARE_ROWS = 32


@dataclass(frozen=True, slots=True)
class Augmented:
    """Rows added to training rows, and what could not be.

    Attributes:
        added: the rows; ``extra["provenance"]`` of each says how it was made.
        counts: rows added, by method.
        left_out: candidates that equal or nearly equal a row of an evaluation set, by set.
        repeated: candidates that repeat a training row or one another.
        wanted: the most rows that the ratio allows.
        short_of: rows of that number that could not be made, by method.
    """

    added: tuple[Row, ...]
    counts: Mapping[str, int]
    left_out: Mapping[str, int]
    repeated: int
    wanted: int
    short_of: Mapping[str, int]

    def table(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return the rows added by method, group and label; a row counts in each of its groups."""
        found: dict[str, dict[str, dict[str, int]]] = {method: {} for method in self.counts}
        for row in self.added:
            for group in row.groups:
                cells = found[method_of(row)].setdefault(group, {})
                cells[str(row.label)] = cells.get(str(row.label), 0) + 1
        return found


def augment_rows(
    rows: Sequence[Row],
    config: AugmentConfig,
    *,
    evaluation: Mapping[str, Dataset | Texts],
    corpus: Dataset | None = None,
) -> Augmented:
    """Make at most ``ratio`` x rows further training rows, an equal share by each method.

    No row equals or nearly equals one of the ``evaluation`` sets (:func:`overlaps`), or repeats a
    training row. The result depends on the arguments alone.

    Raises:
        ConfigError: no group, or a group that the method has no words for.
        ValueError: ``corpus`` does not fit ``config.methods``.
    """
    if ("corpus" in config.methods) != (corpus is not None):
        raise ValueError('a corpus goes with the method "corpus", and with no other')
    names = _asked_groups(rows, config)
    wanted = int(config.ratio * len(rows) + 1e-9)
    screen = _Screen(rows, evaluation)
    added: list[Row] = []
    short_of: dict[str, int] = {}
    for place, method in enumerate(config.methods):
        share = wanted // len(config.methods) + (place < wanted % len(config.methods))
        pools = _POOLS[method](names, config, rows, corpus.rows if corpus else ())
        found = _fill(pools, share, screen, near_training=method == "corpus")
        added += found
        short_of[method] = share - len(found)
    return Augmented(
        added=_with_unique_ids(added, rows),
        counts={method: sum(method_of(row) == method for row in added) for method in short_of},
        left_out=dict(screen.left_out),
        repeated=screen.repeated,
        wanted=wanted,
        short_of=short_of,
    )


def method_of(row: Row) -> str:
    """Return the method that made an added row."""
    return (row.source or "").removeprefix("augment:")


def with_provenance(rows: Iterable[Row]) -> list[Row]:
    """Return rows that all have the column ``provenance``, empty where they were not added.

    >>> [row.extra["provenance"] for row in with_provenance([Row("1", "A post.")])]
    ['']
    """
    return [replace(row, extra={"provenance": "", **row.extra}) for row in rows]


@dataclass
class _Screen:
    """Says which candidates may be added, and counts the others."""

    rows: Sequence[Row]
    evaluation: Mapping[str, Dataset | Texts]
    left_out: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def __post_init__(self) -> None:
        self._training = Texts(tuple(self.rows))
        self._sets = {
            name: data if isinstance(data, Texts) else Texts(data.rows)
            for name, data in self.evaluation.items()
        }
        self._seen = {normalise(row.text) for row in self.rows}
        self._earlier: list[Texts] = []
        self.left_out.update(dict.fromkeys(self._sets, 0))

    def passed(self, candidates: Sequence[Row], *, kept: Sequence[Row], near: bool) -> set[str]:
        """Return the ids of the candidates that may be added beside those that were kept.

        ``near``: leave out near duplicates of training rows and of one another too.
        """
        ours = Texts(tuple(candidates))
        barred: set[str] = set()
        for name, theirs in self._sets.items():
            shared = _shared(ours, theirs)
            self.left_out[name] += len(shared)
            barred |= shared
        repeats = self._repeats(ours, {row.id for row in kept}, near=near) - barred
        self.repeated += len(repeats)
        return {row.id for row in candidates} - barred - repeats

    def _repeats(self, ours: Texts, kept: Collection[str], *, near: bool) -> set[str]:
        found: set[str] = set()
        for row in ours.rows:
            text = normalise(row.text)
            if text in self._seen:
                found.add(row.id)
            self._seen.add(text)
        if near:
            found |= _shared(ours, self._training)
            for earlier in self._earlier:  # rather than what was kept: these are sketched already
                found |= {one for one, other in _near_pairs(ours, earlier) if other in kept}
            self._earlier.append(ours)
            # Of two candidates that resemble each other, the first one stays.
            place = {row.id: at for at, row in enumerate(ours.rows)}
            pairs = {tuple(sorted(pair, key=place.__getitem__)) for pair in _near_pairs(ours, ours)}
            for first, second in sorted(
                pairs,
                key=lambda pair: (place[pair[0]], place[pair[1]]),
            ):
                if first not in found:
                    found.add(second)
        return found


def _fill(pools: Pools, n: int, screen: _Screen, *, near_training: bool) -> list[Row]:
    kept: list[Row] = []
    counts: Counter[Cell] = Counter()
    while len(kept) < n:
        candidates = pools.take(n - len(kept) + _SPARE_ROWS, counts)
        if not candidates:
            break
        passed = screen.passed([row for _, row in candidates], kept=kept, near=near_training)
        for cell, row in candidates:
            if row.id in passed and len(kept) < n:
                kept.append(row)
                counts[cell] += 1
    return kept


def _near_pairs(ours: Texts, theirs: Texts) -> Iterator[tuple[str, str]]:
    return (pair for match in overlaps(ours, theirs).near for pair in match.pairs)


def _shared(ours: Texts, theirs: Texts) -> set[str]:
    found = overlaps(ours, theirs)
    return {row for match in (*found.exact, *found.near) for row in match.train}


def _asked_groups(rows: Sequence[Row], config: AugmentConfig) -> dict[str, str]:
    """Return the groups that rows are added about: the project's name -> the name that they carry.

    Raises:
        ConfigError: none is named, or one has no terms though a method needs them.
    """
    known = identity_terms().variants
    need_terms = config.methods != ("corpus",)
    asked = config.groups or tuple(sorted({group for row in rows for group in row.groups}))
    names: dict[str, str] = {}
    for name in sorted(asked, key=lambda one: (known_group(one) != one, one)):
        if config.groups or not need_terms or known_group(name) in known:
            names.setdefault(known_group(name), name)
    unknown = [name for group, name in names.items() if group not in known] if need_terms else []
    problems = [
        Problem("groups", f'"{name}" has no templates or terms{suggest(name, known)}')
        for name in unknown
    ]
    if not names:
        problems.append(Problem("groups", "is missing: the training rows name no known group"))
    if problems:
        hint = f'groups: {", ".join(known)}; the method "corpus" takes any'
        raise ConfigError("the augmentation", problems, hint=hint)
    return names


def _with_unique_ids(added: Sequence[Row], rows: Sequence[Row]) -> tuple[Row, ...]:
    """Number the ids that the training rows or earlier ones have: they may be augmented already."""
    taken = {row.id for row in rows}
    found: list[Row] = []
    for row in added:
        number, unique = 1, row.id
        while unique in taken:
            number += 1
            unique = f"{row.id}#{number}"
        taken.add(unique)
        found.append(replace(row, id=unique))
    return tuple(found)


_POOLS: Mapping[str, Callable[..., Pools]] = {
    "templates": lambda names, config, _rows, _corpus: template_pools(names, config),
    "swaps": lambda names, config, rows, _corpus: swap_pools(names, config, rows),
    "corpus": corpus_pools,
}
