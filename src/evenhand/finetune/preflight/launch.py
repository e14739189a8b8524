"""The settings of the Trainer that matter with several processes, as training would set them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from evenhand.config.schema import PhaseConfig
from evenhand.finetune.devices import Device
from evenhand.finetune.train import training_arguments


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """How the processes of a training work together.

    Attributes:
        finds_unused: DDP's search for parameters without a gradient; slow, and not needed.
        is_reentrant: activation checkpointing of the old kind, which DDP and frozen layers break.
        uses_checkpointing: whether there is activation checkpointing at all.
        gpus_per_process: GPUs that one process would drive; above 1 the Trainer falls back to
            ``DataParallel``.
    """

    finds_unused: bool
    is_reentrant: bool
    uses_checkpointing: bool
    gpus_per_process: int


def launch_facts(config: PhaseConfig, device: Device) -> LaunchFacts:
    """Return what the training's own arguments say; nothing is started.

    They do not depend on the number of processes, save for the backend on a CPU.
    """
    only_device: Any = SimpleNamespace(device=device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(
            config, only_device, Path(folder), has_validation=True, processes=1
        )
    kinds: Any = arguments.activation_checkpointing_kwargs or {}
    return LaunchFacts(
        finds_unused=arguments.ddp_find_unused_parameters is not False,
        is_reentrant=kinds.get("use_reentrant") is not False,
        uses_checkpointing=bool(arguments.activation_checkpointing),
        gpus_per_process=arguments.n_gpu if device.name == "cuda" else 0,
    )


def take_one_gpu() -> int:
    """Return how many GPUs there are, and let a process that no launcher started see the first.

    It must come before anything else uses a GPU.
    """
    count = torch.cuda.device_count()
    if count > 1 and "WORLD_SIZE" not in os.environ:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    return count
