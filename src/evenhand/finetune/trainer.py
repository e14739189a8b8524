"""transformers' Trainer with our batches, loss, evaluation and atomic checkpoints."""

# ruff: noqa: ARG002 - the Trainer calls these with more than each of them needs

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState

from evenhand.core.errors import TrainingError
from evenhand.core.records import HATE, LABELS
from evenhand.finetune import checkpoint
from evenhand.finetune.encoding import EncodedRow
from evenhand.finetune.layouts import Layout
from evenhand.finetune.objective import Objective
from evenhand.finetune.packing import to_device
from evenhand.finetune.processes import current_world
from evenhand.finetune.score import hate_probability, label_log_probs


class PackTrainer(Trainer):
    """Trains on an objective's batches and evaluates with the product's own scorer.

    The loss of a step is the mean over its items (rows or tokens), whatever the number of
    micro-batches and processes they were spread over.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        objective: Objective,
        layout: Layout,
        train_rows: Sequence[EncodedRow],
        validation_rows: Sequence[EncodedRow],
        validation_objective_rows: Sequence[EncodedRow],
        batch_tokens: int,
        keep_checkpoints: int | None,
        checkpoint_facts: Mapping[str, Any],
        callbacks: list[Any],
    ) -> None:
        datasets: dict[str, Any] = {
            "train_dataset": list(train_rows),
            "eval_dataset": list(validation_rows) or None,
        }
        super().__init__(
            model=model,
            args=args,
            **datasets,
            data_collator=objective.collate,
            callbacks=callbacks,
        )
        self.objective = objective
        self.layout = layout
        self.validation_rows = validation_rows
        self.validation_objective_rows = validation_objective_rows
        self.batch_tokens = batch_tokens
        self.keep_checkpoints = keep_checkpoints
        self.checkpoint_facts = dict(checkpoint_facts)
        self.loss_is_scaled_for_ga = True

    # Loss

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor:
        count = torch.tensor(sum(batch["count"] for batch in batch_samples), device=device)
        return self.accelerator.gather(count).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss summed over this batch's items, over the items of the whole step."""
        total = self.objective.loss_sum(model, inputs)
        # DDP averages gradients over processes; the factor makes their sum of it.
        return total * self.accelerator.num_processes / num_items_in_batch

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Refuse a loss that is not finite, and name the step."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} "
                f"of {self.state.max_steps}; training stopped, earlier checkpoints are intact",
                hint='lower "learning_rate", raise "warmup_steps", or set "dtype": "float32"',
            )
        return loss

    def _run_epoch(self, *args: Any, **options: Any) -> None:
        # Resumed after it was stopped early: nothing is left to train.
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **options)

    # Evaluation

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the validation rows, each once, and report the objective's loss on them."""
        model = self.accelerator.unwrap_model(self.model)
        world = current_world()
        values = label_log_probs(
            model,
            self.layout,
            self.validation_rows,
            batch_tokens=self.batch_tokens,
            world=world,
            label="validate",
        )
        gold = np.array([row.label for row in self.validation_rows])
        metrics = {"loss": self._validation_loss(model, values, gold), **_metrics(values, gold)}
        found = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _validation_loss(self, model: Any, values: np.ndarray, gold: np.ndarray) -> float:
        scores, target = torch.from_numpy(values), torch.from_numpy(gold)
        if self.objective.name == "label":
            # Without weights and pairs: those are of the training rows' making, and early stopping
            # and the best checkpoint would otherwise follow another scale in each phase.
            return cross_entropy(scores, target).item()
        batch = self.args.per_device_eval_batch_size
        rows = self.validation_objective_rows
        loss, count = 0.0, 0
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(rows), batch):
                tensors = self.objective.collate(rows[start : start + batch])
                tensors = to_device(tensors, self.args.device)
                loss += self.objective.loss_sum(model, tensors).item()
                count += tensors["count"]
        model.train(was_training)
        return loss / count

    # Checkpoints

    def _init_training_state(self, *args: Any, **options: Any) -> tuple[int, int]:
        found = super()._init_training_state(*args, **options)
        self._point_to_best()
        return found

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end:
            self.control.should_save = True  # or it could not be restored at the end
        return is_best

    def _point_to_best(self) -> None:
        # By step rather than by the recorded path: a run folder may have been moved.
        if self.state.best_global_step:
            best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        # Safetensors only, and no pickled training arguments beside them.
        self.accelerator.unwrap_model(self.model).save_pretrained(
            output_dir, state_dict=state_dict, is_main_process=self.args.should_save
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        step = self.state.global_step
        staging = checkpoint.staging_folder(folder, step)
        self._point_to_best()
        self.store_flos()
        self.save_model(str(staging), _internal_call=True)
        self._save_optimizer_and_scheduler(str(staging))
        self._save_scaler(str(staging))
        self._save_rng_state(str(staging))
        world = current_world()
        world.wait()
        if world.is_first:
            listeners: list[Any] = [*self.callback_handler.callbacks, self.control]
            states = {
                type(one).__name__: one.state()
                for one in listeners
                if isinstance(one, ExportableState)
            }
            self.state = replace(self.state, stateful_callbacks=states)
            self.state.save_to_json(str(staging / "trainer_state.json"))
            checkpoint.finish(folder, step, facts=self.checkpoint_facts)
            best = self.state.best_global_step
            checkpoint.rotate(folder, keep=self.keep_checkpoints, best_step=best)
        world.wait()


def _metrics(values: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    scores = hate_probability(values)
    is_hate = gold == LABELS.index(HATE)
    decided = scores >= 0.5
    found = {
        "accuracy": float(accuracy_score(is_hate, decided)),
        "f1": float(f1_score(is_hate, decided, zero_division=0.0)),
    }
    if 0 < is_hate.sum() < len(is_hate):
        found["roc_auc"] = float(roc_auc_score(is_hate, scores))
    return found
