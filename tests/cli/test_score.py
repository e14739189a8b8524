"""``evenhand score`` as a user calls it, on tiny models."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from tests.conftest import RunCli
from tests.tiny_experiments import edit_json, make_posts, write_csv, write_phase

from evenhand.core.decisions import FittedOn, Threshold
from evenhand.core.paths import write_json
from evenhand.core.records import Row
from evenhand.data.sources import read_dataset
from evenhand.decide.threshold import threshold_rule
from evenhand.experiment.binding import current_binding
from evenhand.experiment.bulk import scoring
from evenhand.experiment.bulk.shards import SCORE_COLUMNS
from evenhand.experiment.results import open_results
from evenhand.experiment.runs import open_run
from evenhand.finetune.classifier import load_classifier

ROWS = 25
SHARD = ("--shard-rows", "4")
SHARDS = 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    from evenhand.cli.main import run

    folder = tmp_path_factory.mktemp("trained")
    assert run(["train", str(write_phase(folder, tiny_llama)), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "posts.csv", make_posts(ROWS, seed=3))


class QuickClassifier:
    """Scores by the text alone, and counts what it was asked."""

    def __init__(self, *, stop_at: int | None = None) -> None:
        self.device = SimpleNamespace(name="cpu", dtype_name="float32")
        self.stop_at = stop_at
        self.calls: list[list[str]] = []

    def score(self, rows: Sequence[Row], *, world: Any, **_: Any) -> np.ndarray:
        assert world.size == 1
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append([row.id for row in rows])
        return np.array([(sum(row.text.encode()) % 97) / 96 for row in rows])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., QuickClassifier]:
    """``quick(stop_at=2)``: put a classifier in the place of the run's own."""

    def install(**options: Any) -> QuickClassifier:
        classifier = QuickClassifier(**options)
        monkeypatch.setattr(scoring, "load_classifier", lambda *_: classifier)
        return classifier

    return install


def scores_of(out: Path) -> pd.DataFrame:
    return pq.read_table(out / "scores.parquet").to_pandas()


