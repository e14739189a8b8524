"""``evenhand run`` on tiny experiments: what is done, what is done again, and what is told."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import edit_json, make_posts, write_csv, write_experiment

from evenhand.core.evaluation import read_evaluation
from evenhand.core.paths import sha256_file
from evenhand.core.predictions import read_predictions
from evenhand.experiment import results, stages

Calls = list[tuple[str, str]]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def adapter_of(out: Path, phase: str) -> str:
    return sha256_file(out / "runs" / phase / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What was trained and scored, as ("train", phase) and ("score", set)."""
    made: Calls = []
    train, predict = stages.train_phase, stages._predict

    def train_phase(*args: Any, run: Path, **options: Any) -> Any:
        made.append(("train", run.name))
        return train(*args, run=run, **options)

    def score(classifier: Any, data: Any, **options: Any) -> Any:
        made.append(("score", data.name))
        return predict(classifier, data, **options)

    monkeypatch.setattr(stages, "train_phase", train_phase)
    monkeypatch.setattr(stages, "_predict", score)
    return made


class TestAWholeExperiment:
    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
        from evenhand.cli.main import run

        folder = tmp_path_factory.mktemp("whole")
        phases = [
            {"name": "small", "hypothesis": "Rank 4 is enough."},
            {"name": "large", "config": {"lora_r": 8}},
            {"name": "base", "config": {"tuning": "none"}},
        ]
        path = write_experiment(folder, tiny_llama, phases=phases)
        assert run(["run", str(path), "--out", str(folder / "out")]) == 0
        return folder / "out"

    def test_the_files(self, made: Path) -> None:
        assert {one.name for one in made.iterdir() if one.name != ".lock"} == {
            *("audit.json", "comparison.json", "figures", "production.json", "runs"),
            *("summary.html", "summary.md"),
        }
        for phase in ("small", "large", "base"):
            names = {one.name for one in (made / "runs" / phase / "evaluations").iterdir()}
            assert {"validation", "test"} <= names
            assert "train" not in names

    def test_the_best_on_validation_is_chosen(self, made: Path) -> None:
        comparison = read(made / "comparison.json")
        values = {
            phase: read_evaluation(
                made / "runs" / phase / "evaluations" / "validation" / "evaluation.json"
            ).metrics.f1.value
            for phase in ("small", "large", "base")
        }
        assert comparison["selection"]["values"] == values
        best = max(value for value in values.values() if value is not None)
        assert values[comparison["selection"]["chosen"]] == best

    def test_production_is_for_the_chosen_phase_and_counted(self, made: Path) -> None:
        chosen = read(made / "comparison.json")["selection"]["chosen"]
        touched = [one.parent.parent.name for one in made.glob("runs/*/evaluations/production")]
        assert touched == [chosen]
        (use,) = read(made / "production.json")
        manifest = read(made / "runs" / chosen / "manifest.json")
        assert (use["set"], use["phase"]) == ("production", chosen)
        assert use["run"] == manifest["inputs_sha256"]
        summary = (made / "summary.md").read_text()
        assert "production was used once, for the chosen phase" in summary

    def test_a_look_by_evaluate_is_counted_too(
        self, made: Path, tmp_path: Path, cli: RunCli
    ) -> None:
        shutil.copytree(made, tmp_path / "copy")
        chosen = read(made / "comparison.json")["selection"]["chosen"]
        other = next(one for one in (tmp_path / "copy/runs").iterdir() if one.name != chosen)
        production = made.parent / "production.csv"
        done = cli("evaluate", other, "--data", production, "--name", "peek")
        assert done.exit_code == 0, done.stderr
        assert "peek was used for 2 models" in done.stderr
        assert len(read(tmp_path / "copy" / "production.json")) == 2

    def test_the_summary_names_what_learned_nothing(self, made: Path) -> None:
        comparison = read(made / "comparison.json")
        found = comparison["sets"]["validation"]["phases"]
        assert found["base"]["learned_nothing"]
        assert "not shown to beat chance" in (made / "summary.md").read_text()
        assert "Rank 4 is enough." in (made / "summary.md").read_text()

    def test_baselines_are_beside_the_model(self, made: Path) -> None:
        baselines = read(made / "comparison.json")["sets"]["test"]["baselines"]
        assert {"always_hate", "always_normal", "tfidf_logreg"} <= set(baselines)

    def test_a_second_run_does_nothing(
        self, made: Path, calls: Calls, cli: RunCli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {one: one.stat().st_mtime_ns for one in (made / "runs").rglob("*")}
        uses = read(made / "production.json")

        def fail(*_: Any, **__: Any) -> None:
            raise AssertionError("no model was to be loaded")

        monkeypatch.setattr(stages, "load_classifier", fail)
        done = cli("run", made.parent / "experiment.json", "--out", made, "--json")
        assert done.exit_code == 0, done.stderr
        assert calls == []
        assert json.loads(done.stdout) == read(made / "comparison.json")
        assert {one: one.stat().st_mtime_ns for one in (made / "runs").rglob("*")} == before
        assert read(made / "production.json") == uses


def test_without_json_a_digest_and_where_the_summary_lies(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    done = cli("run", write_experiment(tmp_path, tiny_llama), "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "chosen: " in done.stdout
    assert f"summary: {out / 'summary.md'}" in done.stdout
    assert "phase 1 of 2: small" in done.stderr


def test_only_what_changed_is_done_again(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli, calls: Calls
) -> None:
    path = write_experiment(tmp_path, tiny_llama)
    assert cli("run", path, "--out", out).exit_code == 0
    kept, former = adapter_of(out, "small"), adapter_of(out, "large")
    calls.clear()
    done = cli("run", path, "--out", out, "--set", "phases.large.lora_r=2")
    assert done.exit_code == 0, done.stderr
    assert [call for call in calls if call[0] == "train"] == [("train", "large")]
    assert "config changed; the earlier run is kept as large.old-1" in done.stderr
    assert adapter_of(out, "small") == kept
    assert adapter_of(out, "large.old-1") == former != adapter_of(out, "large")

    calls.clear()
    write_csv(tmp_path / "test.csv", make_posts(10, seed=77))
    assert cli("run", path, "--out", out, "--set", "phases.large.lora_r=2").exit_code == 0
    assert calls == [("score", "test"), ("score", "test")]

    calls.clear()
    write_csv(tmp_path / "train.csv", make_posts(14, seed=78))
    done = cli("run", path, "--out", out, "--set", "phases.large.lora_r=2")
    assert [call for call in calls if call[0] == "train"] == [
        ("train", "small"),
        ("train", "large"),
    ]
    assert "train changed; the earlier run is kept as large.old-2" in done.stderr


def test_a_second_choice_on_the_same_production_rows_is_counted(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "only"}])
    assert cli("run", path, "--out", out).exit_code == 0
    assert cli("run", path, "--out", out, "--set", "phases.only.lora_r=2").exit_code == 0
    assert len(read(out / "production.json")) == 2
    assert "production was used for 2 models" in (out / "summary.md").read_text()


def test_all_phases_on_production_is_recorded_as_reuse(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    path = write_experiment(tmp_path, tiny_llama)
    assert cli("run", path, "--out", out, "--all-phases").exit_code == 0
    assert {use["phase"] for use in read(out / "production.json")} == {"small", "large"}
    assert set(read(out / "comparison.json")["sets"]["production"]["phases"]) == {"small", "large"}
    assert "production was used for 2 models" in (out / "summary.md").read_text()


def test_an_interrupted_phase_goes_on(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.finetune.trainer import PackTrainer

    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "only"}])
    command = ("run", path, "--set", "phases.*.num_train_epochs=3", "--out")
    assert cli(*command, tmp_path / "whole").exit_code == 0

    step = PackTrainer.training_step
    steps: list[int] = []

    def interrupted(self: PackTrainer, *args: Any, **options: Any) -> Any:
        steps.append(self.state.global_step)
        if self.state.global_step == 6 and len(steps) < 8:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    monkeypatch.setattr(PackTrainer, "training_step", interrupted)
    assert cli(*command, out).exit_code == 130
    assert not (out / "runs" / "only" / "manifest.json").exists()
    assert not (out / "summary.md").exists()
    done = cli(*command, out)
    assert done.exit_code == 0, done.stderr
    assert "going on from its last checkpoint" in done.stderr
    assert steps[7] == 4  # the epoch of the interruption is done again, the first one is not
    assert adapter_of(out, "only") == adapter_of(tmp_path / "whole", "only")


