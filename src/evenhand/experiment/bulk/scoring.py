"""A scoring job from its first start to its last: what is left is scored, then all is joined."""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, Problem, StorageError
from evenhand.core.paths import write_json
from evenhand.core.progress import Advance, format_duration, progress
from evenhand.experiment.bulk.job import Engine, Job, OutputFormat, check_folder, write_job
from evenhand.experiment.bulk.shards import (
    find_shards,
    merge_shards,
    merged_path,
    remove_leftovers,
    score_shard,
)
from evenhand.experiment.runs import hold
from evenhand.experiment.stages import Session
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.processes import World, is_sharded

_LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``summary.json`` holds.

    Attributes:
        file: the scores of all rows.
        rows: of the input; ``scored`` and ``errors`` add up to it.
        hate: rows decided ``hate``; ``hate_rate`` is their share of the scored rows, None if none.
        devices: on which devices and in which number formats the shards were scored.
        rows_this_start: rows that this start scored, in ``seconds_this_start``, loading of the
            model included.
    """

    file: str
    rows: int
    scored: int
    errors: int
    hate: int
    hate_rate: float | None
    threshold: float
    threshold_origin: str
    shards: int
    devices: tuple[str, ...]
    engine: Engine
    rows_this_start: int
    seconds_this_start: float
    rows_per_second_this_start: float | None

    def to_json(self) -> dict[str, Any]:
        """Return what ``summary.json`` and ``--json`` give."""
        return asdict(self)

    def render(self) -> str:
        """Return the lines that a person reads."""
        rate = "" if self.hate_rate is None else f", {100 * self.hate_rate:.1f}% decided hate"
        errors = f", {self.errors:,} with an error" if self.errors else ""
        speed = self.rows_per_second_this_start
        start = (
            "nothing was left to score"
            if speed is None
            else f"scored {self.rows_this_start:,} rows in "
            f"{format_duration(self.seconds_this_start)}, {speed:,.1f} rows/s"
        )
        threshold = f"threshold {self.threshold:g} ({self.threshold_origin})"
        return f"{self.rows:,} rows{errors}{rate}; {threshold}\n{start}\n{self.file}"


@dataclass(frozen=True)
class Options:
    """How a start works; none of it changes a score.

    ``workers`` is the number of Ray's actors; None for one a GPU, or one.
    """

    engine: Engine = "local"
    output_format: OutputFormat = "parquet"
    workers: int | None = None


def check_engine(options: Options, *, world: World) -> None:
    """Refuse an engine that does not fit how the command was started.

    Raises:
        ConfigError: a launcher's processes with another engine than ``accelerate``, ``workers``
            without ``ray``, or Ray is not installed.
    """
    problems = []
    if world.size > 1 and options.engine != "accelerate":
        message = (
            f"a launcher has started {world.size} processes; use --engine accelerate, or start "
            "one process"
        )
        problems.append(Problem("--engine", message))
    if options.workers is not None and options.engine != "ray":
        message = "is for --engine ray; with accelerate the launcher says how many processes"
        problems.append(Problem("--workers", message))
    if is_sharded():
        message = "the launcher asks for FSDP, which divides one model; scoring has one a process"
        problems.append(Problem("the launcher", message))
    if options.engine == "ray" and importlib.util.find_spec("ray") is None:
        message = 'ray needs Ray Data, the extra "ray": pip install -c constraints.txt ".[ray]"'
        problems.append(Problem("--engine", message))
    if problems:
        raise ConfigError("the command", problems, consequence="nothing was scored")


def run_job(job: Job, options: Options, *, session: Session) -> Summary | None:
    """Score what is left of a job and write the scores of all rows; None but in the first process.

    Every process of a launcher calls it with the same job. Started again after any interruption,
    it goes on from the shards that are there.

    Raises:
        ConfigError: the folder holds another job.
        StorageError: something cannot be written, or another command holds the folder.
    """
    world = session.world
    if world.is_first:
        check_folder(job)  # before the lock is put there
    with hold(job.out, world=world):
        todo = world.gather(_begin(job, options, session) if world.is_first else None)[0]
        started = time.monotonic()
        if todo:
            _score(job, todo, options, session)
        if not world.is_first:
            return None
        return _finish(job, todo, options, seconds=time.monotonic() - started, session=session)


def _begin(job: Job, options: Options, session: Session) -> tuple[int, ...]:
    """Put the folder in order and return the shards that are not there yet."""
    warnings = check_folder(job)
    remove_leftovers(job)
    write_job(job, engine=options.engine, command=session.command)
    found, doubts = find_shards(job)
    for warning in (*warnings, *doubts.values()):
        session.say(f"warning: {warning}")
    for path in doubts:  # or another process would take it for finished
        path.unlink(missing_ok=True)
    if found:
        session.say(f"{len(found):,} of {job.posts.shards:,} shards were finished before")
    return tuple(shard for shard in range(job.posts.shards) if shard not in found)


def _score(job: Job, todo: Sequence[int], options: Options, session: Session) -> None:
    total = sum(map(job.posts.rows_in, todo))
    with progress(total, label="score") as advance:
        if options.engine == "ray":
            from evenhand.experiment.bulk.on_ray import score_on_ray

            score_on_ray(
                job,
                todo,
                workers=options.workers,
                advance=lambda shard: advance(job.posts.rows_in(shard)),
            )
        else:
            _score_here(job, todo, world=session.world, advance=advance)


def _score_here(job: Job, todo: Sequence[int], *, world: World, advance: Advance) -> None:
    """Score this process's share of the shards; the first process waits for the others' shares.

    It waits for their files: a barrier of a process group gives up after minutes, and the last
    shards of a long job may be further apart.
    """
    own = todo[world.rank :: world.size]
    classifier = load_classifier(job.run.path, job.run.config, job.run.prompt)
    pending = deque(todo)

    def look() -> None:
        while pending and job.shard_path(pending[0]).is_file():
            advance(job.posts.rows_in(pending.popleft()))

    for shard, posts in job.posts.read(own):
        score_shard(job, classifier, shard, posts)
        if world.is_first:
            look()
    while world.is_first and pending:
        time.sleep(_LOOK_EVERY_SECONDS)
        look()


def _finish(
    job: Job, todo: Sequence[int], options: Options, *, seconds: float, session: Session
) -> Summary:
    found, _ = find_shards(job)
    if len(found) < job.posts.shards:
        raise StorageError(
            f"{job.posts.shards - len(found):,} shards of {job.out} are missing or damaged",
            hint="run the same command again",
        )
    devices = tuple(sorted(set(found.values())))
    if len(devices) > 1:
        session.say(
            f"warning: the shards were scored on {' and '.join(devices)}; scores of rows near the "
            "threshold depend on that"
        )
    with progress(job.posts.rows, label="write") as advance:
        totals = merge_shards(job, output_format=options.output_format, advance=advance)
    rows = sum(map(job.posts.rows_in, todo))
    summary = Summary(
        file=str(merged_path(job, options.output_format)),
        rows=totals.rows,
        scored=totals.scored,
        errors=totals.errors,
        hate=totals.hate,
        hate_rate=totals.hate / totals.scored if totals.scored else None,
        threshold=job.threshold,
        threshold_origin=job.threshold_origin,
        shards=job.posts.shards,
        devices=devices,
        engine=options.engine,
        rows_this_start=rows,
        seconds_this_start=seconds if rows else 0.0,
        rows_per_second_this_start=rows / seconds if rows else None,
    )
    write_json(job.out / "summary.json", summary.to_json())
    return summary


def finished_shards(out: Path) -> int:
    """Return how many shards a folder holds, for a message."""
    return sum(1 for _ in (out / "shards").glob("part-*.parquet"))
