from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunCli
from tests.decide.synthetic import counted, drawn, write_run

from evenhand.core.decisions import Deployment, GateVerdict
from evenhand.core.errors import ConfigError
from evenhand.core.predictions import Predictions, write_predictions
from evenhand.experiment.comparing import compare_runs
from evenhand.experiment.deciding import clear_decisions, read_decisions, read_deployment
from evenhand.experiment.results import Decisions, open_results

HARD = {
    "name": "beats always hate",
    "metric": "f1",
    "at_least": 0.01,
    "against": {"baseline": "always_hate"},
}
DUTY = {"monitor": "FPR", "owner": "me", "due_days": 14, "action": "Tune."}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    sets = {"validation": drawn(400, seed=1), "production": drawn(500, seed=2)}
    return write_run(tmp_path / "run", sets)


def criteria(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "criteria.json"
    path.write_text(json.dumps({"name": "mine", "criteria": [HARD, *entries]}))
    return path


@pytest.mark.parametrize(
    ("entry", "outcome", "code"),
    [
        ({"at_least": 0.5}, "PASS", 0),
        ({"at_least": 0.99, "role": "condition", "duty": DUTY}, "PASS WITH CONDITIONS", 0),
        ({"at_least": 0.83, "judged_on": "lower"}, "REVIEW", 3),
        ({"at_least": 0.99}, "FAIL", 4),
    ],
)
def test_exit_codes(
    cli: RunCli, run: Path, tmp_path: Path, entry: dict[str, Any], outcome: str, code: int
) -> None:
    path = criteria(tmp_path, {"name": "Recall", "metric": "recall", **entry})
    done = cli("gate", run, "--on", "production", "--criteria", path, "--json")
    document = json.loads(done.stdout)
    assert (document["verdict"]["outcome"], done.exit_code) == (outcome, code)
    verdict = GateVerdict.model_validate_json((run / "gate.json").read_text())
    deployment = Deployment.model_validate_json((run / "deployment.json").read_text())
    assert verdict.model_dump(mode="json") == document["verdict"]
    assert deployment.model_dump(mode="json") == document["deployment"]
    assert (deployment.model, deployment.set) == ("run", "production")
    text = cli("gate", run, "--on", "production", "--criteria", path)
    assert f"Verdict: {outcome}" in text.stdout
    assert re.search(r"^\| Recall +\| ", text.stdout, flags=re.MULTILINE)
    assert "&" not in text.stdout


def test_a_vacuous_gate_prints_its_table_and_approves_nothing(cli: RunCli, tmp_path: Path) -> None:
    groups = {"lgbtq": (132, 128, 192, 38), "mexican": (96, 67, 18, 24), "me": (127, 96, 45, 34)}
    run = write_run(
        tmp_path / "run",
        {"production": counted(groups, scored=False)},
        method="import",
        stated={
            "validation.f1": {"value": 0.6852, "status": "stated, not verified", "found": None}
        },
    )
    done = cli("gate", run, "--on", "production", "--criteria", "reference")
    assert done.exit_code == 2
    assert done.stdout.count("\n| ") >= 7
    assert 'answering "hate" always meets every required criterion' in done.stderr
    assert "0.6229" in done.stderr
    verdict = GateVerdict.model_validate_json((run / "gate.json").read_text())
    assert verdict.vacuous == ("always_hate",)
    deployment = Deployment.model_validate_json((run / "deployment.json").read_text())
    assert deployment.status == "needs_review"
    document = json.loads(
        cli("gate", run, "--on", "production", "--criteria", "reference", "--json").stdout
    )
    assert document["verdict"]["vacuous"] == ["always_hate"]
    # The stricter set judges the same run without that fault.
    assert cli("gate", run, "--on", "production").exit_code == 4


def test_the_tuned_threshold_is_judged(cli: RunCli, run: Path, tmp_path: Path) -> None:
    path = criteria(tmp_path, {"name": "FPR", "metric": "fpr", "at_most": 0.9})
    fit = ["threshold", run, "--fit-on", "validation", "--report-on", "production"]
    assert cli(*fit, "--max-group-fpr", "0.15").exit_code == 0
    value = json.loads((run / "threshold.json").read_text())["value"]
    document = json.loads(
        cli("gate", run, "--on", "production", "--criteria", path, "--json").stdout
    )
    assert document["verdict"]["threshold"] == value != 0.5
    frame = drawn(500, seed=2).frame
    normal = frame[frame.label == "normal"]
    fpr = document["verdict"]["results"][1]["measured"]["value"]
    assert fpr == pytest.approx((normal.score >= value).mean())
    assert read_deployment(open_results(run)) is not None
    plain = ["gate", run, "--on", "production", "--criteria", path, "--threshold", "default"]
    document = json.loads(cli(*plain, "--json").stdout)
    assert document["verdict"]["threshold"] == 0.5
    with pytest.raises(ConfigError) as caught:  # judged at 0.5, but the run has another threshold
        read_deployment(open_results(run))
    assert "evenhand gate" in caught.value.render()


def test_rows_that_the_threshold_was_fitted_on_are_not_judged(
    cli: RunCli, run: Path, tmp_path: Path
) -> None:
    path = criteria(tmp_path)
    fit = ["threshold", run, "--fit-on", "production", "--report-on", "production"]
    assert cli(*fit, "--fit-share", "0.3").exit_code == 0
    fitted = json.loads((run / "threshold.json").read_text())["fitted_on"]["n"]
    done = cli("gate", run, "--on", "production", "--criteria", path, "--json")
    assert json.loads(done.stdout)["verdict"]["n"] == 500 - fitted
    assert (
        cli("threshold", run, "--fit-on", "production", "--report-on", "validation").exit_code == 0
    )
    done = cli("gate", run, "--on", "production", "--criteria", path)
    assert done.exit_code == 2
    assert "--threshold default" in done.stderr


def test_validation_is_found_by_its_name_by_option_or_in_another_run(
    cli: RunCli, tmp_path: Path
) -> None:
    drop = {"name": "drop", "metric": "f1", "at_least": -0.5, "against": {"set": "validation"}}
    path = criteria(tmp_path, drop)
    sets = {"val": drawn(400, seed=1), "production": drawn(500, seed=2)}
    run = write_run(tmp_path / "run", sets)
    other = write_run(tmp_path / "other", {"quick": drawn(100, seed=3)})
    both = ["gate", run, "--on", "production", "--criteria", path]
    assert cli(*both).exit_code == 3
    assert cli(*both, "--validation", "val").exit_code == 0
    assert cli(*both, "--reference-run", other).exit_code == 0
    wrong = cli(*both, "--validation", "vla")
    assert wrong.exit_code == 2
    assert 'did you mean "val"' in wrong.stderr
    itself = cli(*both, "--validation", "production")
    assert itself.exit_code == 2
    assert "itself" in itself.stderr


def test_wrong_criteria_write_nothing(cli: RunCli, run: Path, tmp_path: Path) -> None:
    path = criteria(tmp_path, {"name": "x", "metric": "f2", "at_least": 0.5})
    done = cli("gate", run, "--on", "production", "--criteria", path)
    assert done.exit_code == 2
    assert "criteria[1].metric" in done.stderr
    assert not (run / "gate.json").exists()
    assert cli("gate", run, "--on", "producton").exit_code == 2
    assert cli("gate", tmp_path / "nowhere", "--on", "production").exit_code == 2


def test_the_reference_production_run(cli: RunCli, tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "reference_runs/production_high_capacity"
    predictions = next(folder.glob("strategy_unified_results_*.csv"))
    run = tmp_path / "production_high_capacity"
    options = ["--name", "production", "--stated", "validation.f1=0.6852", "--out", run]
    assert cli("import", "--predictions", predictions, *options).exit_code == 0
    done = cli("gate", run, "--on", "production", "--criteria", "reference", "--json")
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    verdict = document["verdict"]
    assert [one["status"] for one in verdict["results"]] == [
        "pass",
        "fail",
        "pass",
        "fail",
        "pass",
        "pass",
    ]
    assert (verdict["outcome"], verdict["vacuous"]) == ("PASS WITH CONDITIONS", ["always_hate"])
    assert verdict["results"][3]["measured"]["value"] == pytest.approx(0.6)
    assert (verdict["n"], verdict["n_scored"]) == (1009, 997)


def test_the_gate_shows_the_difference_of_the_paired_comparison(
    cli: RunCli, tmp_path: Path
) -> None:
    rows = drawn(300, seed=2)
    run = write_run(tmp_path / "run", {"production": rows})
    baseline = drawn(300, seed=2, lift=0.5)
    frame = rows.frame.assign(score=baseline.frame["score"], decision=baseline.frame["decision"])
    folder = run / "evaluations" / "production" / "baselines"
    write_predictions(Predictions(frame), folder / "tfidf_logreg.parquet")
    beats = {
        "metric": "f1",
        "at_least": 0.0,
        "judged_on": "lower",
        "against": {"baseline": "tfidf_logreg"},
    }
    each = {**beats, "metric": "fpr", "at_least": -1.0, "group": "each"}
    path = criteria(tmp_path, {"name": "F1", **beats}, {"name": "FPR", **each})
    done = cli("gate", run, "--on", "production", "--criteria", path, "--json")
    _, f1, fpr = json.loads(done.stdout)["verdict"]["results"]
    pair = compare_runs([open_results(run)], on="production").pairs[0]
    found = {
        None: (f1["measured"], pair.test("f1")),
        "alpha": (fpr["parts"]["alpha"]["measured"], pair.test("fpr", "alpha")),
        "beta": (fpr["parts"]["beta"]["measured"], pair.test("fpr", "beta")),
    }
    for measured, test in found.values():
        assert test is not None
        assert measured == test.difference.model_dump(mode="json")


@pytest.fixture
def decided(cli: RunCli, run: Path, tmp_path: Path) -> Path:
    path = criteria(tmp_path, {"name": "FPR", "metric": "fpr", "at_most": 0.9})
    fit = ["threshold", run, "--fit-on", "validation", "--report-on", "production"]
    assert cli(*fit, "--max-group-fpr", "0.3").exit_code == 0
    assert cli("gate", run, "--on", "production", "--criteria", path).exit_code == 0
    return run


def test_what_still_holds_is_read(decided: Path) -> None:
    found = read_decisions(open_results(decided))
    assert found.warnings == ()
    assert found == open_results(decided).decisions
    assert None not in (found.threshold, found.threshold_report, found.verdict, found.deployment)


def test_judging_again_repairs_a_deployment_record_and_moves_no_date(
    cli: RunCli, decided: Path, tmp_path: Path
) -> None:
    before = (decided / "deployment.json").read_text()
    changed = json.loads(before) | {"status": "rejected", "conditions": []}
    (decided / "deployment.json").write_text(json.dumps(changed))
    path = tmp_path / "criteria.json"
    assert cli("gate", decided, "--on", "production", "--criteria", path).exit_code == 0
    assert (decided / "deployment.json").read_text() == before


def test_decisions_of_another_model_are_left_out_with_a_warning(decided: Path) -> None:
    (decided / "adapter").mkdir()
    (decided / "adapter" / "adapter_model.safetensors").write_bytes(b"another")
    found = read_decisions(open_results(decided))
    assert (found.threshold, found.threshold_report) == (None, None)
    assert (found.verdict, found.deployment) == (None, None)
    assert [one.split()[0] for one in found.warnings] == ["threshold.json", "gate.json"]
    assert "another adapter" in found.warnings[0]


def test_a_verdict_on_other_rows_is_left_out(decided: Path) -> None:
    inputs = decided / "evaluations" / "production" / "inputs.json"
    inputs.write_text(inputs.read_text().replace("-rows", "-other"))
    found = read_decisions(open_results(decided))
    assert found.threshold is not None
    assert (found.verdict, found.deployment) == (None, None)
    assert len(found.warnings) == 1 and "other rows" in found.warnings[0]


def test_a_verdict_at_a_threshold_that_is_gone_is_left_out(decided: Path) -> None:
    clear_decisions(open_results(decided), keep=("gate.json", "deployment.json"))
    assert not (decided / "threshold.json").exists()
    assert not (decided / "threshold_report.json").exists()
    found = read_decisions(open_results(decided))
    assert (found.threshold, found.verdict, found.deployment) == (None, None, None)
    assert "the run now has 0.5" in found.warnings[0]
    with pytest.raises(ConfigError):
        read_deployment(open_results(decided))


def test_clearing_removes_every_decision(decided: Path) -> None:
    clear_decisions(open_results(decided))
    clear_decisions(open_results(decided))  # nothing there is nothing to do
    found = read_decisions(open_results(decided))
    assert found == Decisions(None, None, None, None)
    assert (decided / "evaluations").is_dir() and (decided / "manifest.json").is_file()


def test_tuning_again_reproduces_the_files(cli: RunCli, decided: Path) -> None:
    def content() -> tuple[str, str]:
        threshold = json.loads((decided / "threshold.json").read_text())
        del threshold["created"]
        return json.dumps(threshold), (decided / "threshold_report.json").read_text()

    before = content()
    clear_decisions(open_results(decided))
    fit = ["threshold", decided, "--fit-on", "validation", "--report-on", "production"]
    assert cli(*fit, "--max-group-fpr", "0.3").exit_code == 0
    assert content() == before
