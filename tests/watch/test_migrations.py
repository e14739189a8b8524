from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from evenhand.core.errors import StorageError
from evenhand.watch.store.database import Database, open_database
from evenhand.watch.store.migrating import configure
from evenhand.watch.store.tables import Table


def test_migrations_and_tables_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_there_is_one_line_of_migrations() -> None:
    assert len(ScriptDirectory.from_config(configure()).get_heads()) == 1


def test_migrations_can_be_undone_and_done_again(database: Database) -> None:
    with database.engine.begin() as connection:
        command.downgrade(configure(connection), "base")
    with database.engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    with database.engine.begin() as connection:
        command.upgrade(configure(connection), "head")
    with database.engine.connect() as connection:
        assert set(Table.metadata.tables) < set(inspect(connection).get_table_names())


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_after(config: object, revision: str) -> None:
        real(config, revision)  # pyright: ignore[reportArgumentType]
        raise RuntimeError("the power went")

    url, real = f"sqlite:///{tmp_path / 'a.sqlite'}", command.upgrade
    monkeypatch.setattr(command, "upgrade", fail_after)
    with pytest.raises(RuntimeError, match="power"):
        open_database(url)
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    monkeypatch.undo()
    open_database(url).close()


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    url = database.engine.url.render_as_string(hide_password=False)
    with pytest.raises(StorageError, match="9999") as caught:
        open_database(url)
    assert "newer version" in (caught.value.hint or "")


def test_somebody_else_s_tables_are_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE posts (body TEXT)"))
    with pytest.raises(StorageError, match="tables that Evenhand did not make: posts"):
        open_database(url)
    assert inspect(engine).get_table_names() == ["posts"]
    engine.dispose()
