"""Ours and the reference's recipe on one gpt-oss model with random weights."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gptoss_arithmetic import Adapter, Lengths
from transformers import AutoConfig, AutoModelForCausalLM

from evenhand.config.schema import PhaseConfig
from evenhand.finetune import adapters, attention
from evenhand.finetune.encoding import EncodedRow, PromptEncoder
from evenhand.finetune.layouts import TreeLayout
from evenhand.finetune.objective import LabelObjective
from evenhand.finetune.packing import to_device
from evenhand.finetune.processes import World
from evenhand.finetune.score import label_log_probs


@dataclass(frozen=True, slots=True)
class Place:
    """The device that is measured, and the number format of the frozen weights on it."""

    device: torch.device
    dtype: torch.dtype

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Return when the device has done all that it was given."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int | None:
        """Most memory held by tensors since the last reset; None where nothing counts it."""
        return torch.cuda.max_memory_allocated(self.device) if self.is_gpu else None

    def clean(self) -> None:
        """Give cached memory back, so that one arm's leavings do not crowd the next."""
        if self.is_gpu:
            gc.collect()
            torch.cuda.empty_cache()


def build_model(settings: dict[str, Any], place: Place, *, seed: int = 0) -> Any:
    """Make a gpt-oss of random weights where it will be used; nothing is copied."""
    attention.register()
    config = AutoConfig.for_model("gpt_oss", **settings)
    torch.manual_seed(seed)
    with place.device:
        model = AutoModelForCausalLM.from_config(
            config, dtype=place.dtype, attn_implementation="eager"
        )
    return model.to(place.device).requires_grad_(False)


def make_encoder(lengths: Lengths, *, vocabulary: int, rng: np.random.Generator) -> PromptEncoder:
    """Make a prompt of the given lengths from random tokens."""

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(int(one) for one in rng.integers(1, vocabulary, size=count))

    return PromptEncoder(
        prefix=tokens(lengths.prefix),
        tail=tokens(lengths.tail),
        labels=tuple(tokens(length) for length in lengths.labels),
        tokenizer=None,
        max_length=lengths.padded,
    )


def make_rows(
    texts: Sequence[int], encoder: PromptEncoder, *, vocabulary: int, rng: np.random.Generator
) -> list[EncodedRow]:
    """Make labelled rows with posts of the given lengths from random tokens."""
    return [
        EncodedRow(
            (*(int(one) for one in rng.integers(1, vocabulary, size=size)), *encoder.tail),
            int(rng.integers(len(encoder.labels))),
            False,
        )
        for size in texts
    ]


@contextlib.contextmanager
def adapted(model: Any, phase: PhaseConfig) -> Iterator[Any]:
    """Attach a phase's adapter as the product does, and take it off again."""
    tuned = adapters.attach(model, phase).train()
    try:
        yield tuned
    finally:
        tuned.unload()
        if hasattr(model, "peft_config"):
            del model.peft_config


class Arm(Protocol):
    """One way to train; ``step`` runs one optimizer step and returns its loss."""

    rows_per_step: int

    def prepare(self) -> None: ...

    def step(self) -> float: ...


class Stepper:
    """What both arms do with a micro-batch's gradients."""

    def __init__(self, model: Any, tuned: Any, phase: PhaseConfig, place: Place) -> None:
        self.model, self.tuned, self.place = model, tuned, place
        self.weights = [one for one in tuned.parameters() if one.requires_grad]
        self.adapter = Adapter(phase.lora_r, tuple(phase.lora_target_modules))
        self.clip = phase.max_grad_norm
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=phase.learning_rate,
            weight_decay=phase.weight_decay,
            fused=place.is_gpu,
        )

    def run(self, losses: Iterator[torch.Tensor]) -> float:
        """Step on a sum of micro-batch losses, each already divided by its share."""
        total = torch.zeros((), device=self.place.device)
        for loss in losses:
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total.item()

    def switch(self, *, kernel: str, checkpointing: bool) -> None:
        """Choose the attention, and whether activations are kept or computed again."""
        self.model.set_attn_implementation(kernel)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer releases rename these two
            if checkpointing:
                self.model.gradient_checkpointing_enable({"use_reentrant": False})
            else:
                self.model.gradient_checkpointing_disable()


@dataclass(frozen=True, slots=True)
class Packing:
    """Rows in one pack, and whether its activations are computed again to save memory."""

    rows: int
    again: bool = False


