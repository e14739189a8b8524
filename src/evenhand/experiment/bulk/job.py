"""What a scoring job is: its input, its model, its threshold; and the folder that it fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evenhand.core.errors import ConfigError, Problem, StorageError
from evenhand.core.paths import read_json, sha256_file, sha256_json, write_json
from evenhand.data.streams import PostFile
from evenhand.experiment.binding import current_binding
from evenhand.experiment.deciding import DEFAULT_THRESHOLD, read_threshold
from evenhand.experiment.results import open_results
from evenhand.experiment.runs import Run, machine, now

OutputFormat = Literal["parquet", "csv", "jsonl"]
Engine = Literal["local", "accelerate", "ray"]
ThresholdOrigin = Literal["default", "tuned", "option"]

_WORDS = {
    "input": "the input's content",
    "columns": "the columns that are read",
    "run": "the inputs of the run's training",
    "adapter": "the run's adapter",
    "prompt": "the run's prompt",
    "base": "the run's base model",
    "model": "the run's weights",
    "threshold": "the threshold",
    "shard_rows": "--shard-rows",
    "batch": "the run's eval_tokens_per_batch",
    "include_text": "--include-text",
}
_SHOWN = ("threshold", "shard_rows", "include_text")
_VERSIONS = ("evenhand", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Job:
    """One input scored by one run into one folder.

    Two jobs with the same ``identity`` give the same rows, so one may go on where the other
    stopped.
    """

    posts: PostFile
    run: Run
    out: Path
    threshold: float
    threshold_origin: ThresholdOrigin
    include_text: bool
    identity: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The hash of the identity, which every shard carries."""
        return sha256_json(dict(self.identity))

    def shard_path(self, shard: int) -> Path:
        """Return where a shard is written."""
        return self.out / "shards" / f"part-{shard:06d}.parquet"


def make_job(
    posts: PostFile,
    run: Run,
    out: Path,
    *,
    threshold: float | None,
    include_text: bool,
) -> Job:
    """Return the job, with the given threshold, else the run's tuned one, else 0.5.

    Raises:
        ConfigError: the run's ``threshold.json`` was fitted for another model.
    """
    results = open_results(run.path)
    origin: ThresholdOrigin = "option"
    if threshold is None:
        tuned = read_threshold(results)
        origin = "default" if tuned is None else "tuned"
        threshold = DEFAULT_THRESHOLD if tuned is None else tuned.value
    weights = sorted((run.path / "model").glob("*.safetensors"))  # of a run that trained them all
    identity = {
        "input": posts.sha256,
        "columns": dict(posts.columns),
        **current_binding(results).model_dump(mode="json"),
        "model": {one.name: sha256_file(one) for one in weights} or None,
        "threshold": threshold,
        "shard_rows": posts.shard_rows,
        "batch": run.config.eval_tokens_per_batch,
        "include_text": include_text,
    }
    return Job(posts, run, out, threshold, origin, include_text, identity)


def check_folder(job: Job) -> tuple[str, ...]:
    """Refuse a folder that holds anything but this job; return warnings about its earlier starts.

    Raises:
        ConfigError: it holds another job, naming what differs, or files of something else.
    """
    path = job.out / "job.json"
    if not path.is_file():
        # What begins with a dot is a lock, or was being written when an earlier start was killed.
        others = [one for one in job.out.glob("*") if not one.name.startswith(".")]
        if others:
            message = f"holds {others[0].name} and no scoring job; choose an empty or new folder"
            raise ConfigError(str(job.out), [Problem("--out", message)])
        return ()
    before = read_json(path)
    found = before.get("identity") if isinstance(before, dict) else None
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged", hint="choose another --out")
    problems = [
        Problem(_WORDS[key], _difference(key, found.get(key), value))
        for key, value in job.identity.items()
        if found.get(key) != value
    ]
    if problems:
        raise ConfigError(
            str(job.out),
            problems,
            hint="choose another --out for the changed job, or undo the change to go on with "
            "this one",
            consequence="it holds another scoring job, and nothing was scored",
        )
    versions = before.get("machine", {})
    here = machine()
    return tuple(
        f"{name} is {here[name]}, and {versions[name]} when the job was started; "
        "scores may differ in their last digits"
        for name in _VERSIONS
        if name in versions and versions[name] != here[name]
    )


def write_job(job: Job, *, engine: Engine, command: str | None) -> None:
    """Write ``job.json`` at a job's first start; later starts leave it as it is."""
    path = job.out / "job.json"
    if path.is_file():
        return
    posts = job.posts
    write_json(
        path,
        {
            "identity": dict(job.identity),
            "input": {"path": str(posts.path.resolve()), "rows": posts.rows},
            "run": str(job.run.path.resolve()),
            "threshold": {"value": job.threshold, "origin": job.threshold_origin},
            "shards": posts.shards,
            "engine": engine,
            "created": now(),
            "command": command,
            "machine": machine(),
        },
    )


def _difference(key: str, before: Any, wanted: Any) -> str:
    if key in _SHOWN:
        return f"was {before} when this job was started, and is {wanted} now"
    return "differs from what this job was started with"
