"""The scripts of benchmarks/ run from end to end at toy size, and their arms agree."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.finetune.conftest import save_model

from evenhand.finetune import devices

PROJECT = Path(__file__).resolve().parent.parent
PROMPT = {
    "strategies": {
        "toy": {
            "system_prompt": "You read posts.",
            "user_template": "Post: {text}\nanswer",
            "parameters": {"max_tokens": 3, "temperature": 0.5, "top_p": 1.0},
        }
    }
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for a tiny random model, the starter corpus and a short prompt of its own."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "prompt.json").write_text(json.dumps(PROMPT), encoding="utf-8")
    model = save_model("llama", folder / "llama")
    prompt = ["--prompt", "reference", "--prompt-file", str(folder / "prompt.json")]
    return ["--model", str(model), "--data", "", "--strategy", "toy", *prompt]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """``load("scoring")``: a script of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    monkeypatch.setenv("EVENHAND_QUIET", "1")
    arithmetic = importlib.import_module("arithmetic")
    monkeypatch.setattr(arithmetic, "_SHAPES", ((64, 64, 64),))
    return importlib.import_module


@pytest.fixture
def run(
    load: Callable[[str], ModuleType], toy: list[str], capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """``run("scoring", "--json")``: what a script prints, its arms measured in this process."""

    def run_script(name: str, *options: str) -> str:
        module = load(name)
        capfd.readouterr()
        if hasattr(module, "ARMS"):
            start = load("side_by_side").in_this_process
            module.main([*toy, "--repeats", "1", *options], start=start)
        else:
            module.main([*toy, *options])
        return capfd.readouterr().out

    return run_script


def by_arm(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["arm"]: one for one in report["results"]}


def _correlation(left: list[float], right: list[float]) -> float:
    return float(np.corrcoef(left, right)[0, 1])


def test_scoring_arms_agree(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Rounding in bfloat16, where a machine is fast in it, is more than the arms may differ by.
    monkeypatch.setattr(devices, "probe_bf16", lambda _: (False, "tested in float32"))
    report = json.loads(
        run("scoring", "--rows", "32", "--arms", "ours,padded,generation", "--json")
    )
    arms = by_arm(report)
    assert arms["padded"]["agreement"]["rows"] == 32
    assert arms["padded"]["agreement"]["largest_difference"] < 1e-5
    assert arms["padded"]["runs"][0]["tokens"] > arms["ours"]["runs"][0]["tokens"]
    assert arms["generation"]["runs"][0]["tokens_written_per_row"] <= 3
    for one in arms.values():
        assert one["rows_per_s"]["low"] <= one["rows_per_s"]["median"] <= one["rows_per_s"]["high"]
        assert one["peak_bytes"]["median"] > 1e7
    assert "scores" not in json.dumps(report)
    assert report["machine"]["float32_flops"] > 1e8


def test_training_arms_and_their_table(run: Callable[..., str]) -> None:
    printed = run("training", "--rows", "16", "--arms", "ours,reference")
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    header, first, second = lines
    assert header.startswith("| prompt | arm | rows/s | ours is faster by")
    assert first.startswith("| reference | ours |")
    assert "x" in second.split("|")[4]


def test_training_with_trl(run: Callable[..., str]) -> None:
    pytest.importorskip("trl")
    report = json.loads(run("training", "--rows", "16", "--arms", "ours,trl_4x4", "--json"))
    arms = by_arm(report)
    assert arms["trl_4x4"]["runs"][0]["rows"] == arms["ours"]["runs"][0]["rows"] == 16
    assert arms["trl_4x4"]["runs"][0]["tokens"] > arms["ours"]["runs"][0]["tokens"]
    assert report["versions"]["trl"]


def test_quality_of_training(run: Callable[..., str]) -> None:
    pytest.importorskip("trl")
    sizes = ("--quality-rows", "32", "--quality-validation-rows", "24")
    report = json.loads(run("training", "--quality", *sizes, "--json"))
    assert [one["arm"] for one in report["quality"]] == ["ours", "trl"]
    for one in report["quality"]:
        assert 0 <= one["roc_auc"] <= 1
        assert one["rows"] == 32


def test_batch_composition(run: Callable[..., str]) -> None:
    report = json.loads(run("batch_composition", "--rows", "20", "--budgets", "64,512", "--json"))
    single, half = report["results"]
    assert (single["number_format"], half["number_format"]) == ("float32", "bfloat16")
    assert len(single["ways"]) == 4
    assert single["largest_change"] < 1e-5
    assert single["largest_change"] <= half["largest_change"]
    assert single["rows_that_ever_flip"] <= 20


@pytest.mark.slow
def test_llama_cpp_decodes_rows_alone_and_together_alike(
    load: Callable[[str], ModuleType], toy: list[str]
) -> None:
    pytest.importorskip("llama_cpp")
    side_by_side, scoring = load("side_by_side"), load("scoring")
    options = side_by_side.work_parser("", rows=8).parse_args(toy)
    options.model = "smollm2-135m"
    work = side_by_side.workload(options, "reference")
    peers = load("peers_scoring")
    alone, together = (peers.measure_llama_cpp(work, together=many) for many in (1, 8))
    # Activations are rounded to 8 bits, which a batch of another shape may do differently.
    assert _correlation(alone["scores"], together["scores"]) > 0.9
    ours = scoring.measure_ours(work)
    assert _correlation(ours["scores"], alone["scores"]) > 0.9


def test_an_arm_runs_in_a_process_of_its_own(
    load: Callable[[str], ModuleType], toy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    side_by_side, scoring = load("side_by_side"), load("scoring")
    monkeypatch.setattr("sys.argv", [str(PROJECT / "benchmarks/scoring.py")])
    options = side_by_side.work_parser("", rows=4).parse_args(toy)
    work = side_by_side.workload(options, "reference")
    found = side_by_side.in_subprocess(scoring.ARMS, side_by_side.RATES, work)
    assert found["float32_flops"] > 1e8
    assert found["peak_bytes"] > 1e7


def test_arithmetic_counts_what_a_model_computes(
    load: Callable[[str], ModuleType], toy: list[str]
) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    arithmetic = load("arithmetic")
    model = AutoModelForCausalLM.from_pretrained(toy[1], attn_implementation="eager")
    ids = torch.arange(20)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, logits_to_keep=5, use_cache=False)
    # Eager attention computes every pair, the ones that the mask hides too.
    counted = arithmetic.Shape.of(model).forward([arithmetic.Span(0, 20)], logits=5)
    hidden = 4 * arithmetic.Shape.of(model).attention * (20 * 20 - 20 * 21 // 2)
    rotations = counter.get_total_flops() - counted - hidden
    assert 0 <= rotations < 0.02 * counted


def test_rows_end_to_end_do_not_see_each_other(toy: list[str]) -> None:
    """What lets TRL's padding-free arm be compared: transformers masks by restarted positions."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(toy[1], attn_implementation="sdpa").eval()
    first, second = torch.arange(5, 12), torch.arange(30, 41)
    places = torch.cat([torch.arange(len(first)), torch.arange(len(second))])[None]
    with torch.inference_mode():
        packed = model(torch.cat([first, second])[None], position_ids=places, use_cache=False)
        alone = model(second[None], use_cache=False).logits
    torch.testing.assert_close(packed.logits[:, len(first) :], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["unknown", "ours,unknown"])
def test_unknown_arms_are_refused(
    load: Callable[[str], ModuleType], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        load("scoring").main(["--arms", name])
    assert "unknown arms" in capsys.readouterr().err
