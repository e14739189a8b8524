"""gpt-oss-20b at full size on one GPU: our training and scoring beside the reference's recipe.

The weights are random, so nothing is downloaded and the losses mean nothing; shapes, sequence
lengths and the work of a step are those of the real run. First the attention of this device is
compared with eager attention, in loss and gradient; without that, nothing is timed. Then: rows a
pack, the reference's three configurations (ours and the reference's recipe in turn, the same
adapter), looped against grouped experts, the adapter's precision, and scoring. Random routers
spread tokens evenly over the experts; trained ones less so.

    python benchmarks/gptoss_gpu.py --json results.json [--profile]

Without CUDA, or with --toy, everything runs at toy size on the CPU to show that it runs. Each
figure is printed, and written to the JSON file, as soon as it is known.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gptoss_arithmetic import (
    REAL,
    TOY,
    Lengths,
    active_parameters,
    padded_work,
    scoring_work,
    tree_work,
)
from gptoss_arms import (
    Arm,
    Ours,
    Packing,
    Place,
    Reference,
    Stepper,
    Timing,
    adapted,
    build_model,
    interleave,
    make_encoder,
    make_rows,
    time_scoring,
)
from gptoss_parity import check_parity
from gptoss_record import Results, describe, matrix_rate, print_table, profile_step, rate_line

from evenhand.config.schema import PhaseConfig
from evenhand.finetune.encoding import EncodedRow

PROJECT = Path(__file__).resolve().parent.parent
NAME = "openai/gpt-oss-20b"
CONFIGURATIONS = ("default", "high_capacity", "k_proj_full_capacity")
TOY_SETTINGS = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "tie_word_embeddings": False,
}
TOY_PARITY = {**TOY_SETTINGS, "initializer_range": 0.1}


def read_phase(name: str) -> PhaseConfig:
    """The adapter and optimizer of one of the reference's configurations."""
    text = (PROJECT / "configs" / f"{name}.json").read_text("utf-8")
    values = json.loads(text)
    known = {key: values[key] for key in values if key.startswith("lora_")}
    known |= {key: values[key] for key in ("learning_rate", "weight_decay", "max_grad_norm")}
    return PhaseConfig(model_name_or_path=NAME, report_to="none", **known)


class Bench:
    """One model, one set of rows, and everything that is measured on them."""

    def __init__(self, options: argparse.Namespace, place: Place, results: Results) -> None:
        self.options, self.place, self.results = options, place, results
        self.is_toy = options.toy
        self.lengths: Lengths = TOY if self.is_toy else REAL
        self.rng = np.random.default_rng(options.seed)
        self.rate = 0.0

    # The order of a run

    def run(self) -> bool:
        """Measure everything; return whether parity held."""
        self.results.put("is_toy", self.is_toy)
        for name, value in describe(self.place).items():
            self.results.put(name, value)
        if not self._parity():
            return False
        self.rate = matrix_rate(self.place, size=256 if self.is_toy else 8192)
        dtype = str(self.place.dtype).removeprefix("torch.")
        line = f"matrix products: {self.rate / 1e12:.3g} TFLOP/s in {dtype}"
        self.results.put("matrix_rate", {"flops_per_second": self.rate, "dtype": dtype}, line)
        self._build()
        best = self._sweep()
        if best is not None:
            for name in CONFIGURATIONS:
                self._configuration(name, best)
            self._experts(best)
            self._precision(best)
            self._scoring(best.rows)
            if self.options.profile:
                self._profile(best)
        return True

    def _parity(self) -> bool:
        changes = TOY_PARITY if self.is_toy else {}
        for one in check_parity(self.place, self.lengths, changes=changes, rows=self._few(32)):
            verdict = "" if one.bounds is None else (" ok" if one.passed else " TOO FAR")
            self.results.add(
                "parity",
                one.to_json(),
                f"parity {one.dtype}, {one.kernel}, experts {one.experts}: "
                f"loss {one.loss:.1e}, gradient {one.gradient:.1e}{verdict}",
            )
        self.place.clean()
        return all(one["passed"] for one in self.results.found["parity"])

    def _few(self, count: int) -> int:
        """A number of rows, or fewer for the toy."""
        return max(4, count // 8) if self.is_toy else count

    def _build(self) -> None:
        if self.is_toy:
            settings = TOY_SETTINGS
        else:
            path = PROJECT / "src" / "evenhand" / "finetune" / "architectures.json"
            settings = json.loads(path.read_text("utf-8"))[NAME]
            settings.pop("model_type")
        self.model = build_model(settings, self.place)
        self.settings = self.model.config
        vocabulary = self.settings.vocab_size
        self.encoder = make_encoder(self.lengths, vocabulary=vocabulary, rng=self.rng)
        total = sum(one.numel() for one in self.model.parameters())
        active = active_parameters(self.settings)
        sequences = {
            "prefix_tokens": self.lengths.prefix,
            "tail_tokens": self.lengths.tail,
            "label_tokens": self.lengths.labels,
            "mean_text_tokens": self.lengths.mean_text(),
            "reference_tokens": self.lengths.padded,
        }
        self.results.put("sequences", sequences)
        facts = {"parameters": total, "active_parameters": active, "settings": settings}
        line = f"model built: {total:,} parameters, {active:,} active for a token"
        self.results.put("model", facts, line)

    # What is measured

    def _sweep(self) -> Packing | None:
        """Rows a pack, on the first configuration; the fastest, or None where nothing ran."""
        rates: dict[Packing, float] = {}
        with self._stepper(CONFIGURATIONS[0]) as stepper:
            for rows in self.options.rows_per_pack:
                # Activations are computed again only where memory asks for it.
                for packing in (Packing(rows), Packing(rows, again=True)):
                    again = ", activations computed again" if packing.again else ""
                    what = f"sweep, {rows} rows a pack{again}"
                    entry = self._train_ours(stepper, packing, what)
                    if entry is not None:
                        rates[packing] = entry["rows_per_second"]
                        self._tell("sweep", what, asdict(packing) | entry)
                        break
        return max(rates, key=lambda one: rates[one]) if rates else None

    def _configuration(self, name: str, packing: Packing) -> None:
        """Ours and the reference's recipe in turn, on the same adapter."""
        with self._stepper(name) as stepper:
            ours = self._ours(stepper, packing, steps=self._few(64))
            texts = self.lengths.draw(self._few(16), self.rng)
            reference = Reference(stepper, texts, self.lengths, micro_rows=4, rng=self.rng)

            def measure() -> list[Timing]:
                return self._time([ours, reference], repeats=self.options.repeats)

            timings = self.results.attempt(f"configuration {name}", measure)
            works = (self._tree_work(ours), self._padded_work(stepper))
        if timings is None:
            return
        entries = [self._figures(*pair) for pair in zip(timings, works, strict=True)]
        for arm, entry in zip(("ours", "reference"), entries, strict=True):
            self._tell("training", f"{name}, {arm}", {"configuration": name, "arm": arm, **entry})
        mine, other = entries
        ratio = {
            "configuration": name,
            "speed": mine["rows_per_second"] / other["rows_per_second"],
            "arithmetic": other["flops_per_row"] / mine["flops_per_row"],
        }
        if mine["peak_memory_bytes"]:
            ratio["memory"] = mine["peak_memory_bytes"] / other["peak_memory_bytes"]
        self.results.add(
            "ratios",
            ratio,
            f"{name}: {ratio['speed']:.1f} times the reference's rows per second "
            f"({ratio['arithmetic']:.1f} by arithmetic alone)",
        )

    def _experts(self, packing: Packing) -> None:
        """Looped experts against the grouped product, which transformers takes by default."""
        with self._stepper(CONFIGURATIONS[0]) as stepper:
            for experts in ("grouped_mm", "eager"):
                self.model.set_experts_implementation(experts)
                entry = self._train_ours(stepper, packing, f"experts {experts}")
                if entry is not None:
                    self._tell("experts", f"experts {experts}", {"experts": experts, **entry})
            self.model.set_experts_implementation("grouped_mm")

    def _precision(self, packing: Packing) -> None:
        """The adapter's float32 products in full, and in the shorter TF32 of recent GPUs."""
        before = torch.get_float32_matmul_precision()
        with self._stepper(CONFIGURATIONS[0]) as stepper:
            for precision in ("highest", "high"):
                torch.set_float32_matmul_precision(precision)
                what = f"float32 products at {precision} precision"
                entry = self._train_ours(stepper, packing, what)
                if entry is not None:
                    self._tell("precision", what, {"precision": precision, **entry})
        torch.set_float32_matmul_precision(before)

    def _scoring(self, best: int) -> None:
        """Rows per second of the product's scorer, at some sizes of a batch."""
        texts = self.lengths.draw(self._few(1024), self.rng)
        rows = self._rows(texts)
        row_tokens = statistics.mean(texts) + self.lengths.tail + len(self.lengths.labels)
        with self._stepper(CONFIGURATIONS[0]) as stepper:
            work = scoring_work(self.settings, self.lengths, texts, stepper.adapter)
            for size in (best, 4 * best):
                tokens = round(size * row_tokens)

                def measure(tokens: int = tokens) -> Timing:
                    return time_scoring(
                        stepper,
                        rows,
                        self.encoder,
                        batch_tokens=tokens,
                        repeats=self.options.repeats,
                    )

                what = f"scoring, {tokens:,} tokens a batch"
                timing = self.results.attempt(what, measure)
                if timing is not None:
                    entry = self._figures(timing, work.total / len(rows))
                    self._tell("scoring", what, {"tokens_per_batch": tokens, **entry})

    def _profile(self, packing: Packing) -> None:
        """The costliest operations of one of our steps, and how busy it keeps the device."""
        with self._stepper(CONFIGURATIONS[0]) as stepper:
            arm = self._ours(stepper, packing, steps=1)
            found = self.results.attempt("profile", lambda: profile_step(arm, self.place))
        if found is not None:
            table, facts = found
            print(table, flush=True)
            line = ", ".join(f"{name} {value:,.4g}" for name, value in facts.items())
            self.results.put("profile", facts, f"profile of one pack: {line}")

    # How it is measured

    @contextlib.contextmanager
    def _stepper(self, name: str) -> Iterator[Stepper]:
        """The model with a configuration's adapter and optimizer."""
        phase = read_phase(name)
        with adapted(self.model, phase) as tuned:
            yield Stepper(self.model, tuned, phase, self.place)

    def _rows(self, texts: Sequence[int]) -> list[EncodedRow]:
        vocabulary = self.settings.vocab_size
        return make_rows(texts, self.encoder, vocabulary=vocabulary, rng=self.rng)

    def _ours(self, stepper: Stepper, packing: Packing, *, steps: int) -> Ours:
        """Our arm on full packs with at least ``steps`` rows an optimizer step."""
        count = max(1, -(-steps // packing.rows)) * packing.rows
        rows = self._rows(self.lengths.draw(count, self.rng))
        return Ours(stepper, rows, self.encoder, packing)

    def _train_ours(self, stepper: Stepper, packing: Packing, what: str) -> dict[str, Any] | None:
        """One pack a step; None where it could not be measured."""
        arm = self._ours(stepper, packing, steps=1)
        timings = self.results.attempt(what, lambda: self._time([arm], repeats=2))
        return None if timings is None else self._figures(timings[0], self._tree_work(arm))

    def _time(self, arms: Sequence[Arm], *, repeats: int) -> list[Timing]:
        return interleave(arms, self.place, repeats=repeats, goes_on=lambda: self.results.has_time)

    def _tree_work(self, arm: Ours) -> float:
        """FLOPs a row of our arm's step."""
        size = arm.packing.rows
        packs = [arm.texts[start : start + size] for start in range(0, len(arm.texts), size)]
        adapter, again = arm.stepper.adapter, arm.packing.again
        works = [tree_work(self.settings, self.lengths, one, adapter, again=again) for one in packs]
        return sum(work.total for work in works) / len(arm.texts)

    def _padded_work(self, stepper: Stepper) -> float:
        """FLOPs a row of the reference's recipe."""
        length = self.lengths.padded
        return padded_work(self.settings, rows=1, length=length, adapter=stepper.adapter).total

    def _figures(self, timing: Timing, flops_per_row: float) -> dict[str, Any]:
        """A timing with the share of the device's matrix rate that its arithmetic made use of."""
        figures = timing.to_json()
        used = figures["rows_per_second"] * flops_per_row / self.rate
        return figures | {"flops_per_row": flops_per_row, "arithmetic_used": used}

    def _tell(self, section: str, what: str, entry: dict[str, Any]) -> None:
        used = f"{entry['arithmetic_used']:.0%} of the matrix rate"
        self.results.add(section, entry, f"{what}: {rate_line(entry)}, {used}")


def main() -> int:
    os.environ.setdefault("EVENHAND_QUIET", "1")  # the scorer's progress lines would cut the table
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="toy size on the CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--profile", action="store_true", help="the costliest operations, too")
    parser.add_argument("--rows-per-pack", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=420, help="start nothing after these")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.toy = options.toy or not torch.cuda.is_available()
    if options.toy:
        options.rows_per_pack = [4, 8]
        place = Place(torch.device("cpu"), torch.float32)
    else:
        place = Place(torch.device("cuda", torch.cuda.current_device()), torch.bfloat16)
    results = Results(options.json, seconds=options.seconds)
    passed = Bench(options, place, results).run()
    print_table(results.found)
    if not passed:
        print("the attention of this device differs from eager attention; nothing was timed")
    return 0 if passed and not results.failed else 1


if __name__ == "__main__":
    sys.exit(main())
