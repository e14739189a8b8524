"""Memory that one process of a training takes: what it holds, and what a step adds.

The terms, in bytes, for ``P`` parameters of which ``A`` are trained, ``L`` layers, ``T`` tokens of
the largest batch, and ``e`` bytes of the number format (2 for bfloat16, 4 for float32):

- weights: ``e P``, and ``4 A`` for an adapter beside them; ``4 P`` where the model's own weights
  are trained, and ``0.56 P`` in 4 bits;
- gradients: ``4 A``, twice with several processes (DDP's buckets);
- optimiser: ``8 A`` for AdamW (two float32 moments), 2 for 8-bit AdamW, 4 or less for others;
- activations: what autograd keeps of each layer (:func:`layer_bytes`), times ``L``; with activation
  checkpointing ``e T`` hidden values for each layer and one whole layer;
- logits: at the places where a label token is predicted alone, in ``e`` bytes, and in float32 with
  their softmax and gradient where the log-probability is taken;
- working space: what the backward pass of one layer holds for a moment.

With FSDP weights, gradients and optimiser states are divided among the processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from evenhand.config.schema import PhaseConfig
from evenhand.finetune.devices import Device
from evenhand.finetune.models import trains_own_weights
from evenhand.finetune.preflight.architecture import Architecture
from evenhand.finetune.preflight.lengths import StepShape

_OPTIMISER_BYTES = {
    "adamw_torch": 8.0,
    "adamw_torch_fused": 8.0,
    "paged_adamw_32bit": 8.0,
    "adamw_8bit": 2.0,
    "adamw_bnb_8bit": 2.0,
    "paged_adamw_8bit": 2.0,
    "adagrad": 4.0,
    "rmsprop": 4.0,
    "adafactor": 1.0,  # sums of rows and columns
    "sgd": 0.0,
}
_BYTES_IN_4_BITS = 0.5625  # a scale for every 64 values beside the 4 bits (QLoRA, 2023)
_CUDA_CONTEXT = 0.6e9


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that one process needs at the peak of a step, by what they hold."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    logits: float
    working: float
    runtime: float

    @property
    def total(self) -> float:
        """All of it."""
        held = self.weights + self.gradients + self.optimiser + self.runtime
        return held + self.activations + self.logits + self.working


def estimate_memory(
    config: PhaseConfig,
    model: Architecture,
    shape: StepShape,
    device: Device,
    *,
    processes: int = 1,
    is_sharded: bool = False,
) -> MemoryEstimate:
    """Estimate what one process holds at the peak of a step of ``shape``."""
    own = trains_own_weights(config)
    mixed = own and device.dtype_name == "bfloat16"
    size = 2 if device.dtype_name == "bfloat16" else 4
    per_weight = 4.0 if own else float(size)
    quantised = getattr(model.settings, "quantization_config", None) is not None
    if config.load_in_4bit and device.name == "cuda" and not quantised:
        per_weight = _BYTES_IN_4_BITS
    weights = per_weight * model.total + (4.0 * model.trainable if config.uses_adapter else 0.0)
    if mixed:
        weights += 2.0 * model.total  # autocast keeps a copy of each weight during the pass
    shards = processes if is_sharded else 1
    buckets = 2 if processes > 1 and not is_sharded else 1
    layer = layer_bytes(config, model, shape, size=size)
    activations = layer * model.layers
    if config.gradient_checkpointing:
        activations = size * shape.tokens * model.hidden * model.layers + layer
    return MemoryEstimate(
        weights=weights / shards,
        gradients=4.0 * model.trainable * buckets / shards,
        optimiser=_OPTIMISER_BYTES[config.optim] * model.trainable / shards,
        activations=activations,
        logits=model.vocabulary * (size * shape.logits * 2 + 4.0 * shape.predicted * 3),
        working=_working_bytes(model, shape, size=size),
        runtime=_CUDA_CONTEXT if device.name == "cuda" else resident_bytes() or 0.0,
    )


def layer_bytes(config: PhaseConfig, model: Architecture, shape: StepShape, *, size: int) -> float:
    """Return the bytes that autograd keeps of one layer with a frozen base.

    Two norms keep their input in float32; attention its queries, keys, values and output; the
    feed-forward part the three factors of its gate, for each expert that a token goes through; an
    adapter its input, in float32, with a mask where there is dropout. Weights that are trained
    themselves keep their inputs too.
    """
    width = model.head_width
    norms = 8.0 * model.hidden
    queries = 2.0 * size * model.heads * width
    keys = 2.0 * size * model.key_value_heads * width
    per_token = norms + _feed_forward_bytes(model, size=size)
    if config.tuning == "full":
        per_token += size * (2.0 * model.hidden + model.heads * width + model.intermediate)
    if config.uses_adapter:
        per_token += _adapter_bytes(config, model, size=size) / model.layers
    kept = per_token * shape.tokens + queries * shape.queries + keys * shape.keys
    if model.has_sinks:
        kept += size * model.heads * shape.cells  # the mask, to which each head adds its sink
    return kept


def _adapter_bytes(config: PhaseConfig, model: Architecture, *, size: int) -> float:
    # Of a token, in all layers. Without dropout and in float32 the adapters of a layer keep the
    # same input; a cast or a dropout gives each its own, the latter with its mask.
    inputs = 4.0 * model.hidden * model.layers
    if config.lora_dropout or size == 2:
        inputs = (8.0 if config.lora_dropout else 4.0) * sum(model.adapted)
    return inputs + 4.0 * model.rank * len(model.adapted)


def _feed_forward_bytes(model: Architecture, *, size: int) -> float:
    if model.experts_per_token == 0:
        return 3.0 * size * model.intermediate
    each = 6.0 * model.intermediate + 2.0 * model.hidden
    return size * each * model.experts_per_token


def _working_bytes(model: Architecture, shape: StepShape, *, size: int) -> float:
    feed = _feed_forward_bytes(model, size=size) * shape.tokens
    attention = 2.0 * size * model.heads * model.head_width * shape.queries
    attention += 4.0 * size * model.key_value_heads * model.head_width * shape.keys
    scores = size * model.heads * shape.cells if model.has_sinks else 0.0
    return max(feed, attention + scores) + 2.0 * size * model.hidden * shape.tokens


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of the device: bytes that are free now, and all of it."""

    free: float
    total: float


def memory_room(device: Device) -> Room | None:
    """Return the memory of the GPU, or of the host for a CPU; None where it cannot be known."""
    if device.name == "cuda":
        free, total = torch.cuda.mem_get_info()
        return Room(float(free), float(total))
    try:
        total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return None
    limit = _number(Path("/sys/fs/cgroup/memory.max"))
    used = _number(Path("/sys/fs/cgroup/memory.current"))
    free = _meminfo("MemAvailable") or total
    if limit is not None and limit < total:
        total, free = limit, min(free, limit - (used or 0.0))
    return Room(free, total)


def resident_bytes() -> float | None:
    """Return the memory that this process has now; None where the system does not tell."""
    return _status("VmRSS")


def peak_bytes() -> float | None:
    """Return the most memory that this process has had since the start, or since a reset."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let :func:`peak_bytes` begin anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _status(key: str) -> float | None:
    return _field(Path("/proc/self/status"), key)


def _meminfo(key: str) -> float | None:
    return _field(Path("/proc/meminfo"), key)


def _field(path: Path, key: str) -> float | None:
    """Return a value in bytes of Linux's ``key:  value kB`` files."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024.0 * int(values[0]) if values else None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
