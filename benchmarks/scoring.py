"""Scoring side by side: rows a second, peak memory, and whether the scores agree.

p(hate) from the log-probabilities of the complete label strings, of the same rows with the same
prompt and the untrained base model, in turns and each in a process of its own:
    python benchmarks/scoring.py [--prompt short|reference|both] [--rows 128] [--repeats 3]
        [--arms ours,padded,...] [--json]
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from side_by_side import (
    OURS,
    Arm,
    Start,
    answer_arm,
    in_subprocess,
    measure,
    parse,
    show,
    work_parser,
)
from workload import Workload


def measure_ours(work: Workload) -> dict[str, Any]:
    """Time the product's own scorer after a few rows of warm-up."""
    from arithmetic import Shape, label_logits, tree_spans

    from evenhand.finetune.classifier import prepare

    rows = work.draw(work.rows)
    classifier = prepare(work.config(tuning="none"), work.prompt)
    encoder = classifier.encoder
    if encoder is None:
        raise TypeError("a classifier head has no prompt to share")
    classifier.score(rows[:2])
    started = time.perf_counter()
    scores = classifier.score(rows)
    seconds = time.perf_counter() - started
    # What had to be computed: the prompt once, whatever the batches.
    spans = tree_spans(encoder, [rows])
    return {
        "rows": len(rows),
        "seconds": seconds,
        "number_format": classifier.device.dtype_name,
        "layout": classifier.layout.name,
        "tokens": sum(span.tokens for span in spans),
        "flops": Shape.of(classifier.model).forward(
            spans, logits=label_logits(encoder) * len(rows)
        ),
        "scores": scores.tolist(),
    }


def _padded(work: Workload, **options: Any) -> dict[str, Any]:
    from peers_scoring import measure_padded

    return measure_padded(work, **options)


def _generation(work: Workload) -> dict[str, Any]:
    from peers_scoring import measure_generation

    return measure_generation(work)


def _llama_cpp(work: Workload, **options: Any) -> dict[str, Any]:
    from peers_scoring import measure_llama_cpp

    return measure_llama_cpp(work, **options)


def _padded_arm(batch_rows: int, *, is_default: bool = False) -> Arm:
    what = f"transformers, a padded sequence per row and label, {batch_rows} rows a batch"
    run = partial(_padded, batch_rows=batch_rows)
    return Arm(what, run, is_default=is_default)


def _llama_cpp_arm(together: int, *, is_default: bool = False) -> Arm:
    what = f"llama.cpp, prompt cached, {together} row{'s' if together > 1 else ''} a call"
    run = partial(_llama_cpp, together=together)
    return Arm(what, run, is_default=is_default, needs="llama_cpp")


ARMS = {
    OURS: Arm("this project's scorer", measure_ours),
    "padded": _padded_arm(8, is_default=True),
    "padded_16": _padded_arm(16),
    "padded_32": _padded_arm(32),
    "llama_cpp": _llama_cpp_arm(1, is_default=True),
    "llama_cpp_8": _llama_cpp_arm(8, is_default=True),
    "generation": Arm("sampling an answer of up to 512 tokens", _generation, share=1 / 32),
}


def main(argv: Sequence[str] | None = None, *, start: Start = in_subprocess) -> None:
    options = parse(ARMS, argv, work_parser(__doc__ or "", rows=128))
    if options.arm:
        answer_arm(ARMS, options)
        return
    report = measure(ARMS, options, start=start)
    print(json.dumps(report, indent=2)) if options.json else show(report)


if __name__ == "__main__":
    main()
