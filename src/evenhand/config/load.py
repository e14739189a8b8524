"""Read a phase or an experiment from its file: values, where each came from, files found.

A value is taken from the first of: ``--set``; the experiment's overrides of the phase; the phase's
configuration file; the experiment's defaults; the experiment's prompt; the schema's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from evenhand.config import files, resolve
from evenhand.config.checking import check_experiment
from evenhand.config.experiment_schema import ExperimentConfig
from evenhand.config.overrides import apply_overrides, parse_overrides
from evenhand.config.resolve import Layer, Merged, ResolvedSet
from evenhand.config.schema import PhaseConfig
from evenhand.config.strict_json import read_object
from evenhand.core.errors import ConfigError, Problem

_NO_TRAIN_FILE = 'is missing: name the training rows, or set tuning to "none"'
_NO_TRAIN_SET = 'is missing: give the experiment a set of role "train", or the phase a file'
_NO_VALIDATION_FILE = (
    'is missing: name rows for early stopping, or set eval_strategy to "no" and '
    "load_best_model_at_end to false"
)


@dataclass(frozen=True, slots=True)
class LoadedPhase:
    """A phase with the origin of each value.

    Attributes:
        config: the values.
        path: the file that was read.
        provenance: for each key, "default", a file's name, "--set", "experiment defaults",
            "experiment prompt", "experiment overrides" or "experiment seeds".
        files: the data, prompt and adapter files that it names, by key (``augment.corpus`` for the
            one inside), as they were found.
    """

    config: PhaseConfig
    path: Path
    provenance: Mapping[str, str]
    files: Mapping[str, Path]

    @property
    def base(self) -> Path:
        """The folder of the file that was read."""
        return self.path.parent

    @property
    def explicit(self) -> frozenset[str]:
        """The keys that were set by the user rather than by the schema."""
        return frozenset(key for key, origin in self.provenance.items() if origin != "default")


@dataclass(frozen=True, slots=True)
class ResolvedPhase(LoadedPhase):
    """A phase of an experiment; ``files`` has no training file where a train set replaces it.

    ``entry`` is its name in the experiment's file, which several seeds share.
    """

    name: str
    entry: str
    hypothesis: str | None
    continue_from: str | None


@dataclass(frozen=True, slots=True)
class LoadedExperiment:
    """An experiment with its phases and data sets resolved."""

    config: ExperimentConfig
    path: Path
    phases: tuple[ResolvedPhase, ...]
    sets: tuple[ResolvedSet, ...]

    @property
    def train_set(self) -> ResolvedSet | None:
        """The set of role train that replaces the phases' training files, if there is one."""
        return next(iter(self.sets_of("train")), None)

    @property
    def selection_set(self) -> ResolvedSet:
        """The set on which the best phase is chosen."""
        return next(one for one in self.sets if one.name == self.config.selection.set)

    @property
    def control_phases(self) -> tuple[str, ...]:
        """The phases, one for each seed, that the others are compared with."""
        return tuple(one.name for one in self.phases if one.entry == self.config.control)

    def sets_of(
        self, role: Literal["train", "validation", "test", "production"]
    ) -> tuple[ResolvedSet, ...]:
        """Return the sets of a role, in the file's order."""
        return tuple(one for one in self.sets if one.role == role)


def load_phase(
    path: Path | str, *, overrides: Sequence[str] = (), check_files: bool = True
) -> LoadedPhase:
    """Read one phase's JSON file.

    ``overrides`` are ``key=value`` strings; ``augment.ratio=0.5`` changes one value inside an
    object. With ``check_files`` the data, prompt and adapter
    files must exist (beside the JSON file or in the current folder).

    Raises:
        ConfigError: with every problem of the file, the overrides and the named files.
    """
    path = Path(path)
    document, problems = _read(path)
    values, more = parse_overrides(overrides)
    problems.extend(more)
    if "phases" in document:
        problems.append(Problem("phases", "this is an experiment; use `evenhand run`"))
        raise _error(path, problems, field="")
    merged = Merged.of(
        [
            Layer(document, files.shown(path), prefix="", base=path.parent),
            Layer(values, "--set", prefix="--set ", reaches_inside=True),
        ]
    )
    config, found_problems = merged.check(prefix="")
    problems.extend(found_problems)
    problems.extend(resolve.no_object("--set ", path) for path in merged.unreached)
    found, missing = merged.find_files()
    if check_files:
        problems.extend(missing)
        problems.extend(_needed_files(config))
    if config is None or problems:
        raise _error(path, problems, field=" phases")
    return LoadedPhase(config, path, merged.provenance(), MappingProxyType(found))


