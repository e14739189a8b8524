from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import make_posts, write_csv

MARKED = "kind <b>neighbours</b> & | *all*"


@pytest.fixture
def runs(cli: RunCli, tmp_path: Path) -> list[Path]:
    """Two imported runs on the same rows; the second one is right more often."""
    folders = []
    for name, wrong in (("first", 3), ("second", 8)):
        posts = make_posts(48, seed=5)
        posts[1]["text"] = MARKED
        answers = [
            {**post, "predicted": _flipped(post["label"]) if index % wrong == 1 else post["label"]}
            for index, post in enumerate(posts)
        ]
        file = write_csv(tmp_path / f"{name}.csv", answers)
        folder = tmp_path / "runs" / name
        columns = ("text=text", "label=label", "prediction=predicted", "group=group", "id=id")
        made = cli(
            "import",
            "--predictions",
            file,
            "--name",
            "test",
            "--out",
            folder,
            *(part for column in columns for part in ("--column", column)),
        )
        assert made.exit_code == 0, made.stderr
        folders.append(folder)
    return folders


def _flipped(label: str) -> str:
    return "normal" if label == "hate" else "hate"


def test_two_runs_are_reported_side_by_side(cli: RunCli, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = cli("report", *runs, "--out", out, "--chosen", "second", "--role", "test=production")
    assert done.exit_code == 0, done.stderr
    assert "chosen: second" in done.stdout
    text = (out / "summary.md").read_text(encoding="utf-8")
    assert "**second**: named by the user" in text
    assert "## Production Validation\n\n### second on test" in text
    assert "#### Paired tests on test" in text
    assert "## Audit Findings" in text
    for name in ("summary.html", "comparison.json", "audit.json", "figures/groups-test.svg"):
        assert (out / name).is_file()
    assert "neighbours" not in text
    assert "neighbours" not in (out / "summary.html").read_text(encoding="utf-8")


def test_json_is_one_document(cli: RunCli, runs: list[Path], tmp_path: Path) -> None:
    done = cli("report", *runs, "--out", tmp_path / "report", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "report" / "comparison.json").read_text("utf-8"))
    assert set(document["sets"]["test"]["phases"]) == {"first", "second"}
    assert document["comparisons"][0]["set"] == "test"


def test_posts_are_shown_only_when_asked_for_and_escaped(
    cli: RunCli, runs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    done = cli("report", runs[0], "--out", out, "--include-posts")
    assert done.exit_code == 0, done.stderr
    assert "kind &lt;b&gt;neighbours&lt;\\/b&gt; &amp; \\| \\*all\\*" in (
        (out / "summary.md").read_text(encoding="utf-8")
    )
    page = (out / "summary.html").read_text(encoding="utf-8")
    assert "kind &lt;b&gt;neighbours&lt;/b&gt; &amp; | *all*" in page


def test_posts_that_cannot_be_read_are_a_warning_with_the_remedy(
    cli: RunCli, runs: list[Path], tmp_path: Path
) -> None:
    inputs = runs[0] / "evaluations" / "test" / "inputs.json"
    content = json.loads(inputs.read_text())
    content["data"]["file"] = str(tmp_path / "gone.json")
    inputs.write_text(json.dumps(content))
    done = cli("report", runs[0], "--out", tmp_path / "report", "--include-posts")
    assert done.exit_code == 0, done.stderr
    assert "warning: The posts of test are left out" in done.stderr
    assert "evenhand import ... --data FILE" in done.stderr


def test_a_file_in_place_of_the_folder_is_refused(
    cli: RunCli, runs: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "report"
    file.write_text("mine")
    for out in (file, file / "deeper"):
        done = cli("report", *runs, "--out", out)
        assert done.exit_code == 2
        assert "is a file; choose another folder" in done.stderr
        assert cli("compare", *runs, "--on", "test", "--out", out).exit_code == 2
    assert file.read_text() == "mine"


def test_a_second_report_replaces_the_first(cli: RunCli, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert cli("report", *runs, "--out", out).exit_code == 0
    assert (out / "figures" / "differences-test.svg").is_file()
    assert cli("report", runs[0], "--out", out).exit_code == 0
    assert not (out / "figures" / "differences-test.svg").exists()


def test_mistakes_are_told_together(cli: RunCli, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = cli("report", *runs, "--out", out, "--role", "tset=production", "--role", "test=prod")
    assert done.exit_code == 2
    assert 'no run has an evaluation "tset"; did you mean "test"?' in done.stderr
    assert '"prod" is no role' in done.stderr
    assert cli("report", runs[0], "--out", out, "--chosen", "frist").exit_code == 2
    assert cli("report", runs[0], runs[0], "--out", out).exit_code == 2
    assert cli("report", tmp_path, "--out", out).exit_code == 2
    assert not out.exists()
