"""A run that was decided on, served and reviewed, with a group whose false positives are many."""

from __future__ import annotations

import json
from pathlib import Path

from tests.decide.synthetic import drawn, write_run
from tests.watch.made_up import make_settings
from tests.watch.simulated import produce

from evenhand.config.criteria import Criteria, load_criteria
from evenhand.core.production import Release
from evenhand.decide.threshold import threshold_rule
from evenhand.experiment.binding import current_binding
from evenhand.experiment.deciding import judge_run, read_deployment, read_threshold, tune
from evenhand.experiment.results import open_results
from evenhand.watch.store.database import default_url, open_database

GROUPS = ("lgbtq", "mexican", "middle_east")
SETTINGS = make_settings("watch.posts_per_day=1500", "watch.labels_per_day=600")


def criteria(folder: Path, *, recall: float = 0.3, fpr: float = 0.6) -> Criteria:
    """Criteria that a threshold which is too high fails, and one that is too low as well."""
    duty = {
        "monitor": "each group's FPR",
        "owner": "the model's owner",
        "due_days": 14,
        "action": "Tune the threshold.",
    }
    document = {
        "name": "small",
        "criteria": [
            {"name": "Recall", "metric": "recall", "at_least": recall, "role": "required"},
            {"name": "FPR", "metric": "fpr", "at_most": fpr, "role": "required"},
            {
                "name": "Gap",
                "metric": "fpr_gap",
                "group": "each",
                "at_most": 0.0001,
                "role": "condition",
                "duty": duty,
            },
        ],
    }
    path = folder / f"criteria-{recall}-{fpr}.json"
    path.write_text(json.dumps(document))
    return load_criteria(str(path))


def live(folder: Path) -> Path:
    """Write ``FOLDER/run`` with its decisions and its database of 2,500 posts; return FOLDER."""
    run = write_run(
        folder / "run",
        {
            "validation": drawn(400, seed=1, groups=GROUPS, lift=3.0),
            "test": drawn(600, seed=2, groups=GROUPS, lift=3.0),
        },
    )
    rule = threshold_rule(max_group_fpr=0.4)
    tune(open_results(run), fit_on="validation", report_on="test", rule=rule)
    judge_run(open_results(run), on="test", criteria=criteria(folder))
    database = open_database(default_url(run))
    produce(database, release_of(run), 2500, settings=SETTINGS, lift={"lgbtq": 2.0}, seed=4)
    database.close()
    return folder


def release_of(run: Path) -> Release:
    results = open_results(run)
    threshold, deployment = read_threshold(results), read_deployment(results)
    assert threshold is not None
    assert deployment is not None
    return Release(
        model=results.name,
        binding=current_binding(results),
        threshold=threshold.value,
        temperature=None,
        outcome=deployment.outcome,
        deployment=deployment,
    )
