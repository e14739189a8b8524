"""Which column is which in a table of which nothing is known: by name first, then by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.registry import suggest
from evenhand.data.columns import column_names, common_columns


@dataclass(frozen=True, slots=True)
class Recognised:
    """The columns of a table; ``group`` may name none, one or several."""

    text: str
    label: str
    group: tuple[str, ...]


def recognise_columns(
    samples: Mapping[str, Sequence[Any]], *, given: Mapping[str, str | Sequence[str]]
) -> Recognised:
    """Return the text, label and group columns of a table, by name first, then by content.

    ``samples`` holds some values of every column. ``given`` names what the user has chosen. By
    content, the text is the only column of long, mostly distinct strings and the label the only
    one with two values. Groups are recognised by name only: a topic column looks just the same.

    >>> recognise_columns(
    ...     {"post": ["you are all kind", "go away, all of you"], "y": ["ok", "bad"]}, given={}
    ... )
    Recognised(text='post', label='y', group=())

    Raises:
        ConfigError: a given column does not exist, or text or label cannot be told.
    """
    problems = [
        Problem(f"--{role}", f'"{name}" is not a column{suggest(name, samples)}')
        for role, value in given.items()
        for name in column_names(value)
        if name not in samples
    ]
    chosen = {role: column_names(value) for role, value in given.items() if value}
    candidates: dict[str, list[str]] = {}
    for role in ("group", "text", "label"):
        if role not in chosen:
            taken = {name for names in chosen.values() for name in names}
            candidates[role] = [n for n in common_columns(role, samples) if n not in taken]
            if len(candidates[role]) == 1 or (role == "group" and candidates[role]):
                chosen[role] = tuple(candidates[role])
    for role, by_content in (("text", _texts), ("label", _labels)):
        if role not in chosen:
            taken = {name for names in chosen.values() for name in names}
            free = {name: values for name, values in samples.items() if name not in taken}
            likely = candidates[role] or by_content(free)
            if len(likely) == 1:
                chosen[role] = (likely[0],)
            else:
                problems.append(_undecided(role, likely, samples))
    if problems:
        raise ConfigError("the table", problems, consequence="nothing was written")
    return Recognised(chosen["text"][0], chosen["label"][0], chosen.get("group", ()))


def optional_columns(values: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Return the id, source, fine label and cluster columns that one name each suggests.

    ``values`` holds all values of the columns that are still free; ids must differ from row to
    row, else the rows' positions serve better.

    >>> optional_columns({"ID": [1, 2], "thread": ["a", "a"]})
    {'id': 'ID'}
    """
    found: dict[str, str] = {}
    for role in ("id", "source", "fine_label", "cluster"):
        candidates = common_columns(role, values)
        if len(candidates) == 1:
            found[role] = candidates[0]
    if "id" in found and not _all_different(values[found["id"]]):
        del found["id"]
    return found


def _texts(samples: Mapping[str, Sequence[Any]]) -> list[str]:
    """Columns of strings, mostly distinct, with several words each."""
    found = []
    for name, values in samples.items():
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        words = sum(len(text.split()) for text in texts)
        if texts and len(set(texts)) > len(texts) / 2 and words >= 3 * len(texts):
            found.append(name)
    return found


def _labels(samples: Mapping[str, Sequence[Any]]) -> list[str]:
    return [name for name, values in samples.items() if len(_counted(values)) == 2]


def _all_different(values: Sequence[Any]) -> bool:
    present = [str(value) for value in values if value is not None and value != ""]
    return len(present) == len(values) == len(set(present))


def _counted(values: Sequence[Any]) -> Counter[str]:
    return Counter(str(value) for value in values if value is not None and value != "")


def _undecided(role: str, candidates: list[str], samples: Mapping[str, Sequence[Any]]) -> Problem:
    if candidates:
        return Problem(f"--{role}", f"could be {' or '.join(map(repr, candidates))}; name one")
    return Problem(f"--{role}", f"was not recognised; name one of {', '.join(samples)}")
