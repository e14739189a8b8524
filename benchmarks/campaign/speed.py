"""Speed and peak memory of finished runs, in training and in scoring, each in a process of its own.

Training: the run's configuration on the first rows of the posts, for one epoch, with nothing
evaluated; the rate is training's own, without the start and the loading of the model. Scoring: the
posts are scored twice over by ``evenhand score``, the whole file and a few rows of it; the
difference leaves the start and the loading out of the rate. The peak memory is the whole process's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.campaign.collect import SPEED

from evenhand.core.paths import read_json, write_json
from evenhand.data.sources import read_dataset

_FEW = 8
_TRAINED = 256
# The run's configuration without what takes time and is not training.
_ONLY_TRAINING: dict[str, Any] = {
    "max_train_rows": _TRAINED,
    "num_train_epochs": 1,
    "validation_file": None,
    "augment": None,
    "eval_strategy": "no",
    "save_strategy": "epoch",
    "load_best_model_at_end": False,
    "early_stopping_patience": None,
    "report_to": "none",
}


def measure_speed(runs: Sequence[Path], *, posts: Path, experiments: Path) -> None:
    """Measure each run and add it to ``speed.json`` under ``EXPERIMENT/ENTRY``."""
    texts = [row.text for row in read_dataset(posts, on_bad_row="skip").rows]
    file = experiments / SPEED
    known = read_json(file) if file.is_file() else {}
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            rate, training_peak = _train(run, posts, Path(folder) / "train")
            short, _ = _score(run, texts[:_FEW], Path(folder) / "few")
            whole, peak = _score(run, texts, Path(folder) / "all")
        entry = run.name.partition("-seed")[0]
        name = f"{run.resolve().parent.parent.name}/{entry}"
        known[name] = {
            "training_rows_per_second": rate,
            "training_peak_bytes": training_peak,
            "scoring_rows_per_second": (len(texts) - _FEW) / (whole - short),
            "scoring_peak_bytes": peak,
        }
        write_json(file, known)
        print(f"{name}: {known[name]}")


def _train(run: Path, posts: Path, folder: Path) -> tuple[float, int]:
    """Return rows a second and the peak memory (bytes) of training as a run was trained."""
    folder.mkdir()
    config = {**read_json(run / "config.json")["config"], **_ONLY_TRAINING}
    write_json(folder / "phase.json", {**config, "train_file": str(posts.resolve())})
    command = ["train", str(folder / "phase.json"), "--out", str(folder / "run")]
    _, peak = _run([*command, "--skip-bad-rows", "--json"])
    return float(read_json(folder / "run" / "training.json")["rows_per_second"]), peak


def _score(run: Path, texts: Sequence[str], folder: Path) -> tuple[float, int]:
    """Return the seconds and the peak memory (bytes) of scoring texts."""
    folder.mkdir()
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "posts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["score", str(folder / "posts.jsonl"), "--run", str(run)]
    return _run([*command, "--out", str(folder / "out"), "--json"])


def _run(arguments: Sequence[str]) -> tuple[float, int]:
    """Return the seconds and the peak memory (bytes) of one command in a new process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "evenhand", *arguments], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed with exit code {process.returncode}")
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit
