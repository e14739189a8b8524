"""Keys that users bring from elsewhere, and what to write instead."""

from __future__ import annotations

_NEW_NAME = {
    "evaluation_strategy": "eval_strategy",
    "max_length": "max_seq_length",
    "max_seq_len": "max_seq_length",
    "model_max_length": "max_seq_length",
    "model_name": "model_name_or_path",
    "model": "model_name_or_path",
    "torch_dtype": "dtype",
    "activation_checkpointing": "gradient_checkpointing",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "r": "lora_r",
    "lora_rank": "lora_r",
    "target_modules": "lora_target_modules",
    "target_parameters": "lora_target_parameters",
    "bias": "lora_bias",
    "patience": "early_stopping_patience",
    "eval_file": "validation_file",
    "max_train_samples": "max_train_rows",
    "optimizer": "optim",
    "data_seed": "seed",
}

_ADVICE = {
    "warmup_ratio": "write the share as warmup_steps, a number below 1",
    "fp16": "float16 is not supported; use bf16, or dtype",
    "no_cuda": 'use device: "cpu"',
    "use_cpu": 'use device: "cpu"',
    "use_mps_device": 'use device: "mps"',
    "max_steps": "the length is set in epochs: use num_train_epochs (a fraction is allowed)",
    "load_in_8bit": "8-bit loading is not supported; use load_in_4bit",
    "logging_dir": "TensorBoard events go to the run folder's tensorboard/; leave it out",
    "overwrite_output_dir": "leave it out; `--resume` continues a run",
    "resume_from_checkpoint": "leave it out and use `evenhand train --resume`",
    "do_train": "leave it out; the command says what is done",
    "do_eval": "leave it out; the command says what is done",
    "do_predict": "leave it out; the command says what is done",
    "trust_remote_code": "code from a model's repository is never run; leave it out",
    "group_by_length": "rows are packed by length anyway; leave it out",
    "packing": "rows are packed anyway; leave it out",
    "completion_only_loss": 'use objective: "label" or "completion"',
    "assistant_only_loss": 'use objective: "completion"',
    "fsdp": "use an accelerate configuration file, see configs/accelerate",
    "fsdp_config": "use an accelerate configuration file, see configs/accelerate",
    "deepspeed": "use an accelerate configuration file, see configs/accelerate",
    "push_to_hub": "nothing is uploaded; leave it out",
    "save_safetensors": "weights are always written as safetensors; leave it out",
}


def advice_for(key: str) -> str | None:
    """Return what to write instead of a key of another tool or version, if it is known.

    >>> advice_for("evaluation_strategy")
    'is called eval_strategy here'
    """
    if key in _NEW_NAME:
        return f"is called {_NEW_NAME[key]} here"
    return _ADVICE.get(key)
