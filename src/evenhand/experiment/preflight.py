"""Preflight: what a phase, or each phase of an experiment, will meet on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evenhand.config.files import shown
from evenhand.config.load import LoadedExperiment, LoadedPhase, ResolvedPhase
from evenhand.config.resolve import AUGMENT_CORPUS, FILE_KEYS
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, EvenhandError, InputError, ModelError
from evenhand.core.records import Dataset, Row
from evenhand.core.seeding import rng_for
from evenhand.data.starter import generate
from evenhand.decide.audit.schedule import plan_schedule
from evenhand.experiment import preflight_checks as checks
from evenhand.experiment.inputs import DataSource, own_sources, set_source
from evenhand.experiment.preflight_checks import Check, Status
from evenhand.experiment.training_rows import RowMaker, TrainingRows
from evenhand.finetune.devices import Device, choose_device, release_memory
from evenhand.finetune.preflight.architecture import (
    Architecture,
    missing_weights,
    read_architecture,
)
from evenhand.finetune.preflight.kernels import check_kernels, chosen_kernels
from evenhand.finetune.preflight.launch import launch_facts
from evenhand.finetune.preflight.lengths import (
    NO_STEP,
    SequenceFacts,
    largest_step,
    measure_lengths,
)
from evenhand.finetune.preflight.memory import estimate_memory, memory_room
from evenhand.finetune.preflight.step import MeasuredSteps, measure_steps
from evenhand.finetune.processes import is_sharded
from evenhand.prompts.template import PromptTemplate, load_prompt

_ROWS_TOKENISED = 20_000
"""Lengths are taken from so many rows, drawn at random, where there are more."""


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    """What the user says about the planned training.

    Attributes:
        processes: processes that will train.
        gpus: GPUs of this machine.
        steps: steps to measure after the first; 0: none.
        hourly_price: of one process's device; None: no cost.
        out: the run folder, if it is known.
    """

    processes: int = 1
    gpus: int = 0
    steps: int = 3
    hourly_price: float | None = None
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class PhasePreflight:
    """The checks of one phase."""

    name: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Preflight:
    """The checks of every phase, and those that concern them together."""

    source: str
    phases: tuple[PhasePreflight, ...]
    together: tuple[Check, ...] = ()

    @property
    def status(self) -> Status:
        """The worst of all."""
        return checks.worst(
            [*self.together, *(check for phase in self.phases for check in phase.checks)]
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of the command."""
        phases = [
            {"name": one.name, "status": checks.worst(one.checks), "checks": _json(one.checks)}
            for one in self.phases
        ]
        return {
            "source": self.source,
            "status": self.status,
            "phases": phases,
            "together": _json(self.together),
        }


def _named_file(config: PhaseConfig, key: str) -> str | None:
    if key == AUGMENT_CORPUS:
        return None if config.augment is None else config.augment.corpus
    return getattr(config, key)


def _make_rows(
    maker: RowMaker, train: Dataset, config: PhaseConfig, sources: Mapping[str, DataSource]
) -> TrainingRows:
    """Return the rows to train on; without the added ones where their corpus is not here."""
    augment = config.augment
    if augment is not None and augment.corpus is not None and AUGMENT_CORPUS not in sources:
        config = config.model_copy(update={"augment": None})
    wanted = () if config.augment is None else ("validation_file", AUGMENT_CORPUS)
    own = {key: sources[key].read() for key in wanted if key in sources}
    return maker.make(train, config, own=own)


def _json(found: Sequence[Check]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]


def preflight_phase(
    phase: LoadedPhase, sources: Mapping[str, DataSource], options: PreflightOptions
) -> Preflight:
    """Check one phase; ``sources`` has its data files by key, as far as they are there.

    Raises:
        ConfigError: what no machine could run, such as target modules that the model lacks.
        DataError: rows that cannot be used.
    """
    name = phase.path.stem
    found = _Phase.of(name, phase, sources, options).checks()
    return Preflight(str(phase.path), (PhasePreflight(name, found),))


def preflight_experiment(experiment: LoadedExperiment, options: PreflightOptions) -> Preflight:
    """Check every phase of an experiment, and whether they share their prompt.

    Raises:
        ConfigError: what no machine could run.
        DataError: rows that cannot be used.
    """
    found, prompts = [], {}
    train = experiment.train_set
    there = [one for one in experiment.sets if one.path is not None]
    # Read only where rows must not equal theirs, and then once.
    sets = {one.name: set_source(experiment, one) for one in there if one.role != "train"}
    is_augmented = any(phase.config.augment is not None for phase in experiment.phases)
    maker = RowMaker({name: one.read(name) for name, one in sets.items()} if is_augmented else {})
    entries: dict[str, ResolvedPhase] = {}
    for phase in experiment.phases:
        entries.setdefault(phase.entry, phase)  # its other seeds meet the same
    for name, phase in entries.items():
        sources = own_sources(experiment, phase)
        if train is not None and train.path is not None:
            sources["train_file"] = set_source(experiment, train)
        one = _Phase.of(name, phase, sources, options, has_set=train is not None, maker=maker)
        if phase.config.task == "causal_lm":
            prompts[name] = one.prompt
        found.append(PhasePreflight(name, one.checks()))
    together = (checks.check_same_prompt(prompts),) if len(prompts) > 1 else ()
    return Preflight(str(experiment.path), tuple(found), together)


