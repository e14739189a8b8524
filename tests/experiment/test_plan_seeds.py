"""An experiment with several seeds: what is trained, continued, judged and compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import edit_json, write_experiment

from evenhand.config.load import load_experiment
from evenhand.core.errors import ConfigError
from evenhand.experiment.plan import plan_experiment

PHASES = (
    {"name": "plain"},
    {"name": "weighed", "config": {"row_weights": "group_label"}},
    {"name": "on", "config": {"num_train_epochs": 2}, "continue_from": "plain"},
)
ACCEPTANCE = {"set": "test", "groups": ["lgbtq"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    from evenhand.cli.main import run

    folder = tmp_path_factory.mktemp("seeds")
    path = write_experiment(
        folder,
        tiny_llama,
        phases=PHASES,
        seeds=[1, 2],
        control="plain",
        acceptance=ACCEPTANCE,
    )
    assert run(["run", str(path), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_each_phase_is_trained_once_with_each_seed(made: Path) -> None:
    runs = {path.name for path in (made / "runs").iterdir()}
    names = ("plain", "weighed", "on")
    assert runs == {f"{name}-seed{seed}" for name in names for seed in (1, 2)}
    for name in runs:
        manifest = json.loads((made / "runs" / name / "manifest.json").read_text())
        assert manifest["seeds"] == {"seed": int(name[-1])}


def test_a_child_continues_its_own_seed_s_parent(made: Path) -> None:
    for seed in (1, 2):
        config = json.loads((made / "runs" / f"on-seed{seed}" / "config.json").read_text())
        assert f"plain-seed{seed}" in config["config"]["init_adapter"]
        assert config["provenance"]["seed"] == "experiment seeds"


def test_one_of_them_is_chosen_and_judged(made: Path) -> None:
    decided = [path.name for path in (made / "runs").iterdir() if (path / "gate.json").is_file()]
    assert len(decided) == 1
    assert (made / "runs" / decided[0] / "evaluations" / "production").is_dir()
    audit = json.loads((made / "audit.json").read_text())
    assert audit["checks"]


def test_treated_phases_are_held_against_the_control(made: Path) -> None:
    found = json.loads((made / "acceptance.json").read_text())
    assert found
    assert all("plain" in json.dumps(one["control"]) for one in found)
    assert "weighed" in json.dumps([one["treated"] for one in found])


def test_without_acceptance_the_record_goes(tiny_llama: Path, tmp_path: Path, cli: RunCli) -> None:
    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "plain"}])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "acceptance.json").write_text("[]")
    assert cli("run", path, "--out", tmp_path / "out").exit_code == 0
    assert not (tmp_path / "out" / "acceptance.json").exists()


def test_problems_are_told_once_and_at_the_phase_in_the_file(
    tmp_path: Path, tiny_llama: Path
) -> None:
    path = write_experiment(
        tmp_path,
        tiny_llama,
        phases=[{"name": "one"}, {"name": "two", "config": {"lora_target_modules": ["q_prj"]}}],
        seeds=[1, 2, 3],
    )
    with pytest.raises(ConfigError) as caught:
        plan_experiment(load_experiment(path))
    assert [one.place for one in caught.value.problems] == ["phases[1].lora_target_modules"]


def test_preflight_looks_at_each_phase_once(tmp_path: Path, tiny_llama: Path, cli: RunCli) -> None:
    path = write_experiment(tmp_path, tiny_llama)
    edit_json(path, seeds=[1, 2])
    done = cli("preflight", path, "--steps", "0", "--json")
    assert [one["name"] for one in json.loads(done.stdout)["phases"]] == ["small", "large"]
