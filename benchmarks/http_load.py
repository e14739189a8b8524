"""A client for load tests: HTTP/1.1 over asyncio streams, thin enough to overload a server.

Closed loop: so many clients, each of which sends its next request when the last is answered. Open
loop: requests at a fixed rate, whatever the server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reply:
    """One request: its post's id, its status (0: the connection broke), times in seconds."""

    id: str
    status: int
    sent: float
    done: float
    retry_after: str | None = None
    body: bytes = b""

    @property
    def latency_ms(self) -> float:
        """Time from the first byte sent to the last byte read."""
        return 1000 * (self.done - self.sent)


class Connection:
    """A connection that is kept open; reopened when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def classify(self, post_id: str, text: str) -> Reply:
        """Send one post to /v1/classify and read the answer."""
        payload = json.dumps({"posts": [{"id": post_id, "text": text}]}).encode()
        sent = time.perf_counter()
        try:
            if self._streams is None or self._streams[0].at_eof():  # closed when idle for long
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            head = (
                f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
            )
            writer.write(head.encode() + payload)
            status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, EOFError):
            self.close()
            return Reply(post_id, 0, sent, time.perf_counter())
        if headers.get("connection") == "close":
            self.close()
        done = time.perf_counter()
        return Reply(post_id, status, sent, done, headers.get("retry-after"), body)

    def close(self) -> None:
        """Close the connection, whatever its state."""
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].close()
            self._streams = None


def _head(raw: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def closed_loop(
    port: int, texts: Sequence[str], *, clients: int, seconds: float, name: str
) -> list[Reply]:
    """Let clients send posts, one a request, until the time is over or the server is gone."""
    end = time.perf_counter() + seconds
    replies: list[Reply] = []

    async def client(number: int) -> None:
        connection = Connection(port)
        # Each client begins elsewhere, so that a batch holds different posts.
        count = number * len(texts) // clients
        while time.perf_counter() < end:
            post_id = f"{name}-{number}-{count}"
            reply = await connection.classify(post_id, texts[count % len(texts)])
            replies.append(reply)
            if reply.status == 0:
                break
            count += 1
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return replies


async def open_loop(
    port: int, texts: Sequence[str], *, rate: float, seconds: float, name: str
) -> list[Reply]:
    """Send posts at a fixed rate, and wait until each is answered."""
    idle: list[Connection] = []
    waiting: list[asyncio.Task[Reply]] = []

    async def send(number: int) -> Reply:
        connection = idle.pop() if idle else Connection(port)
        reply = await connection.classify(f"{name}-{number}", texts[number % len(texts)])
        idle.append(connection)
        return reply

    started = time.perf_counter()
    for number in range(round(rate * seconds)):
        delay = started + number / rate - time.perf_counter()
        # Even when late the loop must turn, or no answer is read.
        await asyncio.sleep(max(0.0, delay))
        waiting.append(asyncio.create_task(send(number)))
    replies = await asyncio.gather(*waiting)
    for connection in idle:
        connection.close()
    return replies


@dataclass(frozen=True)
class Point:
    """What a closed loop of so many clients came to."""

    clients: int
    requests: int
    failed: int
    per_second: float
    p50_ms: float
    p99_ms: float


def summarise(replies: Sequence[Reply], *, clients: int, warm_up_seconds: float) -> Point:
    """Return throughput and latencies of what was answered after the warm-up.

    >>> replies = [Reply(str(n), 200, sent=n / 10, done=(n + 1) / 10) for n in range(100)]
    >>> point = summarise(replies, clients=1, warm_up_seconds=5)
    >>> round(point.per_second, 1), round(point.p50_ms)
    (10.0, 100)
    """
    began = min(reply.sent for reply in replies) + warm_up_seconds
    kept = [reply for reply in replies if reply.sent >= began]
    good = [reply.latency_ms for reply in kept if reply.status == 200]
    if not good:  # an answer takes longer than the warm-up: the first ones are all there are
        kept = list(replies)
        good = [reply.latency_ms for reply in kept if reply.status == 200]
    if not good:
        raise SystemExit(f"{clients} clients: nothing was answered")
    p50, p99 = np.quantile(good, [0.5, 0.99])
    # From the first request counted to the last answer: at the end all clients finish theirs.
    span = max(reply.done for reply in kept) - min(reply.sent for reply in kept)
    return Point(
        clients, len(kept), len(kept) - len(good), len(good) / span, float(p50), float(p99)
    )