class TestContinuing:
    @pytest.fixture
    def path(self, tmp_path: Path, tiny_llama: Path) -> Path:
        child = {"learning_rate": 0.005, "warmup_steps": 0}
        phases = [
            {"name": "parent"},
            {"name": "child", "config": child, "continue_from": "parent"},
        ]
        return write_experiment(tmp_path, tiny_llama, phases=phases)

    def test_the_child_starts_from_the_parent_s_adapter(
        self, path: Path, out: Path, cli: RunCli
    ) -> None:
        assert cli("run", path, "--out", out).exit_code == 0
        manifest = read(out / "runs" / "child" / "manifest.json")
        assert manifest["inputs"]["init_adapter"] == adapter_of(out, "parent")
        assert manifest["warnings"] == []
        assert read(out / "comparison.json")["phases"]["child"]["parent"] == "parent"
        summary = (out / "summary.md").read_text()
        assert "- **Continues**: parent" in summary
        assert "Change from parent" in summary

    def test_a_changed_parent_changes_the_child(
        self, path: Path, out: Path, cli: RunCli, calls: Calls
    ) -> None:
        assert cli("run", path, "--out", out).exit_code == 0
        calls.clear()
        done = cli("run", path, "--out", out, "--set", "phases.parent.learning_rate=0.02")
        assert done.exit_code == 0, done.stderr
        trained = [call for call in calls if call[0] == "train"]
        assert trained == [("train", "parent"), ("train", "child")]
        assert "init_adapter changed; the earlier run is kept as child.old-1" in done.stderr

    def test_a_parent_whose_only_speed_changed_does_not(
        self, path: Path, out: Path, cli: RunCli, calls: Calls
    ) -> None:
        assert cli("run", path, "--out", out).exit_code == 0
        calls.clear()
        done = cli("run", path, "--out", out, "--set", "phases.*.per_device_eval_batch_size=3")
        assert (done.exit_code, calls) == (0, [])


