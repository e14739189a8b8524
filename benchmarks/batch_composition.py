"""How often a decision flips when rows are batched differently, in float32 and in bfloat16.

Matrix products round differently for batches of another shape. The same rows are scored under
several token budgets and in several orders; compared with the first run are the decision at 0.5
and p(hate):
    python benchmarks/batch_composition.py [--rows 200] [--prompt short] [--json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from side_by_side import machine, prompts, versions, work_parser, workload
from workload import Workload

_BUDGETS = (256, 1024, 4096)  # tokens a batch
_FORMATS = ("float32", "bfloat16")


def compare(work: Workload, number_format: str, *, budgets: Sequence[int]) -> dict[str, Any]:
    """Score the rows in every way and return the flips and the largest change."""
    from evenhand.finetune.classifier import prepare

    rows = work.draw(work.rows)
    shuffled = np.random.default_rng(work.seed + 1).permutation(len(rows))
    runs: dict[str, np.ndarray] = {}
    for budget in budgets:
        config = work.config(tuning="none", dtype=number_format, eval_tokens_per_batch=budget)
        classifier = prepare(config, work.prompt)
        runs[f"{budget} tokens"] = classifier.score(rows)
        # Half of the rows at a time, in another order: other rows stand beside each.
        halves = np.array_split(shuffled, 2)
        found = np.empty(len(rows))
        for half in halves:
            found[half] = classifier.score([rows[place] for place in half])
        runs[f"{budget} tokens, two shuffled halves"] = found
    first, *others = runs
    flips = [(runs[first] >= 0.5) != (runs[name] >= 0.5) for name in others]
    changes = [np.abs(runs[first] - runs[name]) for name in others]
    return {
        "prompt": work.prompt_name,
        "number_format": number_format,
        "rows": len(rows),
        "ways": list(runs),
        "rows_that_ever_flip": int(np.any(flips, axis=0).sum()),
        "flipped_share_of_decisions": float(np.mean(flips)),
        "largest_change": float(np.max(changes)),
        "mean_change": float(np.mean(changes)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = work_parser(__doc__ or "", rows=200)
    default = ",".join(map(str, _BUDGETS))
    parser.add_argument("--budgets", default=default, help=f"tokens a batch ({default})")
    options = parser.parse_args(argv)
    budgets = [int(one) for one in options.budgets.split(",")]
    results = []
    for prompt in prompts(options):
        for number_format in _FORMATS:
            print(f"{prompt} prompt, {number_format}", file=sys.stderr, flush=True)
            results.append(compare(workload(options, prompt), number_format, budgets=budgets))
    report = {"machine": machine(), "versions": versions(), "results": results}
    if options.json:
        print(json.dumps(report, indent=2))
        return
    head = (
        "prompt",
        "format",
        "rows",
        "rows that ever flip",
        "decisions flipped",
        "largest change",
    )
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for one in results:
        print(
            f"| {one['prompt']} | {one['number_format']} | {one['rows']} | "
            f"{one['rows_that_ever_flip']} | {one['flipped_share_of_decisions']:.2%} | "
            f"{one['largest_change']:.2g} |"
        )


if __name__ == "__main__":
    main()
