"""Checks of the trainings: schedule, factors and formats that are mixed, parameters, padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.core.decisions import Finding
from evenhand.decide.audit.factors import changed_keys, of_same_size
from evenhand.decide.audit.inputs import AuditInputs, AuditPhase, AuditSet
from evenhand.decide.audit.wording import listed, percent

HIGH_WARMUP_SHARE = 0.5
"""A schedule that warms up for more than this share of its updates hardly trains at full rate."""

_SHIFTED_SHARE = 0.1
_CHARACTERS_PER_TOKEN = 4.0
_WASTE = 2.0
_FLOPS_PER_PARAMETER_AND_TOKEN = 6  # transformers' floating_point_ops; Kaplan et al. 2020


def warmup_share(inputs: AuditInputs) -> Iterator[Finding]:
    """Find schedules that never reach their learning rate, or hardly train at it."""
    for phase in inputs.phases:
        schedule = phase.schedule
        if schedule is None or schedule.warmup_share <= HIGH_WARMUP_SHARE:
            continue
        never = schedule.warmup >= schedule.total
        yield Finding(
            check="warmup_share",
            subject=phase.name,
            severity="error" if never else "warning",
            message=(
                f"Warm-up takes {schedule.warmup:,} of the {schedule.total:,} updates of "
                f"{phase.name} ({percent(schedule.warmup_share)}): "
                + ("the learning rate is never reached." if never else "few are at the full rate.")
            ),
            evidence={
                "warmup_steps": schedule.warmup,
                "total_steps": schedule.total,
                "share": schedule.warmup_share,
                "effective_batch_size": schedule.effective_batch,
                "processes": schedule.processes,
            },
            remedy=(
                "Give warmup_steps as a share, 0.1 for example, so that it goes with the number of "
                "updates; a warm-up of 3 to 10% is usual."
            ),
        )


def confounded_phases(inputs: AuditInputs) -> Iterator[Finding]:
    """Find phases of which no earlier one differs in a single factor.

    A phase is compared with the one that it continues, else with the most similar earlier one.
    """
    known = [phase for phase in inputs.phases if phase.config and _is_tuned(phase)]
    for number, phase in enumerate(known):
        earlier = [one for one in known[:number] if phase.parent in (None, one.name)]
        if not earlier:
            continue
        # The latest of the most similar ones, as a reader of the phases in order takes it.
        reference = min(reversed(earlier), key=lambda one: len(_changes(one, phase)))
        changes = _changes(reference, phase)
        if len(changes) > 1:
            shifted = _shifted_schedule(reference, phase)
            named = [*changes, *([] if shifted is None else [shifted])]
            yield Finding(
                check="confounded_phases",
                subject=f"{reference.name} / {phase.name}",
                severity="warning",
                message=(
                    f"{phase.name} differs from {reference.name}, the nearest earlier phase, in "
                    f"{listed(named)}: a difference in results cannot be ascribed to one "
                    "of them."
                ),
                evidence={"changes": {key: list(pair) for key, pair in changes.items()}},
                remedy="Add a phase for each factor that changes only that factor.",
            )


def mixed_number_formats(inputs: AuditInputs) -> Iterator[Finding]:
    """Find trainings in different number formats that nobody asked for.

    ``dtype: auto`` takes what is fast on the machine, so that phases of two machines may differ.
    """
    done = [phase for phase in inputs.phases if (phase.training or {}).get("dtype")]
    phases: dict[str, list[str]] = {}
    for phase in done:
        phases.setdefault(str((phase.training or {})["dtype"]), []).append(phase.name)
    was_chosen = any((phase.config or {}).get("dtype", "auto") == "auto" for phase in done)
    if len(phases) < 2 or not was_chosen:
        return
    parts = [f"{listed(names, shown=5)} in {dtype}" for dtype, names in sorted(phases.items())]
    yield Finding(
        check="mixed_number_formats",
        subject=" / ".join(sorted(phases)),
        severity="warning",
        message=(
            f"Trained in different number formats: {'; '.join(parts)}. A difference between "
            "them may be of the rounding."
        ),
        evidence={"phases": phases},
        remedy=(
            'Set "dtype" in the defaults of the experiment, and train again what has another one.'
        ),
    )


def wrong_parameter_count(inputs: AuditInputs) -> Iterator[Finding]:
    """Find stated parameter counts that the configuration does not give."""
    for phase in inputs.phases:
        for key, stated in phase.stated.items():
            counted = phase.counted.get(key)
            if counted is None or stated == counted:
                continue
            yield Finding(
                check="wrong_parameter_count",
                subject=f"{phase.name} / {key}",
                severity="warning",
                message=(
                    f"{phase.name} is said to have {stated:,.0f} "
                    f"{key.replace('_', ' ')}; its configuration gives {counted:,} "
                    f"({(stated - counted) / counted:+.1%} relative)."
                ),
                evidence={"stated": stated, "counted": counted},
                remedy="Correct the figure; `evenhand params CONFIG.json` counts it.",
            )


def padding_waste(inputs: AuditInputs) -> Iterator[Finding]:
    """Find trainings whose recorded FLOPs imply far more tokens than their texts have."""
    for phase in inputs.phases:
        sets = inputs.trained_on(phase)
        tokens = _tokens_per_row(phase, rows=sum(len(one.data) for one in sets))
        chats = _mean_lengths(sets)
        if tokens is None or chats is None or tokens < _WASTE * chats.tokens:
            continue
        limit = (phase.config or {}).get("max_seq_length")
        padded = limit is not None and abs(tokens - limit) <= 0.05 * limit
        yield Finding(
            check="padding_waste",
            subject=phase.name,
            severity="warning",
            message=(
                f"The recorded FLOPs of {phase.name} imply {tokens:,.0f} tokens a row"
                + (f", which is max_seq_length ({limit:,})" if padded else "")
                + f"; the posts average {chats.post_words:.0f} words, the whole rows about "
                f"{chats.tokens:.0f} tokens: most of the computing went into padding."
            ),
            evidence={
                "tokens_per_row": tokens,
                "max_seq_length": limit,
                "mean_post_words": chats.post_words,
                "estimated_tokens_per_row": chats.tokens,
                "total_flos": (phase.training or {}).get("total_flos"),
            },
            remedy="Pack rows, or pad to the longest row of each batch instead of a fixed length.",
        )


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Mean lengths of training rows: the posts in words, the rows in (estimated) tokens."""

    post_words: float
    tokens: float


