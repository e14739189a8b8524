"""Where to compute and in which number format; both choices are recorded."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from evenhand.core.errors import DeviceError

DeviceName = Literal["cuda", "mps", "cpu"]
_PROBE_SIZE = 384
# Larger batches gain nothing: a CPU's cores are busy with these, and so is a GPU.
_BATCH_TOKENS: dict[DeviceName, int] = {"cpu": 4096, "mps": 4096, "cuda": 65536}
# What a forward pass costs a CPU beside its tokens, in tokens; a GPU prefers one large pass.
_CPU_PASS_COST = 128


@dataclass(frozen=True, slots=True)
class Device:
    """A device and number format with why they were chosen."""

    name: DeviceName
    dtype: torch.dtype
    reason: str
    is_bf16_fast: bool

    @property
    def dtype_name(self) -> str:
        """``float32`` or ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def batch_tokens(self) -> int:
        """Tokens that make a good batch in scoring."""
        return _BATCH_TOKENS[self.name]

    @property
    def pass_cost(self) -> int | None:
        """What one more forward pass costs, in tokens of padding; None: passes are not split."""
        return _CPU_PASS_COST if self.name == "cpu" else None


def choose_device(wanted: str, *, dtype: str, bf16: bool) -> Device:
    """Choose device and number format.

    ``wanted``: auto, cuda, mps or cpu; ``dtype``: auto, float32 or bfloat16; ``bf16``: the
    Hugging Face key, which asks for bfloat16 where it is fast.

    Raises:
        DeviceError: the device is not there, or one process sees several GPUs.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    names: dict[str, DeviceName] = {name: name for name in get_args(DeviceName)}
    best = next((one for one, is_there in available.items() if is_there), "cpu")
    name = names[best if wanted == "auto" else wanted]
    if not available.get(name, True):
        raise DeviceError(
            f'device "{name}" is not available to this PyTorch ({torch.__version__})',
            hint='set "device": "auto", or install a PyTorch build for this device',
        )
    if name == "cuda":
        refuse_data_parallel(torch.cuda.device_count())
    fast, seen = probe_bf16(name)
    if dtype == "float32":
        return Device(name, torch.float32, "asked for", fast)
    if dtype == "bfloat16":
        return Device(name, torch.bfloat16, "asked for", fast)
    chosen = torch.bfloat16 if fast else torch.float32
    asked = "bf16 asked for; " if bf16 else ""
    return Device(name, chosen, f"{asked}{seen}", fast)


def refuse_data_parallel(count: int) -> None:
    """Raise if one process sees several GPUs: it would use one, or fall back to DataParallel."""
    if count > 1 and "WORLD_SIZE" not in os.environ:
        command = " ".join(["evenhand", *sys.argv[1:]])
        raise DeviceError(
            f"this process sees {count} GPUs, but one process drives one GPU",
            # The "--" keeps torchrun from reading the command's own options.
            hint=f"launch one process a GPU:  torchrun --nproc_per_node {count} -m -- {command}\n"
            "or choose one:  CUDA_VISIBLE_DEVICES=0 " + command,
        )


@functools.cache
def probe_bf16(name: str) -> tuple[bool, str]:
    """Return whether bfloat16 is fast on the device, and the observation that says so.

    On a CPU a small matrix product is timed in both formats, the best of three; bfloat16 is fast
    where it takes less than 0.8 of float32's time. Probed once, so that a process never changes its
    mind.
    """
    if name == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return fast, "the GPU computes in bfloat16" if fast else "the GPU has no bfloat16"
    if name == "mps":
        return False, "float32 on Apple's MPS"
    times = {dtype: _matmul_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = times[torch.bfloat16] / times[torch.float32]
    return ratio < 0.8, f"a matrix product in bfloat16 took {ratio:.2g}x float32's time"


def _matmul_seconds(dtype: torch.dtype) -> float:
    left = torch.ones(_PROBE_SIZE, _PROBE_SIZE, dtype=dtype)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        torch.mm(left, left)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def release_memory() -> None:
    """Give back what models that are no longer used still hold (a Trainer has cycles)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of any device into one that says what to change."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(f"out of memory: {_first_line(error)}", hint=remedy) from error
    except RuntimeError as error:
        told = str(error)
        if "can't allocate memory" not in told and "out of memory" not in told:
            raise
        raise DeviceError(f"out of memory: {_first_line(error)}", hint=remedy) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0]
