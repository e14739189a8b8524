"""The load test of the server: its arithmetic, its client, and a run at toy size."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, project_root: Path) -> Callable[[str], ModuleType]:
    """``load("serving")``: a script of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(project_root / "benchmarks"))
    monkeypatch.setenv("EVENHAND_QUIET", "1")
    return importlib.import_module


def test_throughput_is_compared_at_equal_p99(load: Callable[[str], ModuleType]) -> None:
    point, serving = load("http_load").Point, load("serving")
    ours = [point(1, 100, 0, 50.0, 10, 20), point(8, 100, 0, 200.0, 40, 90)]
    plain = [point(1, 100, 0, 10.0, 90, 100), point(8, 100, 0, 11.0, 700, 800)]
    rounds = {"ours": [ours, ours], "plain": [plain, plain]}
    slow, middle, fast = serving.equal_p99(rounds, [900, 100, 50])[::-1]
    assert (slow["ours"], slow["plain"]) == (200.0, 11.0)
    assert middle["ratio"] == middle["ratio_of_rounds"]["median"] == 20.0
    assert (fast["ours"], fast["plain"], fast["ratio"]) == (50.0, None, None)


def answer(status: str, head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n{head}\r\n{{}}".encode()


def test_the_client_counts_every_request(load: Callable[[str], ModuleType]) -> None:
    """A server that rejects every third post, and breaks off after thirty."""
    http_load = load("http_load")
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(seen) < 30:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            seen.append(await reader.readexactly(length))
            rejected = len(seen) % 3 == 0
            reply = answer("429 Too Many", "Retry-After: 2\r\n") if rejected else answer("200 OK")
            writer.write(reply)
            await writer.drain()
        writer.close()

    async def run() -> tuple[list, list]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        opened = await http_load.open_loop(port, ["a", "b"], rate=200, seconds=0.1, name="o")
        closed = await http_load.closed_loop(port, ["a"], clients=1, seconds=20, name="c")
        server.close()
        return opened, closed

    opened, closed = asyncio.run(run())
    assert sorted(one.id for one in opened) == sorted(f"o-{number}" for number in range(20))
    assert [one.status for one in opened].count(429) == 6
    assert {one.retry_after for one in opened if one.status == 429} == {"2"}
    assert [one.status for one in closed].count(0) == 1, "it stops when the server is gone"
    assert json.loads(seen[0])["posts"][0]["text"] == "a"
    assert len(seen) == 30


@pytest.mark.slow
def test_a_run_at_toy_size(
    load: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "serving.json"
    load("serving").main(
        [
            *("--toy", "--threads", "1", "--data", "", "--posts", "100"),
            *("--clients", "1,8", "--seconds", "2", "--warm-up", "0.5", "--repeats", "1"),
            *("--overload-seconds", "3", "--kills", "1", "--kill-after", "2"),
            *("--json", str(out)),
        ]
    )
    report = json.loads(out.read_text("utf-8"))
    assert report["agreement"]["largest_difference"] < 1e-4
    assert {(one["arm"], one["clients"]) for one in report["results"]} == {
        (arm, clients) for arm in ("ours", "plain") for clients in (1, 8)
    }
    assert all(one["failed"] == 0 for one in report["results"])
    over, [kill] = report["overload"], report["sigkill"]
    assert over["requests"] == over["answered"] + over["rejected_429"] + over["others"]
    assert over["others"] == over["answered_not_stored"] == 0
    assert over["with_retry_after"] == over["rejected_429"]
    assert kill["answered"] > 0
    assert kill["answered_not_stored"] == 0
    assert "| p99 within |" in capsys.readouterr().out
