"""What is going to be done, checked before any of it is: data, prompts, models, target modules.

Training takes hours, and a mistake in the last phase must not show after the first. Everything that
can be checked without reading weights is checked here, for all phases, and told at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evenhand.config.criteria import load_criteria
from evenhand.config.files import shown
from evenhand.config.load import LoadedExperiment, LoadedPhase, ResolvedPhase
from evenhand.config.resolve import AUGMENT_CORPUS
from evenhand.config.rules import CUDA_OPTIMISERS
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, DeviceError, InputError, ModelError, Problem
from evenhand.core.records import Dataset, Row
from evenhand.experiment.inputs import (
    DataSource,
    Plan,
    Recipe,
    TrainingInputs,
    own_sources,
    set_source,
)
from evenhand.experiment.training_rows import OWN_VALIDATION, RowMaker, TrainingRows
from evenhand.finetune.devices import choose_device
from evenhand.finetune.folders import adapter_folder
from evenhand.finetune.models import inspect_model
from evenhand.finetune.params import count_parameters
from evenhand.prompts.template import PromptTemplate, load_prompt


def plan_phase(phase: LoadedPhase, sources: Mapping[str, DataSource]) -> TrainingInputs:
    """Return the inputs of one phase; ``sources`` has its data files by key.

    Raises:
        ConfigError: with everything that would stop the training.
    """
    check = _Check()
    files = _Files.read(check, sources)
    maker = RowMaker({})
    inputs = _check_phase(check, phase, files, maker=maker, recipe=files.recipe({}))
    if inputs is None or check.problems:
        raise check.error(phase.path)
    return inputs


def plan_experiment(experiment: LoadedExperiment) -> Plan:
    """Read every data set of an experiment and check every phase.

    Raises:
        ConfigError: with everything that would stop the experiment.
    """
    check = _Check()
    sources = {one.name: set_source(experiment, one) for one in experiment.sets}
    sets = {name: check.read(source, name) for name, source in sources.items()}
    held_out = [one.name for one in experiment.sets if one.role != "train"]
    maker = RowMaker({name: data for name in held_out if (data := sets[name]) is not None})
    evaluation = {name: sources[name] for name in held_out}
    train_set = experiment.train_set
    entries = [entry.name for entry in experiment.config.phases]
    phases: dict[str, TrainingInputs | None] = {}
    for phase in experiment.phases:
        files = _Files.read(check, own_sources(experiment, phase))
        phases[phase.name] = _check_phase(
            check,
            phase,
            files if train_set is None else files.training_on(train_set.name, sources, sets),
            maker=maker,
            recipe=files.recipe(evaluation),
            selection=sets[experiment.selection_set.name],
            prefix=f"phases[{entries.index(phase.entry)}].",
        )
    gate = experiment.config.gate
    if gate is not None:
        with check.collecting("gate.criteria", prefix=f"{gate.criteria}, "):
            load_criteria(gate.criteria, base=experiment.path.parent)
    if check.problems:
        raise check.error(experiment.path)
    return Plan(
        {name: read for name, read in sets.items() if read is not None},
        {name: inputs for name, inputs in phases.items() if inputs is not None},
    )


@dataclass(frozen=True)
class _Files:
    """The data files of one phase, by key: how they are read, and what was read."""

    sources: Mapping[str, DataSource]
    data: Mapping[str, Dataset | None]

    @classmethod
    def read(cls, check: _Check, sources: Mapping[str, DataSource]) -> _Files:
        return cls(sources, {key: check.read(source) for key, source in sources.items()})

    def training_on(
        self,
        name: str,
        sources: Mapping[str, DataSource],
        sets: Mapping[str, Dataset | None],
    ) -> _Files:
        """Return the files with one of the experiment's sets as the training file."""
        return _Files(
            {**self.sources, "train_file": sources[name]}, {**self.data, "train_file": sets[name]}
        )

    def recipe(self, evaluation: Mapping[str, DataSource]) -> Recipe:
        """Return what augmented rows of the phase are made with."""
        own = self.sources.get("validation_file")
        sources = evaluation if own is None else {**evaluation, OWN_VALIDATION: own}
        return Recipe(sources, self.sources.get(AUGMENT_CORPUS))


@dataclass
class _Check:
    """Collects problems instead of stopping at the first one, and reads no file twice."""

    problems: list[Problem] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    read_already: dict[Path, Dataset | None] = field(default_factory=dict)

    @contextlib.contextmanager
    def collecting(self, place: str, *, prefix: str = "") -> Iterator[None]:
        """Keep the problems of the block, at their own places behind ``prefix`` or at ``place``."""
        try:
            yield
        except InputError as error:
            self.problems += [Problem(prefix + one.place, one.message) for one in error.problems]
            self.hints += [error.hint] if error.hint else []
        except (ModelError, DeviceError) as error:
            self.problems.append(Problem(place, error.message))
            self.hints += [error.hint] if error.hint else []

    def read(self, source: DataSource, name: str | None = None) -> Dataset | None:
        """Read a data file; None where it cannot be used."""
        if name is None and source.path in self.read_already:
            return self.read_already[source.path]
        data = None
        place = shown(source.path)
        with self.collecting(place, prefix=f"{place}, "):
            data = source.read(name)
        if name is None:
            self.read_already[source.path] = data
        return data

    def error(self, path: Path) -> ConfigError:
        """Return all that was found, each problem once."""
        hint = "\n".join(dict.fromkeys(self.hints)) or None
        return ConfigError(shown(path), dict.fromkeys(self.problems), hint=hint)


def _check_phase(
    check: _Check,
    phase: LoadedPhase,
    files: _Files,
    *,
    maker: RowMaker,
    recipe: Recipe,
    selection: Dataset | None = None,
    prefix: str = "",
) -> TrainingInputs | None:
    """Return a phase's inputs; None where its prompt cannot be used.

    ``selection`` is validated on where the phase names no file itself.
    """
    config, adapter = phase.config, phase.files.get("init_adapter")
    train = files.data.get("train_file")
    validation = files.data.get("validation_file", selection)
    prompt = _check_prompt(check, phase, prefix)
    with check.collecting(f"{prefix}device"):
        device = choose_device(config.device, dtype=config.dtype, bf16=config.bf16)
        if config.optim in CUDA_OPTIMISERS and device.name != "cuda":
            message = f'"{config.optim}" needs CUDA, but the device here is "{device.name}"'
            check.problems.append(Problem(f"{prefix}optim", f'{message}; use "adamw_torch"'))
    with check.collecting(f"{prefix}model_name_or_path", prefix=prefix):
        inspect_model(config)
        count_parameters(config)  # builds the model without weights and attaches the adapter
    with check.collecting(f"{prefix}init_adapter"):
        if adapter is not None:
            adapter_folder(adapter)
    made = _make_rows(check, config, files, maker=maker, prefix=prefix)
    if config.tuning != "none":
        check.problems += _row_problems(config, train, made, validation)
    if prompt is None:
        return None
    inputs = TrainingInputs(
        config=config,
        provenance=phase.provenance,
        prompt=prompt,
        train=train,
        train_source=files.sources.get("train_file"),
        validation=validation,
        inside_experiment=isinstance(phase, ResolvedPhase),
        has_train_set=train is not None and "train_file" not in phase.files,
        made=made,
        recipe=recipe if made is not None and made.is_augmented else None,
        corpus=files.data.get(AUGMENT_CORPUS),
    )
    return inputs if adapter is None else inputs.continuing(adapter)


def _make_rows(
    check: _Check, config: PhaseConfig, files: _Files, *, maker: RowMaker, prefix: str
) -> TrainingRows | None:
    """Return the phase's training rows; None where there are no rows to make them of."""
    train = files.data.get("train_file")
    if train is None or files.data.get(AUGMENT_CORPUS, train) is None:
        return None
    with check.collecting(f"{prefix}augment", prefix=prefix):
        return maker.make(train, config, own=files.data)
    return None


def _check_prompt(check: _Check, phase: LoadedPhase, prefix: str) -> PromptTemplate | None:
    # Phases share a prompt file: its faults are told at their places in it, and once.
    path = phase.files.get("prompt_file")
    place = f"{prefix}strategy" if path is None else shown(path)
    with check.collecting(place, prefix="built-in prompt, " if path is None else f"{place}, "):
        return load_prompt(path, strategy=phase.config.strategy)
    return None


def _row_problems(
    config: PhaseConfig,
    train: Dataset | None,
    made: TrainingRows | None,
    validation: Dataset | None,
) -> Iterator[Problem]:
    """Name the data that have one label where both are needed."""
    if train is not None and made is not None:
        yield from _one_label(train, made.rows, "training")
    if validation is not None and config.metric_for_best_model == "eval_roc_auc":
        yield from _one_label(validation, validation.rows, "metric_for_best_model roc_auc")


def _one_label(data: Dataset, rows: Iterable[Row], what: str) -> Iterator[Problem]:
    labels = {row.label for row in rows}
    if len(labels) == 1 and data.path is not None:
        yield Problem(shown(data.path), f"gives only {labels.pop()} rows, but {what} needs both")
