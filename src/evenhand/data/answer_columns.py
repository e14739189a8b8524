"""Which column of a table of answers holds what: the post's columns, and the model's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from evenhand.core.errors import Problem
from evenhand.core.registry import suggest
from evenhand.data.columns import ROLES as ROW_ROLES
from evenhand.data.columns import column_names, common_columns

ANSWER_NAMES: Mapping[str, tuple[str, ...]] = {
    "prediction": ("predicted_label", "prediction", "predicted", "pred", "pred_label", "y_pred",
                   "decision", "predicted_class", "model_label", "model_prediction"),
    "score": ("score", "p_hate", "prob_hate", "hate_score", "hate_prob", "hate_probability",
              "probability", "prob", "y_score"),
    "status": ("status", "prediction_status"),
    "response": ("raw_response", "response", "raw_output", "model_output", "generation",
                 "completion"),
    "rationale": ("rationale",),
    "strategy": ("strategy", "prompt_strategy"),
    "position": ("sample_id", "sample_index", "row_index"),
}  # fmt: skip
"""Column names that are recognised for what a model answered; of several, the first is taken for
the response."""

ROLES = (*ROW_ROLES, *ANSWER_NAMES)


def find_roles(
    available: Sequence[str], *, given: Mapping[str, str | Sequence[str]]
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Return the columns of each role, given or recognised by name, and what is wrong with them.

    >>> find_roles(["input_text", "true_label", "pred"], given={})[0]
    {'text': ('input_text',), 'label': ('true_label',), 'prediction': ('pred',)}
    """
    problems = [
        Problem(f"columns.{role}", f"is not a role{suggest(role, ROLES)}; roles: "
                f"{', '.join(ROLES)}")
        for role in given
        if role not in (*ROLES, "group_separator")
    ]  # fmt: skip
    chosen = {role: column_names(given[role]) for role in ROLES if role in given}
    for role, names in chosen.items():
        if len(names) > 1 and role != "group":
            problems.append(
                Problem(f"columns.{role}", "takes one column; only group takes several")
            )
        problems += [
            Problem(
                f"columns.{role}",
                f'no column "{name}" in the file'
                f"{suggest(name, available) or '; columns: ' + listed(available)}",
            )
            for name in names
            if name not in available
        ]
    taken = {name for names in chosen.values() for name in names}
    for role in ROLES:
        if role in given:
            continue
        names = [name for name in _recognised(role, available) if name not in taken]
        if len(names) > 1 and role == "response":
            names = names[:1]
        if len(names) > 1:
            message = f"columns {names} could all be it; name one: --column {role}=NAME"
            problems.append(Problem(f"columns.{role}", message))
        chosen[role] = tuple(names)
    return {role: names for role, names in chosen.items() if names}, problems


def _recognised(role: str, available: Sequence[str]) -> list[str]:
    if role in ROW_ROLES:
        return common_columns(role, available)
    plain = {re.sub(r"[\s_.-]+", "_", name.strip().casefold()): name for name in available}
    return [plain[name] for name in ANSWER_NAMES[role] if name in plain]


def unrecognised(role: str, available: Iterable[str]) -> Problem:
    """Return the problem of a role for which no column was found."""
    instead = {"text": " (or --column id=NAME)", "prediction": " (or --column score=NAME)"}
    message = (
        f"no column name was recognised; name it: --column {role}=NAME{instead.get(role, '')}; "
        f"columns: {listed(available)}"
    )
    return Problem(f"columns.{role}", message)


def listed(names: Iterable[str]) -> str:
    """Return column names or the like, quoted, the first twenty of them."""
    return ", ".join(f'"{name}"' for name in list(names)[:20])
