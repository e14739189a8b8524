from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import RunCli


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    return tmp_path / "run"


def test_keys_are_made_listed_and_revoked(run: Path, cli: RunCli) -> None:
    url = f"sqlite:///{run / 'production.sqlite'}"
    added = cli("keys", "add", "forum", "--run", run)
    assert added.exit_code == 0, added.stderr
    key = added.stdout.strip()
    assert key.startswith("eh_")
    assert key not in added.stderr
    other = json.loads(cli("keys", "add", "app", "--database", url, "--json").stdout)
    assert other["name"] == "app"
    revoked = cli("keys", "revoke", "app", "--database", url)
    assert (revoked.exit_code, revoked.stdout) == (0, 'The key of "app" is revoked.\n')
    listed = json.loads(cli("keys", "list", "--database", url, "--json").stdout)
    assert [(one["name"], one["revoked"] is None) for one in listed] == [
        ("forum", True),
        ("app", False),
    ]
    table = cli("keys", "list", "--database", url).stdout
    assert "| forum | " in table
    assert key not in table


def test_a_mistyped_name_makes_no_database(run: Path, tmp_path: Path, cli: RunCli) -> None:
    mistyped = ("--database", f"sqlite:///{tmp_path / 'prodction.sqlite'}")
    for words in (("list",), ("revoke", "forum")):
        for where, told in (
            (mistyped, "there is no file"),
            (("--run", run), "has no production.sqlite"),
            (("--run", tmp_path), "is not a run folder"),
            ((), "--run RUN or --database URL"),
            (("--run", run, *mistyped), "--run RUN or --database URL"),
        ):
            done = cli("keys", *words, *where)
            assert done.exit_code == 2
            assert told in done.stderr
    assert cli("keys", "add", "forum", "--run", tmp_path).exit_code == 2
    assert not list(tmp_path.rglob("*.sqlite"))


def test_a_wrong_name_is_told_with_the_nearest(run: Path, cli: RunCli) -> None:
    cli("keys", "add", "forum", "--run", run)
    done = cli("keys", "revoke", "forun", "--run", run)
    assert done.exit_code == 2
    assert 'did you mean "forum"?' in done.stderr