class TestMistakes:
    def test_bad_rows_of_all_sets_at_once_and_nothing_written(
        self, tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
    ) -> None:
        path = write_experiment(tmp_path, tiny_llama)
        for name in ("train", "production"):
            posts = make_posts(6, seed=3)
            posts[1]["label"] = "perhaps"
            write_csv(tmp_path / f"{name}.csv", posts)
        done = cli("run", path, "--out", out)
        assert done.exit_code == 2
        assert "train.csv, label" in done.stderr
        assert "production.csv, label" in done.stderr
        assert done.stderr.count("(line 3)") == 2
        assert "2 problems; nothing was run" in done.stderr
        assert not out.exists()

    def test_the_last_phase_is_checked_before_the_first_is_trained(
        self, tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli, calls: Calls
    ) -> None:
        phases = [
            {"name": "good"},
            {"name": "lost", "config": {"model_name_or_path": "no/such/folder/here"}},
            {"name": "typo", "config": {"lora_target_modules": ["q_proj", "vproj"]}},
            {"name": "strange", "config": {"strategy": "shrt"}},
        ]
        path = write_experiment(tmp_path, tiny_llama, phases=phases)
        done = cli("run", path, "--out", out)
        assert done.exit_code == 2
        assert "phases[1].model_name_or_path" in done.stderr
        assert 'phases[2].lora_target_modules   "vproj" is not a linear layer' in done.stderr
        assert 'did you mean "v_proj"?' in done.stderr
        assert '"shrt" is not in the file' in done.stderr
        assert "phases[0]" not in done.stderr
        assert (calls, out.exists()) == ([], False)

    def test_a_truncated_model_is_told(
        self, tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
    ) -> None:
        import shutil

        model = tmp_path / "llama"
        shutil.copytree(tiny_llama, model)
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        done = cli("run", write_experiment(tmp_path, model), "--out", out)
        assert done.exit_code == 2
        assert "truncated or damaged" in done.stderr

    def test_a_folder_that_cannot_be_written(
        self, tmp_path: Path, tiny_llama: Path, cli: RunCli, calls: Calls
    ) -> None:
        path = write_experiment(tmp_path, tiny_llama)
        done = cli("run", path, "--out", path)
        assert done.exit_code == 2
        assert "is a file; choose another folder" in done.stderr
        assert calls == []

    def test_a_full_disk_leaves_earlier_results(
        self,
        tmp_path: Path,
        tiny_llama: Path,
        out: Path,
        cli: RunCli,
        calls: Calls,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = write_experiment(tmp_path, tiny_llama)
        write = results.write_predictions

        def full(predictions: Any, where: Path) -> None:
            if where.parent.parent.parent.name == "large":
                raise OSError(28, "No space left on device")
            write(predictions, where)

        with monkeypatch.context() as patch:
            patch.setattr(results, "write_predictions", full)
            done = cli("run", path, "--out", out)
        assert done.exit_code == 1
        assert "No space left on device; earlier results are intact" in done.stderr
        assert not (out / "summary.md").exists()
        calls.clear()
        assert cli("run", path, "--out", out).exit_code == 0
        assert [call for call in calls if call[0] == "train"] == []
        assert calls[:2] == [("score", "validation"), ("score", "test")]


def test_skipped_rows_are_counted(tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli) -> None:
    phases = [{"name": "only"}]
    path = write_experiment(tmp_path, tiny_llama, phases=phases, on_bad_row="skip")
    for name in ("train", "test"):
        posts = make_posts(9, seed=3)
        posts[1]["text"] = ""
        write_csv(tmp_path / f"{name}.csv", posts)
    done = cli("run", path, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "test.csv: 1 row skipped: 3 (text is empty)" in done.stderr
    manifest = read(out / "runs" / "only" / "manifest.json")
    assert manifest["data"]["train"]["skipped"] == 1
    assert any("1 row skipped" in one for one in manifest["warnings"])
    summary = (out / "summary.md").read_text()
    assert "test: 1 of 9 rows could not be used" in summary
    assert "train: 1 of 9 rows could not be used" in summary


def test_phases_with_different_prompts_are_told(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    entry = {"system_prompt": "Other.", "user_template": "{text}"}
    (tmp_path / "p.json").write_text(json.dumps({"strategies": {"other": entry}}))
    phases = [{"name": "a"}, {"name": "b", "config": {"prompt_file": "p.json"}}]
    path = write_experiment(tmp_path, tiny_llama, phases=phases)
    assert cli("run", path, "--out", out).exit_code == 0
    summary = (out / "summary.md").read_text()
    assert "b has another prompt" in summary
    assert "p.json" in summary


def test_max_train_rows(tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli) -> None:
    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "only"}])
    assert cli("run", path, "--out", out, "--set", "defaults.max_train_rows=9").exit_code == 0
    run = out / "runs" / "only"
    assert read(run / "training.json")["rows"] == 9
    train = read(run / "manifest.json")["data"]["train"]
    assert (train["rows"], train["rows_used"]) == (16, 9)


