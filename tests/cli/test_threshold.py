from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.decide.synthetic import counted, drawn, write_run

from evenhand.core.decisions import Threshold, ThresholdReport
from evenhand.core.errors import ConfigError
from evenhand.core.predictions import Predictions
from evenhand.decide.threshold import threshold_rule
from evenhand.experiment.deciding import read_threshold, split_by_hash, tune
from evenhand.experiment.results import open_results


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(
        tmp_path / "run", {"validation": drawn(400, seed=1), "test": drawn(300, seed=2)}
    )


def fit(cli: RunCli, run: Path, *more: str, report_on: str = "test") -> tuple[int, str, str]:
    done = cli("threshold", run, "--fit-on", "validation", "--report-on", report_on, *more)
    return done.exit_code, done.stdout, done.stderr


def test_fits_on_one_set_and_reports_on_the_other(cli: RunCli, run: Path) -> None:
    code, out, _ = fit(cli, run, "--max-group-fpr", "0.30", "--json")
    assert code == 0
    document = json.loads(out)
    threshold = Threshold.model_validate_json((run / "threshold.json").read_text())
    report = ThresholdReport.model_validate_json((run / "threshold_report.json").read_text())
    assert document["threshold"]["value"] == threshold.value == report.value
    assert (threshold.fitted_on.set, threshold.fitted_on.n) == ("validation", 400)
    assert (report.set, report.n, report.share) == ("test", 300, None)
    frame = drawn(300, seed=2).frame
    normal = frame.label == "normal"
    assert report.after.fp == (normal & (frame.score >= threshold.value)).sum()
    assert report.before.fp == (normal & (frame.score >= 0.5)).sum()
    assert report.comparison.pairs[0].first == "threshold 0.5"
    assert threshold.calibration is not None
    assert set(report.calibration_after) == {"nll", "brier", "ece"}
    assert read_threshold(open_results(run)) == threshold


def test_the_text_shows_what_the_limits_cost(cli: RunCli, run: Path) -> None:
    code, out, _ = fit(cli, run, "--max-group-fpr", "0.08")
    assert code == 0
    assert "The limits cost recall" in out
    assert "best F1, no limit" in out
    assert "On test, 300 rows" in out


def test_nothing_satisfies_the_limit(cli: RunCli, run: Path) -> None:
    code, out, _ = fit(cli, run, "--max-group-fpr", "0.01")
    assert code == 4
    assert "Nothing was written" in out
    assert "| 299 " in out
    assert not (run / "threshold.json").exists()
    assert not (run / "threshold_report.json").exists()
    assert fit(cli, run, "--max-group-fpr", "0.30")[0] == 0
    before = (run / "threshold.json").read_bytes()
    code, out, err = fit(cli, run, "--max-group-fpr", "0.01", "--json")
    assert code == 4
    document = json.loads(out)
    assert document["threshold"] is None
    assert document["fitted"]["groups"]["alpha"]["needed_at_zero"] == 299
    assert "stays in place" in err
    value = json.loads(before)["value"]
    assert f"the earlier threshold {value:.4f} (fitted on validation" in err
    assert "to return to the default: rm " in err
    assert (run / "threshold.json").read_bytes() == before


def test_a_part_of_one_set(cli: RunCli, run: Path) -> None:
    code, out, _ = fit(cli, run, "--fit-share", "0.4", "--json", report_on="validation")
    assert code == 0
    document = json.loads(out)
    fitted, report = document["threshold"]["fitted_on"], document["report"]
    assert fitted["n"] + report["n"] == 400
    assert 0.3 < fitted["n"] / 400 < 0.5
    assert (fitted["share"], report["share"]) == (0.4, 0.6)


