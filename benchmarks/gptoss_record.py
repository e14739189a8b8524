"""The figures of a run as they come, and the machine that they belong to."""

from __future__ import annotations

import datetime
import gc
import importlib.metadata
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gptoss_arms import Arm, Place
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from evenhand.core.paths import write_json

GIB = 2**30


class Results:
    """What is known so far: printed, and written, at each addition."""

    def __init__(self, path: Path | None, *, seconds: float) -> None:
        self.path = path
        self.start = time.perf_counter()
        self.seconds = seconds
        self.failed = False
        self.found: dict[str, Any] = {"benchmark": "gptoss_gpu", "problems": []}

    @property
    def has_time(self) -> bool:
        return time.perf_counter() - self.start < self.seconds

    def put(self, name: str, value: Any, line: str | None = None) -> None:
        self.found[name] = value
        self._flush(line)

    def add(self, name: str, value: dict[str, Any], line: str) -> None:
        self.found.setdefault(name, []).append(value)
        self._flush(line)

    def _flush(self, line: str | None) -> None:
        elapsed = time.perf_counter() - self.start
        self.found["elapsed_seconds"] = elapsed
        if line is not None:
            print(f"[{elapsed:6.1f} s] {line}", flush=True)
        if self.path is not None:
            write_json(self.path, self.found)

    def attempt(self, what: str, run: Callable[[], Any]) -> Any:
        """Run one measurement unless time is up; a failure is noted and the next one is tried."""
        reason = "the time for this script was used up"
        if self.has_time:
            try:
                return run()
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0].split(". ")[0]
            except Exception as error:
                # One machine-hour may be all there is: what else can be measured, is.
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}"
                self.failed = True
        self.found["problems"].append({"what": what, "reason": reason})
        self._flush(f"{what}: {reason}")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def describe(place: Place) -> dict[str, Any]:
    """The machine and the versions that the figures belong to."""
    machine = {"processor": platform.machine(), "cores": os.cpu_count()}
    if place.is_gpu:
        facts = torch.cuda.get_device_properties(place.device)
        machine |= {"gpu": facts.name, "gpu_memory_bytes": facts.total_memory}
        machine |= {"cuda": torch.version.cuda, "capability": f"{facts.major}.{facts.minor}"}
    packages = ("torch", "transformers", "peft", "triton", "numpy")
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions,
    }


def matrix_rate(place: Place, *, size: int) -> float:
    """FLOP/s of a square matrix product in the frozen weights' number format, median of ten."""
    one = torch.randn(size, size, device=place.device).to(place.dtype)
    other = torch.randn(size, size, device=place.device).to(place.dtype)
    seconds = []
    for turn in range(13):
        place.wait()
        start = time.perf_counter()
        one @ other
        place.wait()
        if turn >= 3:
            seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)


def profile_step(arm: Arm, place: Place) -> tuple[str, dict[str, float]]:
    """Return the costliest operations of a step as a table, and the step's own figures.

    A device that is busy for much less than the step takes waits for kernels to be launched.
    """
    activities = [ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if place.is_gpu:
        activities.append(ProfilerActivity.CUDA)
        key = "self_cuda_time_total"
    arm.prepare()
    arm.step()
    place.wait()
    start = time.perf_counter()
    arm.step()
    place.wait()
    facts = {"step_seconds": time.perf_counter() - start}
    with profile(activities=activities) as found:
        arm.step()
        place.wait()
    averages = found.key_averages()
    if place.is_gpu:
        # Named ranges of code also appear on the device; they overlap its kernels.
        kernels = [
            one
            for one in averages
            if one.device_type == DeviceType.CUDA and not one.is_user_annotation
        ]
        facts["device_busy_seconds"] = sum(one.self_device_time_total for one in kernels) / 1e6
        facts["launches"] = sum(one.count for one in averages if "LaunchKernel" in one.key)
    return averages.table(sort_by=key, row_limit=25, max_name_column_width=60), facts


def rate_line(entry: dict[str, Any]) -> str:
    """Rows per second, and peak memory where it is known."""
    peak = entry["peak_memory_bytes"]
    memory = "" if peak is None else f", peak {peak / GIB:.1f} GiB"
    return f"{entry['rows_per_second']:.1f} rows/s{memory}"


def print_table(found: dict[str, Any]) -> None:
    """Print the reference's configurations side by side, and what was not measured."""
    print("\n| configuration | arm | rows/s | peak, GiB | TFLOP a row | of the matrix rate |")
    print("|---|---|---|---|---|---|")
    for one in found.get("training", []):
        peak = one["peak_memory_bytes"]
        print(
            f"| {one['configuration']} | {one['arm']} | {one['rows_per_second']:.1f} "
            f"| {'-' if peak is None else format(peak / GIB, '.1f')} "
            f"| {one['flops_per_row'] / 1e12:.3g} | {one['arithmetic_used']:.0%} |"
        )
    for one in found.get("ratios", []):
        print(f"\n{one['configuration']}: {one['speed']:.1f} times the reference's rows per second")
    for one in found["problems"]:
        print(f"\nnot measured: {one['what']} ({one['reason']})")
