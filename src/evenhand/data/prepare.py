"""The unified corpus out of raw corpora: labels, groups, duplicates, balance, splits, samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.paths import atomic_dir, sha256_file, write_json, write_text
from evenhand.core.records import HATE, NORMAL, Row
from evenhand.core.seeding import rng_for
from evenhand.data import hatexplain, toxigen
from evenhand.data.balance import balance_rows, draw_evenly, length_tertile
from evenhand.data.card import render_card
from evenhand.data.corpus import Corpus
from evenhand.data.fingerprint import fingerprint
from evenhand.data.folders import replaceable_folder
from evenhand.data.groups import GroupMap, group_slug, map_groups
from evenhand.data.split import split_rows

Offensive = Literal["hate", "normal", "drop"]

HELDOUT = "heldout"
RECORD_FILE = "prepare.json"
CARD_FILE = "README.md"
FILE_NAMES: Mapping[str, str] = {
    "train": "unified_train.json",
    "validation": "unified_val.json",
    "test": "unified_test.json",
    HELDOUT: "unified_heldout.json",
    "canned_stratified": "canned_stratified.json",
    "canned_size_varied": "canned_size_varied.json",
}


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """The choices that make a corpus; all of them stand in its card.

    Attributes:
        offensive: what HateXplain's *offensive* becomes; None only where no post has it.
        toxicity_threshold: ToxiGen posts above it (1 to 5) are hate; 3 is the scale's middle.
        groups: keep posts that speak of at least one of these, and only these names; all by None.
        balance: undersample to equal cells of these keys (``source``, ``label``, ``group``).
        fractions: the size of each split; ``heldout`` is where the canned samples come from.
        canned_rows: rows in each canned sample.
    """

    offensive: Offensive | None = None
    toxicity_threshold: float = 3.0
    groups: tuple[str, ...] | None = None
    balance: tuple[str, ...] = ()
    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.7, "validation": 0.1, "test": 0.15, HELDOUT: 0.05}
    )
    canned_rows: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared corpus: its parts by name (splits, then canned samples) and how it came about.

    Attributes:
        steps: what was done -> rows left after it, in order.
        dropped: why rows were left out -> how many.
        unmapped: group names that the map does not know -> posts.
    """

    parts: Mapping[str, tuple[Row, ...]]
    steps: Mapping[str, int]
    dropped: Mapping[str, int]
    unmapped: Mapping[str, int]


def prepare(corpora: Sequence[Corpus], *, group_map: GroupMap, options: PrepareOptions) -> Prepared:
    """Build the unified corpus; the same input and options give the same rows.

    Raises:
        ConfigError: a choice is missing or cannot be carried out.
        DataError: no row is left.
    """
    _check(corpora, options)
    dropped = {
        f"{corpus.name}: {reason}": count
        for corpus in corpora
        for reason, count in corpus.dropped.items()
    }
    raw = [row for corpus in corpora for row in corpus.rows]
    steps = {"posts read": len(raw)}
    labelled = [row for row in (_label(row, options) for row in raw) if row is not None]
    dropped["hatexplain: offensive posts"] = len(raw) - len(labelled)
    unmapped = _unmapped(labelled, group_map)
    grouped = [_with_groups(row, group_map, options.groups) for row in labelled]
    selected = [row for row in grouped if row.groups or options.groups is None]
    dropped["none of the chosen groups"] = len(grouped) - len(selected)
    steps["labelled, of the chosen groups"] = len(selected)
    unique, repeated, contradicting = _without_duplicates(selected)
    dropped["the same text again"] = repeated
    dropped["the same text with another label (all copies)"] = contradicting
    steps["without duplicates"] = len(unique)
    balanced = balance_rows(unique, by=options.balance, rng=rng_for(options.seed, "balance"))
    if options.balance:
        steps[f"balanced by {', '.join(options.balance)}"] = len(balanced)
    if not balanced:
        raise DataError("the corpus", [Problem("rows", "none are left after the choices made")])
    splits = split_rows(balanced, fractions=options.fractions, rng=rng_for(options.seed, "split"))
    return Prepared(
        parts={**splits, **_canned(splits[HELDOUT], options)},
        steps=steps,
        dropped={reason: count for reason, count in dropped.items() if count},
        unmapped=unmapped,
    )


