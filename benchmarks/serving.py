"""Our server against a plain FastAPI + transformers server, over HTTP, on the same posts.

Both serve the same run folder with the same number of threads, each in a process of its own.
Clients on kept-open connections send one post a request and wait for the answer. Throughput is
compared at equal p99: for every latency limit, the most that each server answers within it. Then
ours alone: requests at twice its capacity, and SIGKILL under load. Ours stores every decision
before it answers; the plain server stores nothing.
    python benchmarks/serving.py [--run RUN] [--clients 1,4,16,64] [--seconds 20] [--json FILE]
Without --run, a model is trained for a minute first. --toy takes a tiny random model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from http_load import Point, Reply, closed_loop, open_loop, summarise
from servers import OURS, PLAIN, Server, Setting, make_run
from side_by_side import machine, versions
from sqlalchemy import select
from workload import Workload, default_data

from evenhand.watch.store.database import open_database
from evenhand.watch.store.tables import PostRow

AIM = 5.0
_PACKAGES = ("fastapi", "uvicorn", "sqlalchemy")


def side_by_side(
    setting: Setting, texts: Sequence[str], options: argparse.Namespace
) -> tuple[dict[str, list[list[Point]]], dict[str, float]]:
    """Measure both servers in turns; return each round's points by arm, and their agreement."""
    rounds: dict[str, list[list[Point]]] = {OURS: [], PLAIN: []}
    with setting.start(OURS) as ours, setting.start(PLAIN) as plain:
        ports = {OURS: ours.port, PLAIN: plain.port}
        agreement = _agreement(ports, texts[: options.compared])
        for repeat in range(options.repeats):
            points: dict[str, list[Point]] = {OURS: [], PLAIN: []}
            for clients in options.clients:
                # The other one begins each round: a drift of the machine falls on both alike.
                for arm in (OURS, PLAIN) if repeat % 2 == 0 else (PLAIN, OURS):
                    _say(f"round {repeat + 1}, {clients} clients: {arm}")
                    replies = asyncio.run(
                        closed_loop(
                            ports[arm],
                            texts,
                            clients=clients,
                            seconds=options.warm_up + options.seconds,
                            name=f"{arm}-{repeat}-{clients}",
                        )
                    )
                    point = summarise(replies, clients=clients, warm_up_seconds=options.warm_up)
                    points[arm].append(point)
            for arm, found in points.items():
                rounds[arm].append(found)
    return rounds, agreement


def _agreement(ports: Mapping[str, int], texts: Sequence[str]) -> dict[str, float]:
    scores = {}
    for arm, port in ports.items():
        found = []
        for text in texts:
            data = json.dumps({"posts": [{"text": text}]}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/classify",
                data=data,
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=120) as response:
                found.append(json.load(response)["results"][0]["score"])
        scores[arm] = np.array(found)
    return {
        "posts": len(texts),
        "largest_difference": float(np.abs(scores[OURS] - scores[PLAIN]).max()),
    }


def equal_p99(
    rounds: Mapping[str, Sequence[Sequence[Point]]], limits_ms: Sequence[float]
) -> list[dict[str, Any]]:
    """Return, for each limit, the most that each server answers with a p99 within it.

    The ratio is that of the medians; its range is that of the ratios within each round.
    """
    found = []
    for limit in sorted(limits_ms):
        best = {
            arm: _best([_median(points) for points in zip(*runs, strict=True)], limit)
            for arm, runs in rounds.items()
        }
        ratios = []
        for ours, plain in zip(rounds[OURS], rounds[PLAIN], strict=True):
            pair = _best(ours, limit), _best(plain, limit)
            if pair[0] is not None and pair[1] is not None:
                ratios.append(pair[0] / pair[1])
        both = best[OURS] is not None and best[PLAIN] is not None
        found.append(
            {
                "limit_ms": limit,
                **best,
                "ratio": best[OURS] / best[PLAIN] if both else None,
                "ratio_of_rounds": _spread(ratios) if ratios else None,
            }
        )
    return found


def _best(points: Sequence[Point], limit_ms: float) -> float | None:
    return max((one.per_second for one in points if one.p99_ms <= limit_ms), default=None)


def _median(points: Sequence[Point]) -> Point:
    values = {
        key: statistics.median(asdict(one)[key] for one in points) for key in asdict(points[0])
    }
    return Point(**values)


def overload(
    setting: Setting, texts: Sequence[str], *, rate: float, seconds: float
) -> dict[str, Any]:
    """Send more than the server can answer; count what became of every request."""
    with setting.start(OURS) as server:
        _say(f"overload: {rate:.0f} posts/s for {seconds:.0f} s")
        replies = asyncio.run(
            open_loop(server.port, texts, rate=rate, seconds=seconds, name="overload")
        )
    answered = [one for one in replies if one.status == 200]
    rejected = [one for one in replies if one.status == 429]
    span = max(one.done for one in replies) - min(one.sent for one in replies)
    sent = max(one.sent for one in replies) - min(one.sent for one in replies)
    stored = _stored(setting.database, "overload-")
    ids = {one.id for one in answered}
    return {
        "offered_per_s": len(replies) / max(sent, 1e-9),
        "requests": len(replies),
        "answered": len(answered),
        "answered_per_s": len(answered) / span,
        "answered_p99_ms": float(np.quantile([one.latency_ms for one in answered], 0.99))
        if answered
        else None,
        "rejected_429": len(rejected),
        "rejected_share": len(rejected) / len(replies),
        "with_retry_after": sum(one.retry_after is not None for one in rejected),
        "other_statuses": sorted({one.status for one in replies} - {200, 429}),
        "others": len(replies) - len(answered) - len(rejected),
        "stored": len(stored),
        "answered_not_stored": len(ids - stored),
        "stored_not_answered": len(stored - ids),
    }


def sigkill(
    setting: Setting, texts: Sequence[str], *, clients: int, seconds: float, number: int
) -> dict[str, Any]:
    """Kill the server while it answers; look for every answered post in the database."""
    name = f"kill-{number}"

    async def load(server: Server) -> list[Reply]:
        asyncio.get_running_loop().call_later(seconds, server.kill)
        return await closed_loop(
            server.port, texts, clients=clients, seconds=seconds + 60, name=name
        )

    with setting.start(OURS) as server:
        _say(f"SIGKILL after {seconds:.0f} s of {clients} clients")
        replies = asyncio.run(load(server))
    answered = {one.id for one in replies if one.status == 200}
    stored = _stored(setting.database, f"{name}-")
    return {
        "answered": len(answered),
        "cut_off": sum(one.status == 0 for one in replies),
        "stored": len(stored),
        "answered_not_stored": len(answered - stored),
    }


