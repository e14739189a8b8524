"""The gpt-oss benchmark runs end to end at toy size, and its arithmetic is PyTorch's own count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evenhand.config.schema import PhaseConfig

CONFIGURATIONS = ["default", "high_capacity", "k_proj_full_capacity"]


@pytest.fixture
def scripts(project_root: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The benchmark's modules, which import each other by name."""
    monkeypatch.syspath_prepend(str(project_root / "benchmarks"))
    import gptoss_arithmetic
    import gptoss_arms
    import gptoss_gpu

    return SimpleNamespace(arithmetic=gptoss_arithmetic, arms=gptoss_arms, gpu=gptoss_gpu)


def test_the_toy_measures_every_part(project_root: Path, tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    script = project_root / "benchmarks" / "gptoss_gpu.py"
    done = subprocess.run(
        [sys.executable, script, "--toy", "--json", target, "--repeats", "1", "--profile"],
        env={**os.environ, "PYTHONPATH": str(project_root / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(target.read_text("utf-8"))
    assert found["is_toy"]
    assert found["problems"] == []
    assert {"date", "machine", "versions", "matrix_rate", "model", "profile"} <= set(found)
    assert len(found["parity"]) == 2
    assert all(one["passed"] and one["gradient"] < 1e-4 for one in found["parity"])
    arms = [(one["configuration"], one["arm"]) for one in found["training"]]
    assert arms == [(name, arm) for name in CONFIGURATIONS for arm in ("ours", "reference")]
    assert [one["configuration"] for one in found["ratios"]] == CONFIGURATIONS
    assert [one["rows"] for one in found["sweep"]] == [4, 8]
    assert [one["experts"] for one in found["experts"]] == ["grouped_mm", "eager"]
    assert [one["precision"] for one in found["precision"]] == ["highest", "high"]
    assert len(found["scoring"]) == 2
    sections = ("training", "sweep", "experts", "precision", "scoring")
    for one in (entry for section in sections for entry in found[section]):
        assert one["rows_per_second"] > 0
        assert 0 < one["arithmetic_used"] < 2
        assert one["peak_memory_bytes"] is None  # nothing counts it on a CPU
    assert "| default | ours |" in done.stdout


def test_time_that_is_used_up_is_said(tmp_path: Path, scripts: SimpleNamespace) -> None:
    results = scripts.gpu.Results(tmp_path / "results.json", seconds=0.0)
    assert results.attempt("a measurement", lambda: pytest.fail("it ran")) is None
    written = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert written["problems"][0]["what"] == "a measurement"


def test_a_failure_leaves_the_other_measurements(scripts: SimpleNamespace) -> None:
    def break_down() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. More text")

    results = scripts.gpu.Results(None, seconds=60.0)
    assert results.attempt("large packs", break_down) is None
    assert not results.failed
    assert results.found["problems"] == [{"what": "large packs", "reason": "CUDA out of memory"}]
    assert results.attempt("the next", lambda: 7) == 7
    assert results.attempt("a mistake", lambda: 1 / 0) is None
    assert results.failed


def test_lengths_are_those_of_the_real_file(scripts: SimpleNamespace) -> None:
    lengths = scripts.arithmetic.REAL
    drawn = lengths.draw(2048, np.random.default_rng(0))
    assert np.mean(drawn) == pytest.approx(23, abs=0.5)
    assert np.median(drawn) == 21
    assert np.percentile(drawn, 95) == pytest.approx(51, abs=1)
    assert max(drawn) <= 287
    assert lengths.mean_text() == pytest.approx(np.mean(drawn), abs=0.1)


def test_active_parameters_are_the_published_ones(scripts: SimpleNamespace) -> None:
    path = Path(scripts.gpu.PROJECT) / "src" / "evenhand" / "finetune" / "architectures.json"
    settings = SimpleNamespace(**json.loads(path.read_text("utf-8"))[scripts.gpu.NAME])
    # The model card: 3.6 billion of 20.9 billion.
    assert scripts.arithmetic.active_parameters(settings) == pytest.approx(3.6e9, rel=0.01)


@pytest.fixture
def stepper(scripts: SimpleNamespace) -> Any:
    """A toy model with looped experts, an adapter on q, k and v, and an optimizer."""
    place = scripts.arms.Place(torch.device("cpu"), torch.float32)
    model = scripts.arms.build_model(scripts.gpu.TOY_SETTINGS, place)
    model.set_experts_implementation("eager")
    phase = PhaseConfig(
        lora_r=4, lora_target_modules=("q_proj", "k_proj", "v_proj"), lora_dropout=0.1
    )
    with scripts.arms.adapted(model, phase) as tuned:
        yield scripts.arms.Stepper(model, tuned, phase, place)


def count_flops(arm: Any) -> dict[str, int]:
    arm.prepare()
    with FlopCounterMode(display=False) as counter:
        arm.step()
    return {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}


def matrices(counts: dict[str, int]) -> int:
    return counts["aten.mm"] + counts["aten.addmm"]


@pytest.mark.parametrize("again", [False, True])
def test_arithmetic_of_a_pack_is_counted_right(
    scripts: SimpleNamespace, stepper: Any, again: bool
) -> None:
    lengths, rng = scripts.arithmetic.TOY, np.random.default_rng(0)
    encoder = scripts.arms.make_encoder(lengths, vocabulary=512, rng=rng)
    rows = scripts.arms.make_rows([3, 9, 5], encoder, vocabulary=512, rng=rng)
    arm = scripts.arms.Ours(stepper, rows, encoder, scripts.arms.Packing(3, again))
    work = scripts.arithmetic.tree_work(
        stepper.model.config, lengths, arm.texts, stepper.adapter, again=again
    )
    expected = work.linear + work.adapter + work.logits
    assert matrices(count_flops(arm)) == pytest.approx(expected, rel=1e-12)


def test_arithmetic_of_the_reference_is_counted_right(
    scripts: SimpleNamespace, stepper: Any
) -> None:
    lengths, rng = scripts.arithmetic.TOY, np.random.default_rng(0)
    arm = scripts.arms.Reference(stepper, [3, 9], lengths, micro_rows=2, rng=rng)
    work = scripts.arithmetic.padded_work(
        stepper.model.config, rows=2, length=lengths.padded, adapter=stepper.adapter
    )
    counts = count_flops(arm)
    assert matrices(counts) == pytest.approx(work.linear + work.adapter + work.logits, rel=1e-12)
    assert counts["aten.bmm"] == work.attention


def test_the_reference_sees_its_padding_and_takes_no_loss_from_it(
    scripts: SimpleNamespace, stepper: Any
) -> None:
    lengths, rng = scripts.arithmetic.TOY, np.random.default_rng(0)
    arm = scripts.arms.Reference(stepper, [3, 9], lengths, micro_rows=1, rng=rng)
    arm.prepare()
    first = arm.step()
    assert first == pytest.approx(np.log(512), rel=0.05)  # random weights: as good as guessing
    assert arm.mask.sum(dim=1).tolist() == [lengths.chat + 3, lengths.chat + 9]


def test_steps_of_ours_do_not_depend_on_the_pack(scripts: SimpleNamespace, stepper: Any) -> None:
    lengths, rng = scripts.arithmetic.TOY, np.random.default_rng(0)
    encoder = scripts.arms.make_encoder(lengths, vocabulary=512, rng=rng)
    rows = scripts.arms.make_rows([3, 9, 5, 2], encoder, vocabulary=512, rng=rng)
    stepper.tuned.eval()  # dropout differs from pack to pack
    losses = []
    for size in (2, 4):
        arm = scripts.arms.Ours(stepper, rows, encoder, scripts.arms.Packing(size))
        arm.prepare()
        losses.append(sum(one.item() for one in arm._losses()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