def test_a_train_set_replaces_the_phases_file(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    phases = [{"name": "only", "config": {"train_file": "gone.csv", "output_dir": "x"}}]
    path = write_experiment(tmp_path, tiny_llama, phases=phases)
    done = cli("run", path, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "warning: train_file has no effect" in done.stderr
    assert "warning: output_dir has no effect" in done.stderr


def test_phases_with_files_of_their_own(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    write_csv(tmp_path / "mine.csv", make_posts(10, seed=51))
    write_csv(tmp_path / "stop.csv", make_posts(6, seed=52))
    own = {"train_file": "mine.csv", "validation_file": "stop.csv"}
    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "only", "config": own}])
    sets = [one for one in read(path)["sets"] if one["role"] != "train"]
    edit_json(path, sets=sets)
    done = cli("run", path, "--out", out)
    assert done.exit_code == 0, done.stderr
    data = read(out / "runs" / "only" / "manifest.json")["data"]
    assert (data["train"]["rows"], data["validation"]["rows"]) == (10, 6)
    assert read(out / "comparison.json")["sets"]["test"]["baselines"]


def test_zero_shot_without_any_training_rows(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    phases = [{"name": "base", "config": {"tuning": "none"}}]
    path = write_experiment(tmp_path, tiny_llama, phases=phases)
    edit_json(path, sets=[one for one in read(path)["sets"] if one["role"] != "train"])
    done = cli("run", path, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    comparison = json.loads(done.stdout)
    assert comparison["phases"]["base"]["training"] is None
    assert comparison["sets"]["test"]["baselines"] == {}
    assert comparison["sets"]["test"]["phases"]["base"]["learned_nothing"]


def test_odd_groups_and_rows_without_any(
    tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "only"}])
    names = ["two words", "ünï|code", "<b>_*x*_</b>"]
    write_csv(tmp_path / "validation.csv", make_posts(12, seed=3, groups=names))
    write_csv(tmp_path / "test.csv", make_posts(12, seed=4, groups=()))
    done = cli("run", path, "--out", out)
    assert done.exit_code == 0, done.stderr
    sets = read(out / "comparison.json")["sets"]
    assert set(sets["validation"]["phases"]["only"]["groups"]) == set(names)
    assert sets["test"]["phases"]["only"]["groups"] == {}
    rows = [line for line in (out / "summary.md").read_text().splitlines() if "ünï" in line]
    assert rows
    assert all("ünï|code" not in line for line in rows if line.startswith("|"))


