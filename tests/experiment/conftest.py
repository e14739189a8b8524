from __future__ import annotations

from tests.tiny_experiments import quiet, tiny_bert, tiny_llama

__all__ = ["quiet", "tiny_bert", "tiny_llama"]
