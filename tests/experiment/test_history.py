from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.imported import bring, posts, problems, table

from evenhand.core.errors import ConfigError, DataError
from evenhand.experiment.importing.answers import AnswerSource, read_answered
from evenhand.experiment.importing.history import read_history
from evenhand.experiment.results import open_results


def write_events(path: Path, steps: Mapping[int, Mapping[str, float]], *, arguments: Any) -> Path:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(path))
    if arguments is not None:
        text = json.dumps(arguments).encode()
        value = Summary.Value(
            tag="args/text_summary", tensor=TensorProto(dtype=7, string_val=[text])
        )
        value.metadata.plugin_data.plugin_name = "text"
        writer.add_event(Event(step=0, wall_time=1.0, summary=Summary(value=[value])))
    for step, values in steps.items():
        for tag, number in values.items():
            value = Summary.Value(tag=tag, simple_value=number)
            event = Event(step=step, wall_time=2.0 + step, summary=Summary(value=[value]))
            writer.add_event(event)
    writer.close()
    return path


def test_history_of_event_files(tmp_path: Path) -> None:
    steps = {
        5: {"train/loss": 2.0, "train/learning_rate": 0.001, "train/epoch": 0.5},
        10: {"eval/loss": 1.5, "train/epoch": 1.0},
        20: {"eval/loss": 1.75, "train/epoch": 2.0},
    }
    arguments = {
        "num_train_epochs": 2.0, "per_device_train_batch_size": 4, "warmup_steps": 0,
        "gradient_accumulation_steps": 1, "load_best_model_at_end": True,
        "metric_for_best_model": "loss", "greater_is_better": False, "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }  # fmt: skip
    write_events(tmp_path / "runs" / "one", steps, arguments=arguments)
    past = read_history(tmp_path)
    assert [line.get("eval_loss") for line in past.lines] == [None, 1.5, 1.75]
    assert past.training["best_checkpoint"] == "checkpoint-10"
    assert past.training["total_steps"] == 20
    assert past.training["final_eval_loss"] == 1.75
    assert [one["relative_improvement"] for one in past.training["checkpoints"]] == [
        None,
        pytest.approx(-1 / 6),
    ]
    # Rows, and with them processes, are not proved by these files.
    assert {"rows", "processes", "runtime_seconds"}.isdisjoint(past.training)
    assert past.config["num_train_epochs"] == 2.0
    write_events(tmp_path / "runs" / "two", steps, arguments=arguments)
    with pytest.raises(DataError) as caught:
        read_history(tmp_path)
    assert "events of 2 trainings" in problems(caught.value)["--history"]


def test_trainer_state_goes_before_events(tmp_path: Path) -> None:
    state = {
        "best_model_checkpoint": "out/checkpoint-8", "epoch": 1.6, "global_step": 16,
        "max_steps": 20, "num_train_epochs": 2, "total_flos": 12.0,
        "log_history": [
            {"epoch": 0.8, "step": 8, "eval_loss": 0.5},
            {"epoch": 1.6, "step": 16, "eval_loss": 0.6},
        ],
    }  # fmt: skip
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    past = read_history(tmp_path)
    assert past.training["best_checkpoint"] == "checkpoint-8"
    assert past.training["stopped_early"] is True
    assert (past.training["total_steps"], past.training["final_epoch"]) == (20, 1.6)
    assert "warmup_steps" not in past.training


def test_folders_without_a_history(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing was imported"):
        read_history(tmp_path)
    (tmp_path / "all_results.json").write_text("{")
    (tmp_path / "adapter_config.json").write_text("[]")
    (tmp_path / "events.out.tfevents.1").write_text("no events")
    with pytest.raises(DataError) as caught:
        read_history(tmp_path)
    assert set(problems(caught.value)) == {
        "all_results.json",
        "adapter_config.json",
        "events.out.tfevents.1",
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    rows=st.integers(50, 100_000),
    batch=st.sampled_from([1, 2, 4, 8]),
    processes=st.integers(1, 8),
    accumulation=st.sampled_from([1, 2, 4, 8]),
    runtime=st.floats(100.0, 5000.0),
    epochs=st.integers(1, 5),
)
def test_what_follows_from_rates_is_never_wrong(
    tmp_path: Path, rows: int, batch: int, processes: int, accumulation: int, runtime: float,
    epochs: int,
) -> None:  # fmt: skip
    """Rows and processes are either the true ones or not given."""
    batches = math.ceil(rows / (batch * processes))
    steps = math.ceil(batches / accumulation)
    runtime = round(runtime, 4)
    results = {"train_runtime": runtime, "epoch": float(epochs)}
    results["train_samples_per_second"] = round(rows * epochs / runtime, 3)
    state = {
        "num_train_epochs": epochs, "max_steps": steps * epochs, "global_step": steps * epochs,
        "epoch": float(epochs),
        "log_history": [{"step": steps, "epoch": 1.0, "eval_loss": 1.0}],
    }  # fmt: skip
    (tmp_path / "all_results.json").write_text(json.dumps(results))
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    (tmp_path / "runs").mkdir(exist_ok=True)
    for old in (tmp_path / "runs").iterdir():
        old.unlink()
    write_events(tmp_path / "runs", {}, arguments=arguments)
    past = read_history(tmp_path)
    assert past.training.get("rows", rows) == rows
    assert past.training.get("processes", processes) == processes
    assert past.training["steps_per_epoch"] == steps


def adapter(folder: Path, **changes: Any) -> Path:
    document = {
        "base_model_name_or_path": "openai/gpt-oss-20b", "r": 64, "lora_alpha": 64, "bias": "none",
        "lora_dropout": 0.05, "target_modules": ["v_proj", "q_proj", "k_proj"], **changes,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(document))
    return folder


def test_parameters_are_counted_from_the_adapter_alone(tmp_path: Path) -> None:
    made = bring(
        table(tmp_path / "p.csv", posts()),
        tmp_path / "run",
        history=adapter(tmp_path / "trained"),
        stated=(("trainable_parameters", "23,887,872"),),
    )
    claim = made.stated["trainable_parameters"]
    assert (claim["status"], claim["found"]) == ("contradicted", 21_135_360)
    results = open_results(tmp_path / "run")
    assert results.config is not None and results.config["lora_r"] == 64
    document = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert document["provenance"]["lora_r"] == "adapter_config.json"


def test_an_unknown_architecture_is_no_obstacle(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "trained", base_model_name_or_path="nobodys-model")
    made = bring(table(tmp_path / "p.csv", posts()), tmp_path / "run", history=folder)
    assert any("nobodys-model were not counted" in line for line in made.warnings)
    assert open_results(tmp_path / "run").training is None


def test_a_configuration_that_the_adapter_contradicts_is_refused(
    tmp_path: Path, project_root: Path
) -> None:
    path = table(tmp_path / "p.csv", posts())
    folder = adapter(tmp_path / "trained", r=16)
    config = project_root / "configs" / "k_proj_full_capacity.json"
    with pytest.raises(ConfigError) as caught:
        bring(path, tmp_path / "run", history=folder, config=config)
    assert "is 64, but 16 in adapter_config.json" in problems(caught.value)["lora_r"]
    assert not (tmp_path / "run").exists()
    made = bring(path, tmp_path / "run", config=config, history=adapter(tmp_path / "trained"))
    assert not made.warnings


def test_a_second_configuration_is_refused(tmp_path: Path, project_root: Path) -> None:
    path = table(tmp_path / "p.csv", posts())
    configs = project_root / "configs"
    bring(path, tmp_path / "run", config=configs / "default.json")
    bring(path, tmp_path / "run", name="again", config=configs / "default.json")
    with pytest.raises(ConfigError) as caught:
        bring(path, tmp_path / "run", name="third", config=configs / "high_capacity.json")
    assert "is not what the run was first imported with" in problems(caught.value)["--config"]


def test_read_answered_says_what_it_did(tmp_path: Path) -> None:
    source = AnswerSource(predictions=table(tmp_path / "p.csv", posts()))
    answered = read_answered(source, name="test")
    assert answered.facts["columns"]["label"] == ["label"]
    assert answered.facts["matching"] is None and answered.facts["responses"] is None
