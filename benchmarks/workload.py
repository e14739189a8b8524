"""The work that every arm of a benchmark does: one model, one prompt, the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.data.sources import read_dataset
from evenhand.data.starter import generate
from evenhand.finetune.encoding import PromptEncoder
from evenhand.prompts.template import PromptTemplate, load_prompt

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
PROMPTS = ("short", "reference")
ROWS_A_STEP = 16
LORA = {
    "lora_r": 32,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"],
}
LEARNING_RATE = 5e-4
# What the reference samples with (its strategy baseline_standard), for prompts without settings.
SAMPLING = {"max_tokens": 512, "temperature": 0.1, "top_p": 1.0}


@dataclass(frozen=True)
class Workload:
    """Model, prompt and rows of one comparison; ``data`` None: the starter corpus."""

    model: str
    data: Path | None
    prompt_name: str
    prompt_file: Path
    strategy: str
    rows: int
    seed: int

    @property
    def prompt(self) -> PromptTemplate:
        """The built-in short prompt, or the strategy of the prompt file."""
        if self.prompt_name == "short":
            return load_prompt()
        return load_prompt(self.prompt_file, strategy=self.strategy)

    def config(self, **changes: Any) -> PhaseConfig:
        """Return the phase that our arms run, without evaluations and checkpoints."""
        values: dict[str, Any] = {
            "model_name_or_path": self.model,
            **LORA,
            "learning_rate": LEARNING_RATE,
            "per_device_train_batch_size": ROWS_A_STEP,
            "num_train_epochs": 1,
            "seed": self.seed,
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "report_to": "none",
        }
        return PhaseConfig(**{**values, **changes})

    def all_rows(self) -> tuple[Row, ...]:
        """Return the rows that are drawn from."""
        return generate(0)["train"] if self.data is None else read_dataset(self.data).rows

    def draw(self, count: int) -> list[Row]:
        """Return that many rows, drawn with the seed; fewer are the first of more."""
        rows = self.all_rows()
        order = np.random.default_rng(self.seed).permutation(len(rows))
        return [rows[place] for place in order[:count]]

    def draw_grouped(self, encoder: PromptEncoder, batches: int) -> list[list[Row]]:
        """Return batches of rows of like length, as length grouping makes them in a whole epoch.

        Trainers that group by length permute the rows, sort stretches of 50 batches by length and
        cut them. A short benchmark that grouped its own few rows would pad more than such an epoch
        does, so the batches are drawn from one over all rows.
        """
        rng = np.random.default_rng(self.seed)
        rows = self.all_rows()
        lengths = np.array([len(encoder.encode(row).ids) for row in rows])
        order = rng.permutation(len(rows))
        stretch = ROWS_A_STEP * max(1, min(len(rows) // (4 * ROWS_A_STEP), 50))
        found: list[np.ndarray] = []
        for start in range(0, len(rows), stretch):
            part = order[start : start + stretch]
            part = part[np.argsort(-lengths[part], kind="stable")]
            found += [part[at : at + ROWS_A_STEP] for at in range(0, len(part), ROWS_A_STEP)]
        whole = [batch for batch in found if len(batch) == ROWS_A_STEP]
        chosen = rng.choice(len(whole), size=batches, replace=len(whole) < batches)
        return [[rows[place] for place in whole[number]] for number in chosen]


def default_data() -> Path | None:
    """Return the real training file beside the project, if it is there."""
    path = SHARED / "finetune" / "train.jsonl"
    return path if path.is_file() else None


def answered(encoder: PromptEncoder, row: Row) -> tuple[list[int], list[int]]:
    """Return a labelled row as the tokens of its question and of its gold answer."""
    encoded = encoder.encode(row)
    if encoded.label is None:
        raise ValueError(f"row {row.id} has no label")
    return [*encoder.prefix, *encoded.ids], list(encoder.labels[encoded.label])
