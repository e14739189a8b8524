"""Bulk scoring as a Ray Data job: actors that load the model once and write whole shards."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from evenhand.core.errors import DeviceError
from evenhand.experiment.bulk.job import Job
from evenhand.experiment.bulk.shards import score_shard
from evenhand.finetune.classifier import load_classifier


class ShardScorer:
    """An actor of Ray: reads, scores and writes the shards whose numbers it is given."""

    def __init__(self, job: Job) -> None:
        os.environ["EVENHAND_QUIET"] = "1"
        self.job = job
        self.classifier = load_classifier(job.run.path, job.run.config, job.run.prompt)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the shards of a batch; what comes back is their numbers alone."""
        for shard, posts in self.job.posts.read(int(one) for one in batch["shard"]):
            score_shard(self.job, self.classifier, shard, posts)
        return {"shard": batch["shard"]}


def score_on_ray(
    job: Job, todo: Sequence[int], *, workers: int | None, advance: Callable[[int], None]
) -> None:
    """Score shards on the cluster of ``RAY_ADDRESS``, else on a Ray of this machine alone.

    The input, the run and the output folder must have the same paths on every node.

    Raises:
        DeviceError: Ray or one of its actors failed; finished shards are kept.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data
    from ray.exceptions import RayError

    try:
        _connect(ray)
        _silence(ray.data)
        gpus = int(ray.cluster_resources().get("GPU", 0)) if job.run.config.device != "cpu" else 0
        # An actor must fit on one node: the smallest decides.
        nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
        cpus = int(min(one.get("CPU", 1) for one in nodes))
        count = min(workers or max(gpus, 1), len(todo))
        # Torch in an actor takes as many threads as Ray says the actor has cores. One core is left
        # for Ray's own tasks where there are enough.
        share = max((cpus - 1) // count, 1)
        scored = ray.data.from_items(
            [{"shard": shard} for shard in todo], override_num_blocks=len(todo)
        ).map_batches(
            ShardScorer,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=1 if gpus else share,
            num_gpus=1 if gpus else 0,
        )
        for row in scored.iter_rows():
            advance(int(row["shard"]))
    except (RayError, ConnectionError) as error:
        raise DeviceError(
            f"Ray failed: {_cause(error)}",
            hint="finished shards are kept; run the same command again to go on",
        ) from error
    finally:
        ray.shutdown()


def _connect(ray: Any) -> None:
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if "RAY_ADDRESS" not in os.environ:
        # "local", so that a cluster that happens to run here is not taken without being named.
        options |= {"address": "local", "include_dashboard": False}
        options |= {"_node_ip_address": "127.0.0.1"}
    ray.init(**options)


def _silence(data: Any) -> None:
    """Keep Ray Data's own bars and plans off the screen."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    data.DataContext.get_current().enable_progress_bars = False


def _cause(error: BaseException) -> str:
    """Return the last line of what an actor raised: the rest is its traceback."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