def test_a_part_keeps_clusters_together_and_does_not_depend_on_the_order() -> None:
    predictions = drawn(400, seed=3, clusters=50)
    inside, outside = split_by_hash(predictions, share=0.5)
    assert not set(inside.frame.cluster) & set(outside.frame.cluster)
    shuffled = Predictions(predictions.frame.sample(frac=1, random_state=1))
    assert set(split_by_hash(shuffled, share=0.5)[0].frame.id) == set(inside.frame.id)


@pytest.mark.parametrize(
    ("report_on", "more", "words"),
    [
        ("validation", [], "--fit-share 0.5"),
        ("test", ["--fit-share", "0.5"], "these are two"),
        ("validation", ["--fit-share", "1.5"], "between 0 and 1"),
        ("tset", [], 'did you mean "test"'),
        ("test", ["--max-group-fpr", "30"], "0.3 stands for 30%"),
    ],
)
def test_wrong_input(cli: RunCli, run: Path, report_on: str, more: list[str], words: str) -> None:
    code, _, err = fit(cli, run, *more, report_on=report_on)
    assert code == 2
    assert words in err
    assert not (run / "threshold.json").exists()


def test_the_same_rows_under_two_names_are_refused(cli: RunCli, run: Path) -> None:
    inputs = run / "evaluations/validation/inputs.json"
    (run / "evaluations/test/inputs.json").write_text(inputs.read_text())
    code, _, err = fit(cli, run)
    assert code == 2
    assert "nothing would be held out" in err


def test_decisions_without_scores_are_refused_with_the_remedy(cli: RunCli, tmp_path: Path) -> None:
    bare = counted({"a": (20, 20, 5, 5)}, scored=False)
    run = write_run(tmp_path / "run", {"validation": bare, "test": bare}, method="import")
    inputs = json.loads((run / "evaluations/test/inputs.json").read_text())
    inputs["inputs"]["rows"] = "others"
    (run / "evaluations/test/inputs.json").write_text(json.dumps(inputs))
    code, _, err = fit(cli, run)
    assert code == 2
    assert "import predictions with a score column" in err


def test_a_threshold_of_something_else_is_refused(cli: RunCli, run: Path) -> None:
    (run / "adapter").mkdir()
    weights = run / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"first")
    assert fit(cli, run)[0] == 0
    assert read_threshold(open_results(run)) is not None
    weights.write_bytes(b"second")
    with pytest.raises(ConfigError, match="1 problem"):
        read_threshold(open_results(run))
    done = cli("gate", run, "--on", "test")
    assert done.exit_code == 2
    assert "another adapter" in done.stderr
    assert cli("gate", run, "--on", "test", "--threshold", "default").exit_code != 2
    weights.write_bytes(b"first")
    inputs = run / "evaluations/validation/inputs.json"
    inputs.write_text(inputs.read_text().replace("validation-400-rows", "other"))
    with pytest.raises(ConfigError) as caught:
        read_threshold(open_results(run))
    assert "other rows" in caught.value.render()


@pytest.mark.parametrize("key", ["run", "prompt", "base"])
def test_a_foreign_threshold_is_refused(run: Path, cli: RunCli, key: str) -> None:
    assert fit(cli, run)[0] == 0
    document = json.loads((run / "threshold.json").read_text())
    document["binding"][key] = "f" * 64
    (run / "threshold.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError) as caught:
        read_threshold(open_results(run))
    assert caught.value.problems[0].place == f"binding.{key}"


def test_a_damaged_threshold_is_refused(cli: RunCli, run: Path) -> None:
    (run / "threshold.json").write_text('{"value": 0.5')
    done = cli("gate", run, "--on", "test")
    assert done.exit_code == 1
    assert "threshold.json" in done.stderr


def test_tuning_twice_gives_the_same(run: Path) -> None:
    found = [
        tune(
            open_results(run),
            fit_on="validation",
            report_on="test",
            rule=threshold_rule(max_group_fpr=0.3),
        )
        for _ in range(2)
    ]
    assert found[0].report == found[1].report
    assert found[0].fitted == found[1].fitted
