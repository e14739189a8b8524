"""Bulk scoring in real processes: killed at any moment, in two processes, on Ray."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.tiny_experiments import make_posts, write_csv, write_phase

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = 600
SHARD_ROWS = 8
EVENHAND = ("-m", "evenhand")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, Path]:
    """The posts and the run."""
    from evenhand.cli.main import run

    folder = tmp_path_factory.mktemp("bulk")
    assert run(["train", str(write_phase(folder, tiny_llama)), "--out", str(folder / "run")]) == 0
    return write_csv(folder / "posts.csv", make_posts(ROWS, seed=3)), folder / "run"


@pytest.fixture(scope="module")
def whole(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted start."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(inputs, out)
    return out


def start(
    inputs: tuple[Path, Path], out: Path, *options: str, launcher: tuple[str, ...] = EVENHAND
) -> subprocess.Popen[str]:
    posts, run = inputs
    arguments = ["score", posts, "--run", run, "--out", out, "--shard-rows", SHARD_ROWS]
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, arguments), *options, "--json"],
        env={**os.environ, "EVENHAND_QUIET": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background of a script, we would ignore the key, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(
    inputs: tuple[Path, Path], out: Path, *options: str, launcher: tuple[str, ...] = EVENHAND
) -> dict[str, object]:
    process = start(inputs, out, *options, launcher=launcher)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr[-3000:]
    return json.loads(stdout)


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> bool:
    """Kill at the moment; return whether the kill came before the end."""
    while process.poll() is None and not reached():
        time.sleep(0.0002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def test_killed_at_any_moment(inputs: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parts = out / "shards"
    moments: tuple[Callable[[], bool], ...] = (
        lambda: any(out.glob(".job.json.*.tmp")),
        lambda: any(parts.glob(".part-*.tmp")),
        lambda: (parts / "part-000020.parquet").exists(),
        lambda: any(parts.glob(".part-00003?.parquet.*.tmp")),
        lambda: any(out.glob(".scores.parquet.*.tmp")),
    )
    killed = []
    for reached in moments:
        before = len(list(parts.glob("part-*.parquet")))
        killed.append(kill_when(start(inputs, out), reached))
        after = sorted(parts.glob("part-*.parquet"))
        assert len(after) >= before
        assert all(pq.read_metadata(one).num_rows == SHARD_ROWS for one in after)
    assert sum(killed) >= 3  # a moment that lasts microseconds may be missed
    finish(inputs, out)
    assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()
    assert not [*out.glob(".*.tmp"), *parts.glob(".*.tmp")]


def test_killed_at_random_moments(inputs: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rng = random.Random(0)

    def finished() -> int:
        return len(list((out / "shards").glob("part-*")))

    for _ in range(2):
        target = finished() + rng.randint(1, 30)
        kill_when(start(inputs, out), lambda wanted=target: finished() >= wanted)
    finish(inputs, out)
    assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()


def test_interrupt_key_says_that_the_shards_are_kept(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(inputs, out)
    while process.poll() is None and not (out / "shards" / "part-000002.parquet").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert "finished shards are kept" in stderr


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def test_two_processes_share_the_shards(
    inputs: tuple[Path, Path], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    launcher += ("--master_addr", "127.0.0.1", "--master_port", free_port(), "-m", "--", "evenhand")
    summary = finish(inputs, out, "--engine", "accelerate", launcher=launcher)
    assert (summary["rows"], summary["rows_this_start"]) == (ROWS, ROWS)
    assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()
    # some shards gone, and one process goes on with what two began
    for shard in (0, 3, 7):
        (out / "shards" / f"part-{shard:06d}.parquet").unlink()
    summary = finish(inputs, out, "--engine", "accelerate")
    assert summary["rows_this_start"] == 3 * SHARD_ROWS
    assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()


def test_a_launcher_needs_its_engine(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    launcher += ("--master_addr", "127.0.0.1", "--master_port", free_port(), "-m", "--", "evenhand")
    process = start(inputs, tmp_path / "out", launcher=launcher)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "use --engine accelerate" in stderr
    assert not (tmp_path / "out").exists()


def test_ray_gives_the_same(inputs: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    killed = kill_when(
        start(inputs, out, "--engine", "ray"), lambda: any((out / "shards").glob("part-*"))
    )
    assert killed
    summary = finish(inputs, out, "--engine", "ray", "--workers", "2")
    assert summary["engine"] == "ray"
    assert 0 < int(str(summary["rows_this_start"])) < ROWS
    ours, theirs = (pq.read_table(folder / "scores.parquet") for folder in (out, whole))
    for name in ("id", "row", "decision", "status"):
        assert ours[name].to_pylist() == theirs[name].to_pylist()
    assert ours["score"].to_pylist() == pytest.approx(theirs["score"].to_pylist(), abs=1e-6)
