"""Layers of values with their origins, and the files and sets that they name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from evenhand.config import files
from evenhand.config.checking import check_phase
from evenhand.config.experiment_schema import ColumnsConfig, ExperimentConfig, SetEntry
from evenhand.config.schema import PhaseConfig
from evenhand.config.strict_json import read_object
from evenhand.core.errors import Problem
from evenhand.core.registry import suggest

AUGMENT_CORPUS = "augment.corpus"
"""The key of the file, inside a phase's augmentation, that rows are selected from."""

STARTER = "starter:"
"""How the name of a part of the built-in corpus begins, where a file's name is expected."""

STARTER_PARTS = ("train", "validation", "test", "functional")

FILE_KEYS = ("train_file", "validation_file", "prompt_file", "init_adapter", AUGMENT_CORPUS)
"""The keys of a phase that name files: data, prompt, adapter."""

# A child goes on with its parent's adapter, so what shapes the adapter has to be the same.
_SHARED_WITH_PARENT = (
    "model_name_or_path",
    "task",
    "tuning",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_parameters",
    "lora_bias",
)


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one origin: its name, how its places are written, where its files lie.

    ``reaches_inside``: a key like ``augment.ratio`` replaces what is inside an object, not all of
    it.
    """

    values: Mapping[str, Any]
    source: str
    prefix: str
    base: Path | None = None
    note: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    reaches_inside: bool = False

    def place(self, path: str) -> str:
        """Return where a value of this layer stands, for a message."""
        return self.places.get(path, self.prefix + path)


@dataclass(frozen=True, slots=True)
class Merged:
    """The values of several layers, later ones first served, and the layer of each.

    ``origins`` names what was set inside an object as ``augment.ratio``, beside the object;
    ``unreached`` what was to be set inside an object that is not there.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, Layer]
    data_dir: Path | None = None
    unreached: tuple[str, ...] = ()

    @classmethod
    def of(cls, layers: Sequence[Layer], *, data_dir: Path | None = None) -> Self:
        """Merge layers; a later one replaces what an earlier one says."""
        values: dict[str, Any] = {}
        origins: dict[str, Layer] = {}
        unreached: list[str] = []
        for layer in layers:
            for path, value in layer.values.items():
                key, dot, inner = path.partition(".")
                if not (dot and layer.reaches_inside):
                    values[path], origins[path] = value, layer
                    # What was set inside the object before is gone with it.
                    origins = {at: one for at, one in origins.items() if not _is_in(at, path)}
                elif isinstance(values.get(key), dict):
                    values[key], origins[path] = {**values[key], inner: value}, layer
                else:
                    unreached.append(path)
        return cls(values, origins, data_dir, tuple(unreached))

    def check(self, *, prefix: str) -> tuple[PhaseConfig | None, list[Problem]]:
        """Return the phase or None, and the problems at the places where the values stand."""
        config, found = check_phase(self.values)
        problems: list[Problem] = []
        for one in found:
            # Of several keys that contradict each other, name one that the user wrote.
            key = next((key for key in one.keys if key in self.origins), None)
            if key is None:
                problems.append(Problem(prefix + one.place, one.message))
                continue
            path = one.place if key == one.keys[0] else key
            message = one.message if key == one.keys[0] else f"{one.place} {one.message}"
            layer = self._origin(path, key)
            problems.append(Problem(layer.place(path), message + layer.note))
        return config, problems

    def provenance(self) -> Mapping[str, str]:
        """Return the origin of every key of a phase."""
        # Of an object, the origin that changed it last.
        named = {key.partition(".")[0]: layer.source for key, layer in self.origins.items()}
        return MappingProxyType(
            {key: named.get(key, "default") for key in PhaseConfig.model_fields}
        )

    def find_files(self, *, without: Collection[str] = ()) -> tuple[dict[str, Path], list[Problem]]:
        """Return the named files that exist, by key, and a problem for each that does not."""
        found: dict[str, Path] = {}
        problems: list[Problem] = []
        for key in FILE_KEYS:
            outer, _, inner = key.partition(".")
            name = self.values.get(outer)
            if inner:
                name = _object(name).get(inner)
            if not isinstance(name, str) or key in without:
                continue
            layer = self._origin(key, outer)
            folders = files.search_folders(self.data_dir, layer.base)
            path = files.find(name, folders)
            if path is None:
                message = files.not_found(name, folders) + layer.note
                problems.append(Problem(layer.place(key), message))
            else:
                found[key] = path
        return found, problems

    def _origin(self, path: str, key: str) -> Layer:
        """Return the layer of a value: of ``augment.methods[0]`` inside ``augment``, else its."""
        return self.origins.get(path.partition("[")[0], self.origins[key])


