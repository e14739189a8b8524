"""What keeps a run from being served: each problem with a code by which it can be accepted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.production import Override
from evenhand.core.registry import suggest

ACCEPTABLE: dict[str, str] = {
    "gate_missing": "the run was not judged by a gate",
    "gate_failed": "the gate's verdict is FAIL, or the deployment is rejected",
    "gate_vacuous": "a constant classifier meets the gate's criteria: it is no verdict",
    "gate_review": "the gate's verdict is REVIEW; served with a warning, accepted or not",
    "gate_stale": "the verdict is of another model, other rows or another threshold",
    "threshold_stale": "the threshold is of another model or other rows",
    "deployment_missing": "there is a verdict, but no deployment record with its duties",
    "deployment_stale": "the deployment record does not belong to the verdict",
    "adapter_changed": "the adapter's file is not the one that training wrote",
    "prompt_changed": "the prompt is not the one of the training",
    "weights_changed": "the fully tuned weights are not the ones that training wrote",
    "base_changed": "the base model or its tokenizer is not the one of the training",
    "golden_missing": "there are no golden rows to replay",
    "golden_stale": "the golden rows were scored by another model",
    "golden_differs": "golden rows do not get their offline scores",
    "adapter_inert": "switching the adapter off does not change the scores",
}
"""The codes that an operator may accept, with a reason, and what each means."""

FATAL: dict[str, str] = {
    "run_unfinished": "the training has not ended",
    "run_imported": "an imported run has answers but no model",
    "damaged": "a file of the run cannot be read",
    "cannot_load": "the model cannot be loaded",
}
"""The codes of what cannot be accepted, since nothing could be served."""

WARNINGS = frozenset({"gate_review"})
"""Problems that are recorded and said aloud, but keep nothing from starting."""

_UNASKED = "needs no acceptance: REVIEW is served with this warning"


@dataclass(frozen=True, slots=True)
class ReleaseProblem:
    """One thing that speaks against serving a run.

    Attributes:
        code: a key of :data:`ACCEPTABLE` or :data:`FATAL`.
        place: the file, or the part of the run, where it was seen.
        message: what is wrong there.
        remedy: what to do about it.
    """

    code: str
    place: str
    message: str
    remedy: str

    @property
    def is_acceptable(self) -> bool:
        """Whether an operator may accept it."""
        return self.code in ACCEPTABLE

    @property
    def text(self) -> str:
        """Place, message and remedy in one line."""
        return f"{self.place}: {self.message}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What an operator accepts, and why."""

    codes: tuple[str, ...] = ()
    reason: str | None = None


def check_acceptance(acceptance: Acceptance) -> None:
    """Refuse unknown codes, and acceptance without a reason, before anything is loaded.

    >>> check_acceptance(Acceptance(("gate_fialed",), "a test"))
    Traceback (most recent call last):
    ...
    evenhand.core.errors.ConfigError: the command has 1 problem; nothing is served

    Raises:
        ConfigError: with every problem.
    """
    problems = []
    for code in acceptance.codes:
        if code in FATAL:
            message = f'"{code}" cannot be accepted: {FATAL[code]}'
            problems.append(Problem("--accept", message))
        elif code not in ACCEPTABLE:
            message = f'"{code}" is not a code{suggest(code, ACCEPTABLE)}'
            problems.append(Problem("--accept", message))
    has_reason = acceptance.reason is not None and acceptance.reason.strip() != ""
    if acceptance.codes and not has_reason:
        problems.append(Problem("--reason", "is needed: it is recorded with what is accepted"))
    if acceptance.reason is not None and not acceptance.codes:
        problems.append(Problem("--reason", "is given, but nothing is accepted by --accept"))
    if problems:
        raise ConfigError(
            "the command",
            problems,
            hint=f"codes: {', '.join(ACCEPTABLE)}",
            consequence="nothing is served",
        )


def settle(
    place: str, problems: Sequence[ReleaseProblem], acceptance: Acceptance
) -> tuple[Override, ...]:
    """Return what the operator overrides, or refuse with everything that is wrong.

    ``place`` is the run, for the message.

    Raises:
        ConfigError: problems that were not accepted, and accepted codes that are no problem.
    """
    found = {one.code for one in problems}
    open_ones = [
        one for one in problems if one.code not in acceptance.codes and one.code not in WARNINGS
    ]
    needless = [code for code in dict.fromkeys(acceptance.codes) if code not in found]
    refused = [Problem(one.code, one.text) for one in open_ones]
    for code in needless:
        known = ", ".join(dict.fromkeys(one.code for one in problems)) or "none"
        message = f'"{code}" is no problem of this run{suggest(code, found)} (it has: {known})'
        refused.append(Problem("--accept", message))
    if refused:
        raise ConfigError(
            place, refused, hint=_hint(open_ones, acceptance), consequence="nothing is served"
        )
    return tuple(_override(one, acceptance) for one in problems)


def _override(problem: ReleaseProblem, acceptance: Acceptance) -> Override:
    accepted = problem.code in acceptance.codes and acceptance.reason is not None
    return Override(
        code=problem.code,
        message=f"{problem.place}: {problem.message}",
        reason=acceptance.reason if accepted and acceptance.reason else _UNASKED,
    )


def _hint(open_ones: Iterable[ReleaseProblem], acceptance: Acceptance) -> str | None:
    codes = dict.fromkeys(one.code for one in open_ones)
    if not codes or not all(code in ACCEPTABLE for code in codes):
        return None
    wanted = [*dict.fromkeys(code for code in acceptance.codes if code in ACCEPTABLE), *codes]
    accepts = " ".join(f"--accept {code}" for code in wanted)
    return f'mend them; or start nevertheless, which is recorded: {accepts} --reason "..."'
