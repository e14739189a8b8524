"""The ``evenhand`` command: the table of commands, loaded one at a time, and the exit codes.

Help must answer at once, so this module imports nothing but the standard library and typer, and
a command's module is imported when the command is called. Such a module offers either
``command`` (a function with typer annotations) or ``app`` (a ``typer.Typer`` of sub-commands).
A command returns None, or its exit code.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from importlib import metadata
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from evenhand.core.errors import DeviceError, EvenhandError, StorageError
from evenhand.core.registry import suggest

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("evenhand.cli.demo", "Train, evaluate and compare three phases on a small corpus."),
    "init": ("evenhand.cli.init", "Write a starting experiment for your own table."),
    "models": ("evenhand.cli.models", "List the known models, or fetch the small ones."),
    "data": ("evenhand.cli.data", "Describe, fetch or prepare data."),
    "explain": ("evenhand.cli.explain", "Explain the fields of a configuration file."),
    "params": ("evenhand.cli.params", "Count a configuration's parameters, without weights."),
    "preflight": (
        "evenhand.cli.preflight",
        "Check a configuration on this machine before it runs.",
    ),
    "train": ("evenhand.cli.train", "Train one phase."),
    "evaluate": ("evenhand.cli.evaluate", "Evaluate a trained phase, overall and per group."),
    "score": ("evenhand.cli.score", "Score posts of any number with a trained phase."),
    "import": ("evenhand.cli.imports", "Bring results made elsewhere into a run folder."),
    "compare": ("evenhand.cli.compare", "Compare runs on the same rows, with paired tests."),
    "audit": ("evenhand.cli.audit", "Look for leaks, drift, vacuous bars and other faults."),
    "threshold": ("evenhand.cli.threshold", "Tune the decision threshold within limits on FPR."),
    "gate": ("evenhand.cli.gate", "Judge a run against criteria for deployment."),
    "report": ("evenhand.cli.report", "Write the summary of runs: Markdown, HTML, plots."),
    "run": (
        "evenhand.cli.run",
        "Run a whole experiment: every phase, every decision, the summary.",
    ),
    "serve": ("evenhand.cli.serve", "Serve the model that passed the gate, and its reviews."),
    "watch": ("evenhand.cli.watch", "Production's error rates, alarms, retuning, erasure."),
    "review": ("evenhand.cli.review", "Reviewers, golden posts, Label Studio's format."),
    "keys": ("evenhand.cli.keys", "The callers' API keys."),
    "export": ("evenhand.cli.export", "Write a run's model for other programs, with a card."),
}
"""The commands in the order of the workflow: name, module, one line of help."""

INTERRUPTED = 130
PIPE_CLOSED = 141


class _Commands(TyperGroup):
    """A group that lists its commands from the table and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is typer's
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            ctx.fail(f'there is no command "{name}"{suggest(name, COMMANDS)}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(cls=_Commands, add_completion=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"evenhand {metadata.version('evenhand')}")
        raise typer.Exit


@app.callback(epilog="`evenhand COMMAND --help` shows a command's options and an example.")
def _evenhand(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Fine-tune hate-speech classifiers and decide whether they are good and fair enough."""


def load_command(name: str) -> TyperCommand | TyperGroup:
    """Import one command of the table and build it."""
    module = importlib.import_module(COMMANDS[name][0])
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    if hasattr(module, "app"):
        holder.add_typer(module.app, name=name)
        built = typer.main.get_group(holder).commands[name]
    else:
        holder.command(name)(module.command)
        built = typer.main.get_command(holder)
    _tidy_help(built)
    return built  # pyright: ignore[reportReturnType] - typer types it by its private base


def _tidy_help(command: Any) -> None:
    """Keep the lines of examples as they are, and list sub-commands with their whole summary."""
    paragraphs = (command.help or "").split("\n\n")
    command.short_help = " ".join(paragraphs[0].split())
    command.help = "\n\n".join(
        f"\b\n{paragraph}" if paragraph.startswith("Example") else paragraph
        for paragraph in paragraphs
    )
    for child in getattr(command, "commands", {}).values():
        _tidy_help(child)


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code; errors become messages on stderr.

    Exit codes: 0 done; 1 the work failed; 2 the input is wrong; 3 the gate needs review; 4 the
    gate failed; 5 the audit found an error; 130 interrupted; 141 the reader of stdout went away.
    """
    args = sys.argv[1:] if argv is None else argv
    group = typer.main.get_command(app)
    try:
        # Not group.main(): it has its own silent answers to interrupts and closed pipes.
        with group.make_context("evenhand", args or ["--help"]) as context:
            outcome = group.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        outcome = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; finished results are intact", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except typer.TyperException as error:
        print(_usage_message(error), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if os.environ.get("EVENHAND_TRACEBACK") == "1":
            import traceback

            traceback.print_exc()
        return _report(error)
    return outcome if isinstance(outcome, int) else 0


def main() -> None:
    """Be the console script: run the command line and leave with its exit code."""
    sys.exit(run())


def _report(error: Exception) -> int:
    known = _as_evenhand_error(error)
    if known is None:
        print(
            f"error: {type(error).__name__}: {error}\n"
            "this is a bug; run with EVENHAND_TRACEBACK=1 to see where it happened",
            file=sys.stderr,
        )
        return 1
    print(f"error: {known.render()}", file=sys.stderr)
    return known.exit_code


def _as_evenhand_error(error: Exception) -> EvenhandError | None:
    """Give the faults of the machine a message of their own; None for anything else."""
    if isinstance(error, EvenhandError):
        return error
    if _is_out_of_memory(error):
        return DeviceError(
            "out of memory; earlier results are intact",
            hint="lower per_device_train_batch_size or max_seq_length, "
            "or set gradient_checkpointing to true",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk is full{_at(error)}; earlier results are intact",
            hint="free some space, then run the same command again",
        )
    if isinstance(error, OSError) and error.filename is not None:
        return StorageError(f"{error.strerror}{_at(error)}")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError is known by its name: importing torch to ask would take seconds.
    # On the CPU torch raises a bare RuntimeError from its allocator.
    names = {base.__name__ for base in type(error).__mro__}
    return (
        isinstance(error, MemoryError)
        or "OutOfMemoryError" in names
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _at(error: OSError) -> str:
    return "" if error.filename is None else f": {error.filename}"


def _usage_message(error: typer.TyperException) -> str:
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
        return error.format_message()
    asked = "evenhand" if context is None else context.command_path
    return f"error: {error.format_message()}\n\nhint: `{asked} --help` shows the usage"
