"""Run folders: written by training, read by everything after it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, Problem, StorageError
from evenhand.core.paths import read_json, sha256_json, storage_errors, write_json
from evenhand.core.registry import suggest
from evenhand.experiment.inputs import DataSource, Recipe, TrainingInputs
from evenhand.finetune.checkpoint import find_checkpoints
from evenhand.finetune.processes import World
from evenhand.prompts.template import PromptTemplate, load_prompt

_PACKAGES = ("evenhand", "torch", "transformers", "peft", "accelerate", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """A run folder as training left it."""

    path: Path
    config: PhaseConfig
    prompt: PromptTemplate
    train_source: DataSource | None
    inputs: Mapping[str, Any]
    recipe: Recipe | None = None

    @property
    def inputs_sha256(self) -> str:
        """One hash over all inputs of the training."""
        return sha256_json(dict(self.inputs))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep: training has not come to its first checkpoint."""
        return not self.is_finished and not find_checkpoints(self.path / "checkpoints")

    @property
    def is_finished(self) -> bool:
        """Whether training came to its end; the manifest is written last."""
        return (self.path / "manifest.json").is_file()

    def differences(self, inputs: TrainingInputs) -> list[str]:
        """Return the names of the inputs that are not those which the run was started with."""
        return [key for key, value in inputs.hashes.items() if self.inputs.get(key) != value]

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of ``manifest.json``."""
        return read_json(self.path / "manifest.json")

    @property
    def training(self) -> dict[str, Any] | None:
        """The training statistics; None where nothing was trained."""
        path = self.path / "training.json"
        return read_json(path) if path.is_file() else None


def find_run(path: Path) -> Run | None:
    """Return the run in a folder, finished or not; None where there is none."""
    if not (path / "config.json").is_file():
        return None
    document = read_json(path / "config.json")
    try:
        source, recipe = document["train_source"], document.get("recipe")
        return Run(
            path=path,
            config=PhaseConfig.model_validate(document["config"]),
            prompt=load_prompt(path / "prompt.json"),
            train_source=None if source is None else DataSource.from_json(source),
            inputs=document["inputs"],
            recipe=None if recipe is None else Recipe.from_json(recipe),
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise StorageError(f"{path / 'config.json'} is not a run's configuration") from error


def open_run(path: Path) -> Run:
    """Return a finished run.

    Raises:
        ConfigError: no run there, or one whose training has not ended.
    """
    run = find_run(path)
    if run is None:
        raise ConfigError(str(path), [Problem("RUN", f"is not a run folder{_nearest(path)}")])
    if not run.is_finished:
        message = "its training has not ended; go on with `evenhand train ... --resume`"
        raise ConfigError(str(path), [Problem("RUN", message)])
    return run


def start_run(path: Path, inputs: TrainingInputs) -> Run:
    """Write what training starts from: configuration, origins, prompt, input hashes."""
    source, recipe = inputs.train_source, inputs.recipe
    write_json(path / "prompt.json", inputs.prompt.to_json())
    document = {
        "config": inputs.config.model_dump(mode="json"),
        "provenance": dict(inputs.provenance),
        "train_source": None if source is None else source.to_json(),
        "inputs": inputs.hashes,
    }
    if recipe is not None:
        document["recipe"] = recipe.to_json()
    write_json(path / "config.json", document)
    return Run(path, inputs.config, inputs.prompt, source, inputs.hashes, recipe)


@contextlib.contextmanager
def hold(folder: Path, *, world: World) -> Iterator[None]:
    """Make a folder if need be, and keep a second command from writing to it meanwhile.

    Raises:
        StorageError: it cannot be written to, or another command holds it.
    """
    if not world.is_first:
        yield
        return
    lock = FileLock(folder / ".lock")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StorageError(
                f"another command is writing to {folder}",
                hint="wait until it has ended, or choose another folder",
            ) from None
    try:
        yield
    finally:
        lock.release()


def set_aside(path: Path) -> Path:
    """Rename a run folder whose inputs have changed, so that nothing is lost; return its name."""
    number = 1
    while (target := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(target)
    return target


def machine() -> dict[str, Any]:
    """Return the machine and the versions that a result was made with."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def now() -> str:
    """Return the time in UTC, to the second, in ISO form."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _nearest(path: Path) -> str:
    """Say which run may have been meant: one inside an experiment's folder, or one beside."""
    inside = sorted(one.parent for one in path.glob("runs/*/config.json"))
    if inside:
        return f"; did you mean one of its runs: {', '.join(map(str, inside))}?"
    return suggest(path.name, [one.parent.name for one in path.parent.glob("*/config.json")])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
