"""Rules that concern several fields at once; every broken one is reported, not the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core.registry import suggest

if TYPE_CHECKING:
    from evenhand.config.schema import AugmentConfig, PhaseConfig

Check = Callable[["PhaseConfig"], str | None]

CUDA_OPTIMISERS = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit")


class Broken(NamedTuple):
    """A broken rule: the keys it concerns (or one place), and what to do."""

    keys: tuple[str, ...]
    message: str


def broken_phase_rules(config: PhaseConfig) -> list[Broken]:
    """Return every rule that a phase breaks."""
    found = ((keys, check(config)) for keys, check in _PHASE_RULES)
    return [Broken(keys, message) for keys, message in found if message is not None]


def broken_augment_rules(config: AugmentConfig) -> list[Broken]:
    """Return every rule that an augmentation breaks."""
    found = []
    if ("corpus" in config.methods) != (config.corpus is not None):
        message = (
            'is missing: method "corpus" needs a file'
            if config.corpus is None
            else 'is only used by the method "corpus"; name it among methods, or leave this out'
        )
        found.append(Broken(("corpus", "methods"), message))
    for key in ("methods", "groups", "labels"):
        values = getattr(config, key) or ()
        if len(set(values)) < len(values):
            found.append(Broken((key,), "names something twice"))
    return found


def broken_experiment_rules(document: Mapping[str, Any]) -> list[Broken]:
    """Return every rule that an experiment breaks.

    Takes the document as read, so that a wrong type elsewhere does not hide these; values of a
    wrong type are passed over, since the fields' own checks name them.
    """
    phases, sets = _entries(document, "phases"), _entries(document, "sets")
    found = [
        *_repeated_names("phases", phases),
        *_repeated_names("sets", sets),
        *_wrong_parents(phases),
        *_wrong_selection(document.get("selection"), sets),
        *_second_train_set(sets),
        *_repeated_seeds(document, phases),
        *_wrong_control(document, phases, sets),
        *_columns_of_fixed_formats(sets),
    ]
    return [Broken((place,), message) for place, message in found]


def _best_needs_evaluation(c: PhaseConfig) -> str | None:
    if c.load_best_model_at_end and c.eval_strategy == "no" and c.tuning != "none":
        return 'needs evaluation: set eval_strategy to "epoch" or "steps", or this to false'
    return None


def _best_needs_matching_saves(c: PhaseConfig) -> str | None:
    trained = c.tuning != "none" and c.eval_strategy != "no"
    if c.load_best_model_at_end and trained and c.save_strategy != c.eval_strategy:
        return (
            f'is "{c.save_strategy}" but eval_strategy is "{c.eval_strategy}": with '
            "load_best_model_at_end each evaluated state must be saved, so the two must be equal"
        )
    return None


def _best_needs_saves_at_evaluations(c: PhaseConfig) -> str | None:
    if not (c.load_best_model_at_end and c.save_strategy == c.eval_strategy == "steps"):
        return None
    if c.eval_steps is None or (c.save_steps < 1) != (c.eval_steps < 1):
        return None if c.eval_steps is None else "must be of the same kind as eval_steps"
    ratio = c.save_steps / c.eval_steps
    if abs(ratio - round(ratio)) > 1e-9 or round(ratio) == 0:
        return (
            f"is {c.save_steps}, no multiple of eval_steps ({c.eval_steps}): with "
            "load_best_model_at_end a saved state must have been evaluated"
        )
    return None


def _steps_need_a_number(c: PhaseConfig) -> str | None:
    if c.eval_strategy == "steps" and c.eval_steps is None:
        return 'is missing: eval_strategy "steps" needs it'
    return None


def _patience_needs_evaluation(c: PhaseConfig) -> str | None:
    if c.early_stopping_patience is not None and c.eval_strategy == "no":
        return 'needs evaluation: set eval_strategy to "epoch" or "steps", or this to null'
    return None


def _patience_needs_best(c: PhaseConfig) -> str | None:
    if c.early_stopping_patience is not None and not c.load_best_model_at_end:
        return "needs load_best_model_at_end true, or the worse last state would be kept"
    return None


def _direction_follows_metric(c: PhaseConfig) -> str | None:
    if c.greater_is_better is None or c.greater_is_better == c.is_greater_better:
        return None
    direction = "larger" if c.is_greater_better else "smaller"
    return (
        f"contradicts metric_for_best_model: a {direction} {c.metric_for_best_model} is better; "
        "leave it out"
    )


def _pairing_needs_labels(c: PhaseConfig) -> str | None:
    if c.counterfactual_pairing is not None and c.objective != "label":
        return f'needs objective "label", which compares logits; it is "{c.objective}"'
    return None


def _weights_need_labels(c: PhaseConfig) -> str | None:
    if c.row_weights is not None and c.objective != "label":
        return f'needs objective "label", whose items are rows; it is "{c.objective}"'
    return None


def _added_rows_have_no_chat(c: PhaseConfig) -> str | None:
    if c.augment is not None and c.objective == "full_sequence":
        return 'adds rows that have no chat to train on verbatim; use objective "label"'
    return None


def _parameters_need_no_dropout(c: PhaseConfig) -> str | None:
    if c.uses_adapter and c.lora_target_parameters and c.lora_dropout != 0:
        return f"is {c.lora_dropout}, but must be 0 with lora_target_parameters (PEFT demands it)"
    return None


def _classifier_has_labels_only(c: PhaseConfig) -> str | None:
    if c.task == "sequence_classification" and c.objective != "label":
        return f'"{c.objective}" needs task "causal_lm"; a classifier is trained on "label"'
    return None


def _classifier_has_no_prompt(c: PhaseConfig) -> str | None:
    if c.task == "sequence_classification" and c.prompt_file is not None:
        return "a sequence classifier reads the bare text; leave the prompt out"
    return None


def _adapter_needs_lora(c: PhaseConfig) -> str | None:
    if c.tuning != "lora" and c.init_adapter is not None:
        return f'continues an adapter, but tuning is "{c.tuning}"; set tuning to "lora"'
    return None


def _full_tuning_needs_real_weights(c: PhaseConfig) -> str | None:
    if c.tuning == "full" and c.load_in_4bit:
        return 'cannot be used with tuning "full": 4-bit weights cannot be trained'
    return None


def _bf16_against_dtype(c: PhaseConfig) -> str | None:
    if c.bf16 and c.dtype == "float32":
        return 'true contradicts dtype "float32"; keep one of the two'
    return None


def _optimiser_needs_cuda(c: PhaseConfig) -> str | None:
    if c.optim in CUDA_OPTIMISERS and c.device in ("cpu", "mps"):
        return f'"{c.optim}" needs CUDA, but device is "{c.device}"; use "adamw_torch"'
    return None


def _none_stands_alone(c: PhaseConfig) -> str | None:
    if "none" in c.report_to and len(c.report_to) > 1:
        return '"none" cannot be combined with another log'
    return None


_PHASE_RULES: tuple[tuple[tuple[str, ...], Check], ...] = (
    (("load_best_model_at_end", "eval_strategy", "tuning"), _best_needs_evaluation),
    (
        ("save_strategy", "eval_strategy", "load_best_model_at_end", "tuning"),
        _best_needs_matching_saves,
    ),
    (
        ("save_steps", "eval_steps", "save_strategy", "eval_strategy", "load_best_model_at_end"),
        _best_needs_saves_at_evaluations,
    ),
    (("eval_steps", "eval_strategy"), _steps_need_a_number),
    (("early_stopping_patience", "eval_strategy"), _patience_needs_evaluation),
    (("early_stopping_patience", "load_best_model_at_end"), _patience_needs_best),
    (("greater_is_better", "metric_for_best_model"), _direction_follows_metric),
    (("lora_dropout", "lora_target_parameters", "tuning"), _parameters_need_no_dropout),
    (("objective", "task"), _classifier_has_labels_only),
    (("counterfactual_pairing", "objective"), _pairing_needs_labels),
    (("row_weights", "objective"), _weights_need_labels),
    (("augment", "objective"), _added_rows_have_no_chat),
    (("prompt_file", "task"), _classifier_has_no_prompt),
    (("init_adapter", "tuning"), _adapter_needs_lora),
    (("load_in_4bit", "tuning"), _full_tuning_needs_real_weights),
    (("bf16", "dtype"), _bf16_against_dtype),
    (("optim", "device"), _optimiser_needs_cuda),
    (("report_to",), _none_stands_alone),
)


def _entries(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = document.get(key)
    entries = value if isinstance(value, list) else []
    return [entry if isinstance(entry, Mapping) else {} for entry in entries]


def _repeated_names(key: str, entries: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        # Names become folders, and some file systems take "A" and "a" for one.
        before = first.setdefault(name.casefold(), index)
        if before != index:
            yield f"{key}[{index}].name", f'"{name}" is already the name of {key}[{before}]'


def _wrong_parents(phases: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    earlier: list[str] = []
    for index, phase in enumerate(phases):
        parent = phase.get("continue_from")
        if isinstance(parent, str) and parent not in earlier:
            later = parent in [p.get("name") for p in phases[index:]]
            problem = "is not an EARLIER phase" if later else "is not a phase"
            yield (
                f"phases[{index}].continue_from",
                f'"{parent}" {problem}{suggest(parent, earlier)}',
            )
        if isinstance(phase.get("name"), str):
            earlier.append(phase["name"])


def _wrong_selection(selection: Any, sets: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    chosen = selection.get("set") if isinstance(selection, Mapping) else None
    if not isinstance(chosen, str):
        return
    names = [(entry.get("name"), entry.get("role")) for entry in sets]
    roles = {name: role for name, role in names if isinstance(name, str)}
    if chosen not in roles:
        yield "selection.set", f'"{chosen}" is not the name of a set{suggest(chosen, roles)}'
    elif roles[chosen] != "validation":
        yield (
            "selection.set",
            f'"{chosen}" has role "{roles[chosen]}"; the best phase is chosen on a set of role '
            '"validation" only',
        )


def _second_train_set(sets: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    train = [index for index, entry in enumerate(sets) if entry.get("role") == "train"]
    for index in train[1:]:
        yield (
            f"sets[{index}].role",
            f'sets[{train[0]}] has role "train" already; join the two files into one set',
        )


def _repeated_seeds(
    document: Mapping[str, Any], phases: list[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    seeds = document.get("seeds")
    if not isinstance(seeds, list):
        return
    if len(set(map(str, seeds))) < len(seeds):
        yield "seeds", "names a seed twice"
    defaults = document.get("defaults")
    if isinstance(defaults, Mapping) and "seed" in defaults:
        yield "defaults.seed", "the experiment's seeds set it; leave it out"
    for index, phase in enumerate(phases):
        for key in ("config", "overrides"):
            given = phase.get(key)
            if isinstance(given, Mapping) and "seed" in given:
                yield f"phases[{index}].{key}.seed", "the experiment's seeds set it; leave it out"


def _wrong_control(
    document: Mapping[str, Any],
    phases: list[Mapping[str, Any]],
    sets: list[Mapping[str, Any]],
) -> Iterator[tuple[str, str]]:
    control, acceptance = document.get("control"), document.get("acceptance")
    names = [phase["name"] for phase in phases if isinstance(phase.get("name"), str)]
    if isinstance(control, str) and control not in names:
        yield "control", f'"{control}" is not a phase{suggest(control, names)}'
    if not isinstance(acceptance, Mapping):
        return
    if control is None:
        yield "acceptance", 'needs "control": the untreated phase that the others are held against'
    roles = {one["name"]: one.get("role") for one in sets if isinstance(one.get("name"), str)}
    fitted_on = acceptance.get("fitted_on")
    if fitted_on is not None and acceptance.get("at_recall") is None:
        yield "acceptance.fitted_on", 'is for the thresholds of "at_recall", which is missing'
    judged = (acceptance.get("set"), acceptance.get("functional"))
    if fitted_on is not None and fitted_on in judged:
        yield (
            "acceptance.fitted_on",
            "thresholds are found on other rows than those that are judged",
        )
    for key in ("set", "functional", "fitted_on"):
        name = acceptance.get(key)
        if not isinstance(name, str):
            continue
        if name not in roles:
            yield f"acceptance.{key}", f'"{name}" is not the name of a set{suggest(name, roles)}'
        elif roles[name] not in ("test", "validation"):
            yield (
                f"acceptance.{key}",
                f'"{name}" has role "{roles[name]}"; every phase is evaluated on sets of role '
                '"test" or "validation" only',
            )


def _columns_of_fixed_formats(sets: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for index, entry in enumerate(sets):
        given = entry.get("columns")
        chosen = isinstance(given, Mapping) and any(name is not None for name in given.values())
        if chosen and entry.get("format") not in (None, "table"):
            yield (
                f"sets[{index}].columns",
                f'format "{entry["format"]}" names its own columns; leave out one of the two',
            )