def test_an_encoder_beside_a_causal_model(
    tmp_path: Path, tiny_llama: Path, tiny_bert: Path, out: Path, cli: RunCli
) -> None:
    encoder = {
        "model_name_or_path": str(tiny_bert),
        "task": "sequence_classification",
        "tuning": "full",
        "max_seq_length": 32,
    }
    phases = [{"name": "decoder"}, {"name": "encoder", "config": encoder}]
    done = cli("run", write_experiment(tmp_path, tiny_llama, phases=phases), "--out", out)
    assert done.exit_code == 0, done.stderr
    assert (out / "runs" / "encoder" / "model" / "model.safetensors").is_file()
    found = read(out / "comparison.json")["sets"]["validation"]["phases"]
    assert set(found) == {"decoder", "encoder"}


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_the_selection_s_metric(
    metric: str, tmp_path: Path, tiny_llama: Path, out: Path, cli: RunCli
) -> None:
    path = write_experiment(tmp_path, tiny_llama)
    assert cli("run", path, "--out", out, "--set", f"selection.metric={metric}").exit_code == 0
    selection = read(out / "comparison.json")["selection"]
    assert selection["metric"] == metric
    assert selection["reason"] == f"highest {metric} on validation"


def test_from_a_notebook(
    tmp_path: Path, tiny_llama: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    import evenhand

    # As in a notebook that imported transformers before.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        logging.enable_progress_bar()
    experiment = evenhand.load_experiment(write_experiment(tmp_path, tiny_llama))
    result = evenhand.run_experiment(experiment, out)
    assert result.selection.chosen in {"small", "large"}
    assert (
        read_predictions(
            result.phases[0].run.path / "evaluations" / "test" / "predictions.parquet"
        ).frame.shape[0]
        == 12
    )
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled(), "the user's own setting is kept"
    logging.disable_progress_bar()
