from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evenhand.config.files import shown
from evenhand.config.load import load_experiment, load_phase, resolved_json
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError

PHASE = {"model_name_or_path": "m", "lora_r": 4}
EXPERIMENT: dict[str, Any] = {
    "name": "one",
    "data_dir": "data",
    "defaults": {"seed": 7, "learning_rate": 0.1, "lora_r": 1},
    "phases": [
        {"name": "first", "config": "phase.json"},
        {"name": "second", "config": {"lora_alpha": 3}, "overrides": {"learning_rate": 0.2}},
    ],
    "sets": [
        {"name": "train", "role": "train", "file": "train.csv"},
        {"name": "val", "role": "validation", "file": "val.csv"},
        {"name": "test", "role": "test", "file": "test.csv", "max_rows": 5},
    ],
    "columns": {"text": "post", "group": ["a", "b"]},
    "labels": {"toxic": "hate"},
    "selection": {"set": "val"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment, a phase and data, seen from another current folder."""
    base = tmp_path / "project"
    (base / "data").mkdir(parents=True)
    for name in ("train.csv", "val.csv", "test.csv"):
        (base / "data" / name).touch()
    write(base / "phase.json", PHASE)
    write(base / "experiment.json", EXPERIMENT)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return base


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def changed(folder: Path, **changes: Any) -> Path:
    return write(folder / "experiment.json", {**EXPERIMENT, **changes})


def experiment_errors(path: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides=overrides)
    return {problem.place: problem.message for problem in caught.value.problems}


def phase_errors(path: Path, overrides: Sequence[str] = (), **options: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_phase(path, overrides=overrides, **options)
    return {problem.place: problem.message for problem in caught.value.problems}


def test_a_phase_with_the_origin_of_each_value(folder: Path) -> None:
    overrides = ["lora_alpha=16", "optim=sgd", 'lora_target_modules=["q_proj"]', "cache_dir=null"]
    loaded = load_phase(folder / "phase.json", overrides=overrides, check_files=False)
    assert (loaded.config.lora_r, loaded.config.lora_alpha, loaded.config.optim) == (4, 16, "sgd")
    assert loaded.config.lora_target_modules == ("q_proj",)
    assert loaded.provenance["lora_r"].endswith("project/phase.json")
    assert loaded.provenance["lora_alpha"] == "--set"
    assert loaded.provenance["seed"] == "default"
    assert set(loaded.provenance) == set(PhaseConfig.model_fields)
    assert "optim" in loaded.explicit
    assert "seed" not in loaded.explicit
    assert loaded.base == folder


def test_resolved_json_reads_back(folder: Path) -> None:
    loaded = load_phase(folder / "phase.json", check_files=False)
    document = json.loads(json.dumps(resolved_json(loaded)))
    assert PhaseConfig.model_validate(document["config"]) == loaded.config
    assert document["provenance"] == dict(loaded.provenance)


def test_values_are_taken_from_the_nearest_layer(folder: Path) -> None:
    overrides = ["phases.1.weight_decay=0.5", "phases.first.seed=8", "phases.*.logging_steps=3"]
    first, second = load_experiment(folder / "experiment.json", overrides=overrides).phases
    assert first.config.lora_r == 4
    assert first.provenance["lora_r"].endswith("phase.json")
    assert second.config.lora_r == 1
    assert second.provenance["lora_r"] == "experiment defaults"
    assert second.provenance["lora_alpha"] == "experiment phase"
    assert second.config.learning_rate == 0.2
    assert second.provenance["learning_rate"] == "experiment overrides"
    assert (second.config.weight_decay, second.provenance["weight_decay"]) == (0.5, "--set")
    assert (first.config.seed, second.config.seed) == (8, 7)
    assert first.config.logging_steps == second.config.logging_steps == 3
    assert first.path == folder / "phase.json"
    assert second.path == folder / "experiment.json"


def test_sets_are_resolved(folder: Path) -> None:
    sets = [dict(one) for one in EXPERIMENT["sets"]]
    sets[1] |= {"columns": {"text": "comment", "group": None}, "labels": {"toxic": "normal"}}
    sets[2] |= {"format": "hatecheck"}
    experiment = load_experiment(changed(folder, sets=sets))
    train, val, test = experiment.sets
    assert train.path == (folder / "data/train.csv").resolve()
    assert train.columns.chosen() == {"text": "post", "group": ["a", "b"]}
    assert dict(train.labels) == {"toxic": "hate"}
    assert val.columns.chosen() == {"text": "comment"}
    assert dict(val.labels) == {"toxic": "normal"}
    # HateCheck's format names its own columns.
    assert test.columns.chosen() == {}
    assert test.max_rows == 5
    assert experiment.train_set == train
    assert experiment.selection_set == val
    assert experiment.sets_of("test") == (test,)


def test_overrides_of_the_document(folder: Path) -> None:
    overrides = [
        "selection.metric=roc_auc",
        "sets.test.max_rows=2",
        "prompt.strategy=s",
        "baselines=false",
        "phases.0.hypothesis=why not",
        'phases.second.overrides={"seed": 9}',
    ]
    experiment = load_experiment(folder / "experiment.json", overrides=overrides)
    assert experiment.config.selection.metric == "roc_auc"
    assert experiment.sets[2].max_rows == 2
    assert not experiment.config.baselines
    assert experiment.phases[0].hypothesis == "why not"
    assert experiment.phases[1].config.seed == 9
    assert experiment.phases[0].provenance["strategy"] == "experiment prompt"


AUGMENT = {"methods": ["templates", "corpus"], "corpus": "data/train.csv", "ratio": 0.1}


def test_overrides_reach_into_an_object(folder: Path) -> None:
    write(folder / "phase.json", {**PHASE, "augment": AUGMENT, "label_policy": {"a": "hate"}})
    overrides = ["augment.ratio=0.5", 'augment.groups=["women"]', "label_policy.not.b=drop"]
    loaded = load_phase(folder / "phase.json", overrides=overrides, check_files=False)
    assert loaded.config.augment is not None
    found = loaded.config.augment.model_dump(mode="json", exclude={"labels", "seed"})
    assert found == {**AUGMENT, "ratio": 0.5, "groups": ["women"]}
    assert loaded.config.label_policy == {"a": "hate", "not.b": "drop"}
    assert loaded.provenance["augment"] == "--set"
    # The file inside is still looked for beside the file that names it.
    assert loaded.files["augment.corpus"] == (folder / "data/train.csv").resolve()
    places = phase_errors(folder / "phase.json", ["augment.corpus=gone.csv", "augment.ratio=0"])
    assert "more than 0" in places["--set augment.ratio"]
    assert "was not found" in places["--set augment.corpus"]
    # All of it replaces what was said inside it before.
    whole = [*overrides[:1], 'augment={"methods": ["swaps"]}']
    loaded = load_phase(folder / "phase.json", overrides=whole, check_files=False)
    assert loaded.config.augment is not None
    assert (loaded.config.augment.ratio, loaded.config.augment.corpus) == (0.2, None)


def test_a_star_reaches_into_the_phases_that_have_the_object(folder: Path) -> None:
    treated = {"name": "third", "config": {"augment": {"methods": ["templates"]}}}
    path = changed(folder, phases=[*EXPERIMENT["phases"], treated])
    plain, _, third = load_experiment(path, overrides=["phases.*.augment.ratio=0.5"]).phases
    assert plain.config.augment is None
    assert third.config.augment is not None
    assert third.config.augment.ratio == 0.5
    wrong = experiment_errors(path, ["phases.*.augment.ratio=9"])
    assert list(wrong) == ["--set phases.2.augment.ratio"]


def test_seeds_of_an_experiment_are_not_set_by_phase(folder: Path) -> None:
    defaults = {"learning_rate": 0.1}
    path = changed(folder, seeds=[1, 2], defaults=defaults)
    assert "seeds" in experiment_errors(path, ["phases.1.seed=3"])["--set phases.1.seed"]


@pytest.mark.parametrize(
    ("override", "place", "message"),
    [
        ("lora_r", "--set lora_r", "form path=value"),
        ("=3", "--set =3", "form path=value"),
        ("phases.2.lora_r=3", "--set phases.2.lora_r", "neither the name nor the number"),
        ("phases.frist.lora_r=3", "--set phases.frist.lora_r", 'did you mean "first"?'),
        ("phases.0.lora_rr=3", "--set phases.0.lora_rr", 'did you mean "lora_r"?'),
        ("phases.*.lora_r=0", "--set phases.1.lora_r", "at least 1"),
        ("sets.*.file=x", "--set sets.*.file", "phases only"),
        ("phases.0.config.lora_r=3", "--set phases.0.config.lora_r", "no keys of its own"),
        ("lora_r=3", "lora_r", "put it in defaults"),
        ("phases.0.augment.ratio=1", "--set phases.0.augment.ratio", "no object here"),
        ("phases.*.lora_r.x=1", "--set phases.1.lora_r.x", "no object here"),
    ],
)
def test_wrong_overrides(folder: Path, override: str, place: str, message: str) -> None:
    assert message in experiment_errors(folder / "experiment.json", [override])[place]


def test_problems_stand_where_the_value_was_written(folder: Path) -> None:
    write(folder / "phase.json", {"lora_rank": 3, "train_file": 3})
    path = changed(
        folder,
        defaults={"sede": 1, "learning_rate": -1},
        phases=[
            {"name": "first", "config": "phase.json"},
            {"name": "second", "config": {"bf16": 1}, "overrides": {"dtype": "x"}},
        ],
    )
    found = experiment_errors(path)
    assert set(found) == {
        "defaults.sede",
        "defaults.learning_rate",
        "phases[0].lora_rank",
        "phases[0].train_file",
        "phases[1].config.bf16",
        "phases[1].overrides.dtype",
    }
    assert found["phases[0].lora_rank"].endswith("phase.json)")


def test_a_broken_rule_stands_at_a_key_that_was_written(folder: Path) -> None:
    write(folder / "phase.json", {"eval_strategy": "no"})
    found = phase_errors(folder / "phase.json", check_files=False)
    assert found == {
        "eval_strategy": 'load_best_model_at_end needs evaluation: set eval_strategy to "epoch" '
        'or "steps", or this to false'
    }


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('{"lora_r": 1,\n  "seed" 3}', "line 2, column 10", "is not JSON"),
        ('{"lora_r": 1, "lora_r": 2}', "lora_r", "is given twice"),
        ('{"learning_rate": NaN}', "file", "NaN is no JSON number"),
        ("[1]", "file", "must hold a JSON object"),
        ('{"learning_rate": 1e999}', "learning_rate", "finite"),
        ("[" * 100_000, "file", "is not JSON"),
        ('{"phases": []}', "phases", "evenhand run"),
    ],
)
def test_files_that_are_no_phase(folder: Path, text: str, place: str, message: str) -> None:
    path = write(folder / "bad.json", text)
    assert message in phase_errors(path, check_files=False)[place]


def test_files_that_cannot_be_read(folder: Path) -> None:
    assert 'did you mean "phase.json"?' in phase_errors(folder / "phse.json")["file"]
    assert phase_errors(folder) == {"file": "is a folder"}
    (folder / "latin.json").write_bytes(b'{"strategy": "\xe9"}')
    assert "UTF-8" in phase_errors(folder / "latin.json")["byte 14"]


def test_a_phase_is_no_experiment(folder: Path) -> None:
    assert "evenhand train" in experiment_errors(folder / "phase.json")["file"]


def test_duplicate_keys_are_named_with_their_path(folder: Path) -> None:
    text = json.dumps(EXPERIMENT).replace('"role": "test"', '"role": "train", "role": "test"')
    assert experiment_errors(write(folder / "x.json", text)) == {"sets[2].role": "is given twice"}


def test_a_phase_file_of_an_experiment_that_cannot_be_used(folder: Path) -> None:
    write(folder / "phase.json", "{")
    assert "line 1" in experiment_errors(folder / "experiment.json")["phases[0].config"]
    path = changed(folder, phases=[{"name": "a", "config": "phas.json"}])
    assert 'did you mean "phase.json"?' in experiment_errors(path)["phases[0].config"]


@pytest.mark.parametrize(
    ("override", "command"),
    [
        ("selection.metric=f2", "`evenhand explain selection`"),
        ("phases.0.lora_r=none", "`evenhand explain phases`"),
        ("nothing=1", "`evenhand explain`"),
    ],
)
def test_the_hint_names_the_section(override: str, command: str, project_root: Path) -> None:
    path = project_root / "configs" / "experiments" / "reference_cpu.json"
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides=[override], check_files=False)
    assert command in str(caught.value.hint)


def test_every_missing_file_is_named_with_where_it_was_looked_for(folder: Path) -> None:
    (folder / "data/train.csv").unlink()
    path = changed(
        folder,
        prompt={"file": "p.json"},
        phases=[
            {"name": "a", "overrides": {"validation_file": "/nowhere/v.csv"}},
            {"name": "b", "config": {"init_adapter": "runs/x"}},
        ],
        sets=[*EXPERIMENT["sets"], {"name": "more", "role": "test", "file": "tets.csv"}],
    )
    found = experiment_errors(path)
    assert set(found) == {
        "prompt.file",
        "phases[0].overrides.validation_file",
        "phases[1].config.init_adapter",
        "sets[0].file",
        "sets[3].file",
    }
    looked = found["sets[3].file"]
    assert shown(folder / "data") in looked
    assert 'did you mean "test.csv"?' in looked
    experiment = load_experiment(path, check_files=False)
    assert experiment.sets[0].path is None
    assert experiment.phases[0].files == {}


def test_files_are_found_in_order(folder: Path) -> None:
    data, here = folder / "data", Path.cwd()
    options: dict[str, Any] = {"phases": [{"name": "a", "config": {"validation_file": "v.csv"}}]}
    path = changed(folder, **options)
    for place in (here, folder, data):
        (place / "v.csv").touch()
        found = load_experiment(path).phases[0].files
        assert found == {"validation_file": (place / "v.csv").resolve()}


def test_a_train_set_replaces_the_training_file(folder: Path) -> None:
    write(folder / "phase.json", {"train_file": "not/there.csv"})
    assert load_experiment(folder / "experiment.json").phases[0].files == {}
    found = experiment_errors(changed(folder, sets=EXPERIMENT["sets"][1:]))
    assert set(found) == {"phases[0].train_file", "phases[1].train_file"}
    assert 'set of role "train"' in found["phases[1].train_file"]


def test_a_lone_phase_needs_its_files(folder: Path) -> None:
    assert set(phase_errors(folder / "phase.json")) == {"train_file", "validation_file"}
    overrides = ["train_file=data/train.csv", "validation_file=data/val.csv"]
    files = load_phase(folder / "phase.json", overrides=[*overrides], check_files=False).files
    assert files == {}  # --set is relative to the current folder
    write(folder / "phase.json", dict(override.split("=") for override in overrides))
    assert set(load_phase(folder / "phase.json").files) == {"train_file", "validation_file"}


def test_the_prompt_is_for_phases_that_take_one_and_name_none(folder: Path) -> None:
    (folder / "p.json").touch()
    path = changed(
        folder,
        prompt={"file": "p.json", "strategy": "s"},
        phases=[
            {"name": "a"},
            {"name": "own", "config": {"prompt_file": None}},
            {"name": "strategy", "config": {"strategy": "t"}},
            {"name": "encoder", "config": {"task": "sequence_classification"}},
        ],
    )
    phases = load_experiment(path).phases
    chosen = [(phase.config.prompt_file, phase.config.strategy) for phase in phases]
    assert chosen == [("p.json", "s"), (None, None), ("p.json", "t"), (None, None)]


def test_continuing_demands_the_same_adapter(folder: Path) -> None:
    path = changed(
        folder,
        phases=[
            {"name": "a", "config": {"lora_r": 2}},
            {"name": "same", "config": {"lora_r": 2}, "continue_from": "a"},
            {"name": "other", "config": {"lora_r": 3}, "continue_from": "a"},
            {"name": "full", "config": {"tuning": "full"}, "continue_from": "a"},
            {
                "name": "both",
                "config": {"lora_r": 2, "init_adapter": "."},
                "continue_from": "a",
            },
        ],
    )
    found = experiment_errors(path)
    assert set(found) == {
        "phases[2].lora_r",
        "phases[3].continue_from",
        "phases[4].config.init_adapter",
    }
    assert found["phases[2].lora_r"] == 'is 3, but the adapter of "a" has 2'


def test_seeds_make_a_phase_of_each(folder: Path) -> None:
    phases = [
        {"name": "plain", "config": "phase.json"},
        {"name": "longer", "config": "phase.json", "continue_from": "plain"},
    ]
    path = changed(folder, defaults={}, phases=phases, seeds=[3, 4], control="plain")
    loaded = load_experiment(path)
    assert [(one.name, one.entry, one.continue_from) for one in loaded.phases] == [
        ("plain-seed3", "plain", None),
        ("longer-seed3", "longer", "plain-seed3"),
        ("plain-seed4", "plain", None),
        ("longer-seed4", "longer", "plain-seed4"),
    ]
    assert [one.config.seed for one in loaded.phases] == [3, 3, 4, 4]
    assert {one.provenance["seed"] for one in loaded.phases} == {"experiment seeds"}
    assert loaded.control_phases == ("plain-seed3", "plain-seed4")


def test_a_wrong_augmentation_stands_where_it_was_written(folder: Path) -> None:
    write(folder / "phase.json", {**PHASE, "augment": {"methods": ["swaps"], "corpus": "val.csv"}})
    (message,) = experiment_errors(folder / "experiment.json").values()
    assert "only used by" in message
    assert "phase.json" in message