def test_every_row_is_scored_in_order(run: Path, posts: Path, tmp_path: Path, cli: RunCli) -> None:
    done = cli("score", posts, "--run", run, "--out", tmp_path / "out", *SHARD, "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    frame = scores_of(tmp_path / "out")
    assert tuple(frame.columns) == SCORE_COLUMNS
    rows = read_dataset(posts).rows
    assert frame["id"].tolist() == [row.id for row in rows]
    assert frame["row"].tolist() == list(range(1, ROWS + 1))
    found = open_run(run)
    expected = load_classifier(run, found.config, found.prompt).score(rows)
    assert frame["score"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert frame["decision"].tolist() == np.where(frame["score"] >= 0.5, "hate", "normal").tolist()
    assert set(frame["status"]) == {"ok"}
    assert frame["reason"].isna().all()
    assert (summary["rows"], summary["scored"], summary["errors"]) == (ROWS, ROWS, 0)
    assert summary["hate"] == (frame["decision"] == "hate").sum()
    assert (summary["shards"], summary["rows_this_start"]) == (SHARDS, ROWS)
    assert summary["devices"] == ["cpu float32"]
    parts = sorted((tmp_path / "out" / "shards").iterdir())
    assert [pq.read_metadata(one).num_rows for one in parts] == [4, 4, 4, 4, 4, 4, 1]


@pytest.mark.parametrize("changes", [{"tuning": "full"}, {"tuning": "none"}, {"model": "bert"}])
def test_every_kind_of_run(
    changes: dict[str, Any],
    tmp_path: Path,
    posts: Path,
    tiny_llama: Path,
    tiny_bert: Path,
    cli: RunCli,
) -> None:
    is_bert = changes.pop("model", None) is not None
    no_adapter = dict.fromkeys(("lora_r", "lora_alpha", "lora_target_modules"))
    phase = write_phase(
        tmp_path, tiny_bert if is_bert else tiny_llama, **(changes and {**no_adapter, **changes})
    )
    assert cli("train", phase, "--out", tmp_path / "run").exit_code == 0
    done = cli("score", posts, "--run", tmp_path / "run", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    found = open_run(tmp_path / "run")
    expected = load_classifier(found.path, found.config, found.prompt).score(
        read_dataset(posts).rows
    )
    assert scores_of(tmp_path / "out")["score"].tolist() == pytest.approx(expected.tolist())


def test_bad_rows_stay_in_their_place(
    run: Path, tmp_path: Path, quick: Callable[..., QuickClassifier], cli: RunCli
) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text('{"text": "kind"}\n{"text": ""}\n\n{"text":\n{"id": "e", "text": "thrown"}\n')
    classifier = quick()
    done = cli("score", path, "--run", run, "--out", tmp_path / "out", "--shard-rows", "2")
    assert done.exit_code == 0, done.stderr
    assert "4 rows, 2 with an error" in done.stdout
    frame = scores_of(tmp_path / "out")
    assert frame["id"].tolist() == ["row-000001", "row-000002", "row-000004", "e"]
    assert frame["status"].tolist() == ["ok", "error", "error", "ok"]
    assert frame["score"].isna().tolist() == [False, True, True, False]
    assert frame["decision"].isna().tolist() == [False, True, True, False]
    assert frame["reason"][1] == "line 2: text is empty"
    assert frame["reason"][2].startswith("line 4: malformed JSON")
    assert classifier.calls == [["row-000001"], ["e"]]
    only_bad = tmp_path / "bad.jsonl"
    only_bad.write_text('{"text": ""}\n' * 3)
    done = cli("score", only_bad, "--run", run, "--out", tmp_path / "bad", "--json")
    assert json.loads(done.stdout)["hate_rate"] is None


def test_interrupted_at_any_shard_and_gone_on_with(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    cli: RunCli,
) -> None:
    command = ("score", posts, "--run", run, *SHARD, "--out")
    quick()
    assert cli(*command, tmp_path / "whole").exit_code == 0
    whole = (tmp_path / "whole" / "scores.parquet").read_bytes()
    for stop_at in range(SHARDS):
        out = tmp_path / f"stopped-{stop_at}"
        quick(stop_at=stop_at)
        done = cli(*command, out)
        assert done.exit_code == 130
        assert f"{stop_at} finished shards are kept in {out}" in done.stderr
        assert not (out / "scores.parquet").exists()
        leftover = out / "shards" / ".part-000001.parquet.x.tmp"
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_text("half of it")
        second = quick(stop_at=1)
        assert cli(*command, out).exit_code == (130 if stop_at < SHARDS - 1 else 0)
        third = quick()
        assert cli(*command, out).exit_code == 0
        # what was finished is not scored again
        asked = [row for one in second.calls + third.calls for row in one]
        assert asked == [f"3-{number}" for number in range(4 * stop_at, ROWS)]
        assert (out / "scores.parquet").read_bytes() == whole
        assert not leftover.exists()


def test_any_shards_may_be_missing(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    cli: RunCli,
) -> None:
    out = tmp_path / "out"
    command = ("score", posts, "--run", run, "--out", out, *SHARD)
    quick()
    assert cli(*command).exit_code == 0
    whole = (out / "scores.parquet").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(5):
        gone = np.flatnonzero(rng.random(SHARDS) < 0.5)
        for shard in gone:
            (out / "shards" / f"part-{shard:06d}.parquet").unlink()
        classifier = quick()
        done = cli(*command, "--json")
        assert json.loads(done.stdout)["rows_this_start"] == sum(map(len, classifier.calls))
        assert len(classifier.calls) == len(gone)
        assert (out / "scores.parquet").read_bytes() == whole


def test_a_complete_job_loads_no_model(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    monkeypatch: pytest.MonkeyPatch,
    cli: RunCli,
) -> None:
    command = ("score", posts, "--run", run, "--out", tmp_path / "out", *SHARD)
    quick()
    assert cli(*command).exit_code == 0
    monkeypatch.setattr(scoring, "load_classifier", None)
    done = cli(*command, "--output-format", "csv")
    assert done.exit_code == 0, done.stderr
    assert "nothing was left to score" in done.stdout
    lines = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    assert len(lines) == ROWS + 1
    assert cli(*command, "--output-format", "jsonl").exit_code == 0
    wanted = scores_of(tmp_path / "out")
    for found in (
        pd.read_csv(tmp_path / "out" / "scores.csv"),
        pd.read_json(tmp_path / "out" / "scores.jsonl", lines=True),
    ):
        assert found["id"].tolist() == wanted["id"].tolist()
        assert found["score"].tolist() == pytest.approx(wanted["score"].tolist(), abs=1e-9)
        assert found["decision"].tolist() == wanted["decision"].tolist()


def test_a_shard_that_is_damaged_or_foreign_is_scored_again(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    cli: RunCli,
) -> None:
    quick()
    for name, threshold in (("out", "0.5"), ("other", "0.9")):
        command = ("score", posts, "--run", run, *SHARD, "--threshold", threshold, "--out")
        assert cli(*command, tmp_path / name).exit_code == 0
    out, other = (tmp_path / name / "shards" for name in ("out", "other"))
    whole = (out.parent / "scores.parquet").read_bytes()
    (out / "part-000001.parquet").write_bytes(b"PAR1")
    shutil.copy(other / "part-000002.parquet", out)
    shutil.copy(out / "part-000004.parquet", out / "part-000099.parquet")
    classifier = quick()
    done = cli("score", posts, "--run", run, *SHARD, "--threshold", "0.5", "--out", out.parent)
    assert done.exit_code == 0, done.stderr
    assert "part-000001.parquet cannot be read and is scored again" in done.stderr
    assert "part-000002.parquet is not a shard of this job" in done.stderr
    assert len(classifier.calls) == 2
    assert (out.parent / "scores.parquet").read_bytes() == whole


def test_another_job_in_the_folder_is_an_error_that_names_what_differs(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    cli: RunCli,
) -> None:
    out = tmp_path / "out"
    quick(stop_at=2)
    assert cli("score", posts, "--run", run, "--out", out, *SHARD).exit_code == 130
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    def refused(*arguments: str | Path) -> str:
        done = cli("score", *arguments, "--out", out)
        assert done.exit_code == 2, done.stderr
        assert "choose another --out" in done.stderr
        return done.stderr

    shown = refused(posts, "--run", run, "--shard-rows", "5", "--threshold", "0.7")
    assert "has 2 problems; it holds another scoring job, and nothing was scored" in shown
    assert "was 4 when this job was started, and is 5 now" in shown
    assert "was 0.5 when this job was started, and is 0.7 now" in shown
    assert "--include-text" in refused(posts, "--run", run, *SHARD, "--include-text")
    named = refused(posts, "--run", run, *SHARD, "--column", "id=group")
    assert "the columns that are read" in named
    more = write_csv(tmp_path / "more.csv", make_posts(ROWS, seed=4))
    assert "the input's content" in refused(more, "--run", run, *SHARD)
    adapter = run / "adapter" / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes() + b" ")
    assert "the run's adapter" in refused(posts, "--run", run, *SHARD)
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_of_something_else_is_left_alone(
    run: Path, posts: Path, tmp_path: Path, cli: RunCli
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "scores.parquet").write_text("precious")
    done = cli("score", posts, "--run", run, "--out", out)
    assert done.exit_code == 2
    assert "holds scores.parquet and no scoring job" in done.stderr
    assert [one.name for one in out.iterdir()] == ["scores.parquet"]


def test_one_command_at_a_time(run: Path, posts: Path, tmp_path: Path, cli: RunCli) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        done = cli("score", posts, "--run", run, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "another command is writing to" in done.stderr


def test_the_tuned_threshold_decides(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    cli: RunCli,
) -> None:
    record = Threshold(
        value=0.8,
        rule=threshold_rule(max_group_fpr=0.3),
        fitted_on=FittedOn(set="validation", rows_sha256="0", n=8, share=None),
        binding=current_binding(open_results(run)),
        calibration=None,
        created="2026-01-01T00:00:00+00:00",
    )
    write_json(run / "threshold.json", record.model_dump(mode="json"))
    quick()
    command = ("score", posts, "--run", run, "--json", "--out")
    done = cli(*command, tmp_path / "tuned")
    assert "threshold 0.8 (tuned)" in done.stderr
    assert json.loads(done.stdout)["threshold_origin"] == "tuned"
    frame = scores_of(tmp_path / "tuned")
    assert frame["decision"].tolist() == np.where(frame["score"] >= 0.8, "hate", "normal").tolist()
    job = json.loads((tmp_path / "tuned" / "job.json").read_text())
    assert job["threshold"] == {"value": 0.8, "origin": "tuned"}
    assert json.loads(cli(*command, tmp_path / "own", "--threshold", "0.3").stdout)[
        "threshold"
    ] == pytest.approx(0.3)
    stale = record.binding.model_copy(update={"adapter": "0" * 64})
    edit_json(run / "threshold.json", binding=stale.model_dump(mode="json"))
    done = cli(*command, tmp_path / "stale")
    assert done.exit_code == 2
    assert "another adapter" in done.stderr
    assert not (tmp_path / "stale").exists()


def test_texts_are_written_only_where_asked_for(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    cli: RunCli,
) -> None:
    quick()
    command = ("score", posts, "--run", run)
    assert cli(*command, "--out", tmp_path / "with", "--include-text").exit_code == 0
    assert scores_of(tmp_path / "with")["text"].tolist() == [
        row.text for row in read_dataset(posts).rows
    ]
    done = cli(*command, "--out", tmp_path / "out")
    texts = {row.text.encode() for row in read_dataset(posts).rows}
    written = b"".join(one.read_bytes() for one in (tmp_path / "out").rglob("*") if one.is_file())
    assert not any(text in written + done.stderr.encode() for text in texts)


def test_what_cannot_be_done_is_said_before_anything_is_written(
    run: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: RunCli
) -> None:
    out = tmp_path / "out"
    array = tmp_path / "array.json"
    array.write_text('[{"text": "kind"}]')

    def told(*arguments: str | Path) -> str:
        done = cli("score", *arguments, "--out", out)
        assert done.exit_code == 2
        assert not out.exists()
        return done.stderr

    assert "is for --engine ray" in told(posts, "--run", run, "--workers", "2")
    assert "JSON array" in told(array, "--run", run)
    assert "is not a run folder" in told(posts, "--run", tmp_path / "no")
    assert "--threshold" in told(posts, "--run", run, "--threshold", "1.5")
    assert "columns.text" in told(posts, "--run", run, "--column", "text=nothing")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert '".[ray]"' in told(posts, "--run", run, "--engine", "ray")


def test_a_model_that_gives_no_number_stops_the_job_and_keeps_the_shards(
    run: Path,
    posts: Path,
    tmp_path: Path,
    quick: Callable[..., QuickClassifier],
    monkeypatch: pytest.MonkeyPatch,
    cli: RunCli,
) -> None:
    from evenhand.core.errors import TrainingError

    classifier = quick()
    usual = classifier.score

    def score(rows: Sequence[Row], *, world: Any, **_: Any) -> np.ndarray:
        if len(classifier.calls) == 3:
            raise TrainingError("the model gives 1 of 4 rows a score that is not a number")
        return usual(rows, world=world)

    monkeypatch.setattr(classifier, "score", score)
    command = ("score", posts, "--run", run, "--out", tmp_path / "out", *SHARD)
    done = cli(*command)
    assert (done.exit_code, "not a number" in done.stderr) == (1, True)
    classifier = quick()
    done = cli(*command)
    assert "3 of 7 shards were finished before" in done.stderr
    assert len(classifier.calls) == SHARDS - 3