def write_prepared(
    prepared: Prepared, out: Path, *, corpora: Sequence[Corpus], options: PrepareOptions
) -> dict[str, Any]:
    """Write the parts, the data card and ``prepare.json`` as one folder; return that record.

    The folder is staged and swapped in whole; an earlier result of this command is replaced.

    Raises:
        ConfigError: the folder exists and is not such a result.
        StorageError: it cannot be written.
    """
    with atomic_dir(replaceable_folder(out, RECORD_FILE)) as staging:
        files = {}
        for name, rows in prepared.parts.items():
            path = staging / FILE_NAMES[name]
            write_json(path, [unified_fields(row) for row in rows])
            files[path.name] = {"part": name, "rows": len(rows), "sha256": sha256_file(path)}
        record = {
            "options": asdict(options),
            "inputs": {str(path): sha256_file(path) for corpus in corpora for path in corpus.files},
            "steps": dict(prepared.steps),
            "dropped": dict(prepared.dropped),
            "unmapped_groups": dict(prepared.unmapped),
            "files": files,
        }
        write_json(staging / RECORD_FILE, record)
        write_text(staging / CARD_FILE, render_card(prepared.parts, record))
    return record


def unified_fields(row: Row) -> dict[str, Any]:
    """Return a row under the unified format's names; ``target_group_norm`` lists several groups."""
    return {
        "text": row.text,
        "label_binary": row.label,
        "label_multiclass": row.fine_label,
        "target_group_norm": row.groups[0] if len(row.groups) == 1 else list(row.groups),
        "persona_tag": row.extra["persona_tag"],
        "source_dataset": row.source,
        "rationale_text": row.extra["rationale_text"],
        "original_id": row.id,
        "agreement": row.extra["agreement"],
        "cluster": row.cluster,
        "split": row.extra["split"],
    }


def _check(corpora: Sequence[Corpus], options: PrepareOptions) -> None:
    problems = []
    has_offensive = any(
        row.fine_label == hatexplain.OFFENSIVE for corpus in corpora for row in corpus.rows
    )
    if options.offensive is None and has_offensive:
        message = (
            "choose what HateXplain's offensive posts become: hate, normal or drop. The choice"
            " moves every false positive rate, so there is no default"
        )
        problems.append(Problem("offensive", message))
    if options.offensive not in (None, *get_args(Offensive)):
        problems.append(Problem("offensive", f'"{options.offensive}" is not hate, normal or drop'))
    expected = {"train", "validation", "test", HELDOUT}
    if set(options.fractions) != expected:
        problems.append(Problem("fractions", f"name exactly {', '.join(sorted(expected))}"))
    if options.canned_rows < 1:
        problems.append(Problem("canned_rows", "is not at least 1"))
    if problems:
        raise ConfigError("the choices for the corpus", problems)


def _label(row: Row, options: PrepareOptions) -> Row | None:
    choices: Mapping[str | None, str | None] = {
        hatexplain.HATESPEECH: HATE,
        hatexplain.NORMAL: NORMAL,
        hatexplain.OFFENSIVE: options.offensive,
        toxigen.TOXIC: HATE,
        toxigen.BENIGN: NORMAL,
    }
    label = choices[row.fine_label]
    return None if label == "drop" else replace(row, label=label)


def _with_groups(row: Row, group_map: GroupMap, chosen: tuple[str, ...] | None) -> Row:
    mapped = map_groups(row.groups, group_map)
    tags = [
        group_slug(name)
        for name in row.groups
        if chosen is None or set(map_groups([name], group_map)) & set(chosen)
    ]
    return replace(
        row,
        groups=mapped if chosen is None else tuple(group for group in mapped if group in chosen),
        extra={**row.extra, "persona_tag": tags[0] if len(tags) == 1 else tags},
    )


def _unmapped(rows: Sequence[Row], group_map: GroupMap) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        for name in row.groups:
            if group_slug(name) not in group_map:
                counts[name] += 1
    return dict(sorted(counts.items()))


def _without_duplicates(rows: Sequence[Row]) -> tuple[list[Row], int, int]:
    """Return one row a text with all its groups, and how many repeated or contradicted others."""
    same_text: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        same_text[fingerprint(row.text)].append(row)
    unique: list[Row] = []
    repeated = contradicting = 0
    for copies in same_text.values():
        if len({row.label for row in copies}) > 1:
            contradicting += len(copies)
            continue
        repeated += len(copies) - 1
        groups = dict.fromkeys(group for row in copies for group in row.groups)
        unique.append(replace(copies[0], groups=tuple(groups)))
    return unique, repeated, contradicting


def _canned(heldout: Sequence[Row], options: PrepareOptions) -> dict[str, tuple[Row, ...]]:
    tertile = length_tertile(heldout)
    return {
        "canned_stratified": draw_evenly(
            heldout,
            n=options.canned_rows,
            cell=lambda row: (row.groups, row.label),
            rng=rng_for(options.seed, "canned_stratified"),
        ),
        "canned_size_varied": draw_evenly(
            heldout,
            n=options.canned_rows,
            cell=lambda row: (tertile(row), row.label),
            rng=rng_for(options.seed, "canned_size_varied"),
        ),
    }
