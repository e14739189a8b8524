"""MXFP4 as gpt-oss is published, written and read with numpy alone: what loading is checked with.

Four-bit numbers (one sign bit, two of exponent, one of mantissa) in blocks of 32 that share a power
of two, after the OCP Microscaling Formats specification, version 1.0. A parameter of shape
(experts, inputs, outputs) is stored as ``<name>_blocks`` (experts, outputs, inputs / 32, 16) with
two numbers in a byte, the first in the low half, and ``<name>_scales`` (experts, outputs,
inputs / 32), exponents with bias 127.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
BLOCK = 32
BIAS = 127
EXPERTS = ("gate_up_proj", "down_proj")


def encode(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return blocks and scales of a parameter (experts, inputs, outputs), rounded to nearest."""
    experts, inputs, outputs = weight.shape
    blocked = weight.transpose(0, 2, 1).reshape(experts, outputs, inputs // BLOCK, BLOCK)
    largest = np.abs(blocked).max(axis=-1)
    # The largest number of a block falls between 4 and 8, where the format's own largest is 6.
    exponents = np.floor(np.log2(np.maximum(largest, 2.0**-100))).astype(np.int64) - 2
    scaled = blocked / np.exp2(exponents)[..., None]
    codes = np.abs(np.abs(scaled)[..., None] - MAGNITUDES).argmin(axis=-1) + 8 * np.signbit(scaled)
    blocks = codes[..., 0::2] + 16 * codes[..., 1::2]
    scales = exponents + BIAS
    return blocks.astype(np.uint8, order="C"), scales.astype(np.uint8, order="C")


def decode(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the parameter (experts, inputs, outputs) in float32."""
    codes = np.stack([blocks % 16, blocks // 16], axis=-1).reshape(*scales.shape, BLOCK)
    values = np.where(codes >= 8, -1, 1) * MAGNITUDES[codes % 8]
    values = values * np.exp2(scales.astype(np.float32) - BIAS)[..., None]
    return values.reshape(*scales.shape[:2], -1).transpose(0, 2, 1)


def save_as_mxfp4(source: Path, folder: Path) -> dict[str, np.ndarray]:
    """Write a gpt-oss checkpoint in MXFP4 and return what its parameters must be when loaded.

    As published: the experts' matrices in MXFP4, everything else in bfloat16.
    """
    shutil.copytree(source, folder)
    stored: dict[str, torch.Tensor] = {}
    expected: dict[str, np.ndarray] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if name.endswith(EXPERTS):
            blocks, scales = encode(weight.numpy())
            stored[f"{name}_blocks"] = torch.from_numpy(blocks)
            stored[f"{name}_scales"] = torch.from_numpy(scales)
            expected[name] = decode(blocks, scales)
        else:
            stored[name] = weight.to(torch.bfloat16)
            expected[name] = stored[name].float().numpy()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["dtype"] = "bfloat16"
    settings["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return expected
