"""Run folders that lost a file or have a damaged one: named, with the remedy that fits the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.imported import bring, posts, table

from evenhand.core.decisions import Deployment
from evenhand.core.errors import StorageError
from evenhand.experiment.auditing import audit_runs
from evenhand.experiment.results import open_results, read_record

FILES = ("evaluation.json", "predictions.parquet", "inputs.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    bring(table(tmp_path / "p.csv", posts()), tmp_path / "run")
    return tmp_path / "run"


def again(run: Path) -> None:
    bring(run.with_name("p.csv"), run)
    assert audit_runs([open_results(run)]).checks
    assert len(open_results(run).predictions("test")) == 12


@pytest.mark.parametrize("lost", FILES)
def test_a_lost_file_of_an_evaluation_is_told(run: Path, lost: str) -> None:
    (run / "evaluations" / "test" / lost).unlink()
    (run / "evaluations" / ".left.tmp").mkdir()
    with pytest.raises(StorageError, match=f"evaluations/test is damaged: no {lost}") as caught:
        audit_runs([open_results(run)])
    assert caught.value.hint is not None and "evenhand import --name test" in caught.value.hint
    again(run)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_of_an_evaluation_is_imported_again(run: Path, name: str) -> None:
    file = run / "evaluations" / "test" / name
    file.write_bytes(file.read_bytes()[:50])
    results = open_results(run)
    with pytest.raises(StorageError, match=name) as caught:
        for read in (results.evaluation, results.predictions, results.inputs):
            read("test")
    assert caught.value.hint is not None and "evenhand import" in caught.value.hint
    again(run)


@pytest.mark.parametrize("content", ['{"command": ', "[]", "{}", '{"imported": {}}', None])
@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_the_runs_own_files(run: Path, name: str, content: str | None) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    with pytest.raises(StorageError, match=name) as caught:
        open_results(run)
    assert caught.value.hint is not None and "evenhand import" in caught.value.hint
    if content is not None:
        with pytest.raises(StorageError, match=name):
            bring(run.with_name("p.csv"), run)
    if name == "config.json":  # as the hint says
        (run / name).unlink(missing_ok=True)
        again(run)


def test_a_record_that_does_not_fit_names_its_values(tmp_path: Path) -> None:
    file = tmp_path / "deployment.json"
    file.write_text('{"model": 3}')
    with pytest.raises(StorageError, match="these values do not fit: ") as caught:
        read_record(Deployment, file)
    assert "(Field required)" in str(caught.value)
