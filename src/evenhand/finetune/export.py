"""A run's model as files for other programs: merged weights, or the adapter by itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ModelError
from evenhand.core.paths import read_json, write_json
from evenhand.core.progress import Advance
from evenhand.core.records import LABELS, Row
from evenhand.finetune import adapters
from evenhand.finetune.classifier import Classifier, load_classifier, prepare
from evenhand.finetune.folders import adapter_folder, locate
from evenhand.finetune.processes import World
from evenhand.prompts.template import PromptTemplate

Form = Literal["merged", "adapter"]

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_NOT_WEIGHTS = ("README.md", "training_args.bin")


@dataclass(frozen=True)
class ExportedModel:
    """What was written, and how far its scores are from those of the run.

    Attributes:
        dtype: the number format of the written weights (of the adapter's own, for an adapter).
        max_difference: the largest difference of p(hate) between the files, loaded anew, and the
            run's model; both computed in float32 on the CPU.
        procedure: what another program needs to score a post; see :func:`scoring_procedure`.
    """

    form: Form
    dtype: str
    rows: int
    max_difference: float
    procedure: Mapping[str, Any]


def export_model(
    run: Path,
    config: PhaseConfig,
    prompt: PromptTemplate,
    *,
    out: Path,
    form: Form,
    posts: tuple[Row, ...],
    advance: Advance,
) -> ExportedModel:
    """Write a run's model into a folder that exists, load it anew, and compare the scores.

    Merging is done in float32, and the result is stored in the base model's own number format.

    Args:
        run: a finished run folder.
        config: the run's configuration.
        prompt: the run's prompt.
        out: an empty folder.
        form: ``merged`` (a whole model) or ``adapter``, which needs a run with an adapter.
        posts: what is scored on both sides.
        advance: told of scored rows.

    Raises:
        ModelError: as its name says.
    """
    # Compared on the CPU in float32, whatever the run was trained on: what the files say counts.
    exact = config.model_copy(update={"device": "cpu", "dtype": "float32", "load_in_4bit": False})
    before = load_classifier(run, exact, prompt)
    unmerged = before.score(posts, world=World(), advance=advance)
    procedure = scoring_procedure(before)
    if form == "adapter":
        _write_adapter(run, out)
        dtype = _adapter_dtype(before)
        del before
        after = _load_adapter(exact, prompt, out)
        _forget_place(config, out)
    else:
        dtype = _write_merged(run, before, out)
        del before
        after = prepare(_of_folder(exact, out), prompt)
    written = after.score(posts, world=World(), advance=advance)
    return ExportedModel(
        form=form,
        dtype=dtype,
        rows=len(posts),
        max_difference=float(np.abs(written - unmerged).max()),
        procedure=procedure,
    )


def base_name(config: PhaseConfig) -> str:
    """Return the base model's name for others: of a local folder its own name, without the path."""
    name = config.model_name_or_path
    return Path(name).name if Path(name).expanduser().is_dir() else name


def scoring_procedure(classifier: Classifier) -> dict[str, Any]:
    """Return what another program needs in order to score as Evenhand does.

    For a causal model: the token ids before the post (``prefix``), between it and the answer
    (``tail``), of each complete label (``labels``, end of turn included), and how many tokens a
    post may have (``room``). p(hate) is the softmax over the labels' summed log-probabilities.
    For a classifier head: ``begin``, ``end``, ``room`` and the order of the head's ``labels``.
    """
    layout: Any = classifier.layout
    if classifier.encoder is None:
        return {
            "kind": "classifier head",
            "begin": list(layout.begin),
            "end": list(layout.end),
            "room": layout.max_length - len(layout.begin) - len(layout.end),
            "labels": list(LABELS),
        }
    encoder = classifier.encoder
    decode = encoder.tokenizer.decode
    return {
        "kind": "label strings",
        "prefix": list(encoder.prefix),
        "tail": list(encoder.tail),
        "labels": {name: list(ids) for name, ids in zip(LABELS, encoder.labels, strict=True)},
        "room": encoder.room,
        "prefix_text": decode(list(encoder.prefix)),
        "tail_text": decode(list(encoder.tail)),
        "label_texts": {
            name: decode(list(ids)) for name, ids in zip(LABELS, encoder.labels, strict=True)
        },
    }


def _of_folder(config: PhaseConfig, folder: Path) -> PhaseConfig:
    """The configuration of a model that lies whole in a folder."""
    return config.model_copy(
        update={"model_name_or_path": str(folder), "tuning": "none", "init_adapter": None}
    )


def _write_merged(run: Path, classifier: Classifier, out: Path) -> str:
    config = classifier.config
    if config.tuning == "full":
        source = run / "model"
        for one in sorted(source.iterdir()):
            if one.is_file() and one.name not in _NOT_WEIGHTS:
                shutil.copyfile(one, out / one.name)
        return "float32"
    # Read before the model is asked: loading has set its own.
    stored = _stored_dtype(config)
    model = classifier.model
    if config.uses_adapter:
        model = model.merge_and_unload(safe_merge=True)
    model = model.to(stored)
    try:
        model.save_pretrained(out)
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(f"the merged model cannot be written: {reason}") from error
    classifier.base.tokenizer.save_pretrained(out)
    return str(stored).removeprefix("torch.")


def _stored_dtype(config: PhaseConfig) -> torch.dtype:
    """The number format that the base model's files state; float32 where they state none.

    A base whose weights are packed (MXFP4) is stored in the format that its configuration names.
    """
    settings = AutoConfig.from_pretrained(
        locate(config.model_name_or_path), cache_dir=config.cache_dir, trust_remote_code=False
    )
    stated = getattr(settings, "dtype", None)
    return stated if isinstance(stated, torch.dtype) else torch.float32


def _write_adapter(run: Path, out: Path) -> None:
    folder = adapter_folder(run)
    for name in _ADAPTER_FILES:
        shutil.copyfile(folder / name, out / name)


def _forget_place(config: PhaseConfig, out: Path) -> None:
    """Name the base model without the path where it lay in training, as PEFT has written it.

    Only once the adapter was loaded: PEFT looks for the base by this name, on the hub if need be.
    """
    document = read_json(out / "adapter_config.json")
    told = {"base_model_name_or_path": base_name(config)}
    write_json(out / "adapter_config.json", {**document, **told})


def _adapter_dtype(classifier: Classifier) -> str:
    found = next(
        (one.dtype for name, one in classifier.model.named_parameters() if "lora_" in name),
        torch.float32,
    )
    return str(found).removeprefix("torch.")


def _load_adapter(config: PhaseConfig, prompt: PromptTemplate, out: Path) -> Classifier:
    bare = prepare(config.model_copy(update={"tuning": "none", "init_adapter": None}), prompt)
    model = adapters.load_adapter(bare.model, out)
    return Classifier(
        model=model,
        base=bare.base,
        prompt=bare.prompt,
        encoder=bare.encoder,
        layout=bare.layout,
        device=bare.device,
        config=config,
    )
