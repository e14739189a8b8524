"""Scoring speed and peak memory of finished runs, each in a process of its own.

The posts are scored twice over by ``evenhand score``: the whole file, and a few rows of it. The
difference leaves the start and the loading of the model out of the rate; the peak memory is the
whole process's.
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

from benchmarks.campaign.collect import SPEED

from evenhand.core.paths import read_json, write_json
from evenhand.data.sources import read_dataset

_FEW = 8


def measure_speed(runs: Sequence[Path], *, posts: Path, experiments: Path) -> None:
    """Measure each run and add it to ``speed.json`` under ``EXPERIMENT/ENTRY``."""
    texts = [row.text for row in read_dataset(posts, on_bad_row="skip").rows]
    file = experiments / SPEED
    known = read_json(file) if file.is_file() else {}
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            short, _ = _score(run, texts[:_FEW], Path(folder) / "few")
            whole, peak = _score(run, texts, Path(folder) / "all")
        entry = run.name.partition("-seed")[0]
        name = f"{run.resolve().parent.parent.name}/{entry}"
        rows_per_second = (len(texts) - _FEW) / (whole - short)
        known[name] = {"scoring_rows_per_second": rows_per_second, "scoring_peak_bytes": peak}
        write_json(file, known)
        print(f"{name}: {rows_per_second:.1f} rows/s, peak {peak / 2**30:.2f} GiB")


def _score(run: Path, texts: Sequence[str], folder: Path) -> tuple[float, int]:
    """Return the seconds and the peak memory (bytes) of scoring texts in a new process."""
    folder.mkdir()
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "posts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "evenhand", "score", str(folder / "posts.jsonl")]
    command += ["--run", str(run), "--out", str(folder / "out"), "--json"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"scoring with {run} failed with exit code {process.returncode}")
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit
