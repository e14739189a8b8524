"""Send simulated live posts to a server of `evenhand serve`, and remember the truth about them.

The posts are labelled ones, from the starter corpus or a file of yours; the server gets their texts
alone. What is true of them goes to a file that only `review_posts.py` reads.
    python examples/production/send_traffic.py --posts 500 --truth live/truth.jsonl --mix lgbtq=0.5
    python examples/production/send_traffic.py --posts 500 --truth live/truth.jsonl --drift lgbtq
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from truth import Truth, append_truth, hash_of, live_rows, read_truth

from evenhand.core.records import HATE, NORMAL, Row

_PATIENCE_SECONDS = 120
_ENOUGH_POSTS = 5  # of a kind, to say how often it is flagged


def draw(
    rows: Sequence[Row],
    *,
    count: int,
    mix: Mapping[str, float],
    hate_share: float,
    kinds: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
) -> list[Row]:
    """Draw posts: the group by ``mix``, then the label, then the kind, then the post.

    ``kinds`` restricts the normal posts about a group to some kinds. A post comes twice only where
    there are too few.
    """
    pool: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for place in rng.permutation(len(rows)):
        row = rows[place]
        group = row.groups[0] if row.groups else "none"
        if row.label == HATE or row.fine_label in kinds.get(group, (row.fine_label,)):
            pool[group, str(row.label)][str(row.fine_label)].append(row)
    groups = sorted({group for group, _ in pool})
    unknown = sorted(set(mix) - set(groups))
    if unknown:
        raise SystemExit(f"no posts about {', '.join(unknown)}; there are {', '.join(groups)}")
    others = [group for group in groups if group not in mix]
    rest = 1 - sum(mix.values())
    shares = [mix.get(group, rest / max(1, len(others))) for group in groups]
    drawn = []
    for _ in range(count):
        group = groups[rng.choice(len(groups), p=np.array(shares) / sum(shares))]
        label = HATE if rng.random() < hate_share else NORMAL
        # Posts that speak of no group are normal.
        by_kind = pool[group, label] or pool[group, NORMAL]
        queue = by_kind[sorted(by_kind)[rng.integers(len(by_kind))]]
        drawn.append(queue[0])
        queue.append(queue.pop(0))
    return drawn


def worst_kinds(truths: Sequence[Truth], rows: Sequence[Row], group: str, count: int) -> list[str]:
    """Return the kinds of normal post about a group that were flagged falsely most often so far."""
    told = {str(row.fine_label) for row in rows if row.label == NORMAL and group in row.groups}
    flagged: dict[str, list[bool]] = defaultdict(list)
    for one in truths:
        if one.label == NORMAL and one.kind in told:
            flagged[one.kind].append(one.decision == HATE)
    rates = {
        kind: sum(found) / len(found)
        for kind, found in flagged.items()
        if len(found) >= _ENOUGH_POSTS
    }
    if not rates:
        raise SystemExit("--drift needs ordinary traffic first, in the same truth file")
    return sorted(rates, key=lambda kind: (-rates[kind], kind))[:count]


def classify(url: str, rows: Sequence[Row], *, first: int, key: str | None) -> list[dict[str, Any]]:
    """Send posts in one request; wait and try again where the server asks for it."""
    posts = [{"id": f"sim-{first + number}", "text": row.text} for number, row in enumerate(rows)]
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{url}/v1/classify", data=json.dumps({"posts": posts}).encode(), headers=headers
    )
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as response:
                return json.load(response)["results"]
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503) or time.monotonic() > end:
                told = error.read().decode("utf-8", "replace")
                raise SystemExit(f"{url} answered {error.code}: {told}") from error
            time.sleep(float(error.headers.get("Retry-After", 1)))
        except urllib.error.URLError as error:
            raise SystemExit(f"{url} cannot be reached: {error.reason}") from error


def describe(truths: Sequence[Truth]) -> str:
    """Return what was sent, and the rates that the monitor must find out by review."""
    flagged = sum(one.decision == HATE for one in truths)
    lines = [f"sent {len(truths)} posts; {flagged} were called hate"]
    counts = Counter(group for one in truths for group in one.groups)
    for group, _ in counts.most_common(3):
        normal = [one for one in truths if one.label == NORMAL and group in one.groups]
        if normal:
            false = sum(one.decision == HATE for one in normal)
            lines.append(
                f"  known to the simulation alone: {false} of {len(normal)} normal posts about "
                f"{group} were called hate ({false / len(normal):.0%})"
            )
    return "\n".join(lines)


def _share(text: str) -> tuple[str, float]:
    group, _, share = text.partition("=")
    return group, float(share)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--posts", type=int, default=500)
    parser.add_argument("--truth", type=Path, required=True, help="JSON Lines; added to")
    parser.add_argument("--data", type=Path, help="labelled posts; by default the starter corpus")
    parser.add_argument(
        "--mix", type=_share, action="append", default=[], metavar="GROUP=SHARE",
        help="share of posts about a group; repeatable, the other groups have the rest alike",
    )  # fmt: skip
    parser.add_argument("--hate-share", type=float, default=0.35)
    parser.add_argument(
        "--drift", metavar="GROUP",
        help="normal posts about GROUP are of the kinds that were flagged falsely most so far",
    )  # fmt: skip
    parser.add_argument("--drift-kinds", type=int, default=2, help="how many kinds")
    parser.add_argument("--batch", type=int, default=16, help="posts a request")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    rng = np.random.default_rng(options.seed)
    rows = live_rows(options.data, seed=options.seed)
    before = list(read_truth(options.truth))
    kinds = {}
    if options.drift is not None:
        kinds[options.drift] = worst_kinds(before, rows, options.drift, options.drift_kinds)
        print(f"normal posts about {options.drift} are now: {', '.join(kinds[options.drift])}")
    drawn = draw(
        rows,
        count=options.posts,
        mix=dict(options.mix),
        hate_share=options.hate_share,
        kinds=kinds,
        rng=rng,
    )
    truths: list[Truth] = []
    key = os.environ.get("EVENHAND_API_KEY")
    for start in range(0, len(drawn), options.batch):
        batch = drawn[start : start + options.batch]
        answers = classify(options.url, batch, first=len(before) + start, key=key)
        new = [
            Truth(
                text_sha256=hash_of(row.text),
                label=str(row.label),
                groups=tuple(row.groups),
                kind=row.fine_label,
                decision=answer["decision"],
                score=answer["score"],
            )
            for row, answer in zip(batch, answers, strict=True)
        ]
        append_truth(options.truth, new)
        truths += new
        if sys.stderr.isatty():
            end = "\n" if len(truths) == len(drawn) else ""
            print(f"\r{len(truths)} of {len(drawn)}", end=end, file=sys.stderr, flush=True)
    print(describe(truths))


if __name__ == "__main__":
    main()
