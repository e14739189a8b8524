"""A model that is ready to score: base, adapter, prompt and layout in one record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.paths import read_json
from evenhand.core.progress import Advance
from evenhand.core.records import Row
from evenhand.finetune import adapters
from evenhand.finetune.devices import Device, choose_device
from evenhand.finetune.dropout import use_fast_dropout
from evenhand.finetune.encoding import PromptEncoder, build_encoder
from evenhand.finetune.generate import generate_answers
from evenhand.finetune.layouts import Layout, PaddedLayout, TreeLayout, classifier_layout
from evenhand.finetune.models import BaseModel, load_base
from evenhand.finetune.processes import World, is_sharded, join_world
from evenhand.finetune.score import hate_probability, label_log_probs
from evenhand.prompts.parse import parse_answer
from evenhand.prompts.template import PromptTemplate


@dataclass(frozen=True)
class Classifier:
    """A base model, what was trained on it, and how posts are put to it.

    ``encoder`` is None for a classifier head, which sees the post without a prompt.
    """

    model: Any
    base: BaseModel
    prompt: PromptTemplate
    encoder: PromptEncoder | None
    layout: Layout
    device: Device
    config: PhaseConfig

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch in scoring."""
        return self.config.eval_tokens_per_batch or self.device.batch_tokens

    def score(
        self,
        rows: Sequence[Row],
        *,
        world: World | None = None,
        advance: Advance | None = None,
    ) -> np.ndarray:
        """Return p(hate) of each row, shape (n,), in order.

        ``advance`` is told of finished rows; None shows a progress bar.
        """
        world = world or self.join()
        log_probs = label_log_probs(
            self.model,
            self.layout,
            [self.layout.encode(row) for row in rows],
            batch_tokens=self.batch_tokens,
            world=world,
            advance=advance,
        )
        return hate_probability(log_probs)

    def answer(
        self, rows: Sequence[Row], *, world: World | None = None
    ) -> tuple[list[str | None], list[str]]:
        """Return each row's parsed label (None: unparseable) and the answer as it was written.

        Raises:
            ConfigError: a classifier head writes nothing.
        """
        if self.encoder is None:
            problem = Problem("--method", 'a classifier head cannot write; use "score"')
            raise ConfigError("the command", [problem])
        raw = generate_answers(
            self.model,
            self.encoder,
            [self.layout.encode(row) for row in rows],
            self.prompt,
            batch_rows=self.config.per_device_eval_batch_size,
            seed=self.config.seed,
            world=world or self.join(),
        )
        return [parse_answer(text, labels=self.prompt.labels) for text in raw], raw

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[Classifier]:
        """Yield the classifier with its adapter switched off: the bare base model answers.

        What was computed of the prompt with the adapter is left out meanwhile.
        """
        layout = self.layout
        if isinstance(layout, TreeLayout):
            layout = replace(layout, states=None)
        with self.model.disable_adapter():
            yield replace(self, layout=layout)

    def join(self) -> World:
        """Join the other processes of a launcher, if there are any."""
        return join_world(cpu=self.device.name == "cpu")


def prepare(
    config: PhaseConfig, prompt: PromptTemplate, *, before: Mapping[str, Any] | None = None
) -> Classifier:
    """Load the base model and make trainable what the phase trains.

    ``before`` has the ``device`` and ``dtype`` of the training that is resumed, if one is.

    Raises:
        ConfigError, DeviceError, ModelError: as their names say.
    """
    device = _agree_on_device(config, before)
    base = load_base(config, device)
    model = adapters.attach(base.model, config)
    if device.name == "cpu":
        use_fast_dropout(model)
    return _assemble(config, prompt, base, model, device)


def load_classifier(run: Path, config: PhaseConfig, prompt: PromptTemplate) -> Classifier:
    """Load the model of a finished run folder, for scoring in the number format of its training.

    Raises:
        DeviceError, ModelError: as their names say.
    """
    record = run / "training.json"
    device = _agree_on_device(config, read_json(record) if record.is_file() else None)
    if config.tuning == "full":
        config = config.model_copy(update={"model_name_or_path": str(run / "model")})
    base = load_base(config, device)
    model = base.model
    if config.uses_adapter:
        model = adapters.load_adapter(model, run)
    classifier = _assemble(config, prompt, base, model, device)
    # This model no longer changes: what all rows share is computed once.
    model.eval()
    return replace(classifier, layout=classifier.layout.freeze(model))


def _agree_on_device(config: PhaseConfig, before: Mapping[str, Any] | None) -> Device:
    """Choose a device, the same number format in every process, and as it was before."""
    device = choose_device(config.device, dtype=config.dtype, bf16=config.bf16)
    if before is not None and config.dtype == "auto" and before["device"] == device.name:
        device = replace(device, dtype=getattr(torch, before["dtype"]), reason="as before")
    # Joining also makes "cuda" this process's own GPU; the first process's probe counts for all.
    return join_world(cpu=device.name == "cpu").gather(device)[0]


def _positions(model: Any) -> int | None:
    """Return how many tokens a model has positions for; None where it has no such limit.

    RoBERTa's and MPNet's begin after the position of padding.
    """
    places = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if places is not None and name.endswith("position_embeddings") and padding is not None:
            return places - padding - 1
    return places


def _assemble(
    config: PhaseConfig, prompt: PromptTemplate, base: BaseModel, model: Any, device: Device
) -> Classifier:
    if not is_sharded():  # FSDP shards what the host holds
        model.to(device.name)
    tokenizer = base.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    encoder: PromptEncoder | None = None
    if config.task == "sequence_classification":
        # A tokenizer without a limit of its own gives a very large number.
        limits = (config.max_seq_length, tokenizer.model_max_length, _positions(base.model))
        limit = min(one for one in limits if one is not None)
        if base.model.config.pad_token_id is None:
            base.model.config.pad_token_id = pad  # where a text ends is seen by its padding
        layout: Layout = classifier_layout(
            tokenizer, max_length=limit, pad=pad, pass_cost=device.pass_cost
        )
    else:
        encoder = build_encoder(
            tokenizer, prompt, max_length=config.max_seq_length, model_type=base.model_type
        )
        window = getattr(base.model.config, "sliding_window", None)
        layout = (
            TreeLayout(encoder, window=window) if base.uses_tree else PaddedLayout(encoder, pad=pad)
        )
    return Classifier(model, base, prompt, encoder, layout, device, config)
