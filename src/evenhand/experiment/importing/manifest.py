"""The manifest of an imported run, and what may be added to a folder that has one.

``manifest.json`` has, beside what every run has::

    "imported": {"evaluations": {NAME: {"predictions": {"file", "sha256", "rows"}, "columns",
                 "given", "strategy", "other_strategies", "rows", "unparseable", "error",
                 "empty_texts", "parser_failures", "matching": {...} or null,
                 "responses": {...} or null}},
                 "config": file or null, "config_sha256",
                 "history": {"folder", "files"} or null, "derived": {STATISTIC: how}}
    "stated": {KEY: {"value", "status", "found", "source"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, Problem, StorageError
from evenhand.core.paths import read_json, sha256_json
from evenhand.experiment.importing.answers import Answered
from evenhand.experiment.importing.origin import Origin
from evenhand.experiment.inputs import rows_sha256
from evenhand.experiment.results import read_imported_config, read_manifest
from evenhand.experiment.runs import machine

_ORIGIN = ("config_sha256", "history")
_ELSEWHERE = "is not what the run was first imported with; choose another folder"


def manifest_of(out: Path, name: str, answered: Answered, origin: Origin) -> dict[str, Any]:
    """Return the folder's manifest, or a new one.

    Raises:
        ConfigError: the import would replace something else.
        StorageError: the folder's manifest is damaged.
    """
    # An import that was cut short has no manifest yet, and is made anew.
    manifest = read_manifest(out) if (out / "manifest.json").is_file() else None
    if manifest is None:
        if out.is_file() or _is_training(out):
            kind = "is a file" if out.is_file() else "holds a training that has not ended"
            raise refusal(out, "--out", f"{kind}; choose another folder")
        return _new_manifest(name, answered, origin)
    if "imported" not in manifest:
        message = "holds a run that was trained here; choose another folder for imported results"
        raise refusal(out, "--out", message)
    _check_answers(out / "evaluations" / name, manifest, answered)
    _check_origin(out, manifest, answered, origin)
    return manifest


def has_origin(manifest: Mapping[str, Any]) -> bool:
    """Whether the phase behind the run is known already."""
    return any(manifest["imported"][key] is not None for key in _ORIGIN)


def evaluation_inputs(manifest: Mapping[str, Any], answered: Answered) -> dict[str, Any]:
    """Return the hashes that an imported evaluation depends on."""
    frame = answered.predictions.frame
    answers = [
        [name, decision, None if score != score else score, status]
        for name, decision, score, status in zip(
            frame["id"], frame["decision"], frame["score"], frame["status"], strict=True
        )
    ]
    return {
        "run": manifest["inputs_sha256"],
        "rows": rows_sha256(answered.data),
        "method": "import",
        "answers": sha256_json(answers),
    }


def refusal(folder: Path, place: str, message: str) -> ConfigError:
    """Return the error of an import that cannot be made."""
    return ConfigError(str(folder), [Problem(place, message)], consequence="nothing was imported")


def _check_answers(folder: Path, manifest: Mapping[str, Any], answered: Answered) -> None:
    try:
        stored = read_json(folder / "inputs.json")["inputs"]
    except (StorageError, KeyError, TypeError):  # none, or damaged: it is written anew
        return
    wanted = evaluation_inputs(manifest, answered)
    differ = [key for key in wanted if stored.get(key) != wanted[key]]
    if differ:
        message = f"holds an evaluation with other {' and '.join(differ)}; choose another name"
        raise refusal(folder, "--name", message)


def _check_origin(
    out: Path, manifest: Mapping[str, Any], answered: Answered, origin: Origin
) -> None:
    """Refuse another training, or another prompt, than the folder's: it is of one model."""
    known, differ = manifest["imported"], []
    if has_origin(manifest):
        differ += [
            f"--{key.partition('_')[0]}"
            for key in _ORIGIN
            if origin.facts.get(key) is not None
            and _content(origin.facts[key]) != _content(known[key])
        ]
    before, prompt = manifest["prompt"], answered.prompt
    if before is not None and prompt is not None and before["sha256"] != prompt.sha256:
        differ.append("--prompt-file")
    if differ:
        raise refusal(out, " and ".join(differ), _ELSEWHERE)


def _is_training(out: Path) -> bool:
    """Whether a training was started in the folder; an import cut short leaves files too."""
    if not (out / "prompt.json").is_file():
        return False
    config = out / "config.json"
    return not (config.is_file() and "predictions" in read_imported_config(out)["inputs"])


def _new_manifest(name: str, answered: Answered, origin: Origin) -> dict[str, Any]:
    hashes = {
        "predictions": {name: answered.facts["predictions"]["sha256"]},
        "config": origin.facts.get("config_sha256"),
        "history": _content(origin.facts.get("history")),
    }
    return {
        "imported": {
            "evaluations": {},
            "config": None,
            "config_sha256": None,
            "history": None,
            "derived": {},
        },
        "inputs": hashes,
        "inputs_sha256": sha256_json(hashes),
        "machine": machine(),
        "data": {},
        "stated": {},
        "prompt": None,
        "adapter_sha256": None,
        "base": None,
        "warnings": [],
    }


def _content(history: Any) -> Any:
    """Return what of an origin's facts does not depend on where its files lie."""
    return history["files"] if isinstance(history, Mapping) else history
