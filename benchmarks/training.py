"""Training side by side: rows a second, peak memory and, on request, quality.

A LoRA adapter (r=32 on q_proj and v_proj, dropout 0.05) is trained on the same rows with the same
prompt, 16 rows a step, by each of these, in turns and each in a process of its own:
    python benchmarks/training.py [--prompt short|reference|both] [--rows 32] [--repeats 3]
        [--arms ours,trl,...] [--quality] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from side_by_side import (
    OURS,
    Arm,
    Start,
    answer_arm,
    in_subprocess,
    machine,
    measure,
    parse,
    show,
    versions,
    work_parser,
    workload,
)
from workload import ROWS_A_STEP, SHARED, Workload


def measure_ours(work: Workload) -> dict[str, Any]:
    """Time the product's own training, logs included, after one step of warm-up."""
    from arithmetic import Shape, label_logits, tree_spans
    from peers_training import draw_batches, make_encoder

    from evenhand.finetune.callbacks import read_history
    from evenhand.finetune.train import train_phase

    encoder = make_encoder(work)
    batches = draw_batches(work, encoder)
    rows = [row for batch in batches for row in batch]
    with tempfile.TemporaryDirectory() as folder:
        trained = train_phase(work.config(), rows, [], work.prompt, run=Path(folder))
        history = [line for line in read_history(Path(folder) / "history.jsonl") if "loss" in line]
    # Our trainer mixes the rows: the 16 that warmed up are as long on average, not the same.
    spans = tree_spans(encoder, batches[1:])
    timed = len(rows) - ROWS_A_STEP
    return {
        "rows": timed,
        "seconds": history[-1]["elapsed_seconds"] - history[0]["elapsed_seconds"],
        "number_format": trained.statistics["dtype"],
        "layout": trained.statistics["layout"],
        "tokens": sum(span.tokens for span in spans),
        "flops": Shape.of(trained.classifier.model).training(
            spans, logits=label_logits(encoder) * timed
        ),
    }


def _trl(work: Workload, **options: Any) -> dict[str, Any]:
    from peers_training import measure_trl

    return measure_trl(work, **options)


def _reference(work: Workload) -> dict[str, Any]:
    from peers_training import measure_reference

    return measure_reference(work)


def _trl_arm(what: str, *, is_default: bool = False, **options: Any) -> Arm:
    return Arm(what, partial(_trl, **options), is_default=is_default, needs="trl")


ARMS = {
    OURS: Arm("this project's default", measure_ours),
    "trl": _trl_arm("SFTTrainer, 16 rows a batch", is_default=True),
    "trl_8x2": _trl_arm("SFTTrainer, 8 rows a batch, 2 accumulated", micro_rows=8),
    "trl_4x4": _trl_arm("SFTTrainer, 4 rows a batch, 4 accumulated", micro_rows=4),
    "trl_padding_free": _trl_arm("SFTTrainer, rows end to end", padding_free=True),
    "trl_float32": _trl_arm("SFTTrainer in float32", number_format="float32"),
    "trl_bf16": _trl_arm("SFTTrainer in bfloat16", number_format="bfloat16"),
    "reference": Arm("pad to 512, loss over all tokens, checkpointing", _reference, share=0.25),
}


def compare_quality(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train ours and TRL's on the same rows for one epoch; score both on the validation rows."""
    import numpy as np
    from peers_training import train_with_trl
    from sklearn.metrics import f1_score, roc_auc_score

    from evenhand.core.records import HATE
    from evenhand.data.sources import read_dataset
    from evenhand.data.starter import generate
    from evenhand.finetune.callbacks import read_history
    from evenhand.finetune.classifier import load_classifier
    from evenhand.finetune.train import train_phase

    results = []
    held_out = SHARED / "unified/unified_val.json"
    is_real = bool(options.data) and held_out.is_file()
    validation = (
        read_dataset(held_out, on_bad_row="skip").rows if is_real else generate(0)["validation"]
    )
    validation = validation[: options.quality_validation_rows]
    truth = np.array([row.label == HATE for row in validation])
    for prompt in options.prompts:
        work = workload(options, prompt)
        rows = work.draw(options.quality_rows)
        for name in (OURS, "trl"):
            run = folder / f"{prompt}-{name}"
            if name == OURS:
                train_phase(work.config(), rows, [], work.prompt, run=run)
                seconds = read_history(run / "history.jsonl")[-1]["elapsed_seconds"]
            else:
                trainer, clock, _ = train_with_trl(work, [rows], run / "out", grouped=False)
                trainer.model.save_pretrained(run / "adapter")
                seconds = clock.ended[-1] - clock.began
            scores = load_classifier(run, work.config(), work.prompt).score(validation)
            results.append(
                {
                    "prompt": prompt,
                    "arm": name,
                    "rows": len(rows),
                    "training_seconds": seconds,
                    "validation_rows": len(validation),
                    "f1": float(f1_score(truth, scores >= 0.5)),
                    "roc_auc": float(roc_auc_score(truth, scores)),
                }
            )
    return {"machine": machine(), "versions": versions(), "quality": results}


def show_quality(report: dict[str, Any]) -> None:
    """Print the comparison of quality as Markdown."""
    print("| prompt | arm | rows | training time | validation rows | F1 | ROC AUC |")
    print("|---|---|---|---|---|---|---|")
    for one in report["quality"]:
        print(
            f"| {one['prompt']} | {one['arm']} | {one['rows']} | {one['training_seconds']:.0f} s | "
            f"{one['validation_rows']} | {one['f1']:.3f} | {one['roc_auc']:.3f} |"
        )


def main(argv: Sequence[str] | None = None, *, start: Start = in_subprocess) -> None:
    parser = work_parser(__doc__ or "", rows=32)
    parser.add_argument("--quality", action="store_true", help="compare F1 and AUC, not speed")
    parser.add_argument("--quality-rows", type=int, default=512)
    parser.add_argument("--quality-validation-rows", type=int, default=514)
    options = parse(ARMS, argv, parser)
    if options.arm:
        answer_arm(ARMS, options)
        return
    if options.quality:
        with tempfile.TemporaryDirectory() as folder:
            report = compare_quality(options, Path(folder))
        printer = show_quality
    else:
        report = measure(ARMS, options, start=start)
        printer = show
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        printer(report)


if __name__ == "__main__":
    main()
