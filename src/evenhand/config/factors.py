"""What of a configuration does not change a result."""

from __future__ import annotations

NO_EFFECT_ON_RESULT = frozenset(
    {"output_dir", "cache_dir", "report_to", "logging_steps", "save_total_limit", "strategy"}
    | {
        "per_device_eval_batch_size",
        "eval_tokens_per_batch",
        "gradient_checkpointing",
        "dataloader_num_workers",
    }
    | {"remove_unused_columns"}
)
"""Keys that change where a result is written, how fast it is made, how much memory that takes, or
what is written about it."""

LOCATIONS = frozenset(
    {"train_file", "validation_file", "prompt_file", "model_name_or_path", "init_adapter"}
)
"""Keys that name a file or a model: where it lies changes no result, but what is in it does, so
these can be ignored only beside a hash of the content."""
