"""``evenhand serve`` as a user starts it: a process, a port, a request, a stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.conftest import RunCli
from tests.experiment.released import edit, make_gated_run, remove
from tests.tiny_experiments import make_posts

from evenhand.watch.store.database import default_url, open_database
from evenhand.watch.store.tables import PostRow, StartRow

WAIT_SECONDS = 90.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    return make_gated_run(tmp_path_factory.mktemp("gated"), tiny_llama)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "small")
    return tmp_path / "small"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(run: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    remove("deployment.json")(run)
    command = [sys.executable, "-m", "evenhand", "serve", str(run), "--port", str(port), "--json"]
    command += ["--accept", "deployment_missing", "--reason", "a drill"]
    environment = {**os.environ, "EVENHAND_QUIET": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_ready(port: int, process: subprocess.Popen[str]) -> httpx.Response:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == 200:
            return answer
    pytest.fail(f"the server did not start: {process.communicate(timeout=5)[1]}")


def test_a_real_request_to_a_real_server(
    server: subprocess.Popen[str], run: Path, port: int
) -> None:
    ready = wait_until_ready(port, server).json()
    posts = [{"id": one["id"], "text": one["text"]} for one in make_posts(5, seed=9)]
    url = f"http://127.0.0.1:{port}"
    answer = httpx.post(f"{url}/v1/classify", json={"posts": posts}, timeout=30)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [one["id"] for one in results] == [one["id"] for one in posts]
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=60)
    assert server.returncode == 0, err
    told = json.loads(out)
    assert told["url"] == url
    assert told["release"] == ready["release"]
    assert told["overrides"][0]["code"] == "deployment_missing"
    assert ready["overrides"][0]["reason"] == "a drill"
    assert ready["adapter"]["difference"] > ready["golden"]["tolerance"]
    assert "WARNING: deployment_missing" in err
    assert "NOTE: nobody can log in to review yet" in err
    assert not any(post["text"] in err for post in posts)
    database = open_database(default_url(run))
    try:
        with database.session() as session:
            stored = {row.caller_id: row.score for row in session.query(PostRow)}
            (start,) = session.query(StartRow).all()
    finally:
        database.close()
    assert stored == {one["id"]: one["score"] for one in results}
    assert json.loads(start.overrides[0])["reason"] == "a drill"
    (line,) = (run / "serving.jsonl").read_text().splitlines()
    assert json.loads(line)["where"] == url


def test_check_serves_nothing(run: Path, cli: RunCli) -> None:
    done = cli("serve", run, "--check")
    assert done.exit_code == 0, done.stderr
    assert "PASS WITH CONDITIONS" in done.stdout
    assert "serving at" not in done.stdout
    assert not (run / "production.sqlite").exists()
    assert not (run / "serving.jsonl").exists()


def test_a_refusal_names_every_problem_and_leaves_no_record(
    run: Path, port: int, cli: RunCli
) -> None:
    edit("gate.json", lambda document: document.update(outcome="FAIL"))(run)
    remove("golden.json")(run)
    done = cli("serve", run, "--port", str(port))
    assert done.exit_code == 2
    for code in ("gate_failed", "deployment_stale", "golden_missing"):
        assert code in done.stderr
    assert not (run / "serving.jsonl").exists()


def test_an_accepted_code_needs_a_reason_and_a_problem(run: Path, cli: RunCli) -> None:
    done = cli("serve", run, "--accept", "gate_missing")
    assert done.exit_code == 2
    assert "--reason" in done.stderr
    done = cli("serve", run, "--check", "--accept", "gate_missing", "--reason", "x")
    assert done.exit_code == 2
    assert '"gate_missing" is no problem of this run' in done.stderr


def test_a_port_in_use_and_an_open_door(run: Path, cli: RunCli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = cli("serve", run, "--port", str(taken.getsockname()[1]))
    assert done.exit_code == 2
    assert "choose another --port" in done.stderr
    done = cli("serve", run, "--port", str(free_port()), "--host", "0.0.0.0")
    assert done.exit_code == 2
    assert "evenhand keys add NAME --database sqlite:" in done.stderr


def test_wrong_settings_and_no_run(run: Path, tmp_path: Path, cli: RunCli) -> None:
    done = cli("serve", run, "--set", "serve.max_batch_rws=3", "--set", "watch.text=hash")
    assert done.exit_code == 2
    assert 'did you mean "max_batch_rows"' in done.stderr
    assert "watch.text" in done.stderr
    done = cli("serve", run, "--port", str(free_port()), "--set", "watch.proposer=termz")
    assert done.exit_code == 2
    assert 'did you mean "terms"' in done.stderr
    assert not (run / "production.sqlite").exists()
    done = cli("serve", tmp_path / "none")
    assert done.exit_code == 2
    assert not (tmp_path / "none").exists()
