"""Raw HateXplain: ``dataset.json``, and ``post_id_divisions.json`` where it lies beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from evenhand.core.errors import DataError, Problem
from evenhand.core.records import Row
from evenhand.data.corpus import Corpus
from evenhand.data.tables import file_error, is_unicode

SOURCE = "hatexplain"
DATASET_FILE = "dataset.json"
DIVISIONS_FILE = "post_id_divisions.json"
HATESPEECH, OFFENSIVE, NORMAL = "hatespeech", "offensive", "normal"
LABEL_WORDS = (HATESPEECH, OFFENSIVE, NORMAL)
PROBLEMS_SHOWN = 20


def read_hatexplain(path: Path) -> Corpus:
    """Read raw HateXplain (Mathew et al. 2021) from its folder or its ``dataset.json``.

    A post's label is the one that more than half of its annotators gave; posts without such a
    label are counted and dropped. Its groups are the targets that more than half named. The
    rationale is made of the tokens that at least half of the rationales mark.

    Raises:
        DataError: a file is missing or not in the corpus's format.
    """
    dataset = path / DATASET_FILE if path.is_dir() else path
    divisions = dataset.with_name(DIVISIONS_FILE)
    posts = _read_object(dataset)
    splits: dict[str, str] = {}
    if divisions.exists():
        for split, ids in _read_object(divisions).items():
            splits |= dict.fromkeys(ids if isinstance(ids, list) else [], split)
    problems = [
        Problem(post_id, fault)
        for post_id, post in posts.items()
        if (fault := _fault(post)) is not None
    ]
    if problems:
        hint = f"{len(problems)} posts are not in HateXplain's format; the first ones are shown"
        raise DataError(str(dataset), problems[:PROBLEMS_SHOWN], hint=hint)
    written = {post_id: post for post_id, post in posts.items() if _text(post).strip()}
    rows = [_row(post_id, post, splits.get(post_id)) for post_id, post in written.items()]
    kept = tuple(row for row in rows if row is not None)
    return Corpus(
        name=SOURCE,
        rows=kept,
        dropped={
            "the text is empty": len(posts) - len(written),
            "no label has a majority of the annotators": len(written) - len(kept),
        },
        files=(dataset, divisions) if divisions.exists() else (dataset,),
    )


def _row(post_id: str, post: Mapping[str, Any], split: str | None) -> Row | None:
    annotators = post["annotators"]
    votes = Counter(annotator["label"] for annotator in annotators)
    label, count = votes.most_common(1)[0]
    if 2 * count <= len(annotators):
        return None
    named = Counter(
        target for annotator in annotators for target in dict.fromkeys(annotator["target"])
    )
    return Row(
        id=post_id,
        text=_text(post),
        groups=tuple(target for target, n in named.items() if 2 * n > len(annotators)),
        source=SOURCE,
        fine_label=label,
        extra={
            "agreement": count / len(annotators),
            "rationale_text": _rationale(post["post_tokens"], post["rationales"]),
            "split": split,
        },
    )


def _text(post: Mapping[str, Any]) -> str:
    return " ".join(post["post_tokens"])


def _rationale(tokens: Sequence[str], rationales: Sequence[Sequence[int]]) -> str | None:
    marks = [sum(column) for column in zip_longest(*rationales, fillvalue=0)]
    marked = [
        token
        for token, count in zip(tokens, marks, strict=False)
        if 2 * count >= len(rationales) and count > 0
    ]
    return " ".join(marked) or None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise file_error(path, "does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise file_error(path, f"is not readable as JSON: {error}") from error
    if not isinstance(value, dict) or not value:
        raise file_error(path, "is not a JSON object of posts")
    return value


def _fault(post: Any) -> str | None:
    """Return what is wrong with a post's structure, None where nothing is."""
    if not isinstance(post, dict):
        return "is not an object"
    annotators, tokens = post.get("annotators"), post.get("post_tokens")
    if not isinstance(annotators, list) or not annotators:
        return "has no annotators"
    for annotator in annotators:
        if not isinstance(annotator, dict) or annotator.get("label") not in LABEL_WORDS:
            return f"has an annotator whose label is not one of {', '.join(LABEL_WORDS)}"
        targets = annotator.get("target")
        if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
            return "has an annotator without a list of targets"
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return "has no post_tokens"
    if not is_unicode(tokens):
        return "has a text that is not valid Unicode"
    rationales = post.get("rationales")
    if not isinstance(rationales, list) or not all(
        isinstance(marks, list) and all(mark in (0, 1) for mark in marks) for marks in rationales
    ):
        return "has rationales that are not lists of 0 and 1"
    return None
