from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import RunCli

from evenhand.cli.demo import write_demo
from evenhand.config.load import load_experiment
from evenhand.data.sources import read_dataset
from evenhand.experiment.runner import run_experiment


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo"))


def test_three_phases_that_train_on_enough(demo: Path) -> None:
    experiment = load_experiment(demo)
    assert len(experiment.phases) == 3
    for phase in experiment.phases:
        assert (phase.config.max_train_rows or 0) >= 192
        assert phase.config.num_train_epochs == 2
        assert phase.config.model_name_or_path == "smollm2-135m"
    assert len({phase.config.model_dump_json() for phase in experiment.phases}) == 3
    assert [one.role for one in experiment.sets] == ["train", "validation", "test", "production"]


def test_evaluation_is_on_templates_that_were_not_trained_on(demo: Path) -> None:
    rows = {path.stem: read_dataset(path).rows for path in (demo.parent / "data").iterdir()}
    templates = {name: {row.cluster for row in found} for name, found in rows.items()}
    assert None not in templates["train"]
    for name in ("validation", "test", "production"):
        assert not templates["train"] & templates[name]
        assert {row.label for row in rows[name]} == {"hate", "normal"}
        assert len({group for row in rows[name] for group in row.groups}) >= 3
    assert not templates["validation"] & (templates["test"] | templates["production"])
    assert not {row.text for row in rows["test"]} & {row.text for row in rows["production"]}


def test_it_runs_through(demo: Path, tiny_llama: Path, tmp_path: Path) -> None:
    changes = {
        "model_name_or_path": str(tiny_llama),
        "num_train_epochs": 0.1,
        "max_seq_length": 256,
    }
    overrides = [f"phases.*.{key}={json.dumps(value)}" for key, value in changes.items()]
    overrides += [f"sets.{name}.max_rows=40" for name in ("validation", "test", "production")]
    result = run_experiment(load_experiment(demo, overrides=overrides), tmp_path / "out")
    assert {one.phase.name for one in result.phases} == {"default", "high_capacity", "k_proj"}
    assert [len(one.evaluations) for one in result.phases].count(3) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo(tmp_path: Path, cli: RunCli) -> None:
    done = cli("demo", "--out", tmp_path / "demo")
    assert done.exit_code == 0, done.stderr
    assert f"summary: {tmp_path / 'demo' / 'summary.md'}" in done.stdout
    comparison = json.loads((tmp_path / "demo" / "comparison.json").read_text())
    for phase in comparison["phases"].values():
        assert phase["training"]["rows"] >= 192
        assert phase["training"]["final_epoch"] == 2
    assert set(comparison["sets"]) == {"validation", "test", "production"}
