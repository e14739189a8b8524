"""Which keys of a phase's configuration a summary prints and compares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.config.files import shown
from evenhand.decide.audit import factors
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.wording import UNKNOWN, is_number

_EMPTY = (None, [], ())
_CHECKPOINTS_FOR_A_TREND = 3
_CLEAR_SHARE = 0.01
HIGH_WARMUP_SHARE = 0.5
"""A schedule that warms up for more than this share of its steps hardly trains at full rate."""


def main_configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the main keys that are set and matter to the way in which the phase was tuned.

    An import's configuration holds what its origin states, so any key may be absent.
    """
    return {
        key: _plain(value)
        for key, value in factors.main_configuration(config).items()
        if value not in _EMPTY
    }


def configuration_json(config: Mapping[str, Any]) -> str:
    """Return the main keys of a configuration as JSON, one a line, those that are set."""
    lines = (
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, default=str)}"
        for key, value in main_configuration(config).items()
    )
    return "{\n" + ",\n".join(lines) + "\n}"


def is_adapted(phase: PhaseReport) -> bool:
    """Return whether a phase was trained with LoRA, as far as its configuration says."""
    tuning = phase.config.get("tuning")
    return phase.training is not None and (
        tuning == "lora" or (tuning is None and "lora_r" in phase.config)
    )


def config_place(phase: PhaseReport) -> str:
    """Return where a phase's configuration stands: its file, or the experiment's."""
    if phase.config_source is not None:
        return shown(Path(phase.config_source))
    return "in the experiment file" if phase.config else UNKNOWN


def reference_phase(summary: Summary, phase: PhaseReport) -> PhaseReport | None:
    """Return the phase that another is compared with, or None.

    That is the control, else its parent, else the one before it; of several seeds its own.
    """
    control = [one for one in summary.phases if one.name in summary.control]
    if control and phase.name not in summary.control:
        return _of_same_seed(control, phase)
    if phase.parent is not None:
        return summary.phase(phase.parent)
    names = [setting.name for setting in summary.settings]
    before = names.index(summary.setting(phase).name) - 1
    return None if control or before < 0 else _of_same_seed(summary.settings[before].phases, phase)


def _of_same_seed(phases: Sequence[PhaseReport], phase: PhaseReport) -> PhaseReport:
    seed = phase.config.get("seed")
    return next((one for one in phases if one.config.get("seed") == seed), phases[0])


def changed_keys(summary: Summary, before: PhaseReport, phase: PhaseReport) -> list[str]:
    """Return the main keys in which two phases differ; none where one of them was not tuned.

    A key that one of the two does not state is not known to differ. The seed is no difference where
    several are compared as one.
    """
    if any(one.config.get("tuning") == "none" for one in (before, phase)):
        return []
    stated = [key for key in before.config if key in phase.config]
    old, new = (
        {key: one.config[key] for key in stated if one.config[key] not in _EMPTY}
        for one in (before, phase)
    )
    changed = factors.changed_keys(old, new, same_size=of_same_size(before, phase))
    has_seeds = any(len(summary.setting(one).phases) > 1 for one in (before, phase))
    return [key for key in changed if key != "seed" or not has_seeds]


def of_same_size(before: PhaseReport, phase: PhaseReport) -> bool:
    """Whether two phases are known to have trained as many parameters."""
    sizes = ((one.training or {}).get("trainable_parameters") for one in (before, phase))
    return factors.of_same_size(*sizes)


def warmup_share(phase: PhaseReport) -> float | None:
    """Return warm-up steps over all steps, or None where either is not recorded."""
    training = phase.training or {}
    warmup, total = training.get("warmup_steps"), training.get("total_steps")
    return warmup / total if is_number(warmup) and is_number(total) and total > 0 else None


def best_loss(training: Mapping[str, Any]) -> float | None:
    """Return the evaluation loss of the best checkpoint, else the final one."""
    for item in training.get("checkpoints") or ():
        if item.get("best"):
            return item.get("eval_loss")
    return training.get("final_eval_loss")


def still_improving(phase: PhaseReport) -> float | None:
    """Return by which share the loss fell to the last checkpoint, where that is the best one."""
    checkpoints = (phase.training or {}).get("checkpoints") or ()
    if len(checkpoints) < 2 or not checkpoints[-1].get("best"):
        return None
    before, last = checkpoints[-2].get("eval_loss"), checkpoints[-1].get("eval_loss")
    if not is_number(before) or not is_number(last) or last >= before:
        return None
    return (before - last) / before


def improves_clearly(phase: PhaseReport) -> bool:
    """Return whether the last of three checkpoints or more is the best, by more than 1%."""
    checkpoints = (phase.training or {}).get("checkpoints") or ()
    share = still_improving(phase)
    return len(checkpoints) >= _CHECKPOINTS_FOR_A_TREND and (share or 0.0) > _CLEAR_SHARE


def _plain(value: Any) -> Any:
    """Return a whole number as one: 3 epochs may be recorded as 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
