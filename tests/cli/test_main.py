from __future__ import annotations

import errno
import os
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from evenhand.cli import main
from evenhand.core.errors import ConfigError, Problem, StorageError

if TYPE_CHECKING:
    from tests.conftest import RunCli

HEAVY = ("torch", "transformers", "peft", "pandas", "pydantic", "numpy", "sklearn", "rich")


def offer(monkeypatch: pytest.MonkeyPatch, failure: BaseException | int | None) -> None:
    """Put a command named ``try`` into the table that raises or returns what it is given."""

    def command() -> int | None:
        """Fail on purpose."""
        if isinstance(failure, BaseException):
            raise failure
        return failure

    module = ModuleType("evenhand.cli.try_it")
    module.command = command  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(main.COMMANDS, "try", (module.__name__, "Fail on purpose."))


def test_help_is_quick_and_light() -> None:
    probe = (
        "import resource, sys\n"
        "from evenhand.cli.main import run\n"
        "code = run(['--help'])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(code, used.ru_utime + used.ru_stime, heavy, file=sys.stderr)\n"
    )
    answers = [
        subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    seconds = statistics.median(float(answer.stderr.split()[1]) for answer in answers)
    assert seconds < 0.3
    assert answers[0].stderr.startswith("0 ")
    assert answers[0].stderr.rstrip().endswith("[]"), "help imported a heavy library"


def test_commands_that_load_no_model_need_no_torch() -> None:
    stages = ("comparing", "deciding", "auditing", "reporting")
    probe = "; ".join(
        [
            "import sys",
            *(f"import evenhand.experiment.{name}" for name in stages),
            "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])",
        ]
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_every_command_in_the_order_of_the_table(cli: RunCli) -> None:
    result = cli("--help")
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.split("Commands:")[1].split("\n") if line]
    assert [name for name in listed if name in main.COMMANDS] == list(main.COMMANDS)
    assert cli().stdout == result.stdout


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_each_command_has_help_with_an_example(cli: RunCli, name: str) -> None:
    result = cli(name, "--help")
    assert result.exit_code == 0, result.stderr
    built: Any = main.load_command(name)
    for child in getattr(built, "commands", {}):
        result = cli(name, child, "--help")
        assert result.exit_code == 0, result.stderr
        assert f"evenhand {name} {child}" in result.stdout.split("Example", 1)[-1]
    if not hasattr(built, "commands"):
        assert "Example" in result.stdout
        assert f"evenhand {name}" in result.stdout.split("Example", 1)[-1]


def test_version(cli: RunCli) -> None:
    assert cli("--version").stdout == f"evenhand {metadata.version('evenhand')}\n"


def test_mistyped_command_is_answered_with_the_nearest_one(cli: RunCli) -> None:
    result = cli("evalaute")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert 'there is no command "evalaute"; did you mean "evaluate"?' in result.stderr


def test_usage_error_points_to_the_help_of_the_command(
    cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, None)
    result = cli("try", "--nonsense")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: No such option: --nonsense")
    assert "`evenhand try --help`" in result.stderr


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("failure", "exit_code", "message"),
    [
        (
            ConfigError("a.json", [Problem("seed", "is not a number")]),
            2,
            "error: a.json has 1 problem; nothing was run\n\n  seed   is not a number\n",
        ),
        (StorageError("cannot write runs/a"), 1, "error: cannot write runs/a\n"),
        (KeyboardInterrupt(), 130, "interrupted; finished results are intact\n"),
        (MemoryError(), 1, "error: out of memory; earlier results are intact\n"),
        (OutOfMemoryError("CUDA"), 1, "error: out of memory; earlier results are intact\n"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "error: out of memory",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a"),
            1,
            "error: the disk is full: runs/a; earlier results are intact\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs"),
            1,
            "error: Permission denied: runs\n",
        ),
        (ValueError("surprise"), 1, "error: ValueError: surprise\nthis is a bug; run with"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_failure_has_its_message_and_exit_code(
    cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    exit_code: int,
    message: str,
) -> None:
    offer(monkeypatch, failure)
    result = cli("try")
    assert result.exit_code == exit_code
    assert result.stderr.startswith(message)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_traceback_on_request(cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ValueError("surprise"))
    monkeypatch.setenv("EVENHAND_TRACEBACK", "1")
    assert "Traceback" in cli("try").stderr


@pytest.mark.parametrize(("returned", "exit_code"), [(None, 0), (0, 0), (4, 4)])
def test_a_command_may_return_its_exit_code(
    cli: RunCli, monkeypatch: pytest.MonkeyPatch, returned: int | None, exit_code: int
) -> None:
    offer(monkeypatch, returned)
    assert cli("try").exit_code == exit_code


@pytest.mark.skipif(os.name != "posix", reason="closes a pipe as a Unix shell does")
def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed, (tmp_path / "err").open("w+b") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "evenhand", "--help"], stdout=closed, stderr=errors, check=False
        )
        errors.seek(0)
        assert errors.read() == b""
    assert done.returncode == main.PIPE_CLOSED


def test_example_lines_are_not_rewrapped(cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        """Do one thing.

        Example:
            evenhand try a_rather_long_file_name.json --out a_rather_long_folder_name --json --again
        """

    module = ModuleType("evenhand.cli.try_it")
    module.command = command  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(main.COMMANDS, "try", (module.__name__, "Do one thing."))
    assert "a_rather_long_folder_name --json --again\n" in cli("try", "--help").stdout


def test_a_group_of_commands_without_one_shows_its_help(cli: RunCli) -> None:
    result = cli("data")
    assert result.exit_code == 2
    assert "Usage: evenhand data" in result.stderr
    assert "describe" in result.stderr
