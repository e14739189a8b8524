"""Several finished runs, audited together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.imported import bring, posts, table

from evenhand.core.decisions import Audit
from evenhand.experiment.auditing import audit_runs
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import Results, open_results

WHOLE = {
    "model_name_or_path": "openai/gpt-oss-20b",
    "lora_r": 8,
    "lora_target_modules": ["q_proj"],
    "num_train_epochs": 1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 100,
}


def imported(out: Path, config: dict[str, Any] | None = None, **more: Any) -> Results:
    path = table(out.with_name(f"{out.name}.csv"), posts(more.pop("count", 12)))
    if config is not None:
        file = out.with_name(f"{out.name}.json")
        file.write_text(json.dumps(config), encoding="utf-8")
        more["config"] = file
    bring(path, out, **more)
    return open_results(out)


def subjects(audit: Audit, check: str) -> list[str]:
    return [one.subject for one in audit.findings if one.check == check]


def test_runs_are_held_against_each_other(tmp_path: Path) -> None:
    first = imported(tmp_path / "first", WHOLE)
    second = imported(tmp_path / "second", {**WHOLE, "lora_r": 16, "num_train_epochs": 3})
    audit = audit_runs([first, second])
    assert subjects(audit, "confounded_phases") == ["first / second"]
    assert subjects(audit, "no_scores") == ["first / test", "second / test"]


def test_a_key_that_one_run_does_not_state_is_no_difference(tmp_path: Path) -> None:
    first = imported(tmp_path / "first", WHOLE)
    partial = {key: WHOLE[key] for key in ("model_name_or_path", "num_train_epochs")}
    second = imported(tmp_path / "second", {**partial, "num_train_epochs": 3})
    assert set(second.config or {}) == set(partial)
    assert not subjects(audit_runs([first, second]), "confounded_phases")


def test_no_schedule_and_no_count_rest_on_our_defaults(tmp_path: Path) -> None:
    train = DataSource(table(tmp_path / "train.csv", posts(20)))
    stated = (("processes", "1"), ("trainable_parameters", "1"))
    bare = {"model_name_or_path": "openai/gpt-oss-20b", "warmup_steps": 100}
    one = imported(tmp_path / "bare", bare, train=train, stated=stated)
    assert {"warmup_share", "wrong_parameter_count"} <= set(audit_runs([one]).skipped)
    assert one.stated["trainable_parameters"]["status"] == "stated, not verified"
    whole = imported(tmp_path / "whole", WHOLE, train=train, stated=stated)
    audit = audit_runs([whole])
    assert subjects(audit, "warmup_share") == ["whole"]
    assert subjects(audit, "wrong_parameter_count") == ["whole / trainable_parameters"]


def test_unlike_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    train = DataSource(table(tmp_path / "train.csv", posts(12)[:4]))
    first = imported(tmp_path / "first", train=train)
    same = imported(tmp_path / "same", train=train)
    shorter = imported(tmp_path / "shorter", count=8)
    audit = audit_runs([first, same, shorter])
    # One training file; the shorter run's own is not known, and the leak is of the shared one.
    assert subjects(audit, "exact_overlap") == ["train / test", "train / test of shorter"]
    assert set(subjects(audit, "small_groups")) == {"test", "test of shorter"}


def test_models_on_one_production_set_use_it_up(tmp_path: Path) -> None:
    first = imported(tmp_path / "first", WHOLE, name="production")
    second = imported(tmp_path / "second", {**WHOLE, "lora_r": 16}, name="production")
    assert subjects(audit_runs([first, second]), "test_reuse") == ["production"]
    assert not subjects(audit_runs([first]), "test_reuse")
    # The same files imported twice are one model.
    again = imported(tmp_path / "again", WHOLE, name="production")
    assert not subjects(audit_runs([first, again]), "test_reuse")


def test_a_role_is_given_to_a_set_by_name(tmp_path: Path) -> None:
    runs = [
        imported(tmp_path / "first", WHOLE),
        imported(tmp_path / "second", {**WHOLE, "lora_r": 16}),
    ]
    assert not subjects(audit_runs(runs), "test_reuse")
    assert subjects(audit_runs(runs, {"test": "production"}), "test_reuse") == ["test"]
