"""Where models and adapters lie on disk; free of torch, for the commands that load no model."""

from __future__ import annotations

from pathlib import Path

from evenhand.core.errors import ModelError
from evenhand.core.registry import suggest
from evenhand.finetune.embedded import EMBEDDED, materialise

_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
_SAFE = ("model.safetensors", "model.safetensors.index.json")


def locate(name_or_path: str) -> str:
    """Return the folder of an embedded or local model, or the name for the hub.

    Raises:
        ModelError: a local folder without safetensors weights, or an unknown embedded name.
    """
    if name_or_path in EMBEDDED:
        return str(materialise(EMBEDDED[name_or_path]))
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        check_folder(folder)
        return str(folder)
    if "/" not in name_or_path or name_or_path.startswith((".", "/", "~")):
        raise ModelError(
            f'model "{name_or_path}" is neither an embedded model nor a folder'
            f"{suggest(name_or_path, EMBEDDED)}",
            hint=f"embedded models: {', '.join(EMBEDDED)}; a hub model is named owner/model",
        )
    return name_or_path


def check_folder(folder: Path) -> None:
    """Raise a :class:`ModelError` unless the folder has a config and safetensors weights."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it is not a model folder")
    if any((folder / name).is_file() for name in _SAFE):
        return
    pickled = [name for name in _PICKLED if (folder / name).is_file()]
    if pickled:
        raise ModelError(
            f"{folder} has its weights as a pickle ({pickled[0]}), which can run code when loaded",
            hint="convert them to safetensors with a tool you trust; pickles are never loaded",
        )
    raise ModelError(f"{folder} has no model.safetensors")


def adapter_folder(path: Path) -> Path:
    """Return the PEFT folder of a run folder or of a PEFT folder itself.

    Raises:
        ModelError: nothing there, or weights as a pickle only.
    """
    for folder in (path / "adapter", path):
        if (folder / "adapter_config.json").is_file():
            if (folder / "adapter_model.safetensors").is_file():
                return folder
            if (folder / "adapter_model.bin").is_file():
                raise ModelError(
                    f"{folder} has its adapter as a pickle (adapter_model.bin)",
                    hint="convert it to safetensors with a tool you trust",
                )
            raise ModelError(f"{folder} has no adapter_model.safetensors")
    raise ModelError(f"no adapter in {path} (adapter_config.json is missing)")
