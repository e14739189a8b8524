"""``evenhand export`` as a user calls it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.experiment.released import edit, flip_byte, make_gated_run
from tests.tiny_experiments import make_posts, write_csv, write_phase

from evenhand.finetune import export


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    return make_gated_run(tmp_path_factory.mktemp("gated"), tiny_llama)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "small")
    return tmp_path / "small"


def test_a_merged_model_with_its_records_and_card(run: Path, tmp_path: Path, cli: RunCli) -> None:
    out = tmp_path / "llama"
    done = cli("export", run, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((out / "export.json").read_text())
    assert document["verified"]["max_difference"] <= 1e-4
    for name in ("threshold.json", "gate.json", "deployment.json"):
        assert (out / name).read_bytes() == (run / name).read_bytes()
    card = (out / "README.md").read_text()
    assert card.startswith('---\nbase_model: "llama"\n')
    threshold = json.loads((run / "threshold.json").read_text())["value"]
    production = json.loads((run / "gate.json").read_text())["results"][1]["measured"]
    for part in (
        "PASS WITH CONDITIONS",
        "owner: safety",
        f"at least {threshold!r}",
        "lgbtq",
        "12 of 12",
        "is not recorded",
        "`hate<|im_end|>` and `normal<|im_end|>`",
        f"| F1 | {production['value']:.4f} | [{production['low']:.3f}, {production['high']:.3f}] |",
    ):
        assert part in card, part
    assert str(tmp_path) not in card
    assert "/llama" not in card

    # The folder is a model like any other, for a run without tuning.
    phase = write_phase(
        tmp_path / "again",
        out,
        tuning="none",
        lora_r=None,
        lora_alpha=None,
        lora_target_modules=None,
        prompt_file=None,
    )
    assert cli("train", phase, "--out", tmp_path / "again" / "run").exit_code == 0
    data = write_csv(tmp_path / "test.csv", make_posts(12, seed=30))
    scores = []
    for folder in (run, tmp_path / "again" / "run"):
        told = cli("evaluate", folder, "--data", data, "--name", "same", "--json")
        assert told.exit_code == 0, told.stderr
        scores.append(json.loads(told.stdout)["metrics"]["brier"]["value"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_an_adapter_and_what_it_is_said_to_be(run: Path, tmp_path: Path, cli: RunCli) -> None:
    done = cli("export", run, "--out", tmp_path / "out", "--form", "adapter")
    assert done.exit_code == 0, done.stderr
    assert "differs by at most 0 (allowed 0.0001)" in done.stdout
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'base_model_relation: "adapter"' in card
    assert not (tmp_path / "out" / "config.json").exists()


def test_what_does_not_hold_is_left_out(run: Path, tmp_path: Path, cli: RunCli) -> None:
    edit("threshold.json", lambda document: document.update(value=0.9))(run)
    done = cli("export", run, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "left out" in done.stderr
    assert not (tmp_path / "out" / "gate.json").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "it is not approved for use" in card
    assert "Left out, since it does not hold" in card


def test_a_changed_model_is_not_exported(run: Path, tmp_path: Path, cli: RunCli) -> None:
    flip_byte(run / "adapter" / "adapter_model.safetensors")
    done = cli("export", run, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "adapter_changed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_files_that_score_otherwise_leave_nothing_behind(
    run: Path, tmp_path: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export._write_merged

    def broken(*args: object) -> str:
        dtype = write(*args)  # pyright: ignore[reportArgumentType]
        flip_byte(Path(str(args[2])) / "model.safetensors", at=-2, bit=0x40)
        return dtype

    monkeypatch.setattr(export, "_write_merged", broken)
    done = cli("export", run, "--out", tmp_path / "out")
    assert done.exit_code != 0
    assert "nothing was written" in done.stderr or "not a number" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["small"]


def test_a_folder_with_content_is_left_alone(run: Path, tmp_path: Path, cli: RunCli) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    done = cli("export", run, "--out", tmp_path / "out")
    assert (done.exit_code, (tmp_path / "out" / "mine").read_text()) == (2, "x")
    missing = cli("export", tmp_path / "none", "--out", tmp_path / "other")
    assert missing.exit_code == 2
    assert "is not a run folder" in missing.stderr


def test_an_adapter_is_asked_of_a_run_without_one(
    tmp_path: Path, tiny_llama: Path, cli: RunCli
) -> None:
    none = dict.fromkeys(("lora_r", "lora_alpha", "lora_target_modules"))
    phase = write_phase(tmp_path, tiny_llama, tuning="full", **none)
    assert cli("train", phase, "--out", tmp_path / "run").exit_code == 0
    done = cli("export", tmp_path / "run", "--out", tmp_path / "out", "--form", "adapter")
    assert done.exit_code == 2
    assert "use merged" in done.stderr
    assert cli("export", tmp_path / "run", "--out", tmp_path / "out").exit_code == 0
    assert "fully fine-tuned" in (tmp_path / "out" / "README.md").read_text()