def _stored(url: str, prefix: str) -> set[str]:
    database = open_database(url)
    try:
        with database.session() as session:
            found = session.scalars(
                select(PostRow.caller_id).where(PostRow.caller_id.startswith(prefix))
            )
            return {one for one in found if one is not None}
    finally:
        database.close()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Do everything in a scratch folder and return all figures."""
    if options.run is None:
        model = options.model
        if options.toy:
            from toy_model import save_toy_model

            model = str(save_toy_model(folder / "toy"))
        # A random model moves little otherwise, and an adapter that changes nothing is not served;
        # and in float32 its scores show that both servers compute the same.
        toy, usual = {"learning_rate": 0.03, "dtype": "float32"}, {"learning_rate": 1e-3}
        run = make_run(model, folder, rows=options.train_rows, **(toy if options.toy else usual))
    else:
        run = options.run
    accepted = () if (run / "gate.json").is_file() else ("--accept", "gate_missing")
    reason = ("--reason", "load test") if accepted else ()
    setting = Setting(run.resolve(), folder, options.threads, (*accepted, *reason))
    data = Path(options.data) if options.data else None
    work = Workload(str(run), data, "short", Path(), "", options.posts, options.seed)
    texts = [row.text for row in work.draw(options.posts)]
    rounds, agreement = side_by_side(setting, texts, options)
    limits = [_median(points).p99_ms for points in zip(*rounds[PLAIN], strict=True)]
    capacity = max(one.per_second for points in rounds[OURS] for one in points)
    over = overload(
        setting, texts, rate=2 * capacity, seconds=options.overload_seconds or 10 + 1024 / capacity
    )
    kills = [
        sigkill(
            setting, texts, clients=max(options.clients), seconds=options.kill_after, number=number
        )
        for number in range(options.kills)
    ]
    return {
        "machine": {**machine(), "threads": options.threads},
        "versions": {**versions(), **{name: metadata.version(name) for name in _PACKAGES}},
        "settings": {
            "model": json.loads((run / "config.json").read_text("utf-8"))["config"][
                "model_name_or_path"
            ]
            if not options.toy
            else "toy",
            "data": data.name if data else "starter corpus",
            "posts": len(texts),
            "mean_characters": statistics.mean(len(text) for text in texts),
            "seconds": options.seconds,
            "repeats": options.repeats,
        },
        "agreement": agreement,
        "results": [
            _summary(arm, points)
            for arm, runs in rounds.items()
            for points in zip(*runs, strict=True)
        ],
        "equal_p99": equal_p99(rounds, [*limits, *options.limits_ms]),
        "aim": AIM,
        "overload": {"capacity_per_s": capacity, **over},
        "sigkill": kills,
    }


def _summary(arm: str, points: Sequence[Point]) -> dict[str, Any]:
    return {
        "arm": arm,
        "clients": points[0].clients,
        "requests": sum(one.requests for one in points),
        "failed": sum(one.failed for one in points),
        **{
            key: _spread([asdict(one)[key] for one in points])
            for key in ("per_second", "p50_ms", "p99_ms")
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def show(report: Mapping[str, Any]) -> None:
    """Print the tables of the page."""
    print("\n| server | clients | posts/s | p50 ms | p99 ms | failed |\n|---|--:|--:|--:|--:|--:|")
    for one in report["results"]:
        cells = [_range(one["per_second"]), _range(one["p50_ms"]), _range(one["p99_ms"])]
        print(f"| {one['arm']} | {one['clients']} | {' | '.join(cells)} | {one['failed']} |")
    print("\n| p99 within | ours posts/s | plain posts/s | ratio |\n|--:|--:|--:|--:|")
    for one in report["equal_p99"]:
        cells = ["-" if one[key] is None else f"{one[key]:.3g}" for key in (OURS, PLAIN)]
        rounds = one["ratio_of_rounds"]
        spread = "" if rounds is None else f" ({rounds['low']:.2g} to {rounds['high']:.2g})"
        ratio = "-" if one["ratio"] is None else f"{one['ratio']:.2g}x{spread}"
        print(f"| {one['limit_ms']:.0f} ms | {' | '.join(cells)} | {ratio} |")
    agreement = report["agreement"]
    print(
        f"\nScores of {agreement['posts']} posts differ by at most "
        f"{agreement['largest_difference']:.2g}."
    )
    over = report["overload"]
    print(
        f"Offered {over['offered_per_s']:.0f} posts/s, capacity {over['capacity_per_s']:.0f}: "
        f"{over['answered']} answered, {over['rejected_429']} rejected with 429 "
        f"({over['rejected_share']:.0%}; {over['with_retry_after']} with Retry-After), "
        f"{over['others']} others; answered and not stored: {over['answered_not_stored']}."
    )
    for one in report["sigkill"]:
        print(
            f"SIGKILL: {one['answered']} answered before, {one['cut_off']} cut off; "
            f"answered and not stored: {one['answered_not_stored']}."
        )


def _range(spread: Mapping[str, float]) -> str:
    middle, low, high = (f"{spread[key]:.3g}" for key in ("median", "low", "high"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _limits(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a finished run folder with a LoRA adapter")
    parser.add_argument("--model", default="smollm2-135m", help="trained where no run is named")
    parser.add_argument("--train-rows", type=int, default=64)
    parser.add_argument("--data", default=str(default_data() or ""), help='"": the starter corpus')
    parser.add_argument("--posts", type=int, default=1000, help="different posts that are sent")
    parser.add_argument("--clients", type=_numbers, default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=20, help="measured time a point")
    parser.add_argument("--warm-up", type=float, default=3, help="seconds before it")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--limits-ms", type=_limits, default=[250, 500, 1000], help="p99 limits")
    parser.add_argument("--compared", type=int, default=32, help="posts whose scores are compared")
    parser.add_argument("--overload-seconds", type=float, help="by default until the queue is full")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument(
        "--kill-after", type=float, default=5, help="seconds of load before SIGKILL"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--toy", action="store_true", help="a tiny random model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(argv)
    # An overloaded server holds many connections, and so does who overloads it.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


if __name__ == "__main__":
    main()
