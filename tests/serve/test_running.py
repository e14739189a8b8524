"""A process that is stopped answers what it accepted; one that is killed loses no answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.serve.conftest import make_settings

from evenhand.core.errors import ConfigError
from evenhand.serve.running import bind, serve_forever
from evenhand.watch.store.database import open_database
from evenhand.watch.store.tables import PostRow


class Process:
    """A server in a process of its own."""

    def __init__(self, database: Path, *, seconds: float, root: Path, **limits: Any) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.serve.server",
                database,
                str(seconds),
                json.dumps(limits),
            ],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        self.lines: list[str] = []
        self.port = 0
        listening = threading.Event()
        self.reader = threading.Thread(target=self._read, args=(listening,), daemon=True)
        self.reader.start()
        assert listening.wait(30), self.lines
        self.url = f"http://127.0.0.1:{self.port}"

    def _read(self, listening: threading.Event) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if '"listening"' in line:
                self.port = json.loads(line)["port"]
                listening.set()
        listening.set()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.reader.join(10)
        return code


@pytest.fixture
def serve(tmp_path: Path, project_root: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*, seconds: float, **limits: Any) -> Process:
        process = Process(tmp_path / "p.sqlite", seconds=seconds, root=project_root, **limits)
        started.append(process)
        return process

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        one.reader.join(10)
        assert one.process.stderr is not None
        one.process.stderr.close()


class Callers:
    """Threads that ask one post after the other until the server is gone."""

    def __init__(self, url: str, *, threads: int) -> None:
        self.url = url
        self.answered: list[str] = []
        self.failed: list[int] = []
        self.broken: list[str] = []  # sent in full, and neither answered nor refused
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._ask, args=(number,)) for number in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post(
                        "/v1/classify", json={"posts": [{"text": f"post {number}"}] * 2}
                    )
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    self.broken.append(repr(error))
                    return
                if answer.status_code == 200:
                    self.answered += [one["post_id"] for one in answer.json()["results"]]
                else:
                    self.failed.append(answer.status_code)

    def wait_for(self, answers: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.answered) < answers:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)


def stored(path: Path) -> set[str]:
    database = open_database(f"sqlite:///{path}")
    with database.session() as session:
        ids = set(session.scalars(select(PostRow.id)))
    database.close()
    return ids


def test_sigterm_answers_every_accepted_request_and_ends_with_0(
    serve: Callable[..., Process], tmp_path: Path
) -> None:
    server = serve(seconds=0.05, max_batch_rows=4)
    callers = Callers(server.url, threads=8)
    callers.wait_for(40)
    assert server.end(signal.SIGTERM) == 0
    callers.join()
    assert callers.broken == []
    assert callers.failed == []
    assert set(callers.answered) == stored(tmp_path / "p.sqlite")
    assert json.loads(server.lines[-1])["event"].startswith("stopped: every accepted request")
    assert "post 1" not in "".join(server.lines)


def test_sigkill_loses_no_answer_that_was_given(
    serve: Callable[..., Process], tmp_path: Path
) -> None:
    server = serve(seconds=0.002, max_batch_rows=4)
    callers = Callers(server.url, threads=6)
    callers.wait_for(60)
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    callers.join()
    assert set(callers.answered) <= stored(tmp_path / "p.sqlite")
    # And the next start goes on with the same database.
    again = serve(seconds=0.0)
    answer = httpx.post(f"{again.url}/v1/classify", json={"posts": [{"text": "a"}]})
    assert answer.status_code == 200
    assert again.end(signal.SIGINT) == 0


def test_what_takes_longer_than_the_drain_is_said(serve: Callable[..., Process]) -> None:
    server = serve(seconds=20.0, drain_seconds=0.3)
    with ThreadPoolExecutor(1) as pool:
        body = {"posts": [{"text": "a"}]}
        asked = pool.submit(httpx.post, f"{server.url}/v1/classify", json=body, timeout=30)
        deadline = time.monotonic() + 20
        while "evenhand_batch_rows_count 1.0" not in httpx.get(f"{server.url}/metrics").text:
            assert time.monotonic() < deadline
        started = time.monotonic()
        assert server.end(signal.SIGTERM) == 1
        assert time.monotonic() - started < 10
        answer = asked.result(10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
    assert "drain_seconds" in server.lines[-1]


def test_an_address_that_is_in_use_is_a_plain_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            bind("127.0.0.1", port)
    assert f"cannot listen at 127.0.0.1, port {port}" in caught.value.render()


def test_a_port_that_was_taken_meanwhile_is_a_plain_error(client: Callable[..., Any]) -> None:
    app, bound = client().app, bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    with bind("127.0.0.1", port) as other, bound:
        other.listen()
        with pytest.raises(ConfigError, match="1 problem") as caught:
            serve_forever(app, bound, settings=make_settings())
    assert f"port {port} has been taken meanwhile" in caught.value.render()