def _mean_lengths(sets: Sequence[AuditSet]) -> _Lengths | None:
    rows = [row for one in sets for row in one.data.rows]
    if not rows:
        return None
    characters = sum(
        len(row.text) if row.messages is None else sum(len(said) for _, said in row.messages)
        for row in rows
    )
    words = sum(len(row.text.split()) for row in rows)
    return _Lengths(words / len(rows), characters / _CHARACTERS_PER_TOKEN / len(rows))


def _tokens_per_row(phase: AuditPhase, *, rows: int) -> float | None:
    """Return the tokens a row that total_flos = 6 x parameters x tokens implies.

    ``rows`` is the size of the training sets, for statistics that do not say it.
    """
    training = phase.training or {}
    rows, epochs = training.get("rows") or rows, training.get("final_epoch")
    flops = training.get("total_flos")
    parameters = phase.counted.get("total_parameters") if flops else None
    if not (rows and epochs and flops and parameters):
        return None
    # Embedding look-ups are no multiplications; the adapter's parameters count too.
    counted = parameters - phase.embedding_parameters + phase.counted.get("trainable_parameters", 0)
    return flops / (_FLOPS_PER_PARAMETER_AND_TOKEN * counted) / (rows * epochs)


def _changes(before: AuditPhase, after: AuditPhase) -> Mapping[str, tuple[Any, Any]]:
    """Return what differs between two phases -> its two values."""
    old, new = before.config or {}, after.config or {}
    # A key that only one of two imported phases states may have the same value in both.
    both = old.keys() & new.keys()
    changed = changed_keys(old, new)
    at_same_size = changed_keys(old, new, same_size=True)
    if at_same_size != changed and of_same_size(
        *(one.counted.get("trainable_parameters") for one in (before, after))
    ):
        changed = at_same_size
    found = {key: (old[key], new[key]) for key in changed if key in both}
    if before.prompt and after.prompt and before.prompt.sha256 != after.prompt.sha256:
        found["prompt"] = (before.prompt.strategy, after.prompt.strategy)
    return found


def _shifted_schedule(before: AuditPhase, after: AuditPhase) -> str | None:
    """Say that the warm-up's share moved, which fixed warm-up steps do when epochs change."""
    one, other = before.schedule, after.schedule
    if one is None or other is None:
        return None
    shares = (one.warmup_share, other.warmup_share)
    if abs(shares[0] - shares[1]) < _SHIFTED_SHARE:
        return None
    return f"the schedule (warm-up {percent(shares[0])} of the updates, then {percent(shares[1])})"


def _is_tuned(phase: AuditPhase) -> bool:
    return (phase.config or {}).get("tuning") != "none"
