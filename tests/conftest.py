"""What every test shares: one thread, no hub, the real data where it lies, the command line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROJECT = Path(__file__).resolve().parent.parent

# Before any test module imports a numerical library: these are read once, at import.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# A test that is itself run under torchrun, or by a quiet user, still sees the usual output.
for _name in ("EVENHAND_QUIET", "EVENHAND_TRACEBACK", "RANK", "WORLD_SIZE"):
    os.environ.pop(_name, None)

# How long one example takes says more of the machine's other work than of the code.
settings.register_profile("evenhand", deadline=None)
settings.load_profile("evenhand")


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    exit_code: int
    stdout: str
    stderr: str


class RunCli(Protocol):
    def __call__(self, *args: str | os.PathLike[str]) -> Result: ...


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> RunCli:
    """Run one command line in this process: ``cli("params", path, "--json").exit_code``."""
    from evenhand.cli.main import run

    def run_cli(*args: str | os.PathLike[str]) -> Result:
        capfd.readouterr()
        exit_code = run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return Result(exit_code, out, err)

    return run_cli


@pytest.fixture(scope="session")
def project_root() -> Path:
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; its absence skips, or fails where CI says so."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        message = "the real data (shared/data beside the project) is not here"
        if os.environ.get("EVENHAND_REQUIRE_DATA") == "1":
            pytest.fail(f"{message}, and EVENHAND_REQUIRE_DATA=1 asks for it")
        pytest.skip(message)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, driven by playwright."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        message = "Chromium is not installed, so the pages were not looked at"
        if os.environ.get("EVENHAND_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{message}, and EVENHAND_REQUIRE_BROWSER=1 asks for it")
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
