"""What a simulation knows and production does not: the true label and groups of each post."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from evenhand.core.records import Row
from evenhand.data.sources import read_dataset
from evenhand.data.starter import generate

_SEEDS = 8  # the starter corpus words its templates anew with each seed


@dataclass(frozen=True)
class Truth:
    """One post that was sent: by its text's hash, since the file need not hold texts."""

    text_sha256: str
    label: str
    groups: tuple[str, ...]
    kind: str | None
    decision: str
    score: float


def hash_of(text: str) -> str:
    """Return what a post is found by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_truth(path: Path) -> Iterator[Truth]:
    """Yield the lines of a truth file; none where there is no file."""
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                values = json.loads(line)
                yield Truth(**{**values, "groups": tuple(values["groups"])})


def append_truth(path: Path, truths: Iterable[Truth]) -> None:
    """Add lines to a truth file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(one)) + "\n" for one in truths)


def live_rows(data: Path | None, *, seed: int) -> list[Row]:
    """Return labelled posts to send: a file's, or the starter corpus' that no run trains on."""
    if data is not None:
        return list(read_dataset(data).rows)
    # Seed 0 is that of `evenhand demo`.
    corpora = (generate(1 + _SEEDS * seed + number) for number in range(_SEEDS))
    return [row for corpus in corpora for name in ("test", "functional") for row in corpus[name]]
