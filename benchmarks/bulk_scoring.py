"""Bulk scoring of 100,000 rows: killed twice and resumed, and its memory against 10,000 rows.

Rows of the starter corpus are scored by `evenhand score` in processes of their own: 10,000 and
100,000 rows in one go, then 100,000 rows with the process killed (SIGKILL) at a third and at two
thirds of the shards. Fails unless every row is there once, in order, and the resumed file has the
same bytes as the uninterrupted one. With Ray installed, its decisions on the small file are
compared too. The model is a random one of one small layer, so that the time is that of the
machinery; --model smollm2-135m takes the embedded model instead:
    python benchmarks/bulk_scoring.py [--rows 100000] [--small 10000] [--model tiny] [--json]
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evenhand.core.records import Row
from evenhand.data.starter import generate

CHAT = (
    "{%- for message in messages -%}{{ message.role + '\n' + message.content + '<|end|>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ 'assistant\n' }}{%- endif -%}"
)
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Start:
    """One start of the command: what it scored, how long it took, the most memory it held."""

    name: str
    rows_scored: int
    seconds: float
    peak_mib: float
    was_killed: bool


def corpus_rows(count: int) -> Iterator[Row]:
    """Rows of the starter corpus of one seed after the other."""
    everything = (
        row for seed in itertools.count() for rows in generate(seed).values() for row in rows
    )
    return itertools.islice(everything, count)


def write_posts(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text"])
        for number, row in enumerate(corpus_rows(count)):
            writer.writerow([f"{number}-{row.id}", row.text])


def save_tiny_model(folder: Path) -> None:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((row.text for row in corpus_rows(2000)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>"
    )
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_run(folder: Path, model: str) -> Path:
    """A run folder of the model as it is: nothing is trained."""
    if model == "tiny":
        save_tiny_model(folder / "tiny")
        model = str(folder / "tiny")
    phase = {"model_name_or_path": model, "tuning": "none", "device": "cpu", "report_to": "none"}
    (folder / "phase.json").write_text(json.dumps(phase))
    command = [sys.executable, "-m", "evenhand", "train", str(folder / "phase.json")]
    subprocess.run([*command, "--out", str(folder / "run")], check=True, capture_output=True)
    return folder / "run"


def finished(out: Path) -> int:
    return sum(1 for _ in (out / "shards").glob("part-*.parquet"))


def rows_of(out: Path) -> int:
    return sum(pq.read_metadata(one).num_rows for one in (out / "shards").glob("part-*.parquet"))


def score(
    name: str,
    posts: Path,
    run: Path,
    out: Path,
    *,
    kill_at: int | None = None,
    engine: str = "local",
) -> Start:
    """Start the command and wait for its end, or kill it once ``kill_at`` shards are finished."""
    before = rows_of(out)
    command = [sys.executable, "-m", "evenhand", "score", str(posts), "--run", str(run)]
    began = time.perf_counter()
    # Threads that wait for each other would be most of the time of so small a model.
    threads = {"OMP_NUM_THREADS": "1"} if (run.parent / "tiny").is_dir() else {}
    with (out.parent / f"{out.name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--out", str(out), "--engine", engine],
            stdout=log,
            stderr=log,
            env={**os.environ, **threads},
        )
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if kill_at is not None and finished(out) >= kill_at:
            process.send_signal(signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if kill_at is None and process.returncode:
        sys.exit(f"{name} failed: {(out.parent / f'{out.name}.log').read_text()[-2000:]}")
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return Start(
        name=name,
        rows_scored=rows_of(out) - before,
        seconds=time.perf_counter() - began,
        peak_mib=usage.ru_maxrss / scale,
        was_killed=process.returncode == -signal.SIGKILL,
    )


def check(what: bool, message: str) -> None:
    if not what:
        sys.exit(f"FAILED: {message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--model", default="tiny", help="tiny, or a model's name or folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder, options.model)
        small, large = folder / "small.csv", folder / "large.csv"
        write_posts(small, options.small)
        write_posts(large, options.rows)
        starts = [
            score(f"{options.small:,} rows", small, run, folder / "small"),
            score(f"{options.rows:,} rows", large, run, folder / "whole"),
        ]
        shards, resumed = finished(folder / "whole"), folder / "resumed"
        for part in (1, 2):
            kill_at = max(part * shards // 3, 1)
            told = f"{options.rows:,} rows, killed at shard {kill_at} of {shards}"
            starts.append(score(told, large, run, resumed, kill_at=kill_at))
            check(starts[-1].was_killed, "the command had ended before it was killed")
        starts.append(score(f"{options.rows:,} rows, resumed to the end", large, run, resumed))

        whole, again = (folder / one / "scores.parquet" for one in ("whole", "resumed"))
        check(whole.read_bytes() == again.read_bytes(), "the resumed file is another")
        table = pq.read_table(again)
        check(table["row"].to_pylist() == list(range(1, options.rows + 1)), "rows lost or twice")
        check(len(set(table["id"].to_pylist())) == options.rows, "ids lost or twice")
        check(set(table["status"].to_pylist()) == {"ok"}, "rows with errors")
        if importlib.util.find_spec("ray") is not None:
            out = folder / "ray"
            starts.append(score(f"{options.small:,} rows on Ray", small, run, out, engine="ray"))
            ours, theirs = (
                pq.read_table(one / "scores.parquet")["decision"] for one in (folder / "small", out)
            )
            check(ours.equals(theirs), "Ray decides otherwise")

    growth = starts[1].peak_mib / starts[0].peak_mib
    if options.json:
        machine = f"{os.cpu_count()} cores, {platform.machine()}"
        found = [asdict(one) for one in starts]
        print(json.dumps({**vars(options), "machine": machine, "starts": found, "growth": growth}))
        return
    print("complete, each row once, the same bytes as uninterrupted\n")
    print("| start | rows scored | seconds | peak memory, MiB |\n|---|---|---|---|")
    for one in starts:
        # Ray's actors are processes of their own: the peak of the command says nothing of them.
        peak = "" if "Ray" in one.name else f"{one.peak_mib:.0f}"
        print(f"| {one.name} | {one.rows_scored:,} | {one.seconds:.1f} | {peak} |")
    print(f"\npeak memory at {options.rows:,} rows / at {options.small:,} rows: {growth:.3f}")


if __name__ == "__main__":
    main()