@dataclass(frozen=True)
class _Phase:
    """What is known of a phase before anything is loaded."""

    config: PhaseConfig
    prompt: PromptTemplate
    train: Dataset | None
    made: TrainingRows | None
    missing: dict[str, str]
    device: Device
    options: PreflightOptions
    folder: Path

    @classmethod
    def of(
        cls,
        name: str,
        phase: LoadedPhase,
        sources: Mapping[str, DataSource],
        options: PreflightOptions,
        *,
        has_set: bool = False,
        maker: RowMaker | None = None,
    ) -> _Phase:
        """Find the phase's files and read its rows."""
        config = phase.config
        named = {
            key: _named_file(config, key)
            for key in FILE_KEYS
            if not (has_set and key == "train_file")
        }
        missing = {key: name for key, name in named.items() if name and key not in phase.files}
        source = sources.get("train_file")
        if has_set and source is None:
            missing["sets"] = "the file of the train set"
        path = phase.files.get("prompt_file")
        is_built_in = "prompt_file" in missing
        folder = options.out or Path(config.output_dir or Path("runs") / name)
        device = choose_device(config.device, dtype=config.dtype, bf16=config.bf16)
        train = None if source is None else source.read()
        made = None
        if train is not None:
            made = _make_rows(maker or RowMaker({}), train, config, sources)
        return cls(
            config=config,
            prompt=load_prompt(path, strategy=None if is_built_in else config.strategy),
            train=train,
            made=made,
            missing=missing,
            device=device,
            options=options,
            folder=folder,
        )

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows to train on; texts of the starter corpus where there are none."""
        return generate()["train"] if self.made is None else self.made.rows

    @property
    def origin(self) -> str:
        """Where the rows come from."""
        return (
            "starter texts"
            if self.train is None
            else shown(self.train.path or Path(self.train.name))
        )

    @property
    def count(self) -> int | None:
        """Training rows, if they are known."""
        return None if self.train is None else len(self.rows)

    def checks(self) -> tuple[Check, ...]:
        """Look at everything; what cannot be known is said to be unknown."""
        found = [checks.check_files(self.missing, rows=self.count, source=self.origin)]
        try:
            model = read_architecture(self.config)
        except ModelError as error:
            found.append(Check("parameters", "unknown", f"{error.message}.", error.hint or ""))
            return (*found, checks.check_prompt(self.prompt, None))
        found.append(checks.check_parameters(model))
        lengths, failed = self._lengths(model)
        found.append(failed or checks.check_prompt(self.prompt, lengths))
        if lengths is not None:
            found.append(checks.check_truncation(lengths, source=self.origin))
        found += self._kernels(model)
        if self.config.tuning != "none":
            found += self._training(model, lengths)
        return tuple(found)

    def _training(self, model: Architecture, lengths: SequenceFacts | None) -> list[Check]:
        config, processes = self.config, self.options.processes
        schedule = None
        if self.count is not None:
            schedule = plan_schedule(
                rows=self.count,
                epochs=config.num_train_epochs,
                batch=config.per_device_train_batch_size,
                accumulation=config.gradient_accumulation_steps,
                warmup=config.warmup_steps,
                processes=processes,
            )
        facts = launch_facts(config, self.device)
        return [
            *self._memory_and_time(model, lengths),
            checks.check_disk(config, model, schedule, self.folder),
            checks.check_processes(
                config, facts, processes=processes, gpus=self.options.gpus, device=self.device
            ),
            checks.check_warmup(schedule),
        ]

    def _memory_and_time(
        self, model: Architecture, lengths: SequenceFacts | None
    ) -> tuple[Check, Check]:
        config, options = self.config, self.options
        if lengths is None:
            shape = NO_STEP
        else:
            shape = largest_step(
                lengths,
                batch_rows=config.per_device_train_batch_size,
                rng=rng_for(config.seed, "preflight"),
            )
        estimate = estimate_memory(
            config,
            model,
            shape,
            self.device,
            processes=options.processes,
            is_sharded=is_sharded(),
        )
        room = memory_room(self.device)
        steps, timed = self._steps(
            None if room is None or estimate.total <= room.total else "it would not fit into memory"
        )
        memory = checks.check_memory(
            estimate, room, device=self.device, processes=options.processes, steps=steps
        )
        if lengths is None and memory.status != "problem":
            message = f"Without activations, for want of a tokenizer: {memory.message}"
            memory = replace(memory, status="unknown", message=message)
        return memory, timed if steps is None else self._time(steps)

    def _time(self, steps: MeasuredSteps) -> Check:
        return checks.check_step(
            steps,
            rows=self.count,
            epochs=self.config.num_train_epochs,
            processes=self.options.processes,
            hourly_price=self.options.hourly_price,
        )

    def _lengths(self, model: Architecture) -> tuple[SequenceFacts | None, Check | None]:
        config, rows = self.config, self.rows
        if len(rows) > _ROWS_TOKENISED:
            drawn = rng_for(config.seed, "preflight lengths").permutation(len(rows))
            rows = tuple(rows[place] for place in drawn[:_ROWS_TOKENISED])
        try:
            kind = model.settings.model_type
            return measure_lengths(config, self.prompt, rows, model_type=kind), None
        except ConfigError as error:
            problem = error.problems[0]
            message = f"{problem.place} {problem.message}."
            return None, Check("prompt", "problem", message, "Raise max_seq_length.")
        except ModelError as error:
            if missing_weights(config) is None:
                return None, Check("prompt", "problem", f"{error.message}.", error.hint or "")
            return None, None
        except (OSError, ValueError):
            return None, None

    def _kernels(self, model: Architecture) -> list[Check]:
        rng = rng_for(self.config.seed, "preflight kernels")
        try:
            kernels = chosen_kernels(self.config, model.settings, self.device)
            found = check_kernels(
                self.config, model.settings, self.device, kernels=kernels, rng=rng
            )
        except (RuntimeError, ValueError, TypeError, AttributeError, EvenhandError) as error:
            first = (str(error).strip().splitlines() or [repr(error)])[0]
            message = f"No small model of this kind could be compared: {first}."
            return [Check("attention", "unknown", message)]
        parts = dict.fromkeys(one.part for one in found)
        return [
            checks.check_kernel(part, [one for one in found if one.part == part]) for part in parts
        ]

    def _steps(self, refused: str | None) -> tuple[MeasuredSteps | None, Check]:
        """Measure, or say why not; the check counts only where nothing was measured."""
        config = self.config
        absent = refused or missing_weights(config)
        if absent is None and "init_adapter" in self.missing:
            absent = "the adapter to start from is not here"
        if absent is None and self.options.steps == 0:
            absent = "no steps were asked for"
        message = f"Not measured: {absent}; time and cost are not estimated."
        unknown = Check("time", "unknown", message, "Run it where the model can be trained.")
        if absent is not None:
            return None, unknown
        rng = rng_for(config.seed, "preflight steps")
        try:
            steps = measure_steps(config, self.prompt, self.rows, steps=self.options.steps, rng=rng)
        except InputError as error:
            told = "; ".join(f"{one.place} {one.message}" for one in error.problems)
            return None, Check("time", "problem", f"Training fails: {told}.", error.hint or "")
        except EvenhandError as error:
            return None, Check("time", "problem", f"{error.message}.", error.hint or "")
        finally:
            release_memory()  # the next phase must find the device free
        return steps, unknown
