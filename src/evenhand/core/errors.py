"""The exception tree, the problems it carries, and the exit code of each branch.

Exit codes: 0 done; 1 the work failed (device, disk, training); 2 the input is wrong;
3 the gate needs review; 4 the gate failed; 5 the audit found an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it stands and what to do about it."""

    place: str
    message: str


class EvenhandError(Exception):
    """Base of everything that Evenhand raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def render(self) -> str:
        """Return the text shown to a user, without the leading ``error:``."""
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class InputError(EvenhandError):
    """The user's input is wrong; every problem found is listed, nothing was written."""

    exit_code = 2

    def __init__(
        self,
        source: str,
        problems: Iterable[Problem],
        *,
        hint: str | None = None,
        consequence: str = "nothing was run",
    ) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        noun = "problem" if count == 1 else "problems"
        super().__init__(f"{source} has {count} {noun}; {consequence}", hint=hint)

    def render(self) -> str:
        """Return the heading, one aligned line per problem, and the hint."""
        width = min(max((len(p.place) for p in self.problems), default=0), 40)
        lines = [f"  {p.place:<{width}}   {p.message}" for p in self.problems]
        parts = [self.message, "\n".join(lines)]
        if self.hint is not None:
            parts.append(f"hint: {self.hint}")
        return "\n\n".join(part for part in parts if part)


class ConfigError(InputError):
    """A configuration, experiment or prompt file is wrong."""


class DataError(InputError):
    """A data file is missing, unreadable, or has rows that cannot be used."""


class AuditError(EvenhandError):
    """The audit found an error that nobody accepted, and the user asked to stop at that."""

    exit_code = 5


class ModelError(EvenhandError):
    """A model or tokenizer is missing, truncated, or not allowed (pickled weights)."""

    exit_code = 2


class DeviceError(EvenhandError):
    """The device cannot run this: unavailable, out of memory, or launched the wrong way."""


class StorageError(EvenhandError):
    """A file or folder could not be written or read back (disk full, permissions, truncation)."""


class TrainingError(EvenhandError):
    """Training cannot go on: a loss that is not finite, or a checkpoint that does not fit."""
