"""Which model a threshold or a verdict belongs to, and whether the folder still holds it."""

from __future__ import annotations

from evenhand.core.decisions import Binding
from evenhand.core.errors import Problem
from evenhand.core.paths import sha256_file
from evenhand.experiment.results import Results
from evenhand.prompts.template import load_prompt


def current_binding(results: Results) -> Binding:
    """Return the hashes of the model as it lies in the folder, not as it was recorded."""
    recorded = results.binding
    adapter = results.path / "adapter" / "adapter_model.safetensors"
    prompt = results.path / "prompt.json"
    return recorded.model_copy(
        update={
            "adapter": sha256_file(adapter) if adapter.is_file() else recorded.adapter,
            "prompt": load_prompt(prompt).sha256 if prompt.is_file() else recorded.prompt,
        }
    )


def binding_problems(bound: Binding, results: Results) -> list[Problem]:
    """Return how the model in the folder differs from the one that a record is bound to."""
    there = current_binding(results)
    what = {
        "run": "was made for a run with other inputs",
        "adapter": "was made for another adapter than the one in the folder",
        "prompt": "was made with another prompt than the one in the folder",
        "base": "was made for another base model",
    }
    return [
        Problem(f"binding.{key}", message)
        for key, message in what.items()
        if getattr(bound, key) != getattr(there, key)
    ]