def load_experiment(
    path: Path | str, *, overrides: Sequence[str] = (), check_files: bool = True
) -> LoadedExperiment:
    """Read an experiment's JSON file and the phase files that it names.

    ``overrides`` are ``path=value`` strings: ``phases.0.lora_r=16``, ``phases.default.lora_r=16``,
    ``phases.*.max_train_rows=64``, ``phases.*.augment.ratio=0.5``, ``selection.metric=roc_auc``.
    With ``check_files`` all data, prompt and adapter files must exist.

    Raises:
        ConfigError: with every problem of the files, the overrides and the named files.
    """
    path = Path(path)
    document, problems = _read(path)
    if "phases" not in document and "model_name_or_path" in document:
        problems.append(Problem("file", "this is one phase; use `evenhand train`"))
        raise _error(path, problems, field="")
    values, more = parse_overrides(overrides)
    document, set_of_phase, unapplied = apply_overrides(document, values)
    config, found_problems = check_experiment(document)
    problems.extend([*more, *unapplied])
    problems.extend(Problem(one.place, one.message) for one in found_problems)

    context = resolve.Context(document, path.parent, set_of_phase)
    phases: list[ResolvedPhase | None] = []
    unreached: dict[int, tuple[str, ...]] = {}
    for index in range(len(context.entries)):
        merged, config_path, of_phase = context.merge(index)
        unreached[index] = merged.unreached
        phase, more = _resolve_phase(
            context, index, merged, config_path or path, check_files=check_files
        )
        phases.append(phase)
        problems.extend([*of_phase, *more])
    problems.extend(resolve.unreached_problems(set_of_phase, unreached))
    if config is not None and config.seeds is not None:
        problems.extend(
            Problem(f"--set phases.{index}.seed", "the experiment's seeds set it; leave it out")
            for index, given in set_of_phase.items()
            if "seed" in given
        )
    problems.extend(context.set_problems(check_files=check_files))
    if config is None:
        raise _error(path, problems, field=_section(problems))
    problems.extend(resolve.parent_problems(config, [p.config if p else None for p in phases]))
    resolved = tuple(phase for phase in phases if phase is not None)
    if problems or len(resolved) < len(phases):
        raise _error(path, problems, field=_section(problems))
    if config.seeds is not None:
        resolved = tuple(_with_seed(one, seed) for seed in config.seeds for one in resolved)
    return LoadedExperiment(config, path, resolved, resolve.resolve_sets(config, context))


def resolved_json(phase: LoadedPhase) -> dict[str, Any]:
    """Return what a run folder's ``config.json`` holds: values, and where each came from."""
    return {
        "config": phase.config.model_dump(mode="json"),
        "provenance": dict(phase.provenance),
    }


def _resolve_phase(
    context: resolve.Context, index: int, merged: Merged, path: Path, *, check_files: bool
) -> tuple[ResolvedPhase | None, list[Problem]]:
    entry = context.entries[index]
    config, found_problems = merged.check(prefix=f"phases[{index}].")
    found, missing = merged.find_files(without=("train_file",) if context.has_train_set else ())
    problems = [*found_problems, *(missing if check_files else ())]
    if config is None:
        return None, problems
    if config.train_file is None and not context.has_train_set and config.tuning != "none":
        problems.append(Problem(f"phases[{index}].train_file", _NO_TRAIN_SET))
    phase = ResolvedPhase(
        config=config,
        path=path,
        provenance=merged.provenance(),
        files=MappingProxyType(found),
        name=str(entry.get("name")),
        entry=str(entry.get("name")),
        hypothesis=entry.get("hypothesis"),
        continue_from=entry.get("continue_from"),
    )
    return phase, problems


def _with_seed(phase: ResolvedPhase, seed: int) -> ResolvedPhase:
    """Return a phase as it is trained with one of the experiment's seeds."""
    parent = phase.continue_from
    return replace(
        phase,
        config=phase.config.model_copy(update={"seed": seed}),
        provenance=MappingProxyType({**phase.provenance, "seed": "experiment seeds"}),
        name=f"{phase.entry}-seed{seed}",
        continue_from=None if parent is None else f"{parent}-seed{seed}",
    )


def _needed_files(config: PhaseConfig | None) -> list[Problem]:
    if config is None or config.tuning == "none":
        return []
    problems: list[Problem] = []
    if config.train_file is None:
        problems.append(Problem("train_file", _NO_TRAIN_FILE))
    if config.validation_file is None and config.eval_strategy != "no":
        problems.append(Problem("validation_file", _NO_VALIDATION_FILE))
    return problems


def _read(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Return the file's object with the keys that are given twice; raise if there is none."""
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else files.not_found(str(path), [Path.cwd()])
        raise ConfigError(str(path), [Problem("file", reason)])
    document, problems = read_object(path)
    if document is None:
        raise ConfigError(files.shown(path), problems)
    return document, problems


def _section(problems: Sequence[Problem]) -> str:
    """Return the one field of the experiment that all problems lie in, for the hint, else ""."""
    places = [problem.place.removeprefix("--set ") for problem in problems]
    names = {place.partition(".")[0].partition("[")[0] for place in places}
    return (
        f" {names.pop()}" if len(names) == 1 and names < set(ExperimentConfig.model_fields) else ""
    )


def _error(path: Path, problems: Sequence[Problem], *, field: str) -> ConfigError:
    unique = tuple(dict.fromkeys(problems))
    hint = f"`evenhand explain{field}` says what each field means"
    return ConfigError(files.shown(path), unique, hint=hint)
