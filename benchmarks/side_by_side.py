"""Measures several ways to do the same work: each in a process of its own, in turns.

A round runs every arm once on the same rows; the next round draws other rows. What is reported is
the median over rounds, and for two arms the median of their ratios within a round, so that a
machine that slows down for a while slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from typing import Any

from workload import PROMPTS, SHARED, Workload, default_data

OURS = "ours"
RATES = "matrix_rate"
_PACKAGES = ("evenhand", "torch", "transformers", "peft", "trl", "llama-cpp-python")


@dataclass(frozen=True)
class Arm:
    """One way to do the work.

    ``measure`` returns at least ``rows`` and ``seconds``. ``share`` of the rows are enough for a
    slow arm. ``needs`` is a package that may be missing.
    """

    what: str
    measure: Callable[[Workload], dict[str, Any]]
    share: float = 1.0
    is_default: bool = True
    needs: str | None = None

    @property
    def is_possible(self) -> bool:
        """Whether its package is installed."""
        return self.needs is None or util.find_spec(self.needs) is not None

    def workload(self, work: Workload) -> Workload:
        """Return the part of the work that this arm is measured on."""
        return Workload(**{**vars(work), "rows": max(1, round(work.rows * self.share))})


Start = Callable[[Mapping[str, Arm], str, Workload], dict[str, Any]]


def in_subprocess(arms: Mapping[str, Arm], name: str, work: Workload) -> dict[str, Any]:
    """Measure an arm in a fresh process; its last line of output is the result."""
    del arms  # the fresh process has its own
    command = [sys.executable, sys.argv[0], "--arm", name, "--model", work.model]
    command += ["--prompt", work.prompt_name, "--rows", str(work.rows), "--seed", str(work.seed)]
    command += ["--prompt-file", str(work.prompt_file), "--strategy", work.strategy]
    command += ["--data", "" if work.data is None else str(work.data)]
    quiet = {"EVENHAND_QUIET": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **quiet}
    )
    if done.returncode != 0:
        raise SystemExit(f"arm {name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_this_process(arms: Mapping[str, Arm], name: str, work: Workload) -> dict[str, Any]:
    """Measure an arm here: quicker to start, but memory is that of everything before."""
    return {**arms[name].measure(work), "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def work_parser(about: str, *, rows: int) -> argparse.ArgumentParser:
    """Return a parser of the options that say what the work is."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt", choices=[*PROMPTS, "both"], default="both")
    parser.add_argument("--prompt-file", type=Path, default=SHARED / "prompts/baseline_v1.json")
    parser.add_argument("--strategy", default="baseline_standard")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default=str(default_data() or ""), help='"": the starter corpus')
    parser.add_argument("--rows", type=int, default=rows, help=f"rows an arm works on ({rows})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser


def prompts(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the prompts asked for; of both, the short one alone where the other's file lacks."""
    if options.prompt != "both":
        return (options.prompt,)
    if options.prompt_file.is_file():
        return PROMPTS
    print(f"no {options.prompt_file}: the short prompt alone", file=sys.stderr)
    return ("short",)


def parse(
    arms: Mapping[str, Arm], argv: Sequence[str] | None, parser: argparse.ArgumentParser
) -> argparse.Namespace:
    """Read the command line of a comparison of arms."""
    parser.add_argument("--repeats", type=int, default=3, help="rounds, each with rows of its own")
    parser.add_argument("--arms", help=f"some of {', '.join(arms)}, with commas between")
    parser.add_argument("--arm", choices=[*arms, RATES], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.chosen = (
        [name for name, arm in arms.items() if arm.is_default and arm.is_possible]
        if options.arms is None
        else options.arms.split(",")
    )
    unknown = [name for name in options.chosen if name not in arms]
    missing = [name for name in options.chosen if name in arms and not arms[name].is_possible]
    if unknown:
        parser.error(f"unknown arms {', '.join(unknown)}; there are {', '.join(arms)}")
    if missing:
        parser.error(f"{', '.join(missing)}: `make bench` installs what is missing")
    options.prompts = prompts(options)
    return options


def workload(options: argparse.Namespace, prompt: str, *, repeat: int = 0) -> Workload:
    """Return the work of one round."""
    return Workload(
        model=options.model,
        data=Path(options.data) if options.data else None,
        prompt_name=prompt,
        prompt_file=options.prompt_file,
        strategy=options.strategy,
        rows=options.rows,
        seed=options.seed + repeat,
    )


def with_rates(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """Return the arms and the measurement of the machine's matrix rates."""
    return {**arms, RATES: Arm("matrix products", _rates)}


def answer_arm(arms: Mapping[str, Arm], options: argparse.Namespace) -> None:
    """Measure one arm and print its result, for the process that started this one."""
    result = in_this_process(with_rates(arms), options.arm, workload(options, options.prompts[0]))
    print(json.dumps(result))


def _rates(work: Workload) -> dict[str, Any]:
    del work  # the machine's own
    import torch
    from arithmetic import matrix_rate

    return {
        "float32_flops": matrix_rate(torch.float32),
        "bfloat16_flops": matrix_rate(torch.bfloat16),
        "threads": torch.get_num_threads(),
    }


def measure(
    arms: Mapping[str, Arm], options: argparse.Namespace, *, start: Start
) -> dict[str, Any]:
    """Run every round of every prompt and return all figures."""
    runs: list[dict[str, Any]] = []
    everything = with_rates(arms)
    rates = [start(everything, RATES, workload(options, options.prompts[0]))]
    for repeat in range(options.repeats):
        for prompt in options.prompts:
            work = workload(options, prompt, repeat=repeat)
            # Another arm begins each round: a drift within it falls on all alike.
            turn = repeat % len(options.chosen)
            for name in (*options.chosen[turn:], *options.chosen[:turn]):
                print(f"round {repeat + 1}, {prompt} prompt: {name}", file=sys.stderr, flush=True)
                result = start(everything, name, arms[name].workload(work))
                rate = result["rows"] / result["seconds"]
                found = {"prompt": prompt, "arm": name, "repeat": repeat, "rows_per_s": rate}
                runs.append(found | result)
        rates.append(start(everything, RATES, workload(options, options.prompts[0])))
    best = {
        name: statistics.median(one[name] for one in rates)
        for name in ("float32_flops", "bfloat16_flops")
    }
    return {
        "machine": {**machine(), "threads": rates[0].get("threads"), **best},
        "versions": versions(),
        "settings": {
            "model": options.model,
            "data": Path(options.data).name if options.data else "starter corpus",
            "rows": options.rows,
            "repeats": options.repeats,
            "seed": options.seed,
        },
        "results": [
            _summary(runs, prompt, name, arms[name].what, peak_flops=max(best.values()))
            for prompt in options.prompts
            for name in options.chosen
        ],
    }


def _summary(
    runs: Sequence[Mapping[str, Any]], prompt: str, name: str, what: str, *, peak_flops: float
) -> dict[str, Any]:
    def of(arm: str) -> dict[int, Mapping[str, Any]]:
        return {one["repeat"]: one for one in runs if (one["prompt"], one["arm"]) == (prompt, arm)}

    own, ours = of(name), of(OURS)
    first = next(iter(own.values()))
    summary: dict[str, Any] = {
        "prompt": prompt,
        "arm": name,
        "what": what,
        "rows_per_s": _spread([one["rows_per_s"] for one in own.values()]),
        "peak_bytes": _spread([one["peak_bytes"] for one in own.values()]),
    }
    if ours and name != OURS:
        ratios = [ours[at]["rows_per_s"] / own[at]["rows_per_s"] for at in own]
        memory = [ours[at]["peak_bytes"] / own[at]["peak_bytes"] for at in own]
        summary["ours_times_faster"] = _spread(ratios)
        summary["ours_share_of_memory"] = _spread(memory)
    if "flops" in first:
        shares = [one["flops"] / one["seconds"] / peak_flops for one in own.values()]
        summary["arithmetic_used"] = _spread(shares)
    if "scores" in first and ours and name != OURS:
        pairs = [
            (mine, theirs)
            for at in own
            for mine, theirs in zip(ours[at]["scores"], own[at]["scores"], strict=False)
        ]
        summary["agreement"] = _agreement(pairs)
    hidden = ("scores", "prompt", "arm")
    summary["runs"] = [
        {key: value for key, value in one.items() if key not in hidden} for one in own.values()
    ]
    return summary


def _agreement(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    same = [(mine >= 0.5) == (theirs >= 0.5) for mine, theirs in pairs]
    return {
        "rows": len(pairs),
        "largest_difference": max(abs(mine - theirs) for mine, theirs in pairs),
        "same_decision": sum(same) / len(pairs),
        "correlation": statistics.correlation(*zip(*pairs, strict=True)),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and when."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def show(report: Mapping[str, Any]) -> None:
    """Print the report as Markdown."""
    about = report["machine"]
    print(
        f"{about['processor']}, {about['cores']} cores ({about['threads']} threads), "
        f"{about['date']}; matrix products {about['float32_flops'] / 1e9:.0f} GFLOP/s in float32, "
        f"{about['bfloat16_flops'] / 1e9:.0f} in bfloat16"
    )
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    print(", ".join(f"{name} {value}" for name, value in report["settings"].items()))
    head = (
        "prompt",
        "arm",
        "rows/s",
        "ours is faster by",
        "peak memory",
        "ours needs",
        "arithmetic",
    )
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for one in report["results"]:
        cells = [
            one["prompt"],
            one["arm"],
            _text(one["rows_per_s"], "{:.3g}"),
            _text(one.get("ours_times_faster"), "{:.1f}x"),
            f"{one['peak_bytes']['median'] / 1e9:.2f} GB",
            f"{one['ours_share_of_memory']['median']:.2f}x"
            if "ours_share_of_memory" in one
            else "",
            f"{one['arithmetic_used']['median']:.0%}" if "arithmetic_used" in one else "",
        ]
        print("| " + " | ".join(cells) + " |")
    checked = [one for one in report["results"] if "agreement" in one]
    if checked:
        head = (
            "prompt",
            "arm",
            "rows compared",
            "largest difference",
            "same decision",
            "correlation",
        )
        print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for one in checked:
        found = one["agreement"]
        print(
            f"| {one['prompt']} | {one['arm']} | {found['rows']} | "
            f"{found['largest_difference']:.2g} | {found['same_decision']:.1%} | "
            f"{found['correlation']:.4f} |"
        )


def _text(spread: Mapping[str, float] | None, form: str) -> str:
    if spread is None:
        return ""
    middle, low, high = (form.format(spread[key]) for key in ("median", "low", "high"))
    return middle if low == high else f"{middle} ({low} to {high})"
