"""The rows that a phase is trained on: of its training file, by its label policy, and added ones.

In this order: the label policy decides, ``max_train_rows`` draws, augmentation adds to what was
drawn. Training, the hash of its inputs, the TF-IDF baseline and the audit all take these rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from evenhand.config.resolve import AUGMENT_CORPUS
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import Dataset, Row
from evenhand.data.augmenting.augment import Augmented, augment_rows
from evenhand.data.drawing import draw_train_rows
from evenhand.data.overlap import Texts
from evenhand.data.policy import apply_label_policy

OWN_VALIDATION = "validation file"
"""What a phase's own validation file is called among the evaluation sets; no set can be."""

_DECIDING_KEYS = {"tuning", "label_policy", "max_train_rows", "augment"}


@dataclass(frozen=True)
class TrainingRows:
    """What a phase is trained on.

    Attributes:
        kept: rows of the training file, as the label policy labels them.
        added: rows that augmentation made.
        record: for the manifest, what was relabelled, dropped, added and left out; empty where the
            configuration asks for nothing but rows of the file as they are.
    """

    kept: tuple[Row, ...]
    added: tuple[Row, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them, the file's first."""
        return (*self.kept, *self.added)

    @property
    def is_treated(self) -> bool:
        """Whether they are others than a draw of the file's rows."""
        return bool(self.record)

    @property
    def is_augmented(self) -> bool:
        """Whether augmentation was asked for; it may have found no row to add."""
        return "added" in self.record

    @property
    def warnings(self) -> list[str]:
        """A line for each method of augmentation that made fewer rows than it was asked for."""
        return [
            f"augment: {method} is {count:,} {'row' if count == 1 else 'rows'} short of what the "
            "ratio asks for"
            for method, count in self.record.get("short_of", {}).items()
            if count
        ]


def make_training_rows(
    train: Dataset,
    config: PhaseConfig,
    *,
    evaluation: Mapping[str, Dataset | Texts],
    corpus: Dataset | None = None,
) -> TrainingRows:
    """Return a phase's training rows.

    With tuning ``none`` nothing is trained: the rows only fit the baseline, and stay as they are.

    Args:
        train: the training file's rows.
        config: the phase.
        evaluation: the sets, by name, that no added row may equal or resemble.
        corpus: the rows that ``augment.corpus`` names.

    Raises:
        ConfigError: a policy or an augmentation that these rows do not allow, or no row is left.
    """
    is_trained = config.tuning != "none"
    policy = config.label_policy if is_trained else None
    decided = train.rows if policy is None else apply_label_policy(train.rows, policy)
    kept = draw_train_rows(decided, config)
    record: dict[str, Any] = {}
    if policy is not None:
        record |= _policy_record(train.rows, decided)
    if config.augment is None or not is_trained:
        return TrainingRows(kept, record=record)
    try:
        augmented = augment_rows(kept, config.augment, evaluation=evaluation, corpus=corpus)
    except ConfigError as error:
        problems = [Problem(f"augment.{one.place}", one.message) for one in error.problems]
        raise ConfigError(error.source, problems, hint=error.hint) from error
    return TrainingRows(kept, augmented.added, record | _augment_record(augmented))


@dataclass
class RowMaker:
    """Makes the training rows of several phases; what phases have in common is done once.

    Attributes:
        evaluation: the sets, by name, that no added row may equal or resemble.
    """

    evaluation: Mapping[str, Dataset]
    _texts: dict[int, Texts] = field(default_factory=dict, repr=False)
    _made: dict[tuple[object, ...], TrainingRows] = field(default_factory=dict, repr=False)
    _seen: list[Dataset | None] = field(default_factory=list, repr=False)

    def make(
        self,
        train: Dataset,
        config: PhaseConfig,
        *,
        own: Mapping[str, Dataset | None] = MappingProxyType({}),
    ) -> TrainingRows:
        """Return a phase's training rows, as :func:`make_training_rows`.

        ``own`` has, by key, the data files that the phase names itself: its validation file and
        the corpus that rows are selected from.
        """
        corpus, validation = own.get(AUGMENT_CORPUS), own.get("validation_file")
        sets = dict(self.evaluation) if config.augment is not None else {}
        if config.augment is not None and validation is not None:
            sets[OWN_VALIDATION] = validation
        # Seeds of one phase share their rows, unless each draws its own.
        seed = None if config.max_train_rows is None else config.seed
        settings = config.model_dump_json(include=_DECIDING_KEYS)
        data = (train, corpus, *sets.values())
        key = (settings, seed, tuple(sets), tuple(map(id, data)))
        if key not in self._made:
            self._seen += data  # kept, so that no other data set gets the same identity
            evaluation = {name: self._prepare(one) for name, one in sets.items()}
            self._made[key] = make_training_rows(
                train, config, evaluation=evaluation, corpus=corpus
            )
        return self._made[key]

    def _prepare(self, data: Dataset) -> Texts:
        """Return a set's texts, whose sketches are made once."""
        return self._texts.setdefault(id(data), Texts(data.rows))


def _policy_record(before: Sequence[Row], after: Sequence[Row]) -> dict[str, Any]:
    labels = {row.id: row.label for row in after}
    dropped = [row for row in before if row.id not in labels]
    relabelled = [row for row in before if labels.get(row.id, row.label) != row.label]
    return {"relabelled": _by_fine_label(relabelled), "dropped": _by_fine_label(dropped)}


def _by_fine_label(rows: Sequence[Row]) -> dict[str, int]:
    return dict(sorted(Counter(row.fine_label or "" for row in rows).items()))


def _augment_record(augmented: Augmented) -> dict[str, Any]:
    return {
        "added": dict(augmented.counts),
        "wanted": augmented.wanted,
        "short_of": dict(augmented.short_of),
        "left_out": dict(augmented.left_out),
        "repeated": augmented.repeated,
    }
