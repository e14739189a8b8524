"""Label policies and added rows, from the configuration to the run folder and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import (
    edit_json,
    make_posts,
    write_csv,
    write_experiment,
    write_phase,
)

from evenhand.config.load import load_experiment, load_phase
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError
from evenhand.core.records import Dataset, Row
from evenhand.experiment.auditing import audit_experiment, read_for_audit
from evenhand.experiment.inputs import PHASE_FILES, DataSource, TrainingInputs, rows_sha256
from evenhand.experiment.plan import plan_experiment, plan_phase
from evenhand.experiment.remaking import ChangedRowsError, remake
from evenhand.experiment.runs import open_run
from evenhand.experiment.stages import skip_warnings
from evenhand.experiment.training_rows import RowMaker, make_training_rows

TEMPLATES = {"methods": ["templates"], "groups": ["lgbtq"], "ratio": 0.5}


def fine_posts(count: int, *, seed: int) -> list[dict[str, str]]:
    """Posts of which every fourth, a hateful one, was called offensive."""
    posts = make_posts(count, seed=seed)
    return [
        {**post, "fine_label": "offensive" if number % 4 == 0 else post["label"]}
        for number, post in enumerate(posts)
    ]


def as_rows(posts: list[dict[str, str]]) -> tuple[Row, ...]:
    return tuple(
        Row(
            post["id"],
            post["text"],
            post["label"],
            (post["group"],),
            fine_label=post.get("fine_label"),
        )
        for post in posts
    )


def treated(**keys: Any) -> PhaseConfig:
    return PhaseConfig.model_validate(keys)


@pytest.fixture
def train() -> Dataset:
    return Dataset("train", as_rows(fine_posts(40, seed=1)))


class TestMaking:
    def test_without_treatment_nothing_is_recorded(self, train: Dataset) -> None:
        made = make_training_rows(train, treated(), evaluation={})
        assert made.rows == train.rows
        assert made.record == {}
        assert not made.is_treated

    def test_the_policy_comes_before_the_draw(self, train: Dataset) -> None:
        config = treated(label_policy={"offensive": "drop"}, max_train_rows=30)
        made = make_training_rows(train, config, evaluation={})
        assert {row.fine_label for row in made.rows} == {"hate", "normal"}
        assert len(made.rows) == 30  # all that are left
        assert made.record == {"relabelled": {}, "dropped": {"offensive": 10}}

    def test_what_the_policy_changed_is_counted(self, train: Dataset) -> None:
        config = treated(label_policy={"offensive": "normal", "hate": "hate"})
        made = make_training_rows(train, config, evaluation={})
        assert Counter(row.label for row in made.rows) == {"normal": 30, "hate": 10}
        assert made.record == {"relabelled": {"offensive": 10}, "dropped": {}}

    def test_the_ratio_is_of_the_rows_that_were_drawn(self, train: Dataset) -> None:
        config = treated(augment=TEMPLATES, max_train_rows=20)
        made = make_training_rows(train, config, evaluation={})
        assert len(made.kept) == 20
        assert len(made.added) == 10
        assert made.rows == made.kept + made.added
        assert made.record["added"] == {"templates": 10}
        assert {row.label for row in made.added} == {"normal"}

    def test_no_added_row_is_one_of_an_evaluation_set(self, train: Dataset) -> None:
        config = treated(augment=TEMPLATES)
        first = make_training_rows(train, config, evaluation={})
        held_out = Dataset("test", tuple(replace(row, id=f"x{row.id}") for row in first.added))
        second = make_training_rows(train, config, evaluation={"test": held_out})
        assert second.record["left_out"]["test"] >= len(first.added)
        assert {row.text for row in second.added}.isdisjoint(row.text for row in held_out.rows)

    def test_rows_that_could_not_be_made_are_a_warning(self, train: Dataset) -> None:
        corpus = Dataset("corpus", as_rows(make_posts(4, seed=7)))
        config = treated(augment={"methods": ["corpus"], "corpus": "c.csv", "ratio": 0.5})
        made = make_training_rows(train, config, evaluation={}, corpus=corpus)
        short = 20 - len(made.added)
        assert made.warnings == [
            f"augment: corpus is {short} rows short of what the ratio asks for"
        ]

    def test_nothing_is_treated_where_nothing_is_trained(self, train: Dataset) -> None:
        config = treated(augment=TEMPLATES, label_policy={"offensive": "drop"}, tuning="none")
        assert make_training_rows(train, config, evaluation={}).rows == train.rows

    def test_mistakes_are_at_their_keys(self, train: Dataset) -> None:
        config = treated(augment={**TEMPLATES, "groups": ["lgbtk"]})
        with pytest.raises(ConfigError) as caught:
            make_training_rows(train, config, evaluation={})
        assert [one.place for one in caught.value.problems] == ["augment.groups"]


class TestSharing:
    def test_seeds_share_their_rows_unless_each_draws_its_own(self, train: Dataset) -> None:
        maker = RowMaker({})
        one, two = (maker.make(train, treated(augment=TEMPLATES, seed=seed)) for seed in (1, 2))
        assert one is two
        drawn = treated(augment=TEMPLATES, max_train_rows=20)
        one, two = (maker.make(train, drawn.model_copy(update={"seed": seed})) for seed in (1, 2))
        assert one.kept != two.kept

    def test_the_phase_s_own_evaluation_set_counts(self, train: Dataset) -> None:
        config, maker = treated(augment=TEMPLATES), RowMaker({})
        first = maker.make(train, config)
        own = {"validation_file": Dataset("own", first.added)}
        assert maker.make(train, config, own=own).added != first.added


def plan(path: Path, *overrides: str) -> TrainingInputs:
    phase = load_phase(path, overrides=overrides)
    return plan_phase(
        phase, {key: DataSource(phase.files[key]) for key in PHASE_FILES if key in phase.files}
    )


def set_(**keys: Any) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


class TestHashes:
    @pytest.fixture
    def path(self, tmp_path: Path, tiny_llama: Path) -> Path:
        path = write_phase(tmp_path, tiny_llama)
        write_csv(tmp_path / "train.csv", fine_posts(16, seed=1))
        return path

    def test_without_treatment_the_hash_is_of_the_file_s_rows(self, path: Path) -> None:
        inputs = plan(path, "max_train_rows=4")
        assert inputs.train is not None
        assert inputs.hashes["train"] == rows_sha256(inputs.train)
        assert len(inputs.rows) == 4

    def test_with_treatment_it_is_of_the_rows_made(self, path: Path) -> None:
        plain = plan(path).hashes
        for keys in ({"augment": TEMPLATES}, {"label_policy": {"offensive": "normal"}}):
            hashes = plan(path, *set_(**keys)).hashes
            assert [key for key in plain if hashes[key] != plain[key]] == ["config", "train"]

    def test_an_evaluation_set_that_changes_the_added_rows_changes_it(self, path: Path) -> None:
        before = plan(path, *set_(augment=TEMPLATES))
        posts = make_posts(8, seed=2)
        posts[0]["text"] = before.rows[-1].text
        write_csv(path.with_name("validation.csv"), posts)
        after = plan(path, *set_(augment=TEMPLATES))
        differing = {key for key, value in before.hashes.items() if after.hashes[key] != value}
        assert differing == {"train", "validation"}

    def test_where_the_corpus_lies_changes_nothing(self, path: Path) -> None:
        files = [path.with_name(name) for name in ("one.csv", "two.csv")]
        for file in files:
            write_csv(file, make_posts(30, seed=5))
        augment = {"methods": ["corpus"], "ratio": 0.25}
        found = [plan(path, *set_(augment={**augment, "corpus": str(one)})) for one in files]
        assert found[0].hashes == found[1].hashes
        assert found[0].rows[-1].source == "augment:corpus"


class TestASinglePhase:
    @pytest.fixture
    def path(self, tmp_path: Path, tiny_llama: Path) -> Path:
        path = write_phase(
            tmp_path, tiny_llama, augment=TEMPLATES, label_policy={"offensive": "drop"}
        )
        write_csv(tmp_path / "train.csv", fine_posts(16, seed=1))
        return path

    def test_trained_and_evaluated_with_baselines(
        self, path: Path, tmp_path: Path, cli: RunCli
    ) -> None:
        run = tmp_path / "run"
        done = cli("train", path, "--out", run, "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["rows"] == 12 + 6
        manifest = json.loads((run / "manifest.json").read_text())["data"]["train"]
        assert (manifest["rows"], manifest["rows_used"]) == (16, 18)
        assert manifest["dropped"] == {"offensive": 4}
        assert manifest["added"] == {"templates": 6}
        assert manifest["left_out"] == {"validation file": 0}

        found = open_run(run)
        _, made = remake(found)
        texts = [row.text for row in made.added]
        kept = "".join(one.read_text() for one in run.rglob("*.json*"))
        assert len(texts) == 6
        assert not any(text in kept for text in texts)

        data = write_csv(tmp_path / "data.csv", make_posts(8, seed=3))
        done = cli("evaluate", run, "--data", data, "--name", "test", "--json")
        assert done.exit_code == 0, done.stderr
        assert "tfidf_logreg" in json.loads(done.stdout)["baselines"]
        assert cli("audit", run, "--json").exit_code in (0, 5)
        assert cli("train", path, "--out", run, "--resume").exit_code == 0

        write_csv(tmp_path / "validation.csv", [{"id": "x", "text": texts[0], "label": "hate"}])
        with pytest.raises(ChangedRowsError, match="augmented with or against, has changed"):
            remake(found)
        done = cli("evaluate", run, "--data", data, "--name", "again", "--json")
        assert "warning: no baselines, since" in done.stderr
        assert json.loads(done.stdout)["baselines"] == {}

    def test_a_policy_s_mistakes(self, path: Path, tmp_path: Path, cli: RunCli) -> None:
        edit_json(path, label_policy={"offensiv": "drop"})
        done = cli("train", path, "--out", tmp_path / "run")
        assert done.exit_code == 2
        assert "label_policy.offensiv   no training row has this fine label" in done.stderr
        assert 'did you mean "offensive"?' in done.stderr
        assert not (tmp_path / "run").exists()

    def test_a_corpus_that_is_not_there(self, path: Path, cli: RunCli) -> None:
        edit_json(path, augment={"methods": ["corpus"], "corpus": "trian.csv"})
        done = cli("train", path, "--out", path.with_name("run"))
        assert done.exit_code == 2
        assert 'augment.corpus   "trian.csv" was not found' in done.stderr
        assert 'did you mean "train.csv"?' in done.stderr

    def test_preflight_counts_the_rows_made(self, path: Path, cli: RunCli) -> None:
        done = cli("preflight", path, "--steps", "0", "--json")
        (phase,) = json.loads(done.stdout)["phases"]
        warmup = next(check for check in phase["checks"] if check["name"] == "warm-up")
        assert warmup["facts"]["total_steps"] == 5  # 18 rows in fours

    def test_preflight_without_the_corpus(self, path: Path, cli: RunCli) -> None:
        edit_json(path, augment={"methods": ["corpus"], "corpus": "gone.csv"})
        done = cli("preflight", path, "--steps", "0", "--json")
        (phase,) = json.loads(done.stdout)["phases"]
        assert phase["checks"][0]["status"] == "problem"
        assert "gone.csv" in phase["checks"][0]["message"]


class TestAnExperiment:
    PHASES = (
        {"name": "plain"},
        {"name": "more", "config": {"augment": TEMPLATES}},
        {"name": "same", "config": {"augment": TEMPLATES, "lora_r": 8}},
    )

    def test_every_evaluation_set_is_kept_out(self, tmp_path: Path, tiny_llama: Path) -> None:
        path = write_experiment(tmp_path, tiny_llama, phases=self.PHASES)
        first = plan_experiment(load_experiment(path)).inputs["more"]
        posts = make_posts(12, seed=13)
        posts[3]["text"] = first.rows[-1].text
        write_csv(tmp_path / "production.csv", posts)
        second = plan_experiment(load_experiment(path)).inputs["more"]
        assert second.made is not None
        assert second.recipe is not None
        assert list(second.made.record["left_out"]) == ["validation", "test", "production"]
        assert second.made.record["left_out"]["production"] >= 1
        assert set(second.recipe.evaluation) == {"validation", "test", "production"}
        assert plan_experiment(load_experiment(path)).inputs["plain"].recipe is None

    def test_what_has_changed_is_trained_again(self, tmp_path: Path, tiny_llama: Path) -> None:
        corpus = {"methods": ["corpus"], "corpus": "more.csv", "ratio": 0.25}
        unusable = [{"id": "x", "text": "a post", "label": "neither", "group": ""}]
        write_csv(tmp_path / "more.csv", [*make_posts(20, seed=5), *unusable])
        path = write_experiment(
            tmp_path,
            tiny_llama,
            phases=[*self.PHASES[:2], {"name": "third", "config": {"augment": corpus}}],
            on_bad_row="skip",
        )

        def hashes(*overrides: str) -> dict[str, dict[str, Any]]:
            plan = plan_experiment(load_experiment(path, overrides=overrides))
            (told,) = skip_warnings(plan.datasets)
            assert "more.csv: 1 row skipped" in told
            return {name: inputs.hashes for name, inputs in plan.inputs.items()}

        def changed(*overrides: str) -> set[str]:
            return {name for name, found in hashes(*overrides).items() if found != before[name]}

        before = hashes()
        assert changed() == set()
        assert changed("phases.more.augment.ratio=0.25") == {"more"}
        assert changed("phases.*.augment.seed=7") == {"more", "third"}
        assert changed("phases.more.row_weights=group_label") == {"more"}
        assert changed("phases.plain.counterfactual_pairing=0.5") == {"plain"}
        # An evaluation set counts only for the rows that it keeps out.
        write_csv(tmp_path / "test.csv", make_posts(14, seed=99))
        assert changed() == set()
        write_csv(tmp_path / "more.csv", [*make_posts(20, seed=6), *unusable])
        assert changed() == {"third"}

    def test_every_process_makes_the_same_rows(self, tmp_path: Path, tiny_llama: Path) -> None:
        keys = {"methods": ["templates", "swaps"], "labels": ["hate", "normal"], "ratio": 1.0}
        path = write_experiment(
            tmp_path, tiny_llama, phases=[{"name": "one", "config": {"augment": keys}}]
        )
        script = (
            "import sys; from evenhand.config.load import load_experiment\n"
            "from evenhand.experiment.auditing import read_for_audit\n"
            "from evenhand.experiment.inputs import training_sha256\n"
            "one = read_for_audit(load_experiment(sys.argv[1])).inputs['one']\n"
            "print(training_sha256(one.train, one.made))"
        )
        found = {
            subprocess.run(
                [sys.executable, "-c", script, str(path)],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(found) == 1

    def test_the_audit_sees_added_rows_once(self, tmp_path: Path, tiny_llama: Path) -> None:
        path = write_experiment(tmp_path, tiny_llama, phases=self.PHASES)
        experiment = load_experiment(path)
        read = read_for_audit(experiment)
        assert read.inputs["more"].rows == plan_experiment(experiment).inputs["more"].rows
        # Made against the sets as they were; since then one of the rows came into the test set.
        leaked = replace(read.sets["test"].rows[0], text=read.inputs["more"].rows[-1].text)
        sets = {**read.sets, "test": replace(read.sets["test"], rows=(leaked,))}
        found = audit_experiment(experiment, replace(read, sets=sets))
        (overlap,) = [one for one in found.findings if one.check == "exact_overlap"]
        assert overlap.subject == "rows added to more / test"

    def test_a_policy_of_all_phases_is_audited_as_it_decides(
        self, tmp_path: Path, tiny_llama: Path
    ) -> None:
        policy = {"label_policy": {"offensive": "normal"}}
        path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "one", "config": policy}])
        posts = fine_posts(16, seed=1)
        posts[1]["text"] = posts[0]["text"]  # an offensive one, called hate, and a normal one
        write_csv(tmp_path / "train.csv", posts)
        experiment = load_experiment(path)
        checks = {
            one.check for one in audit_experiment(experiment, read_for_audit(experiment)).findings
        }
        assert "conflicting_labels" not in checks
        edit_json(path, phases=[{"name": "one"}])
        experiment = load_experiment(path)
        checks = {
            one.check for one in audit_experiment(experiment, read_for_audit(experiment)).findings
        }
        assert "conflicting_labels" in checks

    def test_all_problems_at_once(self, tmp_path: Path, tiny_llama: Path, cli: RunCli) -> None:
        wrong = [
            {"name": "one", "config": {"augment": {**TEMPLATES, "groups": ["lgbtk"]}}},
            {"name": "two", "config": {"label_policy": {"offensive": "drop"}}},
        ]
        path = write_experiment(tmp_path, tiny_llama, phases=wrong, seeds=[1, 2])
        done = cli("run", path, "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert "has 2 problems" in done.stderr
        assert 'phases[0].augment.groups           "lgbtk"' in done.stderr
        assert "phases[1].label_policy.offensive   the training rows have no fine" in done.stderr
        assert not (tmp_path / "out").exists()

    def test_a_corpus_that_is_not_there(
        self, tmp_path: Path, tiny_llama: Path, cli: RunCli
    ) -> None:
        own = {"augment": {"methods": ["corpus"], "corpus": "more.csv"}}
        path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "one", "config": own}])
        done = cli("run", path, "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert 'phases[0].config.augment.corpus   "more.csv" was not found' in done.stderr