@dataclass(frozen=True, slots=True)
class ResolvedSet:
    """A data set of an experiment with the experiment's columns and label words filled in.

    Attributes:
        path: the file, or ``starter:PART``; None only where files were not checked and this one,
            or one of those below, was not found.
        within: the file whose texts are kept; None: all.
        without: the files whose texts are left out.
        without_groups: the target groups whose rows are left out.
    """

    name: str
    role: str
    path: Path | None
    format: str | None
    columns: ColumnsConfig
    labels: Mapping[str, str]
    max_rows: int | None
    within: Path | None = None
    without: tuple[Path, ...] = ()
    without_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """An experiment's document as read, its folder, and the ``--set`` values of each phase."""

    document: Mapping[str, Any]
    base: Path
    set_of_phase: Mapping[int, Mapping[str, Any]]

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """The phases as written."""
        return self._objects("phases")

    @property
    def has_train_set(self) -> bool:
        """Whether a set of role train replaces the phases' training files."""
        return any(entry.get("role") == "train" for entry in self._objects("sets"))

    @property
    def data_dir(self) -> Path | None:
        """The folder of data: beside the experiment, else in the current folder."""
        name = self.document.get("data_dir")
        if not isinstance(name, str):
            return None
        folders = files.search_folders(self.base)
        return files.find(name, folders) or self.base / name

    def find_set(self, file: str) -> Path | None:
        """Return a data set's file, if it is there; a part of the built-in corpus by its name."""
        if file.startswith(STARTER):
            return Path(file) if file.removeprefix(STARTER) in STARTER_PARTS else None
        return files.find(file, self._set_folders)

    def set_problems(self, *, check_files: bool) -> list[Problem]:
        """Return a problem for each file that a data set names and that was not found.

        A part of the built-in corpus needs no file: it is checked in any case.
        """
        problems: list[Problem] = []
        for index, entry in enumerate(self._objects("sets")):
            for key, name in _set_files(entry):
                is_part = name.startswith(STARTER)
                if (check_files or is_part) and self.find_set(name) is None:
                    reason = _no_part(name) if is_part else None
                    message = reason or files.not_found(name, self._set_folders)
                    problems.append(Problem(f"sets[{index}].{key}", message))
            if str(entry.get("file")).startswith(STARTER):
                problems += [
                    Problem(f"sets[{index}].{key}", "the built-in corpus needs none; leave it out")
                    for key in ("format", "columns", "labels")
                    if entry.get(key)
                ]
        return problems

    def merge(self, index: int) -> tuple[Merged, Path | None, list[Problem]]:
        """Return a phase's values, the file they were read from, and what could not be read."""
        entry = self.entries[index]
        config, config_path, problems = self._config_layer(index, entry.get("config"))
        written = [
            Layer(
                _object(self.document.get("defaults")),
                "experiment defaults",
                prefix="defaults.",
                base=self.base,
            ),
            config,
            Layer(
                _object(entry.get("overrides")),
                "experiment overrides",
                prefix=f"phases[{index}].overrides.",
                base=self.base,
            ),
            Layer(
                self.set_of_phase.get(index, {}),
                "--set",
                prefix=f"--set phases.{index}.",
                reaches_inside=True,
            ),
        ]
        merged = Merged.of([self._prompt_layer(written), *written], data_dir=self.data_dir)
        if entry.get("continue_from") is not None and merged.values.get("init_adapter") is not None:
            place = merged.origins["init_adapter"].place("init_adapter")
            problems.append(Problem(place, "continue_from sets it; leave it out"))
        return merged, config_path, problems

    @property
    def _set_folders(self) -> tuple[Path, ...]:
        return files.search_folders(self.data_dir, self.base)

    def _objects(self, key: str) -> list[Mapping[str, Any]]:
        """A list's entries; one that is no object counts as empty, since the schema names it."""
        entries = self.document.get(key)
        return [_object(entry) for entry in entries] if isinstance(entries, list) else []

    def _config_layer(self, index: int, config: Any) -> tuple[Layer, Path | None, list[Problem]]:
        inline_prefix = f"phases[{index}].config."
        inline = Layer(_object(config), "experiment phase", inline_prefix, self.base)
        if not isinstance(config, str):
            return inline, None, []
        place = inline_prefix.removesuffix(".")
        folders = files.search_folders(self.base)
        path = files.find(config, folders)
        if path is None or not path.is_file():
            return inline, None, [Problem(place, files.not_found(config, folders))]
        values, wrong = read_object(path)
        source = files.shown(path)
        problems = [Problem(place, f"{source}: {one.place}: {one.message}") for one in wrong]
        note = f" (in {source})"
        layer = Layer(values or {}, source, f"phases[{index}].", path.parent, note)
        return layer, path, problems

    def _prompt_layer(self, written: Sequence[Layer]) -> Layer:
        """The experiment's prompt, for a phase that has none itself and takes one."""
        merged = Merged.of(written).values
        takes_prompt = merged.get("task") != "sequence_classification"
        prompt = _object(self.document.get("prompt")) if takes_prompt else {}
        if "prompt_file" in merged:
            prompt = {}
        keys = {"file": "prompt_file", "strategy": "strategy"}
        return Layer(
            {keys[key]: value for key, value in prompt.items() if key in keys},
            "experiment prompt",
            prefix="prompt.",
            base=self.base,
            places={phase_key: f"prompt.{key}" for key, phase_key in keys.items()},
        )


