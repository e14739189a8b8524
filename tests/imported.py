"""Small tables of answers, and their import, for the tests of `import`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from evenhand.core.errors import InputError
from evenhand.experiment.importing.answers import AnswerSource
from evenhand.experiment.importing.importer import Imported, ImportRequest, import_results
from evenhand.experiment.stages import Session

Cells = Mapping[str, Any]


def table(path: Path, rows: Sequence[Cells]) -> Path:
    """Write a table in the format of its name."""
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def posts(count: int = 12) -> list[dict[str, Any]]:
    """Half hate; the first two wrongly answered."""
    labels = ["hate", "normal"] * (count // 2)
    wrong = {"hate": "normal", "normal": "hate"}
    return [
        {
            "text": f"post number {at}",
            "label": label,
            "prediction": wrong[label] if at < 2 else label,
            "group": ("a", "b", "c")[at % 3],
        }
        for at, label in enumerate(labels)
    ]


def bring(path: Path, out: Path, *, name: str = "test", **more: Any) -> Imported:
    answers = {key: more.pop(key) for key in list(more) if key in AnswerSource.__dataclass_fields__}
    request = ImportRequest(name=name, answers=AnswerSource(predictions=path, **answers), **more)
    return import_results(request, out, session=Session())


def problems(error: InputError) -> dict[str, str]:
    return {one.place: one.message for one in error.problems}
