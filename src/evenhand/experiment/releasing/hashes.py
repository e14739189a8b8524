"""Hashes of weights that a run folder holds itself."""

from __future__ import annotations

from pathlib import Path

from evenhand.core.paths import sha256_file, sha256_json


def weights_sha256(folder: Path) -> str | None:
    """Return one hash over a folder's safetensors; None where there are none.

    It is the hash that the manifest has of a base model in a folder.
    """
    found = {one.name: sha256_file(one) for one in sorted(folder.glob("*.safetensors"))}
    return sha256_json(found) if found else None
