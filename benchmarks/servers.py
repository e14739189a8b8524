"""The servers of the load test: each in a process of its own, on the same run folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workload import Workload

OURS, PLAIN = "ours", "plain"
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Server:
    """A server that is up."""

    port: int
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Setting:
    """What both servers get, and where ours stores."""

    run: Path
    folder: Path
    threads: int
    options: tuple[str, ...]

    @property
    def database(self) -> str:
        """The URL of the database of our server."""
        return f"sqlite:///{self.folder / 'load.sqlite'}"

    def command(self, arm: str, port: int) -> list[str]:
        """Return the command line of a server."""
        if arm == PLAIN:
            return [
                sys.executable,
                str(_HERE / "plain_server.py"),
                str(self.run),
                "--port",
                f"{port}",
            ]
        command = [sys.executable, "-m", "evenhand", "serve", str(self.run), "--port", f"{port}"]
        return [*command, "--database", self.database, *self.options]

    @contextlib.contextmanager
    def start(self, arm: str, *, patience_seconds: float = 300) -> Iterator[Server]:
        """Start a server, wait until it is ready, and stop it at the end."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quiet = {"EVENHAND_QUIET": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        log = self.folder / f"{arm}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                self.command(arm, port),
                stdout=stream,
                stderr=stream,
                env={**os.environ, **quiet, **threads},
            )
        try:
            _wait_until_ready(arm, port, process, log, patience_seconds)
            yield Server(port, process)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(
    arm: str, port: int, process: subprocess.Popen[bytes], log: Path, patience_seconds: float
) -> None:
    end = time.monotonic() + patience_seconds
    while time.monotonic() < end and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5),
        ):
            return
        time.sleep(0.2)
    raise SystemExit(f"{arm} did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")


def make_run(model: str, folder: Path, *, rows: int, **values: Any) -> Path:
    """Train for a moment and evaluate: what is served need not be good, only real.

    ``values`` are keys of the phase.
    """
    from evenhand.cli.main import run as evenhand
    from evenhand.data.sources import write_rows
    from evenhand.data.starter import generate

    corpus = generate()
    for name, count in (("train", rows), ("validation", 24), ("test", 24)):
        write_rows(corpus[name][:count], folder / f"{name}.jsonl")
    work = Workload(model, None, "short", Path(), "", rows, 0)
    files = {"train_file": "train.jsonl", "validation_file": "validation.jsonl"}
    config = work.config(**files, **values)
    phase = folder / "phase.json"
    phase.write_text(config.model_dump_json(exclude_defaults=True), encoding="utf-8")
    run = folder / "run"
    for command in (
        ["train", str(phase), "--out", str(run)],
        ["evaluate", str(run), "--data", str(folder / "test.jsonl"), "--name", "test"],
    ):
        print(f"evenhand {command[0]}", file=sys.stderr, flush=True)
        with contextlib.redirect_stdout(sys.stderr):
            code = evenhand(command)
        if code != 0:
            raise SystemExit(f"evenhand {command[0]} ended with {code}")
    return run
