"""Follow docs/production.md: its commands, read from the page, are run as a user types them."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "production.md"
URL = "http://127.0.0.1:8000"  # as the page writes it

_FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"cat > (\S+) <<'END'\n(.*?)^END\n", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One command of the page; ``content`` is that of the file that it writes."""

    section: str
    command: str
    content: str | None = None


def read_steps(page: str) -> list[Step]:
    """Return the commands of a page, in order, with the heading that they stand under."""
    headings = [(match.start(), match[1]) for match in _SECTION.finditer(page)]
    steps = []
    for fence in _FENCE.finditer(page):
        section = [title for start, title in headings if start < fence.start()][-1]
        rest = fence[1]
        while rest:
            file = _FILE.match(rest)
            if file is not None:
                steps.append(Step(section, f"cat > {file[1]}", file[2]))
                rest = rest[file.end() :]
                continue
            command, _, rest = rest.replace("\\\n", " ").partition("\n")
            steps.append(Step(section, command))
    return steps


@dataclass
class Walk:
    """A folder in which the page is followed: its variables, its server, what was printed.

    ``changes`` replaces parts of commands: a smaller number of posts, another database.
    """

    folder: Path
    changes: Mapping[str, str]
    patch: pytest.MonkeyPatch
    port: int = 0
    printed: dict[str, list[str]] = field(default_factory=dict)
    _server: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self.folder / "examples").symlink_to(PROJECT / "examples")
        self.patch.chdir(self.folder)
        self.patch.syspath_prepend(str(PROJECT / "examples" / "production"))

    @property
    def url(self) -> str:
        """Where the server of the page listens in this walk."""
        return f"http://127.0.0.1:{self.port}"

    def do(self, step: Step) -> str:
        """Do what a step says; return what it prints, and end the test where it fails."""
        if step.content is not None:
            Path(step.command.split()[-1]).write_text(step.content, encoding="utf-8")
            return ""
        command = step.command
        for before, after in self.changes.items():
            command = command.replace(before, after)
        output = self._run(command)
        self.printed.setdefault(step.section, []).append(output)
        return output

    def _run(self, command: str) -> str:
        words = [string.Template(word).substitute(os.environ) for word in shlex.split(command)]
        given = ""
        if words[0] == "echo":
            given, words = words[1] + "\n", words[3:]
        match words:
            case ["make", "demo"] | [".", _]:
                assert Path("demo").is_dir()
                return ""
            case ["export", assignment]:
                name, _, value = assignment.partition("=")
                self.patch.setenv(name, value)
                return ""
            case ["curl", *_]:
                return self._curl([word.replace(URL, self.url) for word in words])
            case ["evenhand", "serve", *rest]:
                return self._serve(rest)
            case ["evenhand", *rest]:
                return self._evenhand(rest, given)
            case ["python", script, *rest]:
                return self._script(Path(script).stem, rest)
        raise AssertionError(f"the page has a command that its test cannot run: {command}")

    def _evenhand(self, words: list[str], given: str) -> str:
        from evenhand.cli.main import run

        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = run(words)
        assert code == 0, (words, code, out.getvalue())
        return out.getvalue()

    def _script(self, name: str, words: list[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            importlib.import_module(name).main([*words, "--url", self.url])
        return out.getvalue()

    def _curl(self, words: list[str]) -> str:
        if shutil.which("curl") is None:
            return ""
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def _serve(self, words: list[str]) -> str:
        """Start the server; one that runs is stopped first, as by Ctrl-C."""
        self.stop()
        command = [sys.executable, "-m", "evenhand", "serve", *words, "--port", str(self.port)]
        log = self.folder / "serve.log"
        with log.open("wb") as stream:
            self._server = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        end = time.monotonic() + 90
        while time.monotonic() < end and self._server.poll() is None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5),
            ):
                return log.read_text("utf-8")
            time.sleep(0.1)
        raise AssertionError(log.read_text("utf-8", "replace"))

    def stop(self) -> None:
        """Stop the server, which must end by itself and well."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.send_signal(signal.SIGINT)
        try:
            code = server.wait(40)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            raise
        assert code == 0, (self.folder / "serve.log").read_text("utf-8", "replace")


@contextlib.contextmanager
def walking(folder: Path, changes: Mapping[str, str]) -> Iterator[Walk]:
    """Yield a walk in a folder that has ``demo/``; afterwards all is as before."""
    with pytest.MonkeyPatch.context() as patch:
        walk = Walk(folder, changes, patch)
        try:
            yield walk
        finally:
            walk.stop()
