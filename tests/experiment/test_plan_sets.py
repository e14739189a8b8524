"""Sets of an experiment that other files take rows from, and parts of the built-in corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import RunCli
from tests.tiny_experiments import edit_json, make_posts, write_csv, write_experiment

from evenhand.config.load import load_experiment
from evenhand.experiment.auditing import read_for_audit
from evenhand.experiment.inputs import DataSource, rows_sha256
from evenhand.experiment.plan import plan_experiment


def one_set(name: str, role: str = "test", **keys: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "file": f"{name}.csv", **keys}


def with_sets(folder: Path, model: Path, *sets: dict[str, Any], **changes: Any) -> Path:
    path = write_experiment(folder, model, phases=[{"name": "one"}])
    roles = ("train", "validation", "production")
    return edit_json(path, sets=[*(one_set(role, role) for role in roles), *sets], **changes)


def test_run_on_parts_of_files_and_of_the_corpus(
    tmp_path: Path, tiny_llama: Path, cli: RunCli
) -> None:
    posts = make_posts(12, seed=12)
    write_csv(tmp_path / "small.csv", posts[:6])
    path = with_sets(
        tmp_path,
        tiny_llama,
        one_set("inside", file="test.csv", within="small.csv"),
        one_set("outside", file="test.csv", without=["small.csv"]),
        one_set("cases", file="starter:functional", max_rows=10),
        data_dir=".",
    )
    out = tmp_path / "out"
    done = cli("run", path, "--out", out)
    assert done.exit_code == 0, done.stderr
    run = out / "runs" / "one"
    made = {
        name: json.loads((run / "evaluations" / name / "inputs.json").read_text())
        for name in ("inside", "outside", "cases")
    }
    assert {name: one["data"]["rows"] for name, one in made.items()} == {
        "inside": 6,
        "outside": 6,
        "cases": 10,
    }
    assert made["cases"]["data"]["file"] == "starter:functional"
    audit = json.loads((out / "audit.json").read_text())
    assert not [one for one in audit["findings"] if one["check"] == "evaluation_overlap"]
    # Nothing is read from a file of that name when the run is looked at by itself.
    assert cli("report", run, "--out", tmp_path / "report").exit_code == 0
    assert cli("audit", run, "--json").exit_code in (0, 5)

    again = cli("run", path, "--out", out)
    assert "one on cases: unchanged, not evaluated again" in again.stderr
    assert "one on inside: unchanged" in again.stderr


def test_a_run_s_cut_sets_are_audited_as_they_were(
    tmp_path: Path, tiny_llama: Path, cli: RunCli
) -> None:
    posts = make_posts(12, seed=12)
    write_csv(tmp_path / "small.csv", posts[:6])
    path = with_sets(
        tmp_path,
        tiny_llama,
        one_set("inside", file="test.csv", within="small.csv"),
        one_set("cases", file="starter:functional", max_rows=10),
        gate=None,
    )
    write_csv(tmp_path / "train.csv", [*make_posts(16, seed=10), posts[0]])
    out = tmp_path / "out"
    assert cli("run", path, "--out", out).exit_code == 0

    def subjects() -> set[str]:
        done = cli("audit", out / "runs" / "one", "--json")
        found = json.loads(done.stdout)["findings"]
        return {one["subject"] for one in found if one["check"] == "exact_overlap"}

    assert subjects() == {"train / inside"}
    # What decides about the rows has changed: they cannot be read again as they were.
    write_csv(tmp_path / "small.csv", posts[:5])
    assert subjects() == set()


def test_a_row_that_is_bad_but_for_its_text_is_left_out_too(tmp_path: Path) -> None:
    posts = make_posts(6, seed=1)
    other = [{"post": posts[0]["text"], "label": "?"}, {"post": posts[1]["text"], "label": ""}]
    write_csv(tmp_path / "other.csv", [*other, {"post": posts[2]["text"], "label": "hate"}])
    write_csv(tmp_path / "all.csv", [{"post": one["text"], **one} for one in posts])
    source = DataSource(
        tmp_path / "all.csv",
        columns={"text": "post", "group": "group"},
        without=(tmp_path / "other.csv",),
        on_bad_row="skip",
    )
    assert [row.id for row in source.read().rows] == ["1-3", "1-4", "1-5"]


def test_what_counts_are_the_rows(tmp_path: Path, tiny_llama: Path) -> None:
    write_csv(tmp_path / "half.csv", make_posts(12, seed=12)[:6])
    path = with_sets(tmp_path, tiny_llama, one_set("a", file="test.csv", within="half.csv"))
    one = plan_experiment(load_experiment(path)).sets["a"]
    path = with_sets(tmp_path, tiny_llama, one_set("a", file="half.csv"))
    other = plan_experiment(load_experiment(path)).sets["a"]
    assert rows_sha256(one) == rows_sha256(other)


def test_a_train_set_without_the_rows_of_the_others(tmp_path: Path, tiny_llama: Path) -> None:
    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "one"}])
    posts = make_posts(12, seed=12)
    write_csv(tmp_path / "train.csv", [*make_posts(16, seed=10), *posts[:5]])
    sets = json.loads(path.read_text())["sets"]
    sets[0]["without"] = ["test.csv"]
    edit_json(path, sets=sets)
    for plan in (plan_experiment(load_experiment(path)), read_for_audit(load_experiment(path))):
        assert len(plan.inputs["one"].rows) == 16


def test_preflight_and_audit_read_them(tmp_path: Path, tiny_llama: Path, cli: RunCli) -> None:
    path = write_experiment(tmp_path, tiny_llama, phases=[{"name": "one"}])
    sets = json.loads(path.read_text())["sets"]
    sets[0] |= {"file": "starter:train", "max_rows": 20}
    sets[2] |= {"within": "test.csv"}
    edit_json(path, sets=sets)
    done = cli("audit", path, "--json")
    assert done.exit_code == 0, done.stderr
    done = cli("preflight", path, "--steps", "0", "--json")
    (phase,) = json.loads(done.stdout)["phases"]
    assert "20" in phase["checks"][0]["message"]
    sets[0] |= {"without": ["gone.csv"]}
    edit_json(path, sets=sets)
    done = cli("preflight", path, "--steps", "0", "--json")
    (phase,) = json.loads(done.stdout)["phases"]
    assert "the file of the train set" in phase["checks"][0]["message"]


def test_files_that_are_not_there_with_all_other_problems(
    tmp_path: Path, tiny_llama: Path, cli: RunCli
) -> None:
    path = with_sets(
        tmp_path,
        tiny_llama,
        one_set("test", within="tset.csv", without=["validation.csv", "gone.csv"]),
        one_set("cases", file="starter:functionl"),
        one_set("more", file="starter:test", labels={"x": "hate"}, columns={"text": "post"}),
        selection={"set": "validaton"},
    )
    done = cli("run", path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "has 6 problems" in done.stderr
    for told in (
        'sets[3].within       "tset.csv" was not found',
        'sets[3].without[1]   "gone.csv" was not found',
        'sets[4].file         "starter:functionl" is no part of the built-in corpus; did you mean',
        "sets[5].labels       the built-in corpus needs none",
        "sets[5].columns      the built-in corpus needs none",
        "selection.set",
    ):
        assert told in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_set_that_ends_up_empty(tmp_path: Path, tiny_llama: Path, cli: RunCli) -> None:
    path = with_sets(
        tmp_path,
        tiny_llama,
        one_set("test", within="train.csv"),
        one_set("none", file="test.csv", without=["test.csv"]),
    )
    for command in (("run", path, "--out", tmp_path / "out"), ("audit", path)):
        done = cli(*command)
        assert done.exit_code == 2
        told = " ".join(done.stderr.split())
        assert 'within leaves no row of set "test": no text of it is in' in told
        assert 'without leaves no row of set "none": all texts that were kept' in told
    assert not (tmp_path / "out").exists()