def unreached_problems(
    set_of_phase: Mapping[int, Mapping[str, Any]], unreached: Mapping[int, Collection[str]]
) -> list[Problem]:
    """Return a problem for each ``--set`` value whose object none of its phases has.

    Where some have it, ``phases.*`` is about those.
    """
    reached = {
        path
        for index, values in set_of_phase.items()
        for path in values
        if path not in unreached[index]
    }
    return [
        no_object(f"--set phases.{index}.", path)
        for index, paths in unreached.items()
        for path in paths
        if path not in reached
    ]


def no_object(prefix: str, path: str) -> Problem:
    """Return the problem of a value inside an object that is not there."""
    key = path.partition(".")[0]
    return Problem(prefix + path, f'"{key}" is no object here; set the whole of it')


def parent_problems(
    config: ExperimentConfig, phases: Sequence[PhaseConfig | None]
) -> list[Problem]:
    """Return how phases differ in their adapter from the phase that they continue."""
    by_name = {entry.name: phase for entry, phase in zip(config.phases, phases, strict=True)}
    problems: list[Problem] = []
    for index, entry in enumerate(config.phases):
        parent = by_name.get(entry.continue_from) if entry.continue_from else None
        child = phases[index]
        if parent is None or child is None:
            continue
        place = f"phases[{index}]"
        if not child.uses_adapter:
            message = f'"{entry.continue_from}" can only be continued with tuning "lora"'
            problems.append(Problem(f"{place}.continue_from", message))
            continue
        for key in _SHARED_WITH_PARENT:
            ours, theirs = getattr(child, key), getattr(parent, key)
            if ours != theirs:
                message = f'is {ours!r}, but the adapter of "{entry.continue_from}" has {theirs!r}'
                problems.append(Problem(f"{place}.{key}", message))
    return problems


def resolve_sets(config: ExperimentConfig, context: Context) -> tuple[ResolvedSet, ...]:
    """Return the data sets with their files, columns and label words."""
    return tuple(_resolve_set(config, entry, context) for entry in config.sets)


def _resolve_set(config: ExperimentConfig, entry: SetEntry, context: Context) -> ResolvedSet:
    within = None if entry.within is None else context.find_set(entry.within)
    without = [context.find_set(name) for name in entry.without]
    is_complete = None not in without and (within is None) == (entry.within is None)
    differing = {key: getattr(entry.columns, key) for key in entry.columns.model_fields_set}
    # A format that names its own columns takes no map.
    common = config.columns if entry.format in (None, "table") else ColumnsConfig()
    return ResolvedSet(
        name=entry.name,
        role=entry.role,
        path=context.find_set(entry.file) if is_complete else None,
        format=entry.format,
        columns=common.model_copy(update=differing),
        labels=MappingProxyType({**config.labels, **entry.labels}),
        max_rows=entry.max_rows,
        within=within,
        without=tuple(path for path in without if path is not None),
        without_groups=entry.without_groups,
    )


def _set_files(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the files that a data set names, each with its place in the set."""
    named = [("file", entry.get("file")), ("within", entry.get("within"))]
    without = entry.get("without")
    if isinstance(without, list):
        named += [(f"without[{number}]", name) for number, name in enumerate(without)]
    return [(key, name) for key, name in named if isinstance(name, str) and name]


def _no_part(name: str) -> str:
    known = [STARTER + part for part in STARTER_PARTS]
    listed = ", ".join(f'"{one}"' for one in known)
    return f'"{name}" is no part of the built-in corpus{suggest(name, known)}; it has {listed}'


def _is_in(path: str, key: str) -> bool:
    return path.startswith(f"{key}.")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
