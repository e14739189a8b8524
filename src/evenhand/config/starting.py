"""A starting experiment for a user's own table: which column is which, and what to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import HATE, NORMAL
from evenhand.core.registry import suggest

MAX_LABEL_WORDS = 12


@dataclass(frozen=True, slots=True)
class Recognised:
    """The columns of a table; ``group`` may name none, one or several."""

    text: str
    label: str
    group: tuple[str, ...]


def recognise_columns(
    samples: Mapping[str, Sequence[Any]],
    *,
    given: Mapping[str, str | Sequence[str]],
    common_names: Mapping[str, Sequence[str]],
) -> Recognised:
    """Return the text, label and group columns of a table, by name first, then by content.

    ``samples`` holds some values of every column. ``given`` names what the user has chosen, and
    ``common_names`` the lower-case names that columns of each role often have. By content, the
    text is the only column of long, mostly distinct strings and the label the only one with two
    values. Groups are recognised by name only: a topic column looks just the same.

    >>> recognise_columns(
    ...     {"post": ["you are all kind", "go away, all of you"], "y": ["ok", "bad"]},
    ...     given={}, common_names={"text": ["post"], "label": ["label"], "group": ["group"]},
    ... )
    Recognised(text='post', label='y', group=())

    Raises:
        ConfigError: a given column does not exist, or text or label cannot be told.
    """
    problems = [
        Problem(f"--{role}", f'"{name}" is not a column{suggest(name, samples)}')
        for role, value in given.items()
        for name in _names(value)
        if name not in samples
    ]
    chosen = {role: _names(value) for role, value in given.items() if value}
    candidates: dict[str, list[str]] = {}
    for role in ("group", "text", "label"):
        if role not in chosen:
            taken = {name for names in chosen.values() for name in names}
            known = common_names[role]
            candidates[role] = [n for n in samples if _plain(n) in known and n not in taken]
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


def optional_columns(
    values: Mapping[str, Sequence[Any]], *, common_names: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the id, source, fine label and cluster columns that one name each suggests.

    ``values`` holds all values of the columns that are still free; ids must differ from row to
    row, else the rows' positions serve better.

    >>> optional_columns({"ID": [1, 2], "thread": ["a", "a"]}, common_names={"id": ["id"]})
    {'id': 'ID'}
    """
    found: dict[str, str] = {}
    for role in ("id", "source", "fine_label", "cluster"):
        candidates = [name for name in values if _plain(name) in common_names.get(role, ())]
        if len(candidates) == 1:
            found[role] = candidates[0]
    if "id" in found and not _all_different(values[found["id"]]):
        del found["id"]
    return found


def label_map(
    words: Sequence[str], *, positive: Sequence[str], known: Mapping[str, str]
) -> dict[str, str]:
    """Return word -> ``hate`` or ``normal`` for the label words of a table.

    ``positive`` names the words that mean hate; every other word then means normal. Without it,
    every word must be in ``known``.

    >>> label_map(["toxic", "fine"], positive=["toxic"], known={})
    {'toxic': 'hate', 'fine': 'normal'}

    Raises:
        ConfigError: it cannot be told which words mean hate, or a label never occurs.
    """
    listed = ", ".join(f'"{word}"' for word in words[:MAX_LABEL_WORDS])
    if len(words) > MAX_LABEL_WORDS:
        message = f"has {len(words):,} different values ({listed}, ...), so it holds no label words"
        raise ConfigError(
            "the table", [Problem("--label", message)], consequence="nothing was written"
        )
    unknown = [word for word in words if word not in known]
    problems = [
        Problem("--positive", f'"{word}" is no label word of the table; it has {listed}')
        for word in positive
        if word not in words
    ]
    if not positive and unknown:
        problems.append(
            Problem("--positive", f"cannot tell which words mean hate; name them, of {listed}")
        )
    chosen = dict.fromkeys(words, NORMAL) | dict.fromkeys(positive, HATE) if positive else known
    mapped = {word: chosen[word] for word in words if word in chosen}
    missing = {HATE, NORMAL} - set(mapped.values())
    if not problems and missing:
        message = f"no row would be {' or '.join(sorted(missing))}; the label words are {listed}"
        problems.append(Problem("--label", message))
    if problems:
        raise ConfigError("the table", problems, consequence="nothing was written")
    return mapped


def starting_experiment(name: str, *, data_folder: str) -> dict[str, Any]:
    """Return an experiment with one LoRA phase on the small embedded model, sized for a CPU.

    Its data sets are ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` of ``data_folder``.
    """
    roles = ("train", "validation", "test")
    return {
        "name": name,
        "description": "A first LoRA phase on a small model; add phases to compare.",
        "defaults": {"model_name_or_path": "smollm2-135m", "seed": 42},
        "phases": [
            {
                "name": "first",
                "hypothesis": "An adapter on the query and value projections learns the labels.",
                "config": {
                    "lora_r": 32,
                    "lora_alpha": 32,
                    "lora_dropout": 0.05,
                    "lora_target_modules": ["q_proj", "v_proj"],
                    "learning_rate": 5e-4,
                    "num_train_epochs": 2,
                    "per_device_train_batch_size": 16,
                    "per_device_eval_batch_size": 16,
                    "warmup_steps": 0.1,
                    "lr_scheduler_type": "cosine",
                    "logging_steps": 5,
                },
            }
        ],
        "sets": [
            {"name": role, "role": role, "file": f"{data_folder}/{role}.jsonl"} for role in roles
        ],
        "selection": {"set": "validation", "metric": "f1"},
    }


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


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")