class Ours:
    """Packs of rows behind one prefix, the loss over the label set."""

    def __init__(
        self,
        stepper: Stepper,
        rows: Sequence[EncodedRow],
        encoder: PromptEncoder,
        packing: Packing,
    ) -> None:
        self.rows_per_step = len(rows)
        self.stepper, self.rows, self.packing = stepper, rows, packing
        self.texts = [len(row.ids) - len(encoder.tail) for row in rows]
        window = stepper.model.config.sliding_window
        self.objective = LabelObjective(TreeLayout(encoder, window=window))

    def prepare(self) -> None:
        self.stepper.switch(kernel=attention.NAME, checkpointing=self.packing.again)

    def step(self) -> float:
        return self.stepper.run(self._losses())

    def _losses(self) -> Iterator[torch.Tensor]:
        for start in range(0, len(self.rows), self.packing.rows):
            batch = self.objective.collate(self.rows[start : start + self.packing.rows])
            batch = to_device(batch, self.stepper.place.device)
            yield self.objective.loss_sum(self.stepper.tuned, batch) / len(self.rows)


class Reference:
    """Every row padded, the loss over every token, layers computed again in the backward pass."""

    def __init__(
        self,
        stepper: Stepper,
        texts: Sequence[int],
        lengths: Lengths,
        *,
        micro_rows: int,
        rng: np.random.Generator,
    ) -> None:
        self.rows_per_step = len(texts)
        self.stepper, self.micro_rows = stepper, micro_rows
        vocabulary = stepper.model.config.vocab_size
        shape = (len(texts), lengths.padded)
        sizes = np.minimum([lengths.chat + one for one in texts], lengths.padded)
        self.ids = torch.from_numpy(rng.integers(1, vocabulary, size=shape))
        self.mask = torch.from_numpy(np.arange(lengths.padded) < sizes[:, None]).long()

    def prepare(self) -> None:
        self.stepper.switch(kernel="eager", checkpointing=True)

    def step(self) -> float:
        return self.stepper.run(self._losses())

    def _losses(self) -> Iterator[torch.Tensor]:
        place = self.stepper.place
        # The reference trained under autocast; the adapter's float32 matrices then run in bf16.
        autocast = torch.autocast(place.device.type, dtype=place.dtype, enabled=place.is_gpu)
        for start in range(0, len(self.ids), self.micro_rows):
            ids = self.ids[start : start + self.micro_rows].to(place.device)
            mask = self.mask[start : start + self.micro_rows].to(place.device)
            with autocast:
                loss = self.stepper.tuned(
                    input_ids=ids,
                    attention_mask=mask,
                    labels=ids.masked_fill(mask == 0, -100),
                    use_cache=False,
                ).loss
            yield loss * self.micro_rows / len(self.ids)


@dataclass(slots=True)
class Timing:
    """Seconds of each measured step, its rows, and the largest peak of memory."""

    rows: int
    seconds: list[float]
    peak_bytes: int | None
    loss: float

    def to_json(self) -> dict[str, Any]:
        rates = [self.rows / one for one in self.seconds]
        return {
            "rows_per_second": statistics.median(rates),
            "rows_per_second_of_each": rates,
            "rows_per_step": self.rows,
            "peak_memory_bytes": self.peak_bytes,
            "loss": self.loss,
        }


def interleave(
    arms: Sequence[Arm], place: Place, *, repeats: int, goes_on: Callable[[], bool]
) -> list[Timing]:
    """Time each arm's step ``repeats`` times, arm after arm.

    An unmeasured step comes before each measured one: it allocates the memory that the measured
    one then reuses. Stops early, after at least one round, when ``goes_on`` says no.
    """
    timings = [Timing(arm.rows_per_step, [], None, 0.0) for arm in arms]
    for turn in range(repeats):
        if turn and not goes_on():
            break
        for arm, timing in zip(arms, timings, strict=True):
            arm.prepare()
            place.clean()
            arm.step()
            place.forget_peak()
            place.wait()
            start = time.perf_counter()
            timing.loss = arm.step()
            place.wait()
            timing.seconds.append(time.perf_counter() - start)
            peak = place.peak_bytes()
            if peak is not None:
                timing.peak_bytes = max(timing.peak_bytes or 0, peak)
    return timings


def time_scoring(
    stepper: Stepper,
    rows: Sequence[EncodedRow],
    encoder: PromptEncoder,
    *,
    batch_tokens: int,
    repeats: int,
) -> Timing:
    """Time the product's scorer: the prefix computed once, rows by length, complete labels."""
    place = stepper.place
    stepper.switch(kernel=attention.NAME, checkpointing=False)
    layout = TreeLayout(encoder, window=stepper.model.config.sliding_window)
    timing = Timing(len(rows), [], None, 0.0)
    place.clean()
    place.forget_peak()
    for turn in range(repeats + 1):
        place.wait()
        start = time.perf_counter()
        label_log_probs(stepper.tuned, layout, rows, batch_tokens=batch_tokens, world=World())
        place.wait()
        if turn:
            timing.seconds.append(time.perf_counter() - start)
    timing.peak_bytes = place.peak_bytes()
    return timing
