from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.conftest import RunCli
from tests.experiment.lived import criteria, live

from evenhand.watch.store.database import default_url, open_database
from evenhand.watch.store.tables import PostRow


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live(tmp_path_factory.mktemp("lived"))


@pytest.fixture
def run(lived: Path, tmp_path: Path) -> Path:
    return shutil.copytree(lived / "run", tmp_path / "run")


def ids(run: Path, column: str, count: int) -> list[str]:
    database = open_database(default_url(run))
    with database.reading() as session:
        found = session.scalars(select(getattr(PostRow, column)).order_by(PostRow.id)).all()
    database.close()
    return list(found[:count])


def test_status_check_and_alarms(cli: RunCli, run: Path) -> None:
    status = cli("watch", "status", "--run", run)
    assert status.exit_code == 0
    assert "No alarm is open." in status.stdout
    assert "FPR lgbtq" in status.stdout
    assert "Tune the threshold." in status.stdout
    assert "a gay friend" not in status.stdout
    assert cli("watch", "check", "--run", run).exit_code == 0
    enforced = cli("watch", "check", "--run", run, "--enforce", "--json")
    assert enforced.exit_code == 3
    document = json.loads(enforced.stdout)
    assert ("fpr", "lgbtq") in {(one["kind"], one["subject"]) for one in document["alarms"]}
    estimate = next(
        one for one in document["estimates"] if (one["metric"], one["group"]) == ("fpr", "lgbtq")
    )
    assert estimate["bound"] == 0.3 < estimate["low"]
    listed = cli("watch", "alarms", "--run", run)
    assert "| fpr" in listed.stdout
    seen = cli("watch", "status", "--database", default_url(run), "--json")
    assert json.loads(seen.stdout)["alarms"] == document["alarms"]


def test_an_alarm_is_closed_with_a_reason(cli: RunCli, run: Path) -> None:
    alarms = json.loads(cli("watch", "check", "--run", run, "--json").stdout)["alarms"]
    number = str(alarms[0]["id"])
    assert cli("watch", "close", number, "--reason", " ", "--run", run).exit_code == 2
    assert cli("watch", "close", "99", "--reason", "seen", "--run", run).exit_code == 2
    assert cli("watch", "close", number, "--reason", "seen", "--run", run).exit_code == 0
    left = json.loads(cli("watch", "alarms", "--run", run, "--json").stdout)
    assert len(left) == len(alarms) - 1
    everything = cli("watch", "alarms", "--run", run, "--all").stdout
    assert ": seen" in everything


def test_retune_writes_the_new_threshold_and_says_what_is_to_be_done(
    cli: RunCli, run: Path, tmp_path: Path
) -> None:
    criteria(tmp_path)
    path = tmp_path / "criteria-0.3-0.6.json"
    done = cli(
        *("watch", "retune", run, "--on", "test", "--criteria", path, "--max-group-fpr", "0.3")
    )
    assert done.exit_code == 0, done.stderr
    for words in (
        "PASS WITH CONDITIONS",
        "FPR lgbtq",
        "Duty done: Gap",
        "restart `evenhand serve`",
    ):
        assert words in done.stdout
    value = json.loads((run / "threshold.json").read_text())["value"]
    assert json.loads((run / "gate.json").read_text())["threshold"] == value
    assert len(list((run / "history").iterdir())) == 1


def test_retune_leaves_the_old_threshold_where_the_gate_fails(
    cli: RunCli, run: Path, tmp_path: Path
) -> None:
    criteria(tmp_path, recall=0.99)
    before = (run / "threshold.json").read_bytes()
    path = tmp_path / "criteria-0.99-0.6.json"
    asked = ("watch", "retune", run, "--on", "test", "--criteria", path)
    done = cli(*asked, "--max-group-fpr", "0.3")
    assert done.exit_code == 4
    assert "Nothing was replaced" in done.stdout
    assert (run / "threshold.json").read_bytes() == before
    impossible = cli(*asked, "--max-group-fpr", "0.001")
    assert impossible.exit_code == 4
    assert "No threshold keeps the limits" in impossible.stdout
    document = json.loads(cli(*asked, "--max-group-fpr", "0.001", "--json").stdout)
    assert document["status"] == "no_threshold"


def test_deletion_by_id(cli: RunCli, run: Path) -> None:
    first, second = ids(run, "id", 2)
    done = cli("watch", "delete", "--post", first, "--post", second, "--run", run)
    assert done.exit_code == 0
    assert "Deleted 2 posts" in done.stdout
    again = cli("watch", "delete", "--post", first, "--run", run)
    assert f"no post has the id {first}" in again.stderr
    assert cli("watch", "delete", "--run", run).exit_code == 2
    assert first not in ids(run, "id", 10_000)


def test_purge_and_export(cli: RunCli, run: Path, tmp_path: Path) -> None:
    assert "Erased the text of" in cli("watch", "purge", "--run", run).stdout
    out = tmp_path / "decisions.csv"
    done = cli("watch", "export", "--out", out, "--run", run, "--json")
    assert json.loads(done.stdout)["posts"] == 2500
    assert "friend" not in out.read_text()
    wrong = cli("watch", "export", "--out", tmp_path / "decisions.doc", "--run", run)
    assert wrong.exit_code == 2
    assert ".parquet" in wrong.stderr


def test_the_database_has_to_be_named_and_there(cli: RunCli, run: Path, tmp_path: Path) -> None:
    status = ("watch", "status")
    assert cli(*status).exit_code == 2
    assert cli(*status, "--run", run, "--database", default_url(run)).exit_code == 2
    missing = cli(*status, "--run", tmp_path)
    assert missing.exit_code == 2
    assert "is not a run folder" in missing.stderr
    (run / "production.sqlite").rename(tmp_path / "elsewhere.sqlite")
    unserved = cli(*status, "--run", run)
    assert unserved.exit_code == 2
    assert "nothing was served from it" in unserved.stderr
    assert not (run / "production.sqlite").exists()
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    assert cli(*status, "--database", url).exit_code == 0
    assert cli(*status, "--database", url, "--release", "zzz").exit_code == 2


def test_a_mistyped_file_is_no_new_database(cli: RunCli, run: Path, tmp_path: Path) -> None:
    wrong = ("--database", f"sqlite:///{tmp_path / 'prodction.sqlite'}")
    for words in (
        ("status",),
        ("check",),
        ("alarms",),
        ("close", "1", "--reason", "seen"),
        ("retune", run, "--on", "test"),
        ("delete", "--post", "1"),
        ("purge",),
        ("export", "--out", tmp_path / "out.csv"),
    ):
        done = cli("watch", *words, *wrong)
        assert done.exit_code == 2, words
        assert "there is no file" in done.stderr
    assert not list(tmp_path.glob("*.sqlite")) and not (tmp_path / "out.csv").exists()


def test_retuning_a_mistyped_run_makes_no_folder(cli: RunCli, run: Path, tmp_path: Path) -> None:
    asked = ("--on", "test", "--database", default_url(run))
    done = cli("watch", "retune", tmp_path / "rnu", *asked)
    assert done.exit_code == 2
    assert "is not a run folder" in done.stderr
    assert not (tmp_path / "rnu").exists()
