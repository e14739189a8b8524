from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import write_phase


@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        ("default", 7_962_624),
        ("high_capacity", 15_925_248),
        ("k_proj_full_capacity", 21_135_360),
    ],
)
def test_the_reference_s_three_configurations(
    name: str, trainable: int, project_root: Path, cli: RunCli
) -> None:
    done = cli("params", project_root / "configs" / f"{name}.json", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["trainable"], found["total"]) == (trainable, 20_914_757_184)
    assert found["percent"] == pytest.approx(100 * trainable / 20_914_757_184)


def test_a_model_folder_and_overrides(tmp_path: Path, tiny_llama: Path, cli: RunCli) -> None:
    path = write_phase(tmp_path, tiny_llama)
    small = json.loads(cli("params", path, "--json").stdout)
    large = json.loads(cli("params", path, "--json", "--set", "lora_r=8").stdout)
    assert large["trainable"] == 2 * small["trainable"]
    full = json.loads(cli("params", path, "--json", "--set", "tuning=full").stdout)
    assert full["trainable"] == full["total"] == small["total"]
    assert f"trainable  {small['trainable']:>16,}" in cli("params", path).stdout


def test_a_model_in_the_home_folder(
    tmp_path: Path, tiny_llama: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_llama.parent))
    path = write_phase(tmp_path, tiny_llama)
    done = cli("params", path, "--json", "--set", f"model_name_or_path=~/{tiny_llama.name}")
    assert json.loads(done.stdout) == json.loads(cli("params", path, "--json").stdout)


def test_every_shipped_phase_is_counted_without_a_hub(project_root: Path, cli: RunCli) -> None:
    for path in sorted((project_root / "configs").glob("**/*.json")):
        if "experiments" not in path.parts:
            done = cli("params", path, "--json")
            assert done.exit_code == 0, f"{path}: {done.stderr}"


def test_mistakes_name_the_place(tmp_path: Path, tiny_llama: Path, cli: RunCli) -> None:
    path = write_phase(tmp_path, tiny_llama, lora_target_modules=["qproj"])
    done = cli("params", path)
    assert done.exit_code == 2
    assert 'did you mean "q_proj"?' in done.stderr
