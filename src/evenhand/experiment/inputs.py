"""What a stage depends on, as hashes: equal hashes mean that nothing needs to be done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from evenhand.config.factors import LOCATIONS, NO_EFFECT_ON_RESULT
from evenhand.config.files import shown
from evenhand.config.load import LoadedExperiment, ResolvedPhase
from evenhand.config.resolve import AUGMENT_CORPUS, STARTER, ResolvedSet
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.paths import sha256_file, sha256_json
from evenhand.core.records import Dataset, Row
from evenhand.data.augmenting.terms import terms_sha256
from evenhand.data.selecting import read_starter, select_rows
from evenhand.data.sources import read_dataset, row_fields
from evenhand.experiment.training_rows import TrainingRows
from evenhand.finetune.folders import adapter_folder, locate
from evenhand.prompts.template import PromptTemplate

_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


PHASE_FILES = ("train_file", "validation_file", AUGMENT_CORPUS)
"""The data files that a phase names itself, by key."""


@dataclass(frozen=True)
class DataSource:
    """A data file and how it is read.

    Attributes:
        path: the file; ``starter:PART`` is a part of the built-in corpus, which nothing below but
            the selection of rows applies to.
        within: the file whose texts are kept; None: all.
        without: the files whose texts are left out.
        without_groups: the target groups whose rows are left out.
        max_rows: the first so many records of the file, or, where others decide about its rows, of
            the rows that are left.
    """

    path: Path
    format: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    on_bad_row: Literal["stop", "skip"] = "stop"
    max_rows: int | None = None
    within: Path | None = None
    without: tuple[Path, ...] = ()
    without_groups: tuple[str, ...] = ()

    @property
    def starter_part(self) -> str | None:
        """The part of the built-in corpus that it is, if it is one."""
        text = str(self.path)
        return text.removeprefix(STARTER) if text.startswith(STARTER) else None

    def read(self, name: str | None = None) -> Dataset:
        """Read the file.

        Raises:
            DataError: as :func:`evenhand.data.sources.read_dataset`, or no row is left.
        """
        selects = self.within is not None or self.without or self.without_groups
        if self.starter_part is None and not selects:
            return self._read_file(name, max_rows=self.max_rows)
        return select_rows(
            self._read_file(name),
            within=None if self.within is None else self._read_other("within", self.within),
            without=[self._read_other("without", path) for path in self.without],
            without_groups=self.without_groups,
            max_rows=self.max_rows,
        )

    def _read_file(
        self, name: str | None, *, max_rows: int | None = None, texts_only: bool = False
    ) -> Dataset:
        if self.starter_part is not None:
            return read_starter(self.starter_part, name=name)
        return read_dataset(
            self.path,
            name=name,
            columns=self.columns or None,
            labels=self.labels or None,
            format=self.format,
            on_bad_row=self.on_bad_row,
            max_rows=max_rows,
            texts_only=texts_only,
        )

    def _read_other(self, key: str, path: Path) -> Dataset:
        """Read a file of which only the texts count; its faults are told beside this one's."""
        # Its other columns need not be there, nor be in order: a row that is passed over for its
        # label would be a text that is not left out.
        columns = {key: name for key, name in self.columns.items() if key == "text"}
        source = replace(self, path=path, format=None, columns=columns)
        try:
            return source._read_file(shown(path), texts_only=True)
        except DataError as error:
            problems = [
                Problem(f"{key} {shown(path)}, {one.place}", one.message) for one in error.problems
            ]
            raise DataError(error.source, problems, hint=error.hint) from error

    def to_json(self) -> dict[str, Any]:
        """Return what a run folder keeps, so that the file can be read again in the same way."""
        found = {
            "path": absolute(self.path),
            "format": self.format,
            "columns": dict(self.columns),
            "labels": dict(self.labels),
            "on_bad_row": self.on_bad_row,
            "max_rows": self.max_rows,
        }
        if self.within is not None:
            found["within"] = absolute(self.within)
        if self.without:
            found["without"] = [absolute(path) for path in self.without]
        if self.without_groups:
            found["without_groups"] = list(self.without_groups)
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the source that :meth:`to_json` wrote down."""
        paths: dict[str, Any] = {"path": Path(value["path"])}
        if value.get("within") is not None:
            paths["within"] = Path(value["within"])
        paths["without"] = tuple(Path(one) for one in value.get("without", ()))
        paths["without_groups"] = tuple(value.get("without_groups", ()))
        return cls(**{**value, **paths})


@dataclass(frozen=True)
class Recipe:
    """What augmented training rows were made with, beside the training file and the configuration.

    Attributes:
        evaluation: the sets, by name, that no added row equals or resembles.
        corpus: the file that rows were selected from, if any.
    """

    evaluation: Mapping[str, DataSource]
    corpus: DataSource | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a run folder keeps."""
        return {
            "evaluation": {name: one.to_json() for name, one in self.evaluation.items()},
            "corpus": None if self.corpus is None else self.corpus.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the recipe that :meth:`to_json` wrote down."""
        corpus = value["corpus"]
        return cls(
            {name: DataSource.from_json(one) for name, one in value["evaluation"].items()},
            None if corpus is None else DataSource.from_json(corpus),
        )


@dataclass(frozen=True)
class TrainingInputs:
    """All that one phase's training depends on.

    Attributes:
        train: the training file's rows as read.
        made: the rows that are trained on; None where there is no training file.
        recipe: what augmented rows are made with; None where there are none.
        corpus: the rows that augmentation selects from.
    """

    config: PhaseConfig
    provenance: Mapping[str, str]
    prompt: PromptTemplate
    train: Dataset | None
    train_source: DataSource | None
    validation: Dataset | None
    init_adapter: Path | None = None
    inside_experiment: bool = False
    has_train_set: bool = False
    made: TrainingRows | None = None
    recipe: Recipe | None = None
    corpus: Dataset | None = None

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The data that it was read from."""
        read = (self.train, self.validation, self.corpus)
        return tuple(data for data in read if data is not None)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that are trained on."""
        return () if self.made is None else self.made.rows

    def continuing(self, adapter: Path) -> TrainingInputs:
        """Return the same inputs with the adapter that training starts from."""
        config = self.config.model_copy(update={"init_adapter": str(adapter)})
        return replace(self, config=config, init_adapter=adapter)

    @property
    def explicit(self) -> frozenset[str]:
        """The configuration keys that the user set."""
        return frozenset(key for key, origin in self.provenance.items() if origin != "default")

    @cached_property
    def hashes(self) -> dict[str, Any]:
        """The hash of each input.

        Raises:
            ModelError: the base model or the adapter to start from is not there.
        """
        config = {
            key: value
            for key, value in self.config.model_dump(mode="json").items()
            if key not in NO_EFFECT_ON_RESULT | LOCATIONS  # the content is hashed below
            and value is not None  # unused: a later version's new keys change nothing
        }
        if self.config.augment is not None:
            # The corpus is a location too: what was taken from it is among the rows.
            config["augment"] = self.config.augment.model_dump(
                mode="json", exclude_none=True, exclude={"corpus"}
            )
        if self.config.counterfactual_pairing is not None:
            config["identity_terms"] = terms_sha256()
        return {
            "config": sha256_json(config),
            "prompt": self.prompt.sha256,
            "model": _model_sha256(self.config.model_name_or_path),
            "train": None if self.train is None else training_sha256(self.train, self.made),
            "validation": None if self.validation is None else rows_sha256(self.validation),
            "init_adapter": None
            if self.init_adapter is None
            else sha256_file(adapter_folder(self.init_adapter) / "adapter_model.safetensors"),
        }


@dataclass(frozen=True)
class Plan:
    """An experiment that can be run: its data sets as read, and each phase's inputs by name.

    The inputs of a phase that continues another one have no ``init_adapter`` yet.
    """

    sets: Mapping[str, Dataset]
    inputs: Mapping[str, TrainingInputs]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """All data that was read: the sets, and what phases name themselves; each file once."""
        own = [data for one in self.inputs.values() for data in one.datasets]
        found = [*self.sets.values(), *own]
        return tuple({data.path: data for data in found}.values())


def set_source(experiment: LoadedExperiment, one: ResolvedSet) -> DataSource:
    """Return a data set's file and how the experiment reads it.

    Raises:
        ConfigError: the file was not found when the experiment was loaded.
    """
    if one.path is None:
        raise ConfigError(shown(experiment.path), [Problem(f"sets.{one.name}", "was not found")])
    return DataSource(
        path=one.path,
        format=one.format,
        columns=one.columns.chosen(),
        labels=one.labels,
        on_bad_row=experiment.config.on_bad_row,
        max_rows=one.max_rows,
        within=one.within,
        without=one.without,
        without_groups=one.without_groups,
    )


def own_sources(experiment: LoadedExperiment, phase: ResolvedPhase) -> dict[str, DataSource]:
    """Return the data files that a phase names itself, by key."""
    config = experiment.config
    return {
        key: DataSource(
            path=phase.files[key],
            columns=config.columns.chosen(),
            labels=config.labels,
            on_bad_row=config.on_bad_row,
        )
        for key in PHASE_FILES
        if key in phase.files
    }


def rows_sha256(data: Dataset) -> str:
    """Return the hash of the rows as they are used: columns, labels and skips applied."""
    used = [{**row_fields(row), "extra": None} for row in data.rows]
    return sha256_json(used)


def training_sha256(train: Dataset, made: TrainingRows | None) -> str:
    """Return the hash of training rows: of those made, where they are no mere draw of the file's.

    A draw follows from the file's rows and the configuration.
    """
    if made is None or not made.is_treated:
        return rows_sha256(train)
    return rows_sha256(Dataset(train.name, made.rows))


def absolute(path: Path) -> str:
    """Return a file's whole path; a part of the built-in corpus keeps its name."""
    return str(path) if str(path).startswith(STARTER) else str(path.resolve())


def _model_sha256(name_or_path: str) -> str:
    """Hash a local model's files; a hub model goes by its name."""
    location = locate(name_or_path)
    folder = Path(location)
    if not folder.is_dir():
        return sha256_json(location)
    files = [*folder.glob("*.safetensors"), *(folder / name for name in _MODEL_FILES)]
    return sha256_json({one.name: _file_sha256(one) for one in files if one.is_file()})


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _remembered_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)  # the phases of an experiment share gigabytes of weights
def _remembered_sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001
    return sha256_file(path)
