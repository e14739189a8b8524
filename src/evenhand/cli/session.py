"""How a command that trains or scores takes its place among processes and reports."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from evenhand.experiment.stages import Session


def open_session(*, device: str = "auto") -> Session:
    """Join the processes of a launcher, if any; lines go to stderr, from the first process only."""
    from evenhand.experiment.stages import Session
    from evenhand.finetune.devices import choose_device
    from evenhand.finetune.processes import join_world

    chosen = choose_device(device, dtype="float32", bf16=False)
    world = join_world(cpu=chosen.name == "cpu")

    def say(line: str) -> None:
        if world.is_first:
            typer.echo(line, err=True)

    return Session(world, shlex.join(["evenhand", *sys.argv[1:]]), say)
