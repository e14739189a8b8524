"""Progress on stderr: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

LINE_EVERY_SECONDS = 5.0
LINE_AT_LEAST_EVERY_SECONDS = 60.0
LINE_EVERY_FRACTION = 0.1


class Advance(Protocol):
    """What the block calls as it goes on."""

    def __call__(self, n: int = 1, /, **fields: float | str) -> None:
        """Say that ``n`` more are done, and which figures describe the moment."""
        ...


@contextlib.contextmanager
def progress(
    total: int,
    *,
    label: str,
    unit: str = "rows",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Advance]:
    """Yield ``advance(n, **fields)`` and show how far the work is, its rate and the time left.

    ``fields`` (a loss, an epoch) are shown as given last. Silent with ``EVENHAND_QUIET=1`` and in
    every process but the first of a distributed run, so that one voice reports.

    >>> ticks = iter([0.0, 10.0, 20.0])
    >>> with progress(4, label="score", stream=sys.stdout, clock=lambda: next(ticks)) as advance:
    ...     advance(1)
    ...     advance(3, loss=0.25)
    score  1/4 rows  25%  0.10 rows/s  30s left
    score  4/4 rows  100%  0.20 rows/s  20s  loss 0.25
    """
    out = sys.stderr if stream is None else stream
    if os.environ.get("EVENHAND_QUIET") == "1" or os.environ.get("RANK", "0") != "0":
        yield _silent
    elif out.isatty():
        with _bar(total, label=label, unit=unit, stream=out) as advance:
            yield advance
    else:
        yield _Lines(total, label=label, unit=unit, stream=out, clock=clock)


def format_duration(seconds: float) -> str:
    """Return a duration as a person would say it.

    >>> format_duration(9.4), format_duration(80), format_duration(7500)
    ('9s', '1m20s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _silent(n: int = 1, /, **fields: float | str) -> None:
    """Show nothing."""


def _format_fields(fields: dict[str, float | str]) -> str:
    return "".join(
        f"  {name} {value}" if isinstance(value, str) else f"  {name} {value:.4g}"
        for name, value in fields.items()
    )


def _format_rate(per_second: float) -> str:
    return f"{per_second:.2f}" if per_second < 1 else f"{per_second:.1f}"


class _Lines:
    """Plain lines: each tenth of the work, but never in a flood, and never silent for long."""

    def __init__(
        self, total: int, *, label: str, unit: str, stream: TextIO, clock: Callable[[], float]
    ) -> None:
        self.total = total
        self.label = label
        self.unit = unit
        self.stream = stream
        self.clock = clock
        self.done = 0
        self.shown = 0
        self.started_at = self.shown_at = clock()

    def __call__(self, n: int = 1, /, **fields: float | str) -> None:
        self.done += n
        now = self.clock()
        since = now - self.shown_at
        tenth = self.done - self.shown >= LINE_EVERY_FRACTION * self.total
        due = since >= LINE_EVERY_SECONDS and (tenth or since >= LINE_AT_LEAST_EVERY_SECONDS)
        if due or self.done >= self.total:
            self.shown, self.shown_at = self.done, now
            print(self._line(now, fields), file=self.stream, flush=True)

    def _line(self, now: float, fields: dict[str, float | str]) -> str:
        elapsed = max(now - self.started_at, 1e-9)
        rate = self.done / elapsed
        left = (self.total - self.done) / rate if self.done else 0.0
        ending = format_duration(elapsed) if left <= 0 else f"{format_duration(left)} left"
        percent = 100 * self.done // self.total if self.total else 100
        return (
            f"{self.label}  {self.done}/{self.total} {self.unit}  {percent}%"
            f"  {_format_rate(rate)} {self.unit}/s  {ending}{_format_fields(fields)}"
        )


@contextlib.contextmanager
def _bar(total: int, *, label: str, unit: str, stream: TextIO) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeLeft(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(file=stream), expand=True) as bars:
        task = bars.add_task(label, total=total, rate="", figures="")

        def advance(n: int = 1, /, **fields: float | str) -> None:
            bars.advance(task, n)
            speed = bars.tasks[0].finished_speed or bars.tasks[0].speed
            rate = "" if speed is None else f"{_format_rate(speed)} {unit}/s"
            bars.update(task, rate=rate, figures=_format_fields(fields).strip())

        yield advance
