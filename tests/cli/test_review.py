from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.conftest import RunCli
from tests.watch.reviewing import NOW, PASSWORD, add_items, cheap_passwords, person, say

from evenhand.watch.reviewing.users import check_password, find_user
from evenhand.watch.store.database import Database, default_url, open_database
from evenhand.watch.store.tables import ItemRow

__all__ = ["cheap_passwords"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def database(run: Path) -> Iterator[Database]:
    opened = open_database(default_url(run))
    yield opened
    opened.close()


def test_a_generated_password_is_printed_once_and_opens(
    cli: RunCli, run: Path, database: Database
) -> None:
    made = cli("review", "user", "add", "Anna", "--role", "admin", "--generate", "--run", run)
    assert made.exit_code == 0, made.stderr
    assert made.stdout.startswith("anna (admin, reviewer-")
    password = made.stdout.splitlines()[1].removeprefix("password: ")
    with database.session() as session:
        assert check_password(find_user(session, "anna"), password)
    assert password not in cli("review", "user", "list", "--run", run).stdout


def test_people_are_listed_given_passwords_and_deactivated(
    cli: RunCli, run: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    added = cli(
        "review", "user", "add", "ben", "--role", "reviewer", "--password-stdin", "--run", run
    )
    assert added.exit_code == 0, added.stderr
    assert PASSWORD not in added.stdout + added.stderr
    changed = cli("review", "user", "password", "ben", "--generate", "--run", run, "--json")
    password = json.loads(changed.stdout)["password"]
    with database.session() as session:
        assert check_password(find_user(session, "ben"), password)
        assert not check_password(find_user(session, "ben"), PASSWORD)
    assert cli("review", "user", "deactivate", "ben", "--run", run).exit_code == 0
    listed = cli("review", "user", "list", "--run", run, "--json")
    (user,) = json.loads(listed.stdout)["users"]
    assert (user["name"], user["role"], user["active"]) == ("ben", "reviewer", False)
    assert "hash" not in listed.stdout


def test_mistakes_are_named(cli: RunCli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    add = ("review", "user", "add", "ben", "--role", "admin")
    short = cli(*add, "--password-stdin", "--run", run)
    assert short.exit_code == 2
    assert "at least 12 are needed" in short.stderr
    assert cli(*add, "--generate", "--password-stdin", "--run", run).exit_code == 2
    assert "there is no terminal to ask" in cli(*add, "--run", run).stderr
    assert "--run RUN or --database URL" in cli(*add, "--generate").stderr
    assert cli(*add, "--generate", "--run", run / "nowhere").exit_code == 2
    assert "There is nobody yet." in cli("review", "user", "list", "--run", run).stdout
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\r\n"))
    assert cli(*add, "--password-stdin", "--run", run).exit_code == 0
    opened = open_database(default_url(run))
    with opened.session() as session:  # a line end of another system is no part of it
        assert check_password(find_user(session, "ben"), PASSWORD)
    opened.close()
    assert "Nothing was done yet." in cli("review", "history", "--run", run).stdout
    unknown = cli("review", "user", "deactivate", "bem", "--run", run)
    assert unknown.exit_code == 2
    assert 'no user "bem"' in unknown.stderr


def test_golden_items_come_from_the_starter_corpus_or_a_file(
    cli: RunCli, run: Path, database: Database, tmp_path: Path
) -> None:
    first = cli("review", "golden", "--run", run)
    assert first.stdout == "60 golden items added, 0 were there already\n"
    again = cli("review", "golden", "--run", run, "--json")
    assert json.loads(again.stdout) == {"added": 0, "already": 60}
    path = tmp_path / "own.csv"
    path.write_text("id,text,label,groups\n1,I hate [group],hate,women\n2,a fine day,normal,\n")
    own = cli("review", "golden", "--data", path, "--database", default_url(run), "--json")
    assert json.loads(own.stdout) == {"added": 2, "already": 0}
    with database.session() as session:
        items = session.scalars(select(ItemRow)).all()
    assert {item.kind for item in items} == {"golden"}
    assert {item.golden_label for item in items} == {"hate", "normal"}


def test_the_queue_goes_to_label_studio_and_back(
    cli: RunCli, run: Path, database: Database, tmp_path: Path
) -> None:
    with database.session() as session:
        add_items(session, 2)
        person(session, "anna")
    out, config = tmp_path / "queue.json", tmp_path / "config.xml"
    exported = cli("review", "export", "--out", out, "--config-out", config, "--run", run)
    assert exported.exit_code == 0, exported.stderr
    assert exported.stdout == f"{out}: 2 tasks with 0 annotations; it holds posts' texts\n"
    assert config.read_text().startswith("<View>")
    tasks = json.loads(out.read_text())
    tasks[0]["annotations"] = [
        {
            "completed_by": 1,
            "result": [
                {"from_name": "label", "type": "choices", "value": {"choices": ["hate"]}},
            ],
        }
    ]
    out.write_text(json.dumps(tasks))
    found = cli("review", "import", out, "--user", "anna", "--run", run)
    assert (found.exit_code, found.stdout) == (0, "1 added as reviews\n")
    again = cli("review", "import", out, "--user", "anna", "--run", run, "--json")
    assert json.loads(again.stdout)["already"] == 1
    tasks[0]["data"]["text"] = "another"
    out.write_text(json.dumps(tasks))
    refused = cli("review", "import", out, "--user", "anna", "--run", run)
    assert refused.exit_code == 2
    assert "[0].annotations[0]" in refused.stderr
    nobody = cli("review", "import", out, "--user", "ana", "--run", run)
    assert 'did you mean "anna"' in nobody.stderr


def test_history_names_pseudonyms_and_no_posts(cli: RunCli, run: Path, database: Database) -> None:
    with database.session() as session:
        add_items(session, 2)
        anna = person(session, "anna")
        say(session, anna, "hate", ["women"])
        say(session, anna)
    shown = cli("review", "history", "--run", run)
    lines = shown.stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith(f"{anna.user.pseudonym}  item 1  label  hate women")
    assert f"{NOW:%Y-%m-%d %H:%M}" in lines[0]
    document = cli("review", "history", "--item", "1", "--json", "--run", run)
    (act,) = json.loads(document.stdout)["acts"]
    assert (act["label"], act["groups"], act["reviewer"]) == (
        "hate",
        ["women"],
        anna.user.pseudonym,
    )
    assert "anna" not in document.stdout + shown.stdout
    assert "post number" not in document.stdout + shown.stdout


@pytest.mark.parametrize("words", [[], ["user"], ["import"], ["export"], ["golden"], ["history"]])
def test_help_has_an_example(cli: RunCli, words: list[str]) -> None:
    shown = cli("review", *words, "--help")
    assert shown.exit_code == 0
    assert ("Example: evenhand review" in shown.stdout) == (words not in ([], ["user"]))
